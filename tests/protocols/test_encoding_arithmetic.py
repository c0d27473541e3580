"""Fixed-point encoding and decoding, against Python's integers and fractions."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protocols import EncodingError, FixedPoint

RELAXED = settings(deadline=None)
CLIPS = st.sampled_from([1.0, 0.5, 1.1, 1e-3, 3e38, 1.5e-45, 8388607.0]) | st.floats(2.0**-140, 2.0**127, width=32)
ROUNDINGS = ("nearest", "stochastic", "toward_zero")


@st.composite
def encodings(draw: st.DrawFn, **fixed: Any) -> FixedPoint:
    """Any encoding that can be; ``fixed`` arguments are given."""
    ring_bits = draw(st.sampled_from([32, 64]))
    arguments: dict[str, Any] = {
        "clip": draw(CLIPS),
        "clients": draw(st.sampled_from([1, 2, 3, 1000, 4096]) | st.integers(1, 10_000)),
        "max_weight": draw(st.none() | st.integers(1, 3000)),
        "ring_bits": ring_bits,
        "value_bits": draw(st.none() | st.integers(2, ring_bits)),
        "rounding": draw(st.sampled_from(ROUNDINGS)),
        "norm": draw(st.sampled_from(["linf", "l2"])),
    }
    try:
        return FixedPoint(**(arguments | fixed))
    except EncodingError:
        assume(False)
        raise


@st.composite
def vectors(draw: st.DrawFn, encoding: FixedPoint, max_size: int = 12) -> np.ndarray:
    """Values around the bound, up to a thousand times as large, in either precision."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    units = st.floats(-1.25, 1.25, width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 1000.0, -1000.0, 2.0**-24])
    shares = draw(hnp.arrays(np.float64, st.integers(0, max_size), elements=units))
    with np.errstate(over="ignore"):
        values = (shares * encoding.clip).astype(dtype)
    assume(bool(np.isfinite(values).all()))
    return values


@st.composite
def encodings_and_vectors(draw: st.DrawFn, **fixed: Any) -> tuple[FixedPoint, np.ndarray]:
    encoding = draw(encodings(**fixed))
    return encoding, draw(vectors(encoding))


def scale_of(encoding: FixedPoint) -> Fraction:
    """2^e, exactly."""
    return Fraction(2) ** encoding.exponent


def integers_of(encoding: FixedPoint, ring: np.ndarray) -> list[int]:
    """Ring elements as the integers closest to zero that they stand for."""
    size = 1 << encoding.ring_bits
    return [int(element) - size if int(element) >= size // 2 else int(element) for element in ring]


def encoded(encoding: FixedPoint, values: np.ndarray, seed: int, weight: int = 1) -> list[int]:
    """One vector's integers, without the weight."""
    weights = None if encoding.max_weight is None else weight
    ring = encoding.encode(values, weight=weights, generator=np.random.default_rng(seed)).ring
    assert ring.dtype == encoding.dtype
    assert len(ring) == encoding.length(len(values)) == len(values) + (encoding.max_weight is not None)
    return integers_of(encoding, ring)[: len(values)]


def clipped(encoding: FixedPoint, value: float) -> Fraction:
    clip = Fraction(encoding.clip)
    return min(max(Fraction(value), -clip), clip)


@RELAXED
@given(case=encodings_and_vectors(norm="linf"), seed=st.integers(0, 2**32))
# Near 2^52 a float64 holds no fraction: adding one to round by would round by itself.
@example(case=(FixedPoint(clip=1.0, clients=2000, ring_bits=64, rounding="stochastic"), np.ones(12)), seed=0)
@example(case=(FixedPoint(clip=1.0, clients=4000, ring_bits=64, rounding="stochastic"), -np.ones(12)), seed=0)
def test_each_value_comes_back_within_the_stated_bound(case: tuple[FixedPoint, np.ndarray], seed: int) -> None:
    encoding, values = case
    unit = 1 / scale_of(encoding)
    for value, integer in zip(values.tolist(), encoded(encoding, values, seed), strict=True):
        error = abs(integer * unit - clipped(encoding, value))
        if encoding.rounding == "nearest":
            assert error <= unit / 2
        else:
            assert error < unit
        if encoding.rounding == "toward_zero":
            assert abs(integer) * unit <= abs(Fraction(value))


@RELAXED
@given(case=encodings_and_vectors(norm="linf", rounding="nearest"))
def test_rounding_to_nearest_takes_ties_to_even(case: tuple[FixedPoint, np.ndarray]) -> None:
    encoding, values = case
    expected = [round(clipped(encoding, value) * scale_of(encoding)) for value in values.tolist()]
    assert encoded(encoding, values, 0) == expected


def test_ties_are_rounded_to_even() -> None:
    encoding = FixedPoint(clip=8.0, clients=1, value_bits=5)
    assert encoding.exponent == 0
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 7.5], np.float32)
    assert encoded(encoding, values, 0) == [0, 2, 2, 0, -2, 8]


@RELAXED
@given(case=encodings_and_vectors(), seed=st.integers(0, 2**32))
@example(case=(FixedPoint(clip=1.1, clients=1, ring_bits=64, norm="l2"), np.array([1234.5])), seed=0)
@example(case=(FixedPoint(clip=1.0, clients=2000, ring_bits=64, rounding="stochastic"), np.ones(12)), seed=0)
@example(case=(FixedPoint(clip=0.3, clients=1, ring_bits=64, norm="l2"), np.linspace(900, 1000, 500)), seed=0)
def test_no_integer_exceeds_the_largest(case: tuple[FixedPoint, np.ndarray], seed: int) -> None:
    encoding, values = case
    assert all(abs(integer) <= encoding.largest for integer in encoded(encoding, values, seed))
    for value in values.tolist():
        alone = encoded(encoding, np.array([value]), seed)
        assert abs(alone[0]) <= encoding.largest


@pytest.mark.parametrize("clip", [1.0, 1.1, 0.3, 7.7])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_no_integer_of_a_vector_of_one_value_exceeds_the_largest(clip: float, rounding: Any) -> None:
    """Scaling by C over the norm gives C or the number beside it, which 64 bits can tell apart."""
    encoding = FixedPoint(clip=clip, clients=1, ring_bits=64, norm="l2", rounding=rounding)
    generator = np.random.default_rng(0)
    for value in generator.normal(size=500) * 1000:
        (integer,) = encoded(encoding, np.array([value]), 0)
        assert abs(integer) <= encoding.largest


@RELAXED
@given(encoding=encodings(), sign=st.sampled_from([1, -1]))
def test_the_extreme_corner_does_not_wrap(encoding: FixedPoint, sign: int) -> None:
    """Everybody hands in the largest vector with the largest weight."""
    weight = encoding.max_weight or 1
    assert encoding.clients * weight * encoding.largest <= 2 ** (encoding.ring_bits - 1) - 1
    # A vector of one value is its own norm, and the largest float64 is beyond every bound.
    values = np.array([encoding.clip * sign])
    one = encoding.encode(values, weight=encoding.max_weight, generator=np.random.default_rng(0)).ring
    total = one * one.dtype.type(encoding.clients)
    first = integers_of(encoding, one)[0]
    decoded = encoding.decode(total)
    assert Fraction(decoded.total[0]) == Fraction(float(first * encoding.clients)) / scale_of(encoding)
    assert decoded.weight == (None if encoding.max_weight is None else encoding.clients * weight)
    assert (first > 0) == (sign > 0) or first == 0


@RELAXED
@given(encoding=encodings())
def test_the_scale_is_the_largest_power_of_two_that_fits(encoding: FixedPoint) -> None:
    bound = (2 ** (encoding.ring_bits - 1) - 1) // (encoding.clients * (encoding.max_weight or 1))
    if encoding.value_bits is not None:
        bound = min(bound, 2 ** (encoding.value_bits - 1) - 1)
        assert 2 * encoding.largest + 1 <= 2**encoding.value_bits
    assert encoding.largest == math.ceil(Fraction(encoding.clip) * scale_of(encoding)) <= bound
    assert math.ceil(Fraction(encoding.clip) * scale_of(encoding) * 2) > bound
    assert Fraction(encoding.resolution) == 1 / scale_of(encoding)


@RELAXED
@given(encoding=encodings(), data=st.data())
def test_sums_decode_to_the_weighted_sum_of_the_integers(encoding: FixedPoint, data: st.DataObject) -> None:
    """Any number of clients up to the most, with any weights; exact to the last bit that float64 has."""
    count = min(encoding.clients, data.draw(st.integers(1, 5)))
    size = data.draw(st.integers(0, 4))
    total, weights = np.zeros(encoding.length(size), encoding.dtype), 0
    integers = [0] * size
    for seed in range(count):
        values = np.full(size, encoding.clip) * np.random.default_rng(seed).uniform(-2, 2, size)
        weight = None if encoding.max_weight is None else data.draw(st.integers(0, encoding.max_weight))
        total += encoding.encode(values, weight=weight, generator=np.random.default_rng(seed)).ring
        alone = encoded(encoding, values, seed)
        integers = [known + (1 if weight is None else weight) * new for known, new in zip(integers, alone, strict=True)]
        weights += weight or 0
    decoded = encoding.decode(total)
    assert decoded.total.dtype == np.float64
    assert [Fraction(value) for value in decoded.total] == [Fraction(float(n)) / scale_of(encoding) for n in integers]
    assert decoded.weight == (None if encoding.max_weight is None else weights)


@pytest.mark.parametrize(("ring_bits", "clients"), [(32, 3), (32, 4096), (64, 3), (64, 1024), (64, 2000), (64, 4000)])
def test_stochastic_rounding_is_unbiased(ring_bits: int, clients: int) -> None:
    """With 1 scaled to between 2^19 and 2^61. The mean of 200 000 errors stays within six of its deviations."""
    encoding = FixedPoint(clip=1.0, clients=clients, ring_bits=ring_bits, rounding="stochastic")
    generator = np.random.default_rng(clients)
    for largest in (1.0, 0.4, 1000 * encoding.resolution):
        values = generator.uniform(-largest, largest, 200_000)
        values[:1000] = largest
        signed = encoding.encode(values, generator=generator).ring.view(f"<i{ring_bits // 8}")
        scaled = np.ldexp(values, encoding.exponent)
        # Both are exact: the parts before and after the point fit float64 each.
        whole = np.floor(scaled)
        errors = (signed - whole.astype(np.int64)).astype(np.float64) - (scaled - whole)
        assert np.abs(errors).max() < 1
        assert abs(errors.mean()) <= 6 * 0.5 / math.sqrt(len(values)), largest
        at_the_bound = errors[:1000]
        assert abs(at_the_bound.mean()) <= 6 * 0.5 / math.sqrt(1000), largest


def test_stochastic_rounding_goes_up_as_often_as_it_should() -> None:
    encoding = FixedPoint(clip=8.0, clients=1, value_bits=5, rounding="stochastic")
    for share in (0.1, 0.5, 0.9):
        ring = encoding.encode(np.full(100_000, 2 + share), generator=np.random.default_rng(1)).ring
        assert set(ring.tolist()) == {2, 3}
        deviation = math.sqrt(share * (1 - share) / len(ring))
        assert abs((ring == 3).mean() - share) <= 6 * deviation


def test_stochastic_rounding_is_seeded_by_the_operating_system() -> None:
    """Two encodings of 512 halves are alike with probability 2^-512."""
    encoding = FixedPoint(clip=8.0, clients=1, value_bits=5, rounding="stochastic")
    halves = np.full(512, 0.5)
    assert encoding.encode(halves).ring.tolist() != encoding.encode(halves).ring.tolist()


@RELAXED
@given(case=encodings_and_vectors(norm="l2", rounding="toward_zero"))
# C 2^e is no integer, and hardly anything is cut off: the norm lies between its floor and itself.
@example(case=(FixedPoint(clip=3.5, clients=1, value_bits=3, norm="l2", rounding="toward_zero"), np.full(3, 2.02)))
@example(case=(FixedPoint(clip=1.1, clients=1000, norm="l2", rounding="toward_zero"), np.array([0.7, 9.2])))
@example(case=(FixedPoint(clip=1.1, clients=1000, norm="l2", rounding="toward_zero"), np.array([3.0, 4.0])))
def test_the_l2_bound_holds_in_integers(case: tuple[FixedPoint, np.ndarray]) -> None:
    encoding, values = case
    integers = encoded(encoding, values, 0)
    square = sum(integer * integer for integer in integers)
    bound = Fraction(encoding.clip) * scale_of(encoding)
    assert square <= bound * bound
    assert math.isqrt(square) <= math.floor(bound)
    assert square <= encoding.largest_norm_squared <= bound * bound


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000, 100_000])
@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("clip", [1.0, 1.1, 1e-30])
def test_an_l2_bound_keeps_the_direction(size: int, ring_bits: int, clip: float) -> None:
    """Hundred times too long, the vector is shortened to the bound, and little more than rounding changes."""
    encoding = FixedPoint(clip=clip, clients=2, ring_bits=ring_bits, norm="l2", rounding="toward_zero")
    values = np.random.default_rng(size).normal(size=size)
    values *= 100 * encoding.clip / np.linalg.norm(values)
    result = encoding.encode(values)
    decoded = encoding.decode(result.ring).total
    assert result.report.clipped == size
    assert np.abs(decoded - values / 100).max() <= encoding.resolution + 1e-11 * clip
    assert np.linalg.norm(decoded) <= encoding.clip * (1 + 1e-12)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("values", [[1e200, -1e200], [1e308, 1e308], [-1.7e308, 0.0]])
def test_an_l2_bound_shortens_even_vectors_whose_norm_no_float_holds(rounding: Any, values: list[float]) -> None:
    encoding = FixedPoint(clip=1.0, clients=2, norm="l2", rounding=rounding)
    decoded = encoding.decode(encoding.encode(np.array(values)).ring).total
    direction = np.array(values) / math.hypot(*(value / 1e300 for value in values)) / 1e300
    assert np.abs(decoded - direction).max() <= 2 * encoding.resolution


def test_a_vector_within_its_l2_bound_is_left_as_it_is() -> None:
    encoding = FixedPoint(clip=5.0, clients=1, norm="l2")
    result = encoding.encode(np.array([3.0, -4.0]))
    assert result.report.clipped == 0
    assert encoding.decode(result.ring).total.tolist() == [3.0, -4.0]


@RELAXED
@given(
    hnp.arrays(np.int64, st.integers(0, 20), elements=st.integers(-(2**63), 2**63 - 1))
    | hnp.arrays(np.int32, st.integers(0, 20), elements=st.integers(-(2**31), 2**31 - 1))
)
@example(np.full(50, -(2**63), np.int64))
@example(np.full(50, 2**63 - 1, np.int64))
@example(np.full(50, -(2**31), np.int32))
def test_squared_norms_are_exact(integers: np.ndarray) -> None:
    assert FixedPoint.value_norm_squared(integers) == sum(value * value for value in integers.tolist())


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("beyond", [0.0, 3.0])
def test_long_vectors_are_rounded_as_short_ones_are(kind: type, beyond: float) -> None:
    encoding = FixedPoint(clip=1.0, clients=3)
    values = np.random.default_rng(0).uniform(-1, 1, 70_001).astype(kind)
    values[-1] = beyond
    expected = np.rint(np.clip(values, -1, 1) * kind(2.0**encoding.exponent)).astype(np.int32)
    assert np.array_equal(encoding.encode(values).ring.view(np.int32), expected)


def test_every_second_value_of_an_array_is_a_vector_too() -> None:
    encoding = FixedPoint(clip=1.0, clients=1)
    values = np.array([0.25, 9.0, 0.5, 9.0])
    assert encoding.decode(encoding.encode(values[::2]).ring).total.tolist() == [0.25, 0.5]


def test_the_ring_is_little_endian() -> None:
    ring = FixedPoint(clip=8.0, clients=1, value_bits=5).encode(np.array([1.0, -2.0])).ring
    assert ring.tobytes().hex() == "01000000" + "feffffff"


def test_a_weight_scales_the_vector_and_travels_behind_it() -> None:
    encoding = FixedPoint(clip=8.0, clients=1, max_weight=9, value_bits=5)
    assert integers_of(encoding, encoding.encode(np.array([1.0, -2.0]), weight=9).ring) == [9, -18, 9]
    assert integers_of(encoding, encoding.encode(np.array([1.0, -2.0]), weight=0).ring) == [0, 0, 0]


def test_the_smallest_room_is_one_level_on_either_side() -> None:
    encoding = FixedPoint(clip=1.0, clients=2**31 - 1)
    assert (encoding.exponent, encoding.largest) == (0, 1)
    assert encoded(encoding, np.array([0.4, 0.6, -5.0]), 0) == [0, 1, -1]
