"""The strongest adversary of a client-level claim: it knows all but whether one client took part.

A client-level statement says that whatever one client contributes, its presence hardly shows in the noisy sums. So fix
the contributions of a trained federation, put them through the real machines with their real noise again and again,
half of the times with the client's vectors replaced by zeros, as if it were absent, and let an adversary who knows
every vector decide which it was. It projects the sums on the client's vector, which for Gaussian noise is the best that
can be done. Its errors are independent from draw to draw, so they bound epsilon from below (Clopper-Pearson); a bound
above the ledger's epsilon refutes the claim.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from attacks.empirical import EpsilonBound, epsilon_clopper_pearson
from attacks.laboratory import asked
from attacks.public import Query
from codream_secure.accounting import sums_in_run
from codream_secure.errors import ConfigError
from codream_secure.methods.codream import CoDream
from codream_secure.privacy import PrivacyLedger, PrivacyStatement
from codream_secure.releases import NoisyReleases
from codream_secure.streams import make_terms
from protocols import Simulation

STREAM = "dream_updates"
_SUSPECT = 0


def client_level_epsilon(
    method: CoDream, query: Query, *, repeats: int, confidence: float = 0.95
) -> tuple[EpsilonBound, PrivacyStatement]:
    """Bound epsilon of the sums of dream updates of a whole run, all answering one query.

    Args:
        method: trained, with noise on its sums.
        query: the dreams that all steps are about.
        repeats: runs of the mechanism, even, half with the client; half of them choose the threshold.
        confidence: of the bound.

    Returns:
        The bound, and what the ledger says of the same sums at the configuration's delta.

    Raises:
        ConfigError: the sums have no noise, or there are none.
    """
    config = method.config
    releases = method.federation.channel.releases
    steps = sums_in_run(config).get(STREAM, 0)
    if not isinstance(releases, NoisyReleases) or not steps:
        raise ConfigError(
            f"dp.unit is {config.dp.unit!r}: only noise on sums of dream updates has a client-level audit"
        )
    account = copy.deepcopy(releases)
    # An account of this experiment alone: the run's own is spent already, and is not touched.
    old = account.ledger
    ledger = account.ledger = PrivacyLedger(
        None, old.unit, adjacency=old.adjacency, adversary=old.adversary, units=old.units, colluders=old.colluders
    )
    account.journal = None
    vectors = _contributions(method, query, account)
    size = len(vectors[_SUSPECT])
    for _ in range(steps):
        account.before_sum(STREAM, values=size)
    statement = ledger.statement(delta=config.dp.delta)
    simulation = Simulation(
        method.federation.channel.protocol, range(len(vectors)), terms=make_terms(config, account.sums)
    )
    scores = np.array(
        [_projection(simulation, account, vectors, present=bool(draw % 2), steps=steps) for draw in range(repeats)]
    )
    simulation.close()
    return bound_from_draws(
        scores, np.arange(repeats) % 2 == 1, delta=config.dp.delta, confidence=confidence
    ), statement


def bound_from_draws(
    scores: npt.NDArray[np.float64], present: npt.NDArray[np.bool_], *, delta: float, confidence: float
) -> EpsilonBound:
    """Choose a threshold on the first half of independent draws, and bound epsilon on the second."""
    half = len(scores) // 2
    first, second = scores[:half], scores[half:]
    ordered = np.unique(first)
    best, threshold = -1.0, float(np.median(first))
    # Half way between scores, so that what lies apart in this half is told apart in the other.
    for candidate in (ordered[:-1] + ordered[1:]) / 2:
        bound = _bound(first, present[:half], float(candidate), delta, confidence).lower
        if bound > best:
            best, threshold = bound, float(candidate)
    return _bound(second, present[half:], threshold, delta, confidence)


def _bound(
    scores: npt.NDArray[np.float64], present: npt.NDArray[np.bool_], threshold: float, delta: float, confidence: float
) -> EpsilonBound:
    called = scores >= threshold
    return epsilon_clopper_pearson(
        true_positives=int((called & present).sum()),
        members=int(present.sum()),
        false_positives=int((called & ~present).sum()),
        nonmembers=int((~present).sum()),
        delta=delta,
        confidence=confidence,
    )


def _contributions(method: CoDream, query: Query, account: NoisyReleases) -> dict[int, npt.NDArray[np.float64]]:
    """What each client puts into a sum about these dreams, in ring units."""
    channel = method.federation.channel
    kept, channel.releases = channel.releases, copy.deepcopy(account)
    try:
        (one,) = asked(method, [query]).sums(STREAM)
    finally:
        channel.releases = kept
    return dict(one.entered)


def _projection(
    simulation: Simulation,
    account: NoisyReleases,
    vectors: Mapping[int, npt.NDArray[np.float64]],
    *,
    present: bool,
    steps: int,
) -> float:
    """What is left of all steps' sums when the other clients' vectors are taken out, along the suspect's own."""
    own = vectors[_SUSPECT]
    entered = {
        client: vector if present or client != _SUSPECT else np.zeros_like(vector) for client, vector in vectors.items()
    }
    others = sum(vector for client, vector in vectors.items() if client != _SUSPECT)
    found = 0.0
    for _ in range(steps):
        if not simulation.steps_left:
            simulation.open()
        result = simulation.sum(entered, stream=STREAM)
        # The mean as a bound of norm 1 has it, back in ring units.
        noisy = account.mean(result, STREAM, bound=1.0) * account.sums.norms[STREAM] * account.sums.cohort.clients
        found += float((noisy - others) @ own)
    return found / float(np.linalg.norm(own))
