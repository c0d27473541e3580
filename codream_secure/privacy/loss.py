"""Poisson-sampled Gaussians, accounted for by their privacy loss distribution (PLD) with dp-accounting.

Its Rényi accountant is not used: for neighbours of which one unit is replaced, it leaves out that a sum moves by 2 C
(google/differential-privacy, issue 378). The distributions are rounded so that epsilon is an upper bound.
"""

from __future__ import annotations

import math
from functools import lru_cache

from codream_secure.errors import PrivacyError
from codream_secure.privacy import checks
from codream_secure.privacy.statement import Adjacency

_USUAL = 1e-4
"""dp-accounting's own width of a bin of losses."""
_SMALLEST_SHARE = 1e-3
_LARGEST_RANGE = 1e5
_LARGEST_SUM = 1e6
_WIDEST = 1.0


@lru_cache(maxsize=64)
def epsilon_at(
    delta: float,
    mu: float,
    *,
    sampled: tuple[tuple[float, float, int], ...],
    adjacency: Adjacency,
) -> float:
    """Upper bound on the smallest epsilon >= 0 at ``delta``.

    Args:
        delta: in (0, 1).
        mu: what the releases without sampling add up to, stated for units that are added or removed; 0 for none.
        sampled: of every sampled release the noise multiplier z, the sample rate q and the steps.
        adjacency: which data sets are neighbours.

    Raises:
        PrivacyError: delta does not lie in (0, 1), or epsilon would be so large that the bins of losses run out.
    """
    # Imported late: it takes a second, and most uses need only the closed form.
    from dp_accounting import dp_event, pld  # type: ignore[import-untyped]
    from dp_accounting.privacy_accountant import NeighboringRelation  # type: ignore[import-untyped]

    checks.probability("delta", delta)
    relation = {
        Adjacency.ADD_REMOVE: NeighboringRelation.ADD_OR_REMOVE_ONE,
        Adjacency.REPLACE_ONE: NeighboringRelation.REPLACE_ONE,
    }[adjacency]
    accountant = pld.PLDAccountant(relation, _interval(mu, sampled, adjacency.factor))
    if mu:
        accountant.compose(dp_event.GaussianDpEvent(1 / mu))
    for noise_multiplier, sample_rate, steps in sampled:
        step = dp_event.PoissonSampledDpEvent(sample_rate, dp_event.GaussianDpEvent(noise_multiplier))
        accountant.compose(step, steps)
    return float(accountant.get_epsilon(delta))


def _interval(mu: float, sampled: tuple[tuple[float, float, int], ...], factor: int) -> float:
    """Width of the bins of losses: the usual one; narrower where the whole loss is small, and its rounding would show;
    wider where there is so little noise that the bins would fill the memory.
    """
    widest = means = 0.0
    for noise_multiplier, sample_rate, steps in (*sampled, *([(1 / mu, 1.0, 1)] if mu else [])):
        single = factor / noise_multiplier
        widest = max(widest, single**2 / 2 + 9 * single)
        drift = sample_rate * single**2 / 2
        if single < 5:
            drift = min(drift, sample_rate**2 * math.expm1(single**2))
        means += steps * drift
    usual = _USUAL * min(1.0, max(10 * math.sqrt(2 * means), _SMALLEST_SHARE))
    width = max(usual, widest / _LARGEST_RANGE, means / _LARGEST_SUM)
    if width > _WIDEST:
        raise PrivacyError(
            "so little noise in so many sampled steps cannot be accounted for: epsilon would be in the hundreds of "
            "thousands; use a larger noise multiplier or fewer steps"
        )
    return width
