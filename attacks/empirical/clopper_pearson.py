"""Epsilon from the error rates of an attack over many independent trials (Jagielski, Ullman and Oprea 2020)."""

from __future__ import annotations

import math

from attacks.empirical.bound import EpsilonBound, checked_claim
from attacks.estimates import clopper_pearson

METHOD = "Clopper-Pearson"


def epsilon_clopper_pearson(
    *,
    true_positives: int,
    members: int,
    false_positives: int,
    nonmembers: int,
    delta: float,
    confidence: float = 0.95,
) -> EpsilonBound:
    """max{0, ln((1 - FNR+ - delta) / FPR+), ln((1 - FPR+ - delta) / FNR+)} with upper limits of both error rates.

    Each limit holds with probability 1 - alpha/2, so that both do with 1 - alpha. The counts must come from independent
    trials, and from a rule that was fixed before: a threshold chosen on other scores
    (:func:`attacks.membership.threshold_at`), or the bound is not one. Candidates of one model are not independent
    trials in general.

    Args:
        true_positives: members that the attack called members.
        members: how many there were, 1 or more.
        false_positives: non-members that it called members.
        nonmembers: how many there were, 1 or more.
        delta: of the claim, in [0, 1).
        confidence: 1 - alpha.

    Raises:
        ValueError: a count or a probability is out of range.
    """
    delta, confidence = checked_claim(delta, confidence)
    for name, count, most in (
        ("true_positives", true_positives, members),
        ("false_positives", false_positives, nonmembers),
    ):
        if most < 1 or not 0 <= count <= most:
            raise ValueError(f"{name} is {count} of {most}: give 0 to that many, of 1 or more")
    lower = _epsilon(members - true_positives, members, false_positives, nonmembers, delta, confidence)
    return EpsilonBound(
        lower=lower,
        ceiling=_epsilon(0, members, 0, nonmembers, delta, confidence),
        confidence=confidence,
        method=METHOD,
        n=members + nonmembers,
        detail={
            "true_positives": true_positives,
            "members": members,
            "false_positives": false_positives,
            "nonmembers": nonmembers,
            "delta": delta,
        },
    )


def ceiling_clopper_pearson(n_per_side: int, *, delta: float = 0.0, confidence: float = 0.95) -> float:
    """What a perfect attack proves with so many members and as many non-members.

    Raises:
        ValueError: an argument is out of range.

    >>> [round(ceiling_clopper_pearson(n), 2) for n in (50, 100, 1000)]
    [2.57, 3.28, 5.6]
    """
    delta, confidence = checked_claim(delta, confidence)
    if n_per_side < 1:
        raise ValueError(f"n_per_side is {n_per_side}: give 1 or more")
    return _epsilon(0, n_per_side, 0, n_per_side, delta, confidence)


def _epsilon(missed: int, members: int, wrong: int, nonmembers: int, delta: float, confidence: float) -> float:
    # A two-sided interval at this confidence errs with alpha/2 on its upper side.
    miss = clopper_pearson(missed, members, confidence=confidence)[1]
    alarm = clopper_pearson(wrong, nonmembers, confidence=confidence)[1]
    return max(0.0, _log_ratio(1 - miss - delta, alarm), _log_ratio(1 - alarm - delta, miss))


def _log_ratio(numerator: float, denominator: float) -> float:
    return math.log(numerator / denominator) if numerator > 0 else -math.inf
