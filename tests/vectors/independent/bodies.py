"""Ciphertexts as they travel, what is in them, and sums of them; frames that hold them, as the vectors write them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from . import blake, lattice
from .planning import SEED_BYTES, Carrier

Chunk = tuple[Sequence[int], Sequence[int]]
"""Both polynomials of a ciphertext."""

Bodies = Mapping[str, bytes]


def decoded(texts: Mapping[str, str]) -> dict[str, bytes]:
    """Bodies by their names."""
    return {name: base64.b64decode(text, validate=True) for name, text in texts.items()}


def pieces(data: bytes, bodies: Bodies) -> Any:
    """A frame in hexadecimal; where a body stands in it, a list with the body's name in its place."""
    found = sorted((data.index(body), name) for name, body in bodies.items() if body in data)
    written: list[Any] = []
    for start, name in reversed(found):
        written[:0] = [{"body": name}, data[start + len(bodies[name]) :].hex()]
        data = data[:start]
    return [data.hex(), *written] if written else data.hex()


def joined(frame: Any, bodies: Bodies) -> bytes:
    """The frame that :func:`pieces` wrote."""
    parts = [frame] if isinstance(frame, str) else frame
    return b"".join(bytes.fromhex(part) if isinstance(part, str) else bodies[part["body"]] for part in parts)


def linear(chunks: Sequence[Chunk]) -> list[int]:
    """The coefficients that tags are made of: all first polynomials, then all second ones."""
    return [coefficient for which in (0, 1) for chunk in chunks for coefficient in chunk[which]]


def contributed(body: bytes, carrier: Carrier, elements: int) -> list[Chunk]:
    """A contribution's ciphertexts: all first polynomials, then all second ones, or their seeds."""
    if carrier.public:
        return summed(body, carrier, elements)
    count, modulus = carrier.chunks(elements), carrier.modulus
    seeds = body[count * carrier.polynomial_bytes :]
    if len(seeds) != count * SEED_BYTES:
        raise ValueError("the ciphertexts have another length")
    first = lattice.polynomials(body[: -len(seeds)], carrier.degree, carrier.width, modulus)
    starts = range(0, len(seeds), SEED_BYTES)
    second = [blake.uniform(seeds[at : at + SEED_BYTES], carrier.degree, modulus) for at in starts]
    return list(zip(first, second, strict=True))


def summed(body: bytes, carrier: Carrier, elements: int) -> list[Chunk]:
    """A sum's ciphertexts: all first polynomials, then all second ones."""
    found, count = lattice.polynomials(body, carrier.degree, carrier.width, carrier.modulus), carrier.chunks(elements)
    if len(found) != 2 * count:
        raise ValueError("the ciphertexts have another length")
    return list(zip(found[:count], found[count:], strict=True))


def total(parts: Sequence[Sequence[Chunk]], carrier: Carrier) -> bytes:
    """The body of a sum."""
    columns = list(zip(*parts, strict=True))
    sums = [
        [sum(column) % carrier.modulus for column in zip(*(chunk[which] for chunk in chunks), strict=True)]
        for which in (0, 1)
        for chunks in columns
    ]
    return b"".join(lattice.polynomial_bytes(polynomial, carrier.width) for polynomial in sums)


def decrypted(chunks: Sequence[Chunk], carrier: Carrier, secret: Sequence[int], contributors: int) -> list[int]:
    """The sums of the packed integers, in all places of all ciphertexts."""
    found: list[int] = []
    for first, second in chunks:
        if carrier.scheme == "bfv":
            found += lattice.decrypt_bfv(first, second, secret, modulus=carrier.modulus, bits=carrier.message_bits)
        else:
            found += lattice.decrypt_ckks(first, second, secret, modulus=carrier.modulus, bits=carrier.scale_bits)
    return [value + contributors * carrier.centre for value in found]


def check_public_key(key: bytes, carrier: Carrier, secret: Sequence[int]) -> None:
    """Raise unless p0 + p1 s is an error of SEAL's size; both are transformed."""
    first, second = lattice.polynomials(key, carrier.degree, carrier.width, carrier.modulus)
    transformed = lattice.transformed(secret, carrier.modulus)
    phase = [(a + b * c) % carrier.modulus for a, b, c in zip(first, second, transformed, strict=True)]
    errors = lattice.coefficients(phase, carrier.modulus)
    if max(abs(lattice.centred(error, carrier.modulus)) for error in errors) > 21:
        raise ValueError("this is no public key of the secret one")
