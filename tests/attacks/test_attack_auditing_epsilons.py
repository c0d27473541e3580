"""Bounds of mechanisms whose true epsilon is known, and what a line may be held against.

False alarms: where a bound may err with probability alpha, a test fails if it errs more often than the 1e-6 point of
the binomial distribution with alpha.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import optimize, stats

from attacks.auditing.client_level import bound_from_draws
from attacks.auditing.epsilons import claims_check, entry, one_run_bound
from attacks.empirical import EpsilonBound
from codream_secure.privacy import Accountant, Adjacency, Adversary, PrivacyStatement, PrivacyUnit

ALARM = 1e-6


def true_epsilon(mu: float, delta: float) -> float:
    """Of a Gaussian mechanism with sensitivity over deviation mu, by the formula of Balle and Wang (2018)."""

    def excess(epsilon: float) -> float:
        first, second = stats.norm.cdf(mu / 2 - epsilon / mu), stats.norm.cdf(-mu / 2 - epsilon / mu)
        return float(first - math.exp(epsilon) * second - delta)

    return float(optimize.brentq(excess, 0, 50))


def alternating(draws: int) -> npt.NDArray[np.bool_]:
    return np.arange(draws) % 2 == 1


def bound(lower: float, ceiling: float = 4.0) -> EpsilonBound:
    return EpsilonBound(lower=lower, ceiling=ceiling, confidence=0.95, method="test", n=100)


def claim(
    epsilon: float, unit: PrivacyUnit = PrivacyUnit.CLIENT, adjacency: Adjacency = Adjacency.ADD_REMOVE
) -> PrivacyStatement:
    return PrivacyStatement(
        unit=unit,
        adjacency=adjacency,
        epsilon=epsilon,
        delta=1e-3,
        adversary=Adversary.SUM_SERVER,
        accountant=Accountant.PLD,
        releases=("dream_updates",),
    )


def line(
    found: EpsilonBound, statement: PrivacyStatement | None, unit: PrivacyUnit = PrivacyUnit.CLIENT
) -> dict[str, Any]:
    return entry(found, statement, method="codream", protection="dp", adversary="server", probe="presence", unit=unit)


@pytest.mark.parametrize("mu", [0.5, 2.0])
def test_bounds_seldom_exceed_the_epsilon_of_a_gaussian_mechanism(mu: float) -> None:
    """40 audits of 120 draws, each may err with 5 %; the test fails by chance below once in a million runs."""
    rng, delta, audits = np.random.default_rng(7), 1e-3, 40
    present, truth = alternating(120), true_epsilon(mu, delta)
    errors = sum(
        bound_from_draws(rng.standard_normal(120) + mu * present, present, delta=delta, confidence=0.95).lower > truth
        for _ in range(audits)
    )
    assert errors <= stats.binom.isf(ALARM, audits, 0.05)


def test_draws_that_tell_everything_reach_the_ceiling_and_more_of_them_a_higher_one() -> None:
    few, many = (
        bound_from_draws(10.0 * alternating(n), alternating(n), delta=1e-3, confidence=0.95) for n in (100, 400)
    )
    assert few.lower == few.ceiling < many.lower == many.ceiling
    # The first half only chooses the threshold.
    assert (few.n, many.n) == (50, 200)


def test_the_half_that_chose_the_threshold_is_not_counted() -> None:
    """Perfect scores in the first half, coins in the second: what was selected on must prove nothing.

    Each of 40 bounds is above 0 with at most 5 %.
    """
    rng, present = np.random.default_rng(3), alternating(120)
    errors = 0
    for _ in range(40):
        scores = np.where(np.arange(120) < 60, present, rng.random(120))
        errors += bound_from_draws(scores, present, delta=0.0, confidence=0.95).lower > 0
    assert errors <= stats.binom.isf(ALARM, 40, 0.05)


def test_signals_that_name_every_member_reach_the_one_run_ceiling_and_coins_prove_nothing() -> None:
    """The bound of coins is above 0 with at most 5 %, in 60 audits."""
    rng = np.random.default_rng(0)
    members = rng.random(400) < 0.5
    perfect = one_run_bound(members + 0.01 * rng.random(400), members, delta=1e-5)
    # An eighth of the candidates is guessed, half of those as members.
    assert perfect.detail["guesses"] == perfect.detail["correct"] == 50
    assert perfect.lower == perfect.ceiling > 2
    errors = sum(one_run_bound(rng.random(400), members, delta=1e-5).lower > 0 for _ in range(60))
    assert errors <= stats.binom.isf(ALARM, 60, 0.05)


@pytest.mark.parametrize("candidates", [2, 3, 17])
def test_the_fewest_candidates_still_have_two_guesses(candidates: int) -> None:
    members = np.arange(candidates) % 2 == 0
    assert one_run_bound(members.astype(float), members, delta=0.0).detail["guesses"] in (2, 4)


@pytest.mark.parametrize(
    ("lower", "epsilon", "violated"), [(1.01, 1.0, True), (1.0, 1.0, False), (3.9, math.inf, False)]
)
def test_only_a_bound_above_the_claim_refutes_it(lower: float, epsilon: float, violated: bool) -> None:
    found = line(bound(lower), claim(epsilon))
    assert found["violated"] is violated
    assert ("REFUTED" in found["text"]) is violated
    assert claims_check([found]).passed is not violated


def test_a_bound_is_not_held_against_a_claim_about_something_else_or_none() -> None:
    other = line(bound(3.0), claim(1.0, PrivacyUnit.CLIENT), PrivacyUnit.EXAMPLE)
    replaced = line(bound(3.0), claim(1.0, adjacency=Adjacency.REPLACE_ONE))
    nothing = line(bound(3.0), None)
    for each in (other, replaced, nothing):
        assert each["ledger"] is None
        assert not each["violated"]
        assert each["lower"] == 3.0
    assert "per client, add_remove, and is not compared" in other["text"]
    assert "per client, replace_one, and is not compared" in replaced["text"]
    assert "nothing is claimed" in nothing["text"]
    assert claims_check([other, nothing]).detail == "nothing is claimed"


def test_the_check_shows_the_largest_bound_with_its_ceiling_and_names_who_refutes() -> None:
    held = [line(bound(0.3), claim(1.0)), line(bound(0.7, ceiling=2.5), claim(1.0))]
    assert claims_check(held).detail == "2 bounds, the largest 0.70 (it could have shown 2.50)"
    broken = claims_check([*held, line(bound(1.5), claim(1.0))])
    assert not broken.passed
    assert "presence on codream (dp)" in broken.detail
