r"""Composed Gaussian mechanisms without sampling, in closed form.

T sums with noise multiplier z are as private as one with z / sqrt(T): what counts is mu, where mu^2 is the sum of
T / z^2 over all releases. Then (Balle and Wang 2018, theorem 8; Dong, Roth and Su 2022, corollary 2.13)

    delta(epsilon) = Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu),

which is exact: no tighter statement is true, and no looser one is needed. Pure functions of floats.
"""

from __future__ import annotations

import math

from scipy.special import erfcx, ndtr

from codream_secure.privacy import checks

_STEPS = 200
"""Halvings of an interval of floats: more than there are bits to settle."""
_TOLERANCE = 1e-14
_ERFCX_RANGE = 5.0
"""a up to which the first term is written as a scaled tail; far above, that would overflow."""


def log_delta(epsilon: float, mu: float) -> float:
    """Natural logarithm of delta at ``epsilon >= 0`` for ``mu > 0``; minus infinity where mu is tiny beside it.

    The two terms share the factor ``exp(-a^2 / 2)``, a = mu / 2 - epsilon / mu. Written with scaled
    tails, erfcx, it is taken out before they are subtracted: neither underflows, and ``e^epsilon`` never appears.
    """
    a = mu / 2 - epsilon / mu
    b = -mu / 2 - epsilon / mu
    if a < _ERFCX_RANGE:
        difference = float(erfcx(-a / math.sqrt(2)) - erfcx(-b / math.sqrt(2)))
        return -a * a / 2 - math.log(2) + math.log(difference) if difference > 0 else -math.inf
    # Here the first term is almost 1, and the second a tiny share of it.
    second = -a * a / 2 - math.log(2) + math.log(float(erfcx(-b / math.sqrt(2))))
    return math.log(float(ndtr(a)) - math.exp(second))


def epsilon_at(delta: float, mu: float) -> float:
    """The smallest epsilon >= 0 with ``delta(epsilon) <= delta``, rounded up; mu >= 0.

    Raises:
        PrivacyError: delta does not lie in (0, 1).
    """
    target = math.log(checks.probability("delta", delta))
    if mu == 0 or log_delta(0.0, mu) <= target:
        return 0.0
    if math.isinf(mu * mu):
        return math.inf
    # A standard deviation's tail of exp(-x^2 / 2) bounds the loss, which is normal about mu^2 / 2 with deviation mu.
    low, high = 0.0, mu * mu / 2 + mu * math.sqrt(-2 * target)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if high - low <= _TOLERANCE * high:
            break
        if log_delta(middle, mu) <= target:
            high = middle
        else:
            low = middle
    return high


def mu_at(epsilon: float, delta: float) -> float:
    """The largest mu that is (epsilon, delta)-private, rounded down; epsilon > 0.

    Raises:
        PrivacyError: epsilon is not above 0, or delta does not lie in (0, 1).
    """
    epsilon = checks.positive("epsilon", epsilon)
    target = math.log(checks.probability("delta", delta))
    low, high = 0.0, 1.0
    while log_delta(epsilon, high) <= target:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if high - low <= _TOLERANCE * high:
            break
        if log_delta(epsilon, middle) <= target:
            low = middle
        else:
            high = middle
    return low
