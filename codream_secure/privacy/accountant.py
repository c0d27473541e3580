"""From a list of releases to a statement: the accountant that covers all of them, or the reason why none does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.optimize import brentq

from codream_secure.errors import PrivacyError
from codream_secure.privacy import checks, gaussian, loss, renyi
from codream_secure.privacy.events import (
    DiscreteGaussianSum,
    ExactRelease,
    GaussianRelease,
    IntegerNoiseSum,
    Release,
    SampledGaussianRelease,
    SkellamSum,
)
from codream_secure.privacy.statement import Accountant, Adjacency, Adversary, PrivacyStatement, PrivacyUnit

_MARGIN = 1 + 1e-9
_CALIBRATION = 1e-4
_LEAST_SAMPLED_MULTIPLIER = 0.1
_LARGEST_MULTIPLIER = 1e12


def spent(
    events: Iterable[Release],
    *,
    delta: float,
    unit: PrivacyUnit,
    adjacency: Adjacency,
    adversary: Adversary,
    colluders: int = 0,
) -> PrivacyStatement:
    """What all these releases together cost at ``delta``.

    Releases compose whatever order they came in, and each may depend on what earlier ones showed; their noise and
    number must have been settled beforehand.

    Args:
        events: what is released.
        delta: in (0, 1).
        unit: whose presence is hidden.
        adjacency: which data sets are neighbours.
        adversary: against whom.
        colluders: said in the statement; events already count only the noise of the others.

    Raises:
        PrivacyError: a claim does not hold against the adversary, or no accountant covers all events.
    """
    releases = tuple(events)
    checks.probability("delta", delta)
    check_claims(releases, unit=unit, adversary=adversary)
    accountant = choose(releases)
    if accountant is Accountant.NONE:
        epsilon = math.inf if any(_touches_data(event) for event in releases) else 0.0
    elif accountant is Accountant.CLOSED_FORM:
        epsilon = gaussian.epsilon_at(delta, adjacency.factor * gaussian_mu(releases))
    elif accountant is Accountant.PLD:
        sampled = tuple((event.noise_multiplier, event.sample_rate, event.steps) for event in _sampled(releases))
        epsilon = loss.epsilon_at(delta, gaussian_mu(releases), sampled=sampled, adjacency=adjacency)
    else:
        epsilon = _renyi_epsilon(releases, delta, adjacency)
    return PrivacyStatement(
        unit=unit,
        adjacency=adjacency,
        epsilon=epsilon,
        delta=delta,
        adversary=adversary,
        accountant=accountant,
        releases=tuple(dict.fromkeys(event.name for event in releases)),
        colluders=colluders,
    )


def choose(events: Iterable[Release]) -> Accountant:
    """The accountant that covers all these events.

    Raises:
        PrivacyError: there is none; the message says why.
    """
    private = [event for event in events if _touches_data(event)]
    if not private or any(isinstance(event, ExactRelease) for event in private):
        return Accountant.NONE
    sampled = _sampled(private)
    whole_noise = [event for event in private if isinstance(event, IntegerNoiseSum)]
    if sampled and whole_noise:
        raise PrivacyError(
            f"no accountant covers both {sampled[0].name!r}, a sampled Gaussian (PLD), and {whole_noise[0].name!r}, a "
            "sum with integer noise (RDP): keep a ledger for each, and add up both their epsilons and their deltas"
        )
    if sampled:
        return Accountant.PLD
    return Accountant.RDP if whole_noise else Accountant.CLOSED_FORM


def check_claims(events: Iterable[Release], *, unit: PrivacyUnit, adversary: Adversary) -> None:
    """Refuse what the adversary's view makes untrue.

    Raises:
        PrivacyError: sampling is said to hide clients from somebody who sees them, or the noise of many clients a
            message that is seen alone.
    """
    for event in events:
        if isinstance(event, SampledGaussianRelease) and event.sample_rate < 1 and unit is not PrivacyUnit.EXAMPLE:
            if unit is PrivacyUnit.LOCAL:
                raise PrivacyError(
                    f"release {event.name!r} claims amplification by sampling (sample_rate {event.sample_rate}) for "
                    "the unit local: a message that was sent is seen whatever was not sent; use sample_rate 1"
                )
            if adversary.sees_cohort:
                raise PrivacyError(
                    f"release {event.name!r} claims amplification by sampling clients (sample_rate "
                    f"{event.sample_rate}) against a {adversary.value}: whoever sees the cohort gains nothing from its "
                    "having been sampled; use sample_rate 1, or state an adversary that does not see it"
                )
        if isinstance(event, IntegerNoiseSum) and event.clients > 1:
            if unit is PrivacyUnit.LOCAL:
                raise PrivacyError(
                    f"release {event.name!r} counts the noise of {event.clients} clients for the unit local: a message "
                    "alone holds the noise of its sender; use clients 1"
                )
            if adversary.sees_messages:
                raise PrivacyError(
                    f"release {event.name!r} counts the noise of {event.clients} clients against a {adversary.value}: "
                    "each message alone holds the noise of its sender; use clients 1, or sum under a protection"
                )


def gaussian_mu(events: Iterable[Release]) -> float:
    """mu = sqrt(sum of count / z^2) over the Gaussians without sampling, for units that are added or removed."""
    parts = []
    for event in events:
        if isinstance(event, GaussianRelease):
            parts.append(event.count * (1 / event.noise_multiplier) ** 2)
        elif isinstance(event, SampledGaussianRelease) and event.sample_rate == 1:
            parts.append(event.steps * (1 / event.noise_multiplier) ** 2)
    return math.sqrt(math.fsum(parts))


def noise_multiplier_for(
    epsilon: float,
    delta: float,
    *,
    count: int,
    adjacency: Adjacency = Adjacency.ADD_REMOVE,
    sample_rate: float = 1.0,
    beside: float = 0.0,
) -> float:
    """The least noise multiplier z, against C, with which ``count`` sums cost at most ``epsilon`` at ``delta``.

    ``beside`` is mu = sqrt(sum of count / z^2) of Gaussian releases without sampling that the same budget has to cover.

    Without sampling it is exact and rounded up by 1e-9 of itself, so that rounding never takes a ledger over its
    budget. With sampling it is found by trial, to about 1e-4 of itself, always on the side of more noise,
    and never below 0.1.

    Raises:
        PrivacyError: an argument is out of range, or no usable multiplier is large enough.
    """
    checks.whole("count", count)
    whole = gaussian.mu_at(epsilon, delta)
    taken = adjacency.factor * beside
    if taken < 0 or (taken and taken >= whole):
        raise PrivacyError(
            f"beside is {beside}: epsilon {epsilon} at delta {delta} allows below {whole / adjacency.factor:g} in all, "
            "and something has to be left"
        )
    mu = math.sqrt(whole**2 - taken**2)
    largest = adjacency.factor * math.sqrt(count) / mu * _MARGIN if mu else math.inf
    if largest > _LARGEST_MULTIPLIER:
        raise PrivacyError(
            f"epsilon {epsilon} at delta {delta} over {count} steps needs a noise multiplier above "
            f"{_LARGEST_MULTIPLIER:g}: allow a larger epsilon or fewer steps"
        )
    # The event's own checks, before any work is done.
    SampledGaussianRelease("calibration", 1.0, sample_rate=sample_rate, steps=count)
    if sample_rate == 1:
        return largest
    return _calibrated(
        epsilon, delta, count=count, adjacency=adjacency, sample_rate=sample_rate, beside=beside, left=mu
    )


def _calibrated(
    epsilon: float, delta: float, *, count: int, adjacency: Adjacency, sample_rate: float, beside: float, left: float
) -> float:
    def excess(log_multiplier: float) -> float:
        sampled = ((math.exp(log_multiplier), sample_rate, count),)
        found = loss.epsilon_at(delta, beside, sampled=sampled, adjacency=adjacency)
        return math.log(max(found, epsilon / 100) / epsilon)

    # Many small steps are about Gaussian with mu = q sqrt(T (exp(factor^2 / z^2) - 1)): a good place to start from.
    share = left / (sample_rate * math.sqrt(count))
    floor = math.log(_LEAST_SAMPLED_MULTIPLIER)
    low = high = max(floor, math.log(adjacency.factor / math.sqrt(math.log1p(share**2))))
    stride = 0.1
    while excess(high) > 0:
        low, high, stride = high, high + stride, 2 * stride
    stride = 0.1
    while excess(low) <= 0:
        if low == floor:
            return _LEAST_SAMPLED_MULTIPLIER
        low, high, stride = max(floor, low - stride), low, 2 * stride
    found = float(brentq(excess, low, high, xtol=_CALIBRATION)) + _CALIBRATION
    while excess(found) > 0:
        found += _CALIBRATION
    return math.exp(found)


def _renyi_epsilon(events: Sequence[Release], delta: float, adjacency: Adjacency) -> float:
    skellam = any(isinstance(event, SkellamSum) for event in events)
    orders = renyi.WHOLE_ORDERS if skellam else renyi.ORDERS
    factor = adjacency.factor
    total = renyi.gaussian_rdp(factor * gaussian_mu(events), orders)
    for event in events:
        if isinstance(event, DiscreteGaussianSum):
            concentration = renyi.discrete_gaussian_concentration(
                sigma=event.sigma,
                clients=event.clients,
                sensitivity=factor * event.sensitivity,
                dimension=event.dimension,
            )
            total = total + event.count * renyi.discrete_gaussian_rdp(concentration, orders)
        elif isinstance(event, SkellamSum):
            single = renyi.skellam_rdp(
                variance=event.clients * event.variance,
                l1=factor * renyi.integer_l1(event.sensitivity, event.dimension),
                l2=factor * event.sensitivity,
                orders=orders,
            )
            total = total + event.count * single
    return renyi.epsilon_at(delta, np.asarray(total, dtype=np.float64), orders)


def _sampled(events: Iterable[Release]) -> list[SampledGaussianRelease]:
    return [event for event in events if isinstance(event, SampledGaussianRelease) and event.sample_rate < 1]


def _touches_data(event: Release) -> bool:
    return not isinstance(event, ExactRelease) or event.private_data
