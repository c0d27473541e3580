"""The Skellam sampler against Bessel functions that are summed from their series, to 120 digits."""

from __future__ import annotations

from bisect import bisect_right
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from itertools import accumulate

import numpy as np
import pytest
from scipy import special

from protocols import TermsError
from protocols.inversion import Words
from protocols.skellam import HalfSkellam, Skellam, skellam

DIGITS = 120
VARIANCES = [Fraction(1, 1024), Fraction(9, 100), Fraction(1), Fraction(1369, 100), Fraction(10**4, 7)]


def bessel(order: int, mu: Fraction) -> Fraction:
    """I_order(mu) by its power series (Abramowitz and Stegun 9.6.10), all of whose terms are positive."""
    with localcontext(prec=DIGITS + 20):
        half = Decimal(mu.numerator) / Decimal(mu.denominator) / 2
        term = Decimal(1)
        for factor in range(1, order + 1):
            term = term * half / factor
        total, index = term, 0
        while term > total * Decimal(10) ** -(DIGITS + 15):
            index += 1
            term = term * half * half / (index * (index + order))
            total += term
        return Fraction(total)


@cache
def boundaries(mu: Fraction) -> list[Fraction]:
    """P(|X| <= k) for k = 0, 1, ..., normalised by e^mu and not by their own sum."""
    with localcontext(prec=DIGITS + 20):
        scale = Fraction((-Decimal(mu.numerator) / Decimal(mu.denominator)).exp())
    probabilities = [bessel(0, mu) * scale]
    while len(probabilities) < 3 or probabilities[-1] > Fraction(1, 10**60):
        probabilities.append(2 * bessel(len(probabilities), mu) * scale)
    return list(accumulate(probabilities))


def sure_words(*fixed: int) -> tuple[list[int], object]:
    """Words in a list, and a source of them that fails when it is empty."""
    queue = list(fixed)

    def source(count: int) -> Words:
        return np.array([queue.pop(0) for _ in range(count)], dtype=np.uint64)

    return queue, source


@pytest.mark.parametrize("bits", [64, 128])
@pytest.mark.parametrize("mu", VARIANCES)
def test_cumulative_probabilities_are_enclosed_tightly(mu: Fraction, bits: int) -> None:
    found, slack = HalfSkellam(mu).cumulative(bits), Fraction(1, 10**60)
    assert found.lower == sorted(found.lower)
    assert found.upper == sorted(found.upper)
    exact = boundaries(mu)
    for low, high, value in zip(found.lower, found.upper, exact, strict=False):
        assert low <= value * 2**bits + slack
        assert value * 2**bits <= high + slack
        assert high - low <= 4
    assert (1 << bits) - found.lower[-1] <= 8


def test_a_large_variance_is_enclosed_too() -> None:
    """Against scipy's scaled Bessel functions, in double precision."""
    mu = Fraction(5000**2)
    found = HalfSkellam(mu).cumulative(128)
    exact = special.ive(np.arange(30_000), float(mu))
    exact[1:] *= 2
    np.testing.assert_allclose([low / 2**128 for low in found.lower[:30_000]], np.cumsum(exact), rtol=1e-10)
    assert max(high - low for low, high in zip(found.lower, found.upper, strict=True)) <= 4


@pytest.mark.parametrize("offset", [-1, 0, 1])
@pytest.mark.parametrize("agreed", [1, 2])
@pytest.mark.parametrize("mu", VARIANCES)
def test_bits_that_follow_a_boundary_are_decided_by_those_after_it(mu: Fraction, agreed: int, offset: int) -> None:
    """U agrees with F_k in 63 bits and all words but the last one, where it is one below, one above or on it.

    ``resolve`` may look up to one word further than where U and F_k part.
    """
    sampler = Skellam(mu)
    exact = boundaries(mu)
    last = sum(value < 1 - Fraction(1, 2**100) for value in exact) - 1
    for k in sorted({0, last // 3, last // 2, last}):
        scaled = int(exact[k] * 2 ** (63 + 64 * agreed)) + offset
        bits = (scaled << 64) | (2**64 - 1 if offset > 0 else 0)
        words = [(bits >> (64 * place)) & (2**64 - 1) for place in range(agreed + 1)][::-1]
        prefix = bits >> (64 * (agreed + 1))
        _, source = sure_words(2 * prefix, *words, *[2**63] * 3)
        u = Fraction(bits, 2 ** (63 + 64 * (agreed + 1)))
        assert int(sampler.draw(1, source)[0]) == bisect_right(exact, u)  # type: ignore[arg-type]


@pytest.mark.parametrize("mu", VARIANCES)
def test_samples_are_the_oracles_samples(mu: Fraction) -> None:
    words = np.random.default_rng(5).integers(0, 2**64, 500, dtype=np.uint64)
    exact = boundaries(mu)
    found = Skellam(mu).draw(500, sure_words(*words.tolist())[1])  # type: ignore[arg-type]
    for word, sample in zip(words.tolist(), found.tolist(), strict=True):
        magnitude = bisect_right(exact, Fraction(word >> 1, 2**63))
        assert sample == (-magnitude if word & 1 else magnitude)


def test_a_variance_beyond_one_table_is_a_sum_of_equal_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocols.skellam._LARGEST_TABLE", 16)
    words = np.random.default_rng(6).integers(0, 2**64, 300, dtype=np.uint64)
    total = Skellam(Fraction(45)).draw(100, sure_words(*words.tolist())[1])  # type: ignore[arg-type]
    parts = Skellam(Fraction(15)).draw(300, sure_words(*words.tolist())[1])  # type: ignore[arg-type]
    np.testing.assert_array_equal(total, parts.reshape(3, 100).sum(axis=0))


@pytest.mark.parametrize("mu", [Fraction(1, 1025), Fraction(0), Fraction(2**32 + 1)])
def test_a_variance_out_of_range_is_refused(mu: Fraction) -> None:
    with pytest.raises(TermsError, match=r"variance is .*use the discrete Gaussian"):
        Skellam(mu)


def test_tables_are_made_once_in_a_process() -> None:
    assert skellam(Fraction(7)) is skellam(Fraction(7))
