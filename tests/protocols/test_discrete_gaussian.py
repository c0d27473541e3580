"""The discrete Gaussian's sampler against an arbitrary-precision oracle that is given the same random bits.

The oracle adds up Python's decimals to 120 digits, which has nothing in common with what is tested; where the first 64
bits do not decide, the bits are chosen so that the next hundreds do not either.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import TermsError, discrete_gaussian
from protocols.discrete_gaussian import DiscreteGaussian, HalfGaussian
from protocols.enclosures import Enclosure, exp_minus
from protocols.inversion import Inversion, Words, negated, wrapped

DIGITS = 120
DIRECT = [Fraction(1, 1024), Fraction(9, 100), Fraction(1), Fraction(1369, 100), Fraction(10**4)]
COARSE = [Fraction(2**20), Fraction(5000**2), Fraction(10**11, 7), Fraction(2**80, 3), Fraction(2**104)]


class Bits:
    """Words that were fixed beforehand, and after them words of SHA-256 in counter mode. Counts what is taken."""

    def __init__(self, *fixed: int, seed: int = 0) -> None:
        self._fixed, self._seed, self.taken = list(fixed), seed, 0

    def __call__(self, count: int) -> Words:
        return np.array([self._next() for _ in range(count)], dtype=np.uint64)

    def _next(self) -> int:
        self.taken += 1
        if self._fixed:
            return self._fixed.pop(0)
        return int.from_bytes(hashlib.sha256(b"%d %d" % (self._seed, self.taken)).digest()[:8], "little")


def exp(x: Fraction) -> Fraction:
    """e^x to 120 digits."""
    with localcontext(prec=DIGITS + 10):
        return Fraction((Decimal(x.numerator) / Decimal(x.denominator)).exp())


def boundaries(variance: Fraction, zero: int) -> list[Fraction]:
    """F_0, F_1, ... to 120 digits."""
    weights = []
    while not weights or weights[-1] > Fraction(1, 10**DIGITS):
        k = len(weights)
        weights.append((zero if k == 0 else 2) * exp(-Fraction(k * k) / (2 * variance)))
    total = sum(weights)
    return [part / total for part in accumulate(weights)]


def expansion(x: Fraction, words: int, first: int) -> tuple[int, list[int]]:
    """The first bits of a number in [0, 1), as an integer, and the words after them."""
    bits = int(x * 2 ** (first + 64 * words))
    rest = [(bits >> (64 * place)) & (2**64 - 1) for place in reversed(range(words))]
    return bits >> (64 * words), rest


@pytest.mark.parametrize("bits", [1, 64, 200])
@pytest.mark.parametrize(
    "x",
    [Fraction(0), Fraction(1), Fraction(1, 3), Fraction(2), Fraction(511, 2), Fraction(12345, 10**30), Fraction(90)],
)
def test_exponentials_are_enclosed(x: Fraction, bits: int) -> None:
    found, exact = exp_minus(x, bits), exp(-x) * 2**bits
    slack = Fraction(1, 10**100)
    assert found.lower <= exact + slack
    assert exact <= found.upper + slack
    assert 0 <= found.upper - found.lower <= 2


@given(st.integers(0, 2**70), st.integers(0, 9), st.integers(0, 2**70), st.integers(0, 9))
def test_products_of_enclosures_enclose_the_products(left: int, wide: int, right: int, broad: int) -> None:
    found = Enclosure(left, left + wide).times(Enclosure(right, right + broad), 70)
    assert found.lower << 70 <= left * right
    assert found.upper << 70 >= (left + wide) * (right + broad)
    assert ((found.upper - 1) << 70) < (left + wide) * (right + broad) or found.upper == 0


@pytest.mark.parametrize("zero", [1, 2])
@pytest.mark.parametrize("bits", [64, 128, 192])
@pytest.mark.parametrize("variance", DIRECT[:4])
def test_cumulative_probabilities_are_enclosed_tightly(variance: Fraction, bits: int, zero: int) -> None:
    found, slack = HalfGaussian(variance, zero=zero).cumulative(bits), Fraction(1, 10**80)
    exact = boundaries(variance, zero)
    assert found.lower == sorted(found.lower)
    assert found.upper == sorted(found.upper)
    assert len(found.lower) == len(found.upper) <= len(exact)
    for low, high, value in zip(found.lower, found.upper, exact, strict=False):
        assert low <= value * 2**bits + slack
        assert value * 2**bits <= high + slack
        assert high - low <= 4
    assert (1 << bits) - found.lower[-1] <= 8


@pytest.mark.parametrize("zero", [1, 2])
@pytest.mark.parametrize("variance", DIRECT)
def test_words_on_and_beside_every_boundary_are_decided_as_the_oracle_decides(variance: Fraction, zero: int) -> None:
    """The vectorised path, over T_k and its neighbours; where only more bits decide, these are from SHA-256."""
    inversion, exact = Inversion(HalfGaussian(variance, zero=zero)), boundaries(variance, zero)
    near = {int(value * 2**63) + offset for value in exact for offset in (-2, -1, 0, 1, 2)} | {0, 2**63 - 1}
    prefixes = sorted(prefix for prefix in near if 0 <= prefix < 2**63)
    words = np.array([2 * prefix for prefix in prefixes], dtype=np.uint64)
    source, twin = Bits(), Bits()
    found = inversion.invert(words, source)
    later, on = 0, {int(value * 2**63) for value in exact} | {2**63 - 1}
    for prefix, result in zip(prefixes, found.tolist(), strict=True):
        u, known = Fraction(prefix, 2**63), 63
        if prefix in on:
            u, known = u + Fraction(int(twin(1)[0]), 2**127), 127
            later += 1
        rank = bisect_right(exact, u)
        assert rank == result, prefix
        assert not u < exact[min(rank, len(exact) - 1)] < u + Fraction(1, 2**known)
    assert source.taken == twin.taken == later > 0


@settings(max_examples=60, deadline=None)
@given(
    which=st.integers(1, len(DIRECT) - 1),
    place=st.integers(0, 10**6),
    agreed=st.integers(0, 3),
    offset=st.sampled_from([-1, 0, 1]),
    seed=st.integers(0, 2**32),
)
def test_bits_that_follow_a_boundary_are_decided_as_the_oracle_decides(
    which: int, place: int, agreed: int, offset: int, seed: int
) -> None:
    """U agrees with some F_k in its first 63 + 64 ``agreed`` bits, and is just below, on or above it in the next."""
    exact = [value for value in TABLES[which] if value < 1 - Fraction(1, 2**300)]
    boundary = exact[place % len(exact)]
    prefix, words = expansion(boundary, agreed + 1, 63)
    words[-1] = (words[-1] + offset) % 2**64
    source = Bits(*words, seed=seed)
    found = SAMPLERS[which].invert(np.array([2 * prefix], dtype=np.uint64), source)
    twin, u = Bits(*words, seed=seed), Fraction(prefix, 2**63)
    for word in range(agreed + 4):
        u += Fraction(int(twin(1)[0]), 2 ** (63 + 64 * (word + 1)))
    assert int(found[0]) == bisect_right(TABLES[which], u), DIRECT[which]
    assert source.taken >= agreed


TABLES = [boundaries(variance, 1) for variance in DIRECT]
SAMPLERS = [Inversion(HalfGaussian(variance, zero=1)) for variance in DIRECT]


@pytest.mark.parametrize("variance", DIRECT)
def test_samples_are_the_oracles_samples(variance: Fraction) -> None:
    """Below sigma = 1024: the rank of the upper 63 bits, its sign the lowest."""
    found = DiscreteGaussian(variance).draw(500, Bits(seed=3))
    exact = boundaries(variance, 1)
    for word, sample in zip(Bits(seed=3)(500).tolist(), found.tolist(), strict=True):
        magnitude = bisect_right(exact, Fraction(word >> 1, 2**63))
        assert sample == (-magnitude if word & 1 else magnitude)


@pytest.mark.parametrize("variance", COARSE)
def test_coarse_samples_are_the_oracles_samples(variance: Fraction) -> None:
    """From sigma = 1024 on. Whoever is rejected is drawn again, from words that come after all others."""
    count, bits = 10_000, next(bits for bits in range(64) if variance / 4**bits < 2**20)
    unit, source = 1 << bits, Bits(seed=4)
    found = DiscreteGaussian(variance).draw(count, source).tolist()
    first, second = (words.tolist() for words in np.split(Bits(seed=4)(2 * count), 2))
    ranks = Inversion(HalfGaussian(variance / unit**2, zero=2)).invert(np.array(first, dtype=np.uint64), Bits())
    rejected = 0
    for index, k in enumerate(ranks.tolist()):
        fine, form = second[index] % unit, first[index] & 1
        sample = ~(k * unit + fine) if form else k * unit + fine
        exponent = Fraction(sample**2 - (k * unit) ** 2, 2) / variance
        if Fraction(second[index] >> bits, 2 ** (64 - bits)) >= 1 - exp(-exponent):
            assert found[index] == sample
        else:
            rejected += 1
    assert source.taken == 2 * count + 2 * rejected
    assert 0 < rejected < 30


@settings(max_examples=150, deadline=None)
@given(
    which=st.integers(0, len(COARSE) - 1),
    k=st.integers(0, 6000),
    share=st.fractions(0, 1),
    agreed=st.integers(0, 2),
    offset=st.sampled_from([-1, 0, 1]),
)
def test_coins_are_thrown_as_the_oracle_throws_them(
    which: int, k: int, share: Fraction, agreed: int, offset: int
) -> None:
    """U agrees with 1 - exp(-g) in all its first bits, and is just below, on or above it in the next."""
    sampler, variance = COINS[which], COARSE[which]
    bits = next(bits for bits in range(64) if variance / 4**bits < 2**20)
    a, known = round(share * 2**bits), 64 - bits
    threshold = 1 - exp(-Fraction(a * (2 * k * 2**bits + a), 2) / variance)
    prefix, words = expansion(threshold, agreed + 1, known)
    if agreed:
        words[agreed - 1] = (words[agreed - 1] + offset) % 2**64
    else:
        prefix = min(max(prefix + offset, 0), 2**known - 1)
    found = sampler.accepts(k, a, prefix, Bits(*words))
    u, twin = Fraction(prefix, 2**known), Bits(*words)
    for word in range(agreed + 3):
        u += Fraction(int(twin(1)[0]), 2 ** (known + 64 * (word + 1)))
    assert found == (u >= threshold)


COINS = [DiscreteGaussian(variance) for variance in COARSE]


@pytest.mark.parametrize("variance", COARSE)
def test_what_the_table_accepts_is_accepted(variance: Fraction) -> None:
    """Each threshold is at least 1 - exp(-g) for all a in [0, B], B itself among them; the last accepts nothing."""
    sampler = DiscreteGaussian(variance)
    bits = next(bits for bits in range(64) if variance / 4**bits < 2**20)
    one = 2 ** (64 - bits)
    thresholds = sampler._accepted_from.tolist()
    assert thresholds[-1] == one
    assert len(thresholds) == len(sampler._inversion) + 1
    for k in (0, 1, 7, 1000, len(thresholds) - 2):
        unit = 2**bits
        exact = (1 - exp(-Fraction(unit * (2 * k * unit + unit), 2) / variance)) * one
        assert exact <= thresholds[k] <= exact * Fraction(21, 20) + 1


@pytest.mark.parametrize("count", [0, 1, 16383, 16384, 16385])
@pytest.mark.parametrize("variance", [Fraction(4), Fraction(2**40)])
def test_any_number_of_samples_is_drawn(variance: Fraction, count: int) -> None:
    source = np.random.default_rng(1)
    found = DiscreteGaussian(variance).draw(count, lambda size: source.integers(0, 2**64, size, dtype=np.uint64))
    assert found.shape == (count,)
    assert found.dtype == np.int64


@pytest.mark.parametrize("variance", [Fraction(1, 1025), Fraction(0), Fraction(-1), Fraction(2**104 + 1)])
def test_a_variance_out_of_range_is_refused(variance: Fraction) -> None:
    with pytest.raises(TermsError, match=r"variance is .*encode with another scale"):
        DiscreteGaussian(variance)


def test_tables_are_made_once_in_a_process() -> None:
    assert discrete_gaussian.discrete_gaussian(Fraction(7)) is discrete_gaussian.discrete_gaussian(Fraction(7))


def test_signs_and_wrapping() -> None:
    words = np.array([0, 1, 2, 3], dtype=np.uint64)
    assert negated(np.array([0, 0, 5, 5]), words).tolist() == [0, 0, 5, -5]
    assert [wrapped(value) for value in (0, 2**63 - 1, 2**63, 2**64 + 3, -1)] == [0, 2**63 - 1, -(2**63), 3, -1]
