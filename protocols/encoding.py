"""Fixed-point encoding: real vectors as integers mod 2^32 or 2^64, so that a sum is exact and any masking of it too.

Integers are two's complement, so the centred residue of a sum of integers *is* that sum as long as it cannot wrap.
:class:`FixedPoint` proves that when it is made: its scale is the largest power of two with
``clients * max_weight * largest <= 2^(ring_bits - 1) - 1``. A power of two, because scaling by it is exact in binary
floating point: rounding to integers is then the only error, at most one unit of :attr:`FixedPoint.resolution`.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from protocols.errors import ContributionError, EncodingError, ProtocolError

Ring = npt.NDArray[np.uint32] | npt.NDArray[np.uint64]
Values = npt.NDArray[np.float32] | npt.NDArray[np.float64]

_UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {32: np.uint32, 64: np.uint64}
_SIGNED: dict[int, type[np.signedinteger[Any]]] = {32: np.int32, 64: np.int64}
_BLOCK_VALUES = 32 * 1024


@dataclass(frozen=True, kw_only=True)
class EncodingReport:
    """What encoding did to one vector. It describes private values and stays with the client.

    Attributes:
        values: how many there were.
        clipped: how many were moved to the bound (``norm="linf"``); all of them, if an L2 norm was scaled down.
        max_rounding_error: bound on the error of each value that was not clipped, in the values' own unit; to it comes
            a share of 2^-40 of the value where an L2 norm was scaled down and rounded toward zero.
    """

    values: int
    clipped: int
    max_rounding_error: float

    @property
    def clipped_fraction(self) -> float:
        """Share of the values that were clipped, in [0, 1]."""
        return self.clipped / self.values if self.values else 0.0


class Encoded(NamedTuple):
    """A vector in the ring, and what it took to get there."""

    ring: Ring
    report: EncodingReport


class Decoded(NamedTuple):
    """A sum over clients: float64 values ``(d,)``, and the sum of the weights, None where there are none."""

    total: npt.NDArray[np.float64]
    weight: int | None


@dataclass(frozen=True, kw_only=True)
class FixedPoint:
    """One way to write bounded real values as ring elements.

    Args:
        clip: C > 0. With ``norm="linf"`` every value lies in [-C, C]; with ``"l2"`` the whole vector's norm is at
            most C. Rounded to the nearest float32.
        clients: at most so many vectors are ever added.
        max_weight: None adds vectors as they are. A number lets each client scale its vector by an integer weight in
            [0, max_weight] of its own, which travels as one more ring element and is never in clear.
        ring_bits: 32 or 64.
        value_bits: b, to spend fewer bits than fit; values then take one of at most 2^b levels.
        rounding: "nearest" (ties to even, error at most half a unit), "stochastic" (unbiased, below one unit) or
            "toward_zero" (never lengthens a vector, below one unit).
        norm: which norm ``clip`` bounds.
        excess: "clip" brings what lies beyond the bound back to it; "refuse" raises.

    Raises:
        EncodingError: no power-of-two scale keeps the sum from wrapping, or an argument is out of range.
    """

    clip: float
    clients: int
    max_weight: int | None = None
    ring_bits: Literal[32, 64] = 32
    value_bits: int | None = None
    rounding: Literal["nearest", "stochastic", "toward_zero"] = "nearest"
    norm: Literal["linf", "l2"] = "linf"
    excess: Literal["clip", "refuse"] = "clip"
    exponent: int = field(init=False)
    """e: values are scaled by 2^e."""
    largest: int = field(init=False)
    """No encoded integer, before weighting, exceeds this in magnitude."""

    def __post_init__(self) -> None:
        self._check_arguments()
        object.__setattr__(self, "clip", float(np.float32(self.clip)))
        bound = ((1 << (self.ring_bits - 1)) - 1) // (self.clients * (self.max_weight or 1))
        if self.value_bits is not None:
            bound = min(bound, (1 << (self.value_bits - 1)) - 1)
        if bound < 1:
            raise EncodingError(
                f"{self.clients} clients with weights up to {self.max_weight or 1} leave no room in a ring of "
                f"{self.ring_bits} bits: use ring_bits=64, fewer clients or smaller weights"
            )
        exponent = math.frexp(bound / self.clip)[1]
        while _ceil_scaled(self.clip, exponent) > bound:
            exponent -= 1
        object.__setattr__(self, "exponent", exponent)
        object.__setattr__(self, "largest", _ceil_scaled(self.clip, exponent))

    def _check_arguments(self) -> None:
        # Equal encodings have equal digests, however their numbers were spelt.
        for name in ("clients", "ring_bits", "max_weight", "value_bits"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else whole(name, value, EncodingError))
        object.__setattr__(self, "clip", float(self.clip))
        if not (math.isfinite(self.clip) and 0 < float(np.float32(self.clip)) < math.inf):
            raise EncodingError(f"clip is {self.clip}: it must be a positive finite float32")
        if self.clients < 1:
            raise EncodingError(f"clients is {self.clients}: at least one vector is added")
        if self.max_weight is not None and self.max_weight < 1:
            raise EncodingError(f"max_weight is {self.max_weight}: use at least 1, or None for sums without weights")
        if self.ring_bits not in _UNSIGNED:
            raise EncodingError(f"ring_bits is {self.ring_bits}: 32 or 64")
        if self.value_bits is not None and not 2 <= self.value_bits <= self.ring_bits:
            raise EncodingError(f"value_bits is {self.value_bits}: between 2 and ring_bits ({self.ring_bits})")
        for name, value, known in (
            ("rounding", self.rounding, ("nearest", "stochastic", "toward_zero")),
            ("norm", self.norm, ("linf", "l2")),
            ("excess", self.excess, ("clip", "refuse")),
        ):
            if value not in known:
                raise EncodingError(f"{name} is {value!r}: one of {', '.join(known)}")

    @property
    def resolution(self) -> float:
        """2^-e: the distance of two neighbouring levels, in the values' own unit."""
        return math.ldexp(1.0, -self.exponent)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of ring elements; little-endian, as on the wire."""
        return np.dtype(_UNSIGNED[self.ring_bits]).newbyteorder("<")

    def length(self, values: int) -> int:
        """Ring elements that ``values`` values take: one more where there are weights."""
        return values + (self.max_weight is not None)

    def encode(
        self, values: Values, *, weight: int | None = None, generator: np.random.Generator | None = None
    ) -> Encoded:
        """One client's vector as ring elements.

        Args:
            values: ``(d,)`` float32 or float64, finite.
            weight: integer in [0, max_weight]; required with weights, and refused without.
            generator: for stochastic rounding; by default one seeded by the operating system.

        Raises:
            ContributionError: another shape or dtype, a value that is not finite, one beyond the bound where excess
                is refused, or a weight out of range. Messages name an index and never a value.
        """
        if not isinstance(values, np.ndarray) or values.dtype not in (np.float32, np.float64) or values.ndim != 1:
            found = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else type(values)
            raise ContributionError(f"values are {found}: hand over one flat float32 or float64 vector")
        self._check_weight(weight)
        clipped, signed = 0, self._nearest_within(values)
        if signed is None:
            values, clipped = self._bounded(values)
            signed = self._rounded(values, generator)
        if weight is not None:
            signed = np.append(signed * signed.dtype.type(weight), signed.dtype.type(weight))
        report = EncodingReport(
            values=len(values),
            clipped=clipped,
            max_rounding_error=self.resolution * (0.5 if self.rounding == "nearest" else 1.0),
        )
        return Encoded(signed.view(self.dtype), report)

    def decode(self, ring: Ring) -> Decoded:
        """A sum of encoded vectors, back in the values' own unit.

        Args:
            ring: ``(length(d),)``, the sum mod 2^ring_bits of at most ``clients`` encoded vectors.

        Returns:
            The sum of the (weighted) values: exact in float64 for a 32-bit ring, to 53 bits for a 64-bit one.
        """
        signed = ring.view(np.dtype(_SIGNED[self.ring_bits]).newbyteorder("<"))
        weight = None
        if self.max_weight is not None:
            signed, weight = signed[:-1], int(signed[-1])
        total = signed.astype(np.float64)
        return Decoded(cast(npt.NDArray[np.float64], _scaled(total, -self.exponent, total)), weight)

    def _check_weight(self, weight: int | None) -> None:
        if self.max_weight is None:
            if weight is not None:
                raise ContributionError("a weight was given, but this encoding has none: set max_weight")
        elif isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= self.max_weight:
            raise ContributionError(f"the weight is not an integer in [0, {self.max_weight}]")

    def _bounded(self, values: Values) -> tuple[Values, int]:
        """The values within the bound, and how many had to be moved."""
        if not values.size:
            return values, 0
        low, high = values.min(), values.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            index = int(np.argmin(np.isfinite(values)))
            # The value itself is private; whether it is NaN or infinite is not.
            kind = "NaN" if np.isnan(values[index]) else "infinite"
            raise ContributionError(f"the value at index {index} is {kind}: it is not summed")
        if self.norm == "l2":
            return self._bounded_norm(values)
        if max(-low, high) <= self.clip:
            return values, 0
        beyond = np.abs(values) > self.clip
        if self.excess == "refuse":
            raise ContributionError(f"the value at index {int(np.argmax(beyond))} is beyond the bound of {self.clip}")
        return cast(Values, np.clip(values, -self.clip, self.clip)), int(np.count_nonzero(beyond))

    def _bounded_norm(self, values: Values) -> tuple[Values, int]:
        doubled = values.astype(np.float64)
        # A power of two near the largest value, so that no square overflows or vanishes.
        unit = math.ldexp(1.0, math.frexp(float(np.abs(doubled).max()))[1] - 1)
        norm = float(np.linalg.norm(doubled / unit))
        if norm * unit <= self.clip:
            return values, 0
        if self.excess == "refuse":
            raise ContributionError(f"the vector's L2 norm is beyond the bound of {self.clip}")
        # Scaling may miss the bound by rounding; no single value may exceed it.
        scaled = np.clip(doubled / unit * (self.clip / norm), -self.clip, self.clip)
        return cast(Values, scaled), len(values)

    def _rounded(self, values: Values, generator: np.random.Generator | None) -> npt.NDArray[np.signedinteger[Any]]:
        signed = np.dtype(_SIGNED[self.ring_bits])
        if self.rounding == "nearest":
            integers = self._nearest(values)
            assert integers is not None
            return integers
        scaled = _scaled(values, self.exponent)
        if self.rounding == "stochastic":
            uniform = (generator or np.random.default_rng()).random(len(values))
            # Not floor(scaled + uniform): that sum is rounded, and could reach the next level but one.
            below = np.floor(scaled)
            return below.astype(signed) + (uniform < scaled - below)
        return self._shrunk(np.trunc(scaled).astype(signed), scaled)

    def _nearest_within(self, values: Values) -> npt.NDArray[np.signedinteger[Any]] | None:
        """What :meth:`_nearest` gives for values that are all within the bound; None where one is not, or no number."""
        if self.rounding != "nearest" or self.norm != "linf":
            return None
        return self._nearest(values, within=self.clip)

    def _nearest(self, values: Values, within: float = math.inf) -> npt.NDArray[np.signedinteger[Any]] | None:
        """Scaled and rounded a block at a time: values come from memory once, and only the result goes there."""
        integers: npt.NDArray[np.signedinteger[Any]] = np.empty(len(values), dtype=_SIGNED[self.ring_bits])
        room = np.empty(min(len(values), _BLOCK_VALUES), dtype=values.dtype)
        for start in range(0, len(values), _BLOCK_VALUES):
            block = values[start : start + _BLOCK_VALUES]
            # False for NaN as well.
            if not (np.minimum.reduce(block) >= -within and np.maximum.reduce(block) <= within):
                return None
            scaled = _scaled(block, self.exponent, room[: len(block)])
            integers[start : start + _BLOCK_VALUES] = np.rint(scaled, out=scaled)
        return integers

    def _shrunk(
        self, integers: npt.NDArray[np.signedinteger[Any]], scaled: Values
    ) -> npt.NDArray[np.signedinteger[Any]]:
        """Rounded toward zero, the L2 bound held in integers: scaling to it in floating point may miss by an ulp."""
        if self.norm == "l2" and self.value_norm_squared(integers) > self.largest_norm_squared:
            shrunk = np.trunc(scaled.astype(np.float64) * (1 - 2.0**-40)).astype(integers.dtype)
            if self.value_norm_squared(shrunk) > self.largest_norm_squared:
                raise EncodingError("the L2 bound could not be held in integers")
            return shrunk
        return integers

    @property
    def largest_norm_squared(self) -> int:
        """floor((C 2^e)^2): with ``norm="l2"`` and rounding toward zero, no squared norm exceeds it."""
        numerator, denominator = self.clip.as_integer_ratio()
        if self.exponent >= 0:
            return (numerator << self.exponent) ** 2 // denominator**2
        return numerator**2 // (denominator << -self.exponent) ** 2

    @staticmethod
    def value_norm_squared(integers: npt.NDArray[np.signedinteger[Any]]) -> int:
        """The squared L2 norm, exactly: halves of 16 and more bits are multiplied apart so that nothing overflows."""
        magnitudes = np.abs(integers.astype(np.int64)).astype(np.uint64)
        high, low = magnitudes >> np.uint64(32), magnitudes & np.uint64(0xFFFFFFFF)
        parts = ((high, high, 64), (high, low, 33), (low, low, 0))
        return sum(_exact_dot(left, right) << shift for left, right, shift in parts)


def whole(name: str, value: object, error: type[ProtocolError]) -> int:
    """An argument that has to be an integer, as Python's own.

    Raises:
        error: it is none.
    """
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise error(f"{name} is {value!r}: it must be an integer") from None


def _scaled(values: Values, exponent: int, out: Values | None = None) -> Values:
    """values * 2^exponent, in ``out`` or a new array: by a product where the factor is such a float, as nearly always.

    Both ways round alike, and only where a result is subnormal; ``ldexp`` takes four times as long.
    """
    kind = np.finfo(values.dtype)
    if kind.minexp <= exponent < kind.maxexp:
        return cast(Values, np.multiply(values, values.dtype.type(2.0**exponent), out=out))
    return cast(Values, np.ldexp(values, exponent, out=out))


def _ceil_scaled(clip: float, exponent: int) -> int:
    """ceil(clip * 2^exponent), in integers."""
    numerator, denominator = clip.as_integer_ratio()
    if exponent >= 0:
        return -((-numerator << exponent) // denominator)
    return -(-numerator // (denominator << -exponent))


def _exact_dot(left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64]) -> int:
    """Sum of products of numbers below 2^32, each split in two before they are added (up to 2^32 of them)."""
    product = left * right
    return (int((product >> np.uint64(32)).sum()) << 32) + int((product & np.uint64(0xFFFFFFFF)).sum())
