"""Which sums a run will take, and the account that they go to."""

from __future__ import annotations

from codream_secure.config import Config
from codream_secure.privacy import Adjacency, Adversary, Budget, PrivacyLedger, PrivacyUnit, Signal, signal
from codream_secure.privacy.ledger import check_delta
from codream_secure.privacy.planning import Cohort, NoisySums, PlannedSums, plan_noisy_sums
from codream_secure.releases import DerivedReleases, NoisyReleases, OpenReleases, Releases
from protocols import make_protocol
from protocols.graph import survivors_needed

FROM_DREAMERS = frozenset({"dream_updates", "soft_labels"})
"""What clients compute with nothing but their dreamers."""


def sums_in_round(config: Config, number: int) -> dict[str, int]:
    """How many sums of each stream round ``number`` takes, if none has to be repeated; round 0 is the warm-up.

    Streams without sums are left out.
    """
    every, last = config.run.evaluate_every, config.run.rounds
    found = {"evaluation": int(number % every == 0 or number == last)}
    if config.method == "fedavg":
        found["weights"] = 1
    if config.method == "codream" and number:
        dreaming = config.dreaming
        found |= {
            "dream_updates": dreaming.batches * dreaming.steps if dreaming.collaborative else 0,
            "dreams": 0 if dreaming.collaborative else dreaming.batches,
            "soft_labels": dreaming.batches * (1 + dreaming.label_midway) if dreaming.labels != "classes" else 0,
        }
        if number % config.distillation.every == 0 and dreaming.labels != "classes":
            found["soft_labels"] += config.distillation.cutmix + (config.distillation.relabel and number > 1)
    return {stream: count for stream, count in found.items() if count}


def sums_in_run(config: Config) -> dict[str, int]:
    """The sums of all rounds, stream by stream."""
    total: dict[str, int] = {}
    for number in range(config.run.rounds + 1):
        for stream, count in sums_in_round(config, number).items():
            total[stream] = total.get(stream, 0) + count
    return total


def make_releases(config: Config, *, coordinates: int, classes: int, examples: int) -> Releases:
    """How values of this run's clients may leave them.

    Args:
        config: the run.
        coordinates: of one dream, in the space where it is optimised.
        classes: length of one soft label.
        examples: how many images all clients have together.

    Raises:
        PrivacyError: delta is too large, or the noise that the budget asks for has no room.
        protocols.TermsError: with so many dropouts and colluders, nobody's noise is sure to be there.
    """
    dp = config.dp
    if not dp.on:
        return OpenReleases()
    unit, cohort, adversary = PrivacyUnit(dp.unit), _cohort(config), _adversary(config)
    ledger = PrivacyLedger(
        None if dp.epsilon is None else Budget(dp.epsilon, dp.delta),
        unit,
        adjacency=Adjacency(dp.neighbours),
        adversary=adversary,
        units=examples if unit is PrivacyUnit.EXAMPLE else config.data.clients,
        colluders=_with_adversary(adversary, cohort) if unit is PrivacyUnit.CLIENT else 0,
    )
    check_delta(dp.delta, units=ledger.units)
    if unit is PrivacyUnit.EXAMPLE:
        return DerivedReleases(ledger, FROM_DREAMERS)
    planned = _planned(config, coordinates=coordinates, classes=classes)
    if not planned:
        return DerivedReleases(ledger, frozenset())
    sums = plan_noisy_sums(
        planned,
        mechanism=dp.mechanism,
        cohort=cohort,
        unit=unit,
        adjacency=ledger.adjacency,
        adversary=ledger.adversary,
        budget=ledger.budget,
        noise_multiplier=dp.noise_multiplier,
    )
    return NoisyReleases(
        ledger,
        sums,
        normalise=frozenset({"dream_updates"} if dp.bounding == "normalise" else ()),
        largest={each.stream: each.values for each in planned},
        signal=_signal(planned, sums, unit),
    )


def _planned(config: Config, *, coordinates: int, classes: int) -> list[PlannedSums]:
    """The streams that get noise, dream updates first if there are any."""
    dp, dreaming, counts = config.dp, config.dreaming, sums_in_run(config)
    stored = min(
        max(config.distillation.buffer, dreaming.images),
        dreaming.images * dreaming.batches * config.run.rounds * (1 + dreaming.label_midway),
    )
    shares = {
        "dream_updates": (dreaming.images * coordinates, 1 - dp.label_share - dp.evaluation_share),
        "soft_labels": (stored * classes, dp.label_share),
        "evaluation": (1, dp.evaluation_share),
    }
    # Shares are relative: what a stream without sums does not need is there for the others.
    return [
        PlannedSums(stream=stream, count=counts[stream], values=values, share=share)
        for stream, (values, share) in shares.items()
        if counts.get(stream) and share
    ]


def _cohort(config: Config) -> Cohort:
    dp, clients = config.dp, config.data.clients
    if dp.by_server(config.protocol.protection):
        return Cohort(clients=clients, by_server=True)
    dropouts = clients - survivors_needed(clients, config.protocol.dropout)
    if dp.unit == "local":
        return Cohort(clients=clients, dropouts=dropouts, colluders=clients - dropouts - 1)
    return Cohort(clients=clients, dropouts=dropouts, colluders=dp.colluders)


def _adversary(config: Config) -> Adversary:
    dp, protection = config.dp, config.protocol.protection
    if not dp.noise_on_sums or dp.unit == "local":
        return Adversary.SERVER
    if dp.by_server(protection):
        return Adversary.RECIPIENT
    if make_protocol(protection).opened_by == "clients":
        return Adversary.SUM_CLIENT
    return Adversary.SUM_SERVER


def _with_adversary(adversary: Adversary, cohort: Cohort) -> int:
    """How many other clients may work with it: a client that opens sums is one of the colluders itself."""
    return cohort.colluders - (adversary is Adversary.SUM_CLIENT)


def _signal(planned: list[PlannedSums], sums: NoisySums, unit: PrivacyUnit) -> Signal | None:
    dreams = planned[0]
    if dreams.stream != "dream_updates":
        return None
    mu = dreams.count**0.5 / sums.multiplier(dreams.stream)
    return signal(mu, clients=sums.cohort.clients, dimension=dreams.values, unit=unit)
