"""The one-run audit of a mechanism whose trade-off curve is Gaussian (Mahloujifar, Melis and Chaudhuri 2024).

The same game as :mod:`attacks.empirical.one_run`, but the hypothesis is mu-Gaussian differential privacy (Dong, Roth
and Su 2019) instead of one point of its curve. It is the tighter bound where noise is Gaussian, as in DP-SGD without
sampling or in sums with Gaussian noise; for any other mechanism, epsilon as given here means nothing, and the bound of
Steinke et al. holds. The tests play the game with Gaussian mechanisms: no true mu is exceeded more often than
1 - confidence.
"""

from __future__ import annotations

import math

from scipy.special import log_ndtr, ndtr, ndtri

from attacks.empirical.bound import EpsilonBound, checked_claim, largest_rejected
from attacks.empirical.one_run import check_counts

METHOD = "one run, Gaussian trade-off curve assumed"
MOST_MU = 40.0


def rejects_gaussian(canaries: int, guesses: int, correct: int, *, mu: float, alpha: float) -> bool:
    """Whether so many correct guesses have a chance below ``alpha`` under mu-GDP.

    The recursion follows what the trade-off curve allows: h, the probability of wrong guesses beside more than i right
    ones, is at least the curve's share of r, the probability of right ones; both grow until they exceed what there is.

    Args:
        canaries: m, 1 or more.
        guesses: c', 1 to m.
        correct: c, 0 to c'.
        mu: above 0.
        alpha: in (0, 1).

    Raises:
        ValueError: an argument is out of range.
    """
    check_counts(canaries, guesses, correct)
    if mu <= 0 or not 0 < alpha < 1:
        raise ValueError(f"mu is {mu} and alpha {alpha}: give mu above 0, and a probability")
    total = guesses / canaries
    right = alpha * total * correct / guesses
    wrong = alpha * total * (guesses - correct) / guesses
    for i in range(correct - 1, -1, -1):
        least = max(wrong, float(ndtr(ndtri(right) - mu)))
        right += i / (guesses - i) * (least - wrong)
        wrong = least
        if right + wrong > total:
            return True
    return False


def epsilon_gaussian(
    canaries: int, guesses: int, correct: int, *, delta: float, confidence: float = 0.95
) -> EpsilonBound:
    """The epsilon at ``delta`` of the largest mu that the counts reject.

    Args:
        canaries: m, 1 or more.
        guesses: c', 1 to m; fixed before the coins were looked at.
        correct: c, 0 to c'.
        delta: of the claim, in (0, 1).
        confidence: 1 - alpha.

    Raises:
        ValueError: an argument is out of range; delta of 0 too, at which no Gaussian mechanism has an epsilon.
    """
    delta, confidence = checked_claim(delta, confidence)
    if delta == 0:
        raise ValueError("delta is 0: a Gaussian mechanism has no epsilon there; give one above 0")
    lower, ceiling = (_mu(canaries, guesses, right, 1 - confidence) for right in (correct, guesses))
    return EpsilonBound(
        lower=gaussian_epsilon(lower, delta=delta),
        ceiling=gaussian_epsilon(ceiling, delta=delta),
        confidence=confidence,
        method=METHOD,
        n=canaries,
        detail={"canaries": canaries, "guesses": guesses, "correct": correct, "delta": delta, "mu": lower},
    )


def gaussian_epsilon(mu: float, *, delta: float) -> float:
    """The smallest epsilon of mu-GDP at delta (Dong, Roth and Su 2019); 0 for a mu of 0."""
    if mu <= 0:
        return 0.0
    most = mu * (mu / 2 + 40)
    return largest_rejected(lambda epsilon: _delta(mu, epsilon) > delta, most=most)


def _delta(mu: float, epsilon: float) -> float:
    return float(ndtr(mu / 2 - epsilon / mu)) - math.exp(epsilon + float(log_ndtr(-mu / 2 - epsilon / mu)))


def _mu(canaries: int, guesses: int, correct: int, alpha: float) -> float:
    def rejected(mu: float) -> bool:
        return rejects_gaussian(canaries, guesses, correct, mu=max(mu, 1e-12), alpha=alpha)

    return largest_rejected(rejected, most=MOST_MU)
