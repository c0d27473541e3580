"""Epsilon from many canaries in one run.

Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1) Training Run".

Each of m canaries is IN by a fair coin of its own. The attack guesses for r of them and abstains from the others; v
guesses are right. The guesses may use all that the run gave away, and nothing else that depends on the coins: scores
against references of a *balanced* design have seen trials whose memberships complement the target's, so that a strict
audit takes references of its own, or none (the global threshold).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln, log_expit

from attacks.empirical.bound import EpsilonBound, checked_claim, largest_rejected

METHOD = "one run"


def p_value(canaries: int, guesses: int, correct: int, *, epsilon: float, delta: float) -> float:
    """An upper bound on the chance of so many correct guesses under (epsilon, delta)-DP.

    With q = e^eps / (1 + e^eps), beta = P[Bin(r, q) >= v]:
    p = beta + 2 m delta max_{1 <= i <= v} (1/i) P[v > Bin(r, q) >= v - i].

    Args:
        canaries: m, 1 or more.
        guesses: r, 1 to m.
        correct: v, 0 to r.
        epsilon: 0 or more.
        delta: in [0, 1).

    Returns:
        In [0, 1].

    Raises:
        ValueError: an argument is out of range.
    """
    check_counts(canaries, guesses, correct)
    delta, _ = checked_claim(delta, 0.95)
    if epsilon < 0:
        raise ValueError(f"epsilon is {epsilon}: give 0 or more")
    return _p_value(_log_choose(guesses), canaries, correct, epsilon, delta)


def epsilon_one_run(
    canaries: int, guesses: int, correct: int, *, delta: float, confidence: float = 0.95
) -> EpsilonBound:
    """The largest epsilon that the counts reject.

    The number of guesses must have been fixed before the coins were looked at.

    Args:
        canaries: m, 1 or more.
        guesses: r, 1 to m.
        correct: v, 0 to r.
        delta: of the claim, in [0, 1).
        confidence: 1 - alpha.

    Raises:
        ValueError: an argument is out of range.

    >>> round(epsilon_one_run(1000, 100, 95, delta=1e-5).lower, 4)
    2.1652
    """
    check_counts(canaries, guesses, correct)
    delta, confidence = checked_claim(delta, confidence)
    return EpsilonBound(
        lower=_epsilon(canaries, guesses, correct, delta, 1 - confidence),
        ceiling=_epsilon(canaries, guesses, guesses, delta, 1 - confidence),
        confidence=confidence,
        method=METHOD,
        n=canaries,
        detail={"canaries": canaries, "guesses": guesses, "correct": correct, "delta": delta},
    )


def ceiling_one_run(canaries: int, *, delta: float = 0.0, confidence: float = 0.95) -> float:
    """What a perfect attack proves that guesses for all canaries.

    Raises:
        ValueError: an argument is out of range.

    >>> [round(ceiling_one_run(2 * n, delta=1e-5), 2) for n in (50, 100, 1000)]
    [3.49, 4.19, 6.45]
    """
    return epsilon_one_run(canaries, canaries, canaries, delta=delta, confidence=confidence).lower


def audit_one_run(
    scores: np.ndarray,
    members: np.ndarray,
    *,
    guesses: int | Sequence[int],
    delta: float,
    confidence: float = 0.95,
) -> EpsilonBound:
    """Guess IN for the highest scores and OUT for the lowest, as many of each, and bound epsilon.

    Args:
        scores: (m,) float, the larger the likelier IN; from the target's run alone.
        members: (m,) bool, the coins.
        guesses: r, even; fixed beforehand. Of several, the best is taken and alpha is shared among them (Bonferroni).
        delta: of the claim.
        confidence: 1 - alpha.

    Returns:
        The best bound, with the ceiling of its r at the same share of alpha.

    Raises:
        ValueError: shapes differ, a score is not finite, or a number of guesses is odd or out of range.
    """
    counts = correct_guesses(scores, members, guesses=guesses)
    delta, confidence = checked_claim(delta, confidence)
    each = 1 - (1 - confidence) / len(counts)
    bounds = [
        epsilon_one_run(len(members), chosen, correct, delta=delta, confidence=each)
        for chosen, correct in counts.items()
    ]
    best = max(bounds, key=lambda bound: bound.lower)
    return EpsilonBound(
        lower=best.lower,
        ceiling=best.ceiling,
        confidence=confidence,
        method=METHOD if len(counts) == 1 else f"{METHOD}, best of {len(counts)} numbers of guesses (Bonferroni)",
        n=best.n,
        detail=best.detail,
    )


def correct_guesses(scores: np.ndarray, members: np.ndarray, *, guesses: int | Sequence[int]) -> dict[int, int]:
    """How many of r guesses are right, for each r: IN for the r/2 highest scores, OUT for the r/2 lowest.

    Args:
        scores: as for :func:`audit_one_run`, with the rest. Among equal scores, the order of the canaries decides.

    Raises:
        ValueError: as for :func:`audit_one_run`.
    """
    values, inside = np.asarray(scores, dtype=np.float64), np.asarray(members)
    if values.ndim != 1 or values.shape != inside.shape or inside.dtype != bool:
        raise ValueError(f"scores has shape {values.shape}, members {inside.shape} {inside.dtype}: give (m,), and bool")
    if not np.isfinite(values).all():
        raise ValueError("scores has a value that is not finite: score every canary")
    chosen = [guesses] if isinstance(guesses, int) else list(dict.fromkeys(guesses))
    if not chosen or any(r < 2 or r > len(values) or r % 2 for r in chosen):
        raise ValueError(f"guesses is {guesses}: give even numbers, 2 to {len(values)}")
    order = np.argsort(values, kind="stable")
    return {r: int(inside[order[-(r // 2) :]].sum() + (~inside[order[: r // 2]]).sum()) for r in chosen}


def _epsilon(canaries: int, guesses: int, correct: int, delta: float, alpha: float) -> float:
    log_choose = _log_choose(guesses)
    return largest_rejected(lambda epsilon: _p_value(log_choose, canaries, correct, epsilon, delta) < alpha)


def _p_value(log_choose: np.ndarray, canaries: int, correct: int, epsilon: float, delta: float) -> float:
    """In logarithms, so that q next to 1 and many thousands of guesses lose nothing."""
    right = np.arange(len(log_choose))
    log_mass = log_choose + right * log_expit(epsilon) + right[::-1] * log_expit(-epsilon)
    most = float(log_mass[correct:].max())
    p = math.exp(most) * float(np.exp(log_mass[correct:] - most).sum())
    if delta > 0 and correct > 0:
        below = np.cumsum(np.exp(log_mass[:correct][::-1]))  # P[v > Bin >= v - i] for i = 1 to v
        p += 2 * canaries * delta * float(np.max(below / np.arange(1, correct + 1)))
    return min(p, 1.0)


def _log_choose(trials: int) -> np.ndarray:
    """(trials + 1,) logarithms of the binomial coefficients."""
    successes = np.arange(trials + 1)
    return np.asarray(gammaln(trials + 1) - gammaln(successes + 1) - gammaln(trials - successes + 1))


def check_counts(canaries: int, guesses: int, correct: int) -> None:
    """Refuse counts that cannot be.

    Raises:
        ValueError: not 1 <= guesses <= canaries, or not 0 <= correct <= guesses.
    """
    if canaries < 1:
        raise ValueError(f"canaries is {canaries}: give 1 or more")
    if not 1 <= guesses <= canaries:
        raise ValueError(f"guesses is {guesses} for {canaries} canaries: give 1 to that many")
    if not 0 <= correct <= guesses:
        raise ValueError(f"correct is {correct} of {guesses} guesses: give 0 to that many")
