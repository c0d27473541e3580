"""Exact noise against its law, drawn from the operating system's randomness.

Each statistic has a false-alarm rate of 2e-9, that of six standard deviations (chi-square and normal tails are good to
a small factor at these counts), and all tests together compute fewer than 500 of them: they fail by chance less than
once in a million runs. Laws are computed here anew: Gaussian weights in double precision, scipy's Bessel functions.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

from protocols import (
    DiscreteGaussianNoise,
    Dropouts,
    FixedPoint,
    Noise,
    NoNoise,
    Phase,
    Simulation,
    SkellamNoise,
    Terms,
    discrete_gaussian,
    make_protocol,
)
from protocols.discrete_gaussian import DiscreteGaussian
from protocols.keystream import Keystream
from protocols.skellam import Skellam

FALSE_ALARM = 2e-9
SAMPLES = 400_000
MANY = 20_000_000

Integers = np.ndarray[Any, np.dtype[np.int64]]
Law = np.ndarray[Any, np.dtype[np.float64]]

GAUSSIAN = ["0.3", "1", "3.7", "100", "1023.5", "1024", "5000", "70000", "1e6", "1e12"]
SKELLAM = ["0.3", "1", "3.7", "100", "5000"]


# Laws: probabilities of -reach to reach


def gaussian(sigma: float) -> Law:
    reach = math.ceil(12 * sigma) + 2
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def bessel(sigma: float) -> Law:
    reach = math.ceil(12 * sigma) + 15
    return np.asarray(special.ive(np.abs(np.arange(-reach, reach + 1)), sigma**2))


# Statistics: each gives the probability of something at least as far out


def fit(samples: Integers, law: Law, cells: int = 300) -> float:
    """Chi-square over runs of neighbouring integers of about equal weight, on both sides: too far, and too close."""
    reach = len(law) // 2
    edges = np.unique(np.searchsorted(np.cumsum(law), np.arange(1, cells) / cells))
    starts = np.concatenate([[0], edges + 1])
    starts = starts[starts < len(law)]
    expected = np.add.reduceat(law, starts) * len(samples)
    inside = np.searchsorted(starts, np.clip(samples + reach, 0, len(law) - 1), side="right") - 1
    observed = np.bincount(inside, minlength=len(starts)).astype(float)
    # Whoever is not expected ten times shares a cell with its neighbour toward the middle.
    while len(expected) > 2 and expected[-1] < 10:
        expected[-2] += expected[-1]
        observed[-2] += observed[-1]
        expected, observed = expected[:-1], observed[:-1]
    while len(expected) > 2 and expected[0] < 10:
        expected[1] += expected[0]
        observed[1] += observed[0]
        expected, observed = expected[1:], observed[1:]
    statistic = float(((observed - expected) ** 2 / expected).sum())
    return 2 * min(stats.chi2.sf(statistic, len(expected) - 1), stats.chi2.cdf(statistic, len(expected) - 1))


def normal_fit(samples: Integers, sigma: float, cells: int = 1000) -> float:
    """The same for a large sigma: the law is a Gaussian's on intervals, up to one part in sigma^2 or so."""
    edges = np.ceil(sigma * stats.norm.ppf(np.arange(1, cells) / cells))
    chances = np.diff(stats.norm.cdf((np.concatenate([[-np.inf], edges, [np.inf]]) - 0.5) / sigma))
    observed = np.bincount(np.searchsorted(edges, samples, side="right"), minlength=cells)
    statistic = float(((observed - chances * len(samples)) ** 2 / (chances * len(samples))).sum())
    return 2 * min(stats.chi2.sf(statistic, cells - 1), stats.chi2.cdf(statistic, cells - 1))


def moments(samples: Integers, sigma: float, variance: float, fourth: float) -> dict[str, float]:
    """Mean, variance (given the true mean of 0) and fair signs."""
    unit = samples / sigma
    true = variance / sigma**2
    mean = float(unit.mean()) / math.sqrt(true / len(unit))
    spread = float((unit**2).mean() - true) / math.sqrt((fourth / sigma**4 - true**2) / len(unit))
    signs = np.sign(samples)
    sign = float(signs.sum()) / math.sqrt(max(1, np.abs(signs).sum()))
    return {
        name: 2 * float(stats.norm.sf(abs(z))) for name, z in (("mean", mean), ("variance", spread), ("sign", sign))
    }


def law_moments(samples: Integers, law: Law, sigma: float) -> dict[str, float]:
    places = np.arange(len(law)) - len(law) // 2
    second, fourth = (float((law * places.astype(float) ** power).sum()) for power in (2, 4))
    return moments(samples, sigma, second, fourth)


def tails(samples: Integers, law: Law, sigma: float) -> dict[str, float]:
    """Binomial counts of magnitudes from 3, 4 and 5 sigma on."""
    places, found = np.abs(np.arange(len(law)) - len(law) // 2), {}
    for width in (3, 4, 5):
        count = int((np.abs(samples) >= width * sigma).sum())
        chance = stats.binom(len(samples), float(law[places >= width * sigma].sum()))
        found[f"{width} sigma"] = 2 * min(chance.cdf(count), chance.sf(count - 1))
    return found


def low_bits(samples: Integers) -> dict[str, float]:
    """The last six bits, and those of two neighbours: uniform from sigma = 100 on, but for a factor of e^-48."""
    cells = samples & 63
    expected = len(samples) / 64
    found = {}
    for name, column, count in (("bits", cells, 64), ("neighbours", cells[:-1:2] * 64 + cells[1::2], 4096)):
        expected = len(column) / count
        statistic = float(((np.bincount(column, minlength=count) - expected) ** 2).sum() / expected)
        found[name] = 2 * min(stats.chi2.sf(statistic, count - 1), stats.chi2.cdf(statistic, count - 1))
    return found


def alarms(found: dict[str, float]) -> dict[str, float]:
    return {name: chance for name, chance in found.items() if not chance > FALSE_ALARM}


def test_the_statistics_raise_an_alarm_where_there_is_something_to_find() -> None:
    """Fixed seeds: samples of the law raise none, and each flaw raises the alarm that is meant for it."""
    generator = np.random.default_rng(1)
    law = gaussian(3.7)
    places = np.arange(len(law)) - len(law) // 2
    good = generator.choice(places, SAMPLES, p=law)
    assert not alarms({"fit": fit(good, law)} | law_moments(good, law, 3.7) | tails(good, law, 3.7))
    # A standard deviation that is off by three parts in a hundred, and its variance by 2.
    assert alarms({"fit": fit(good, gaussian(3.8))})
    assert "variance" in alarms(moments(good, 3.7, 3.7**2 * 1.02, 3 * 3.7**4))
    # A continuous Gaussian, rounded: its variance is larger by a twelfth.
    assert alarms({"fit": fit(np.rint(generator.normal(0, 1, SAMPLES)).astype(np.int64), gaussian(1))})
    # Zero counted twice, a tail cut off, samples moved by half a unit, an even lowest bit.
    assert alarms({"fit": fit(good[(good != 0) | (generator.random(SAMPLES) < 0.5)], law)})
    assert "4 sigma" in alarms(tails(np.clip(good, -14, 14), law, 3.7))
    assert "mean" in alarms(law_moments(good + (generator.random(SAMPLES) < 0.5), law, 3.7))
    wide = np.rint(generator.normal(0, 1e6, SAMPLES)).astype(np.int64)
    assert not alarms(low_bits(wide) | {"fit": normal_fit(wide, 1e6)})
    assert alarms(low_bits(wide & ~1)).keys() == {"bits", "neighbours"}
    assert alarms({"fit": normal_fit(wide, 1.04e6)})
    # Skellam noise is told from a Gaussian of the same variance.
    skellam = generator.poisson(0.5, SAMPLES) - generator.poisson(0.5, SAMPLES)
    assert alarms({"fit": fit(skellam, gaussian(1))})
    assert not alarms({"fit": fit(skellam, bessel(1))})


@pytest.mark.parametrize("sigma", GAUSSIAN)
def test_the_discrete_gaussian_follows_its_law(sigma: str) -> None:
    """Seven statistics at each of ten sigmas: false-alarm rate below 2e-7."""
    samples, value = DiscreteGaussian(Fraction(sigma) ** 2).draw(SAMPLES, Keystream().words), float(sigma)
    found = {}
    if value <= 5000:
        law = gaussian(value)
        found |= {"fit": fit(samples, law)} | law_moments(samples, law, value) | tails(samples, law, value)
    else:
        found |= {"fit": normal_fit(samples, value)} | moments(samples, value, value**2, 3 * value**4)
    if value >= 100:
        found |= low_bits(samples)
    assert not alarms(found)


@pytest.mark.parametrize("sigma", SKELLAM)
def test_skellam_noise_follows_its_law(sigma: str) -> None:
    """Seven statistics at each of five sigmas: false-alarm rate below 1e-7."""
    samples, value = Skellam(Fraction(sigma) ** 2).draw(SAMPLES, Keystream().words), float(sigma)
    law = bessel(value)
    assert law.sum() == pytest.approx(1, abs=1e-9)
    found = {"fit": fit(samples, law / law.sum())} | law_moments(samples, law, value) | tails(samples, law, value)
    if value >= 100:
        found |= low_bits(samples)
    assert not alarms(found)


@pytest.mark.parametrize("sigma", ["2", "3.7", "20"])
def test_proposals_that_are_often_rejected_leave_the_law(sigma: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of the large sigmas at small ones, in blocks as wide as sigma: 3 proposals in 10 are rejected.

    Three statistics a sigma: false-alarm rate below 2e-8.
    """
    monkeypatch.setattr(discrete_gaussian, "_COARSE_VARIANCE", 1)
    sampler = DiscreteGaussian(Fraction(sigma) ** 2)
    assert sampler._bits >= 2
    samples, law = sampler.draw(100_000, Keystream().words), gaussian(float(sigma))
    assert not alarms({"fit": fit(samples, law)} | law_moments(samples, law, float(sigma)))


@pytest.mark.slow
@pytest.mark.parametrize("sigma", ["0.5", "1", "3.7", "100", "1023.5", "1024", "5000"])
def test_many_samples_of_the_discrete_gaussian_follow_its_law(sigma: str) -> None:
    """Fifty times as many, in finer cells: false-alarm rate below 2e-7."""
    samples, value = DiscreteGaussian(Fraction(sigma) ** 2).draw(MANY, Keystream().words), float(sigma)
    law = gaussian(value)
    found = {"fit": fit(samples, law, 5000)} | law_moments(samples, law, value) | tails(samples, law, value)
    if value >= 100:
        found |= low_bits(samples)
    assert not alarms(found)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", ["0.5", "1", "3.7", "100", "5000"])
def test_many_samples_of_skellam_noise_follow_its_law(sigma: str) -> None:
    """Likewise: false-alarm rate below 1e-7."""
    samples, value = Skellam(Fraction(sigma) ** 2).draw(MANY, Keystream().words), float(sigma)
    law = bessel(value)
    found = {"fit": fit(samples, law / law.sum(), 5000)} | law_moments(samples, law, value) | tails(samples, law, value)
    if value >= 100:
        found |= low_bits(samples)
    assert not alarms(found)


@pytest.mark.slow
def test_skellam_noise_of_the_largest_variance_follows_its_law() -> None:
    """A sum of sixteen shares, as good as normal: six statistics, false-alarm rate below 2e-8."""
    samples = Skellam(Fraction(2**32)).draw(SAMPLES, Keystream().words)
    found = {"fit": normal_fit(samples, 2.0**16)} | moments(samples, 2.0**16, 2.0**32, 3 * 2.0**64 + 2.0**32)
    assert not alarms(found | low_bits(samples))


# In sums

CLIENTS, DROPOUTS, COLLUDERS, VALUES = 6, 2, 1, 60_000


def noise(kind: type[Noise], variance: int = 10_000) -> Noise:
    return kind(  # type: ignore[call-arg]
        variance, clients=CLIENTS, values=VALUES, steps=2, dropouts=DROPOUTS, colluders=COLLUDERS
    )


def noise_in_sum(protocol: str, mechanism: Noise, ring_bits: int, vanishing: int = 0) -> tuple[Integers, float]:
    """Decoded sums in ring units, less the exact sum of the same encoded vectors; and how far from whole they are."""
    encoding = FixedPoint(
        clip=1.0,
        clients=CLIENTS,
        ring_bits=32 if ring_bits == 32 else 64,
        value_bits=20,
        rounding="toward_zero",
        norm="l2",
    )
    terms = Terms(streams={"g": encoding}, steps=1, noise=mechanism, dropout=DROPOUTS / CLIENTS, corruption=0.3)
    network = Dropouts(lambda phase, step, member: phase is Phase.COLLECT and member >= CLIENTS - vanishing)
    cohort = Simulation(make_protocol(protocol), range(CLIENTS), terms=terms, network=network)
    cohort.open()
    generator = np.random.default_rng(2)
    vectors = {member: generator.normal(0, 1 / VALUES, VALUES).astype(np.float32) for member in range(CLIENTS)}
    result = cohort.sum(vectors, stream="g")
    assert result.contributors == tuple(range(CLIENTS - vanishing))
    exact = sum(
        encoding.encode(vectors[member]).ring.view(f"<i{encoding.ring_bits // 8}").astype(np.int64)
        for member in result.contributors
    )
    difference = np.ldexp(result.total, encoding.exponent) - exact
    return np.rint(difference).astype(np.int64), float(np.abs(difference - np.rint(difference)).max())


@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("protocol", ["plain", "masked"])
@pytest.mark.parametrize("kind", [DiscreteGaussianNoise, SkellamNoise], ids=lambda kind: kind.name)
def test_a_decoded_sum_is_the_exact_sum_and_whole_noise(kind: type[Noise], protocol: str, ring_bits: int) -> None:
    """The same law under every protection: chi-square and moments, false-alarm rate below 4e-8 in all eight cases.

    All six clients stay, so there is twice the variance that three honest survivors are counted on for. Sums of
    discrete Gaussians of this width differ from one by less than can be seen (section 3 of the paper: about e^-10^4).
    """
    found, fraction = noise_in_sum(protocol, noise(kind), ring_bits)
    assert fraction == 0
    sigma = math.sqrt(10_000 * CLIENTS / (CLIENTS - DROPOUTS - COLLUDERS))
    law = gaussian(sigma) if kind is DiscreteGaussianNoise else bessel(sigma)
    assert not alarms({"fit": fit(found, law / law.sum(), 100)} | law_moments(found, law, sigma))


@pytest.mark.parametrize("protocol", ["plain", "masked"])
@pytest.mark.parametrize("kind", [DiscreteGaussianNoise, SkellamNoise], ids=lambda kind: kind.name)
def test_honest_survivors_noise_is_what_was_promised(kind: type[Noise], protocol: str) -> None:
    """With as many dropouts as there may be, and less the noise of one colluder: exactly the variance V.

    Moments: false-alarm rate below 3e-8 in all four cases.
    """
    found, _ = noise_in_sum(protocol, noise(kind), 32, vanishing=DROPOUTS)
    # What a colluder would take off, as it knows its own noise, has this variance and is independent of the rest.
    share = 10_000 / (CLIENTS - DROPOUTS - COLLUDERS)
    variance = share * (CLIENTS - DROPOUTS)
    assert variance - share * COLLUDERS == 10_000
    fourth = 3 * variance**2 + (variance if kind is SkellamNoise else 0)
    assert not alarms(moments(found, math.sqrt(variance), variance, fourth))


@pytest.mark.parametrize("kind", [DiscreteGaussianNoise, SkellamNoise], ids=lambda kind: kind.name)
def test_plain_and_masked_sums_have_noise_of_the_same_distribution(kind: type[Noise]) -> None:
    """Kolmogorov and Smirnov's two-sample test (conservative on integers): false-alarm rate below 4e-9."""
    plain, masked = (noise_in_sum(protocol, noise(kind), 32)[0] for protocol in ("plain", "masked"))
    assert (plain == masked).mean() < 0.05
    assert stats.ks_2samp(plain, masked).pvalue > FALSE_ALARM


def test_without_noise_the_difference_is_zero() -> None:
    found, fraction = noise_in_sum("masked", NoNoise(), 32)
    assert fraction == 0
    assert not found.any()


@pytest.mark.parametrize("kind", [DiscreteGaussianNoise, SkellamNoise], ids=lambda kind: kind.name)
def test_clients_noises_are_independent(kind: type[Noise]) -> None:
    """Correlations of six clients' noise at lags 0 to 3: 60 statistics, false-alarm rate below 3e-7 in both cases."""
    drawn = [noise(kind).add(np.zeros(VALUES, dtype="<u8")).view("<i8").astype(float) for _ in range(CLIENTS)]
    share = 10_000 / (CLIENTS - DROPOUTS - COLLUDERS)
    found = {}
    for left in range(CLIENTS):
        for right in range(left):
            for lag in range(4):
                products = drawn[left][: VALUES - lag] * drawn[right][lag:]
                z = float(products.sum()) / (share * math.sqrt(VALUES - lag))
                found[f"{left}, {right}, lag {lag}"] = 2 * float(stats.norm.sf(abs(z)))
    assert not alarms(found)
