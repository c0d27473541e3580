"""Normal noise and Poisson samples from the operating system. False alarms of the statistical tests: 1e-6 each."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2, kstest, norm

from codream_secure.errors import PrivacyError
from codream_secure.privacy.secure_normal import UNITS, Source, grid_noise, poisson_sample, standard_normal
from protocols.keystream import Keystream

ALARM = 1e-6


def constant(word: int) -> Source:
    return lambda count: np.full(count, word, dtype=np.uint64)


def test_the_law_is_standard_normal() -> None:
    drawn = standard_normal(200_000, Keystream().words)
    assert drawn.dtype == np.float64
    assert kstest(drawn, "norm").pvalue > ALARM
    # The tails separately, where Kolmogorov and Smirnov see little.
    for bound in (2.0, 3.0, 4.0):
        beyond = int((np.abs(drawn) > bound).sum())
        low, high = binom.interval(1 - ALARM, len(drawn), 2 * norm.sf(bound))
        assert low <= beyond <= high


def test_values_are_quantiles_of_the_word() -> None:
    assert standard_normal(1, constant(2**63))[0] == pytest.approx(norm.ppf(0.25), abs=1e-15)
    assert standard_normal(1, constant(2**63 + 1))[0] == pytest.approx(norm.ppf(0.75), abs=1e-15)
    assert standard_normal(1, constant(0))[0] == pytest.approx(norm.ppf(2.0**-65), rel=1e-12)
    assert standard_normal(1, constant(2**64 - 1))[0] == pytest.approx(0, abs=1e-15)


@given(st.integers(0, 2**64 - 1))
def test_every_word_gives_a_finite_value_and_its_last_bit_the_sign(word: int) -> None:
    value, mirrored = standard_normal(1, constant(word))[0], standard_normal(1, constant(word ^ 1))[0]
    assert math.isfinite(value)
    assert abs(value) < 9.3
    assert value == -mirrored


def test_grid_noise_is_whole_and_of_the_asked_deviation() -> None:
    count, multiplier = 100_000, 3.0
    noise = grid_noise(count, multiplier, Keystream().words)
    assert np.array_equal(noise, np.trunc(noise))
    low, high = chi2.interval(1 - ALARM, count)
    assert low < (noise / (multiplier * UNITS)).astype(float) @ (noise / (multiplier * UNITS)) < high


@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.nan, math.inf, 2.0**29])
def test_noise_that_the_grid_cannot_hold_is_refused(multiplier: float) -> None:
    with pytest.raises(PrivacyError, match="noise_multiplier is"):
        grid_noise(3, multiplier, Keystream().words)


def test_no_seed_reaches_the_noise_or_the_sample() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        drawn.append((standard_normal(8, Keystream().words), poisson_sample(1000, 0.5, Keystream().words)))
    # Two such samples are equal with a probability of 2^-1000.
    assert not np.array_equal(drawn[0][0], drawn[1][0])
    assert not np.array_equal(drawn[0][1], drawn[1][1])


@given(rate=st.floats(2.0**-80, 1, exclude_max=True), below=st.booleans())
def test_a_coin_says_yes_exactly_below_the_rate(rate: float, below: bool) -> None:
    threshold = math.floor(math.ldexp(rate, 64))
    word = threshold - 1 if below else threshold
    if word >= 0:
        assert len(poisson_sample(4, rate, constant(word))) == (4 if below else 0)
    # No more often than claimed, in exact integers.
    top, bottom = rate.as_integer_ratio()
    assert threshold * bottom <= top * 2**64


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.9])
def test_a_sample_is_of_the_size_that_coins_give_and_every_unit_is_as_likely(rate: float) -> None:
    words, repeats, count = Keystream().words, 400, 250
    taken = np.zeros(count)
    sizes = []
    for _ in range(repeats):
        chosen = poisson_sample(count, rate, words)
        assert np.array_equal(chosen, np.unique(chosen))
        taken[chosen] += 1
        sizes.append(len(chosen))
    low, high = binom.interval(1 - ALARM, repeats * count, rate)
    assert low <= sum(sizes) <= high
    statistic = ((taken - repeats * rate) ** 2 / (repeats * rate * (1 - rate))).sum()
    assert statistic < chi2.ppf(1 - ALARM, count) * 1.2  # binomials of few successes are a little wider than normal
    # The sizes vary as independent coins do: not a fixed batch size.
    assert np.var(sizes) == pytest.approx(count * rate * (1 - rate), rel=0.5)


def test_all_or_nobody() -> None:
    assert list(poisson_sample(3, 1.0, constant(2**64 - 1))) == [0, 1, 2]
    assert len(poisson_sample(0, 0.5, Keystream().words)) == 0
    for rate in (0.0, -0.1, 1.5, math.nan):
        with pytest.raises(PrivacyError, match="rate is"):
            poisson_sample(3, rate, Keystream().words)
