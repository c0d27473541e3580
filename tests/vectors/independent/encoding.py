"""Fixed-point encoding, on exact fractions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

Stream = Mapping[str, Any]
"""A stream's fields as the vectors write them: ``clip`` is a hexadecimal text of a float32 number."""


def _times_power(value: Fraction, exponent: int) -> Fraction:
    return value * 2**exponent if exponent >= 0 else value / 2**-exponent


def scale(stream: Stream) -> tuple[int, int]:
    """The exponent, and the largest integer that a value is encoded as."""
    clip = Fraction(float.fromhex(stream["clip"]))
    bound = (2 ** (stream["ring_bits"] - 1) - 1) // (stream["clients"] * (stream["max_weight"] or 1))
    if stream["value_bits"] is not None:
        bound = min(bound, 2 ** (stream["value_bits"] - 1) - 1)
    exponent = -512
    while math.ceil(_times_power(clip, exponent + 1)) <= bound:
        exponent += 1
    return exponent, math.ceil(_times_power(clip, exponent))


def encode(values: Sequence[float], weight: int | None, stream: Stream) -> list[int]:
    """Ring elements, for the roundings that leave nothing to chance."""
    exponent, _ = scale(stream)
    clip = float.fromhex(stream["clip"])
    if stream["norm"] == "linf":
        bounded = [max(-clip, min(clip, value)) for value in values]
    else:
        norm = math.sqrt(math.fsum(value * value for value in values))
        scaled = [max(-clip, min(clip, value * (clip / norm))) for value in values] if norm > clip else []
        bounded = scaled or list(values)
    if stream["excess"] == "refuse" and bounded != list(values):
        raise ValueError("beyond the bound")
    # Python's round() of a fraction takes ties to the even neighbour.
    rounded = {"nearest": round, "toward_zero": math.trunc}[stream["rounding"]]
    integers = [rounded(_times_power(Fraction(value), exponent)) for value in bounded]
    if stream["rounding"] == "toward_zero" and stream["norm"] == "l2":
        longest = _times_power(Fraction(clip), exponent) ** 2
        if sum(integer**2 for integer in integers) > longest:
            shorter = [math.ldexp(value, exponent) * (1 - 2.0**-40) for value in bounded]
            integers = [math.trunc(value) for value in shorter]
    if weight is not None:
        integers = [*(integer * weight for integer in integers), weight]
    return [integer % 2 ** stream["ring_bits"] for integer in integers]


def decode(ring: Sequence[int], stream: Stream) -> tuple[list[float], int | None]:
    """The sum in the values' own unit, and the sum of the weights."""
    exponent, _ = scale(stream)
    half = 2 ** (stream["ring_bits"] - 1)
    integers = [(element + half) % (2 * half) - half for element in ring]
    weight = integers.pop() if stream["max_weight"] is not None else None
    return [math.ldexp(float(integer), -exponent) for integer in integers], weight


def ring_bytes(ring: Sequence[int], bits: int) -> bytes:
    """Ring elements as they travel: little-endian."""
    return b"".join(element.to_bytes(bits // 8, "little") for element in ring)


def ring_elements(data: bytes, bits: int) -> list[int]:
    width = bits // 8
    return [int.from_bytes(data[at : at + width], "little") for at in range(0, len(data), width)]
