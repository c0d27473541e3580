"""Bounds on epsilon: the papers' and worked values, and that a true epsilon is exceeded as seldom as promised.

False alarms: where a bound may err with probability alpha, a test fails if it errs more often than the 1e-6 point of
the binomial distribution with alpha, so by chance less than once in a million runs.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution  # type: ignore[import-untyped]
from scipy import stats

from attacks.empirical import (
    EpsilonBound,
    audit_one_run,
    ceiling_clopper_pearson,
    ceiling_one_run,
    correct_guesses,
    epsilon_clopper_pearson,
    epsilon_gaussian,
    epsilon_one_run,
    gaussian_epsilon,
    p_value,
    rejects_gaussian,
)

ALARM = 1e-6


def seldom(errors: int, runs: int, alpha: float) -> bool:
    return errors <= stats.binom.isf(ALARM, runs, alpha)


def respond(bits: np.ndarray, epsilon: float, generator: np.random.Generator) -> np.ndarray:
    """Randomised response: each bit is told truly with probability e^eps / (1 + e^eps)."""
    true = generator.random(bits.shape) < 1 / (1 + math.exp(-epsilon))
    return np.where(true, bits, ~bits)


# Clopper-Pearson


@pytest.mark.parametrize(
    ("n", "expected"), [(50, 2.57), (100, 3.28), (200, 3.98), (500, 4.91), (1000, 5.60), (5000, 7.21)]
)
def test_ceilings_by_clopper_pearson(n: int, expected: float) -> None:
    assert ceiling_clopper_pearson(n) == pytest.approx(expected, abs=0.005)
    found = epsilon_clopper_pearson(true_positives=n, members=n, false_positives=0, nonmembers=n, delta=0.0)
    assert found.lower == found.ceiling == ceiling_clopper_pearson(n)


def test_clopper_pearson_agrees_with_its_formula() -> None:
    found = epsilon_clopper_pearson(
        true_positives=60, members=200, false_positives=3, nonmembers=300, delta=0.01, confidence=0.9
    )
    missed = stats.binomtest(140, 200).proportion_ci(0.9, method="exact").high
    alarms = stats.binomtest(3, 300).proportion_ci(0.9, method="exact").high
    expected = max(math.log((1 - missed - 0.01) / alarms), math.log((1 - alarms - 0.01) / missed))
    assert found.lower == pytest.approx(expected)
    assert found.n == 500
    # The other side of the maximum: an attack that is sure of non-members.
    turned = epsilon_clopper_pearson(
        true_positives=297, members=300, false_positives=140, nonmembers=200, delta=0.01, confidence=0.9
    )
    assert turned.lower == pytest.approx(expected)


def test_guessing_proves_nothing() -> None:
    found = epsilon_clopper_pearson(true_positives=50, members=100, false_positives=50, nonmembers=100, delta=0.0)
    assert found.lower == 0.0
    assert epsilon_one_run(100, 100, 50, delta=0.0).lower == 0.0
    assert epsilon_clopper_pearson(true_positives=0, members=1, false_positives=1, nonmembers=1, delta=0.9).lower == 0.0


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_clopper_pearson_seldom_exceeds_the_true_epsilon(epsilon: float) -> None:
    generator = np.random.default_rng(0)
    runs, alpha, n = 1500, 0.1, 150
    right = 1 / (1 + math.exp(-epsilon))
    errors = 0
    for hits, alarms in zip(generator.binomial(n, right, runs), generator.binomial(n, 1 - right, runs), strict=True):
        found = epsilon_clopper_pearson(
            true_positives=int(hits),
            members=n,
            false_positives=int(alarms),
            nonmembers=n,
            delta=0.0,
            confidence=1 - alpha,
        )
        errors += found.lower > epsilon
    assert seldom(errors, runs, alpha)


# One run


@pytest.mark.parametrize(("guesses", "correct", "expected"), [(100, 95, 2.1652), (200, 200, 4.1665)])
def test_one_run_agrees_with_worked_values(guesses: int, correct: int, expected: float) -> None:
    assert epsilon_one_run(1000, guesses, correct, delta=1e-5).lower == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("n", "expected"), [(50, 3.49), (100, 4.19), (200, 4.88), (500, 5.78), (1000, 6.45), (5000, 7.83)]
)
def test_ceilings_in_one_run(n: int, expected: float) -> None:
    assert ceiling_one_run(2 * n, delta=1e-5) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(("m", "r", "v"), [(50, 20, 15), (200, 200, 130), (30, 1, 0), (40, 40, 40)])
@pytest.mark.parametrize("delta", [0.0, 1e-3])
def test_the_p_value_agrees_with_loops_and_grows_with_epsilon(m: int, r: int, v: int, delta: float) -> None:
    found = []
    for epsilon in (0.0, 0.3, 1.0, 2.5, 4.0):
        law = stats.binom.pmf(range(r + 1), r, math.exp(epsilon) / (1 + math.exp(epsilon)))
        beta = sum(law[k] for k in range(v, r + 1))
        worst = max((sum(law[k] for k in range(v - i, v)) / i for i in range(1, v + 1)), default=0.0)
        found.append(p_value(m, r, v, epsilon=epsilon, delta=delta))
        assert found[-1] == pytest.approx(min(1.0, beta + 2 * m * delta * worst), rel=1e-9)
    rejected = [p for p in found if p < 0.3]
    assert found[: len(rejected)] == sorted(rejected)


def test_many_guesses_and_a_large_epsilon_lose_no_precision() -> None:
    # P[Bin(r, q) >= r] = q^r, and 1 - q = e^-60 is far below a double's spacing at 1.
    assert p_value(10**5, 10**5, 10**5, epsilon=60.0, delta=0.0) == pytest.approx(1.0)
    assert p_value(10**5, 10**5, 10**5, epsilon=10.0, delta=0.0) == pytest.approx(
        math.exp(-(10**5) * math.exp(-10)), rel=1e-3
    )
    assert epsilon_one_run(10**5, 10**5, 10**5, delta=0.0).lower == pytest.approx(
        math.log(10**5 / -math.log(0.05)), abs=1e-3
    )


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("delta", [0.0, 1e-4])
def test_one_run_seldom_exceeds_the_true_epsilon(epsilon: float, delta: float) -> None:
    generator = np.random.default_rng(1)
    runs, alpha, m = 2000, 0.2, 120
    bits = generator.random((runs, m)) < 0.5
    right = (respond(bits, epsilon, generator) == bits).sum(axis=1)
    bounds = {v: epsilon_one_run(m, m, v, delta=delta, confidence=1 - alpha).lower for v in set(right.tolist())}
    errors = sum(bounds[v] > epsilon for v in right.tolist())
    assert seldom(errors, runs, alpha)
    if delta == 0:  # here the bound is exact but for the counts' steps
        assert errors > 0.4 * alpha * runs


def test_the_best_of_several_numbers_of_guesses_still_seldom_exceeds_the_true_epsilon() -> None:
    generator = np.random.default_rng(2)
    runs, alpha, m, epsilon = 400, 0.2, 100, 1.0
    chosen = [4, 10, 20, 40, 70, 100]

    @functools.cache
    def bound(r: int, v: int, share: int) -> float:
        return epsilon_one_run(m, r, v, delta=0.0, confidence=1 - alpha / share).lower

    honest = greedy = 0
    for run in range(runs):
        members = generator.random(m) < 0.5
        # Scores whose order among equal answers means nothing: the choice of r is all there is to gain.
        scores = respond(members, epsilon, generator) + 0.1 * generator.random(m)
        counts = correct_guesses(scores, members, guesses=chosen)
        best = max(bound(r, v, len(chosen)) for r, v in counts.items())
        if run < 10:
            found = audit_one_run(scores, members, guesses=chosen, delta=0.0, confidence=1 - alpha)
            assert found.lower == pytest.approx(best)
        honest += best > epsilon
        greedy += max(bound(r, v, 1) for r, v in counts.items()) > epsilon
    assert seldom(honest, runs, alpha)
    assert not seldom(greedy, runs, alpha)  # choosing after looking would not hold


def test_a_mechanism_without_noise_refutes_a_small_claim() -> None:
    generator = np.random.default_rng(3)
    members = generator.random(300) < 0.5
    found = audit_one_run(members + 0.01 * generator.normal(size=300), members, guesses=[20, 100, 200], delta=1e-5)
    claimed = 1.0
    assert claimed < found.lower <= found.ceiling
    assert "best of 3" in found.method
    assert found.detail["guesses"] == 200
    assert found.confidence == 0.95


def test_guesses_are_of_the_extremes() -> None:
    scores = np.array([0.1, 0.9, 0.5, 0.4, 0.8, 0.2])
    members = np.array([False, True, True, True, False, True])
    assert correct_guesses(scores, members, guesses=[2, 4, 6]) == {2: 2, 4: 2, 6: 3}


# Gaussian trade-off curve


@pytest.mark.parametrize(("mu", "delta"), [(0.5, 1e-5), (1.0, 1e-3), (3.0, 1e-5), (8.0, 1e-6)])
def test_the_epsilon_of_a_gaussian_agrees_with_dp_accounting(mu: float, delta: float) -> None:
    law = privacy_loss_distribution.from_gaussian_mechanism(1 / mu, value_discretization_interval=1e-3)
    assert gaussian_epsilon(mu, delta=delta) == pytest.approx(law.get_epsilon_for_delta(delta), abs=2e-3)


@pytest.mark.parametrize("alpha", [0.05, 0.3])
@pytest.mark.parametrize("mu", [0.02, 0.05, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("m", [5, 20, 100, 500])
def test_a_gaussian_mechanism_is_seldom_rejected_exactly(m: int, mu: float, alpha: float) -> None:
    """Without abstention, right guesses about independent Gaussians are binomial: the error is known exactly."""
    rejected = [rejects_gaussian(m, m, c, mu=mu, alpha=alpha) for c in range(m + 1)]
    assert rejected == sorted(rejected)
    law = stats.binom(m, stats.norm.cdf(mu / 2))
    assert sum(law.pmf(c) for c in range(m + 1) if rejected[c]) <= alpha


@pytest.mark.parametrize(("m", "r"), [(20, 4), (100, 10), (100, 50), (400, 20)])
def test_a_gaussian_mechanism_is_seldom_rejected_with_abstentions(m: int, r: int) -> None:
    generator = np.random.default_rng(4)
    runs, alpha = 500, 0.3
    for mu in (0.3, 1.0, 2.0):
        members = generator.random((runs, m)) < 0.5
        answers = mu * members + generator.normal(size=members.shape)
        rejected = [rejects_gaussian(m, r, c, mu=mu, alpha=alpha) for c in range(r + 1)]
        errors = sum(rejected[correct_guesses(*of, guesses=r)[r]] for of in zip(answers, members, strict=True))
        assert seldom(errors, runs, alpha)


def test_knowing_the_curve_proves_more_of_a_gaussian() -> None:
    mu, m, delta = 2.0, 2000, 1e-5
    generator = np.random.default_rng(5)
    members = generator.random(m) < 0.5
    answers = mu * members + generator.normal(size=m)
    right = correct_guesses(answers, members, guesses=m)[m]
    curve, point = epsilon_gaussian(m, m, right, delta=delta), epsilon_one_run(m, m, right, delta=delta)
    assert point.lower < curve.lower < gaussian_epsilon(mu, delta=delta)
    assert curve.lower < curve.ceiling
    assert "assumed" in curve.method
    assert epsilon_gaussian(m, m, m // 2, delta=delta).lower == 0.0


# What is said and refused


def test_a_bound_is_never_told_without_its_ceiling() -> None:
    text = str(epsilon_one_run(1000, 100, 95, delta=1e-5))
    assert "epsilon >= 2.17" in text
    assert "would have proved 3.47" in text
    with pytest.raises(TypeError, match="ceiling"):
        EpsilonBound(lower=1.0, confidence=0.95, method="x", n=3)  # type: ignore[call-arg]


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="true_positives is 5 of 4"):
        epsilon_clopper_pearson(true_positives=5, members=4, false_positives=0, nonmembers=4, delta=0.0)
    with pytest.raises(ValueError, match="delta is 1"):
        epsilon_clopper_pearson(true_positives=1, members=4, false_positives=0, nonmembers=4, delta=1.0)
    with pytest.raises(ValueError, match="n_per_side is 0"):
        ceiling_clopper_pearson(0)
    with pytest.raises(ValueError, match="canaries is 0"):
        epsilon_one_run(0, 0, 0, delta=0.0)
    with pytest.raises(ValueError, match="guesses is 11 for 10"):
        epsilon_one_run(10, 11, 0, delta=0.0)
    with pytest.raises(ValueError, match="correct is 6 of 5"):
        epsilon_one_run(10, 5, 6, delta=0.0)
    with pytest.raises(ValueError, match="epsilon is -1"):
        p_value(10, 5, 5, epsilon=-1, delta=0.0)
    with pytest.raises(ValueError, match="confidence is 1"):
        epsilon_one_run(10, 5, 5, delta=0.0, confidence=1.0)
    with pytest.raises(ValueError, match="delta is 0"):
        epsilon_gaussian(10, 5, 5, delta=0.0)
    with pytest.raises(ValueError, match="mu is 0"):
        rejects_gaussian(10, 5, 5, mu=0, alpha=0.1)
    members = np.array([True, False])
    for guesses in (1, 3, 4, [], [2, 0]):
        with pytest.raises(ValueError, match="guesses is"):
            correct_guesses(np.zeros(2), members, guesses=guesses)
    with pytest.raises(ValueError, match="not finite"):
        correct_guesses(np.array([0.0, np.nan]), members, guesses=2)
    with pytest.raises(ValueError, match="scores has shape"):
        correct_guesses(np.zeros(3), members, guesses=2)
