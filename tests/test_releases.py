"""Sums with noise over the channel: what is accounted for, what is in them, and what never leaves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from codream_secure.accounting import make_releases
from codream_secure.channel import Channel
from codream_secure.config import Config, make_config
from codream_secure.errors import BudgetExceededError, PrivacyError
from codream_secure.faults import FaultRates, FaultyNetwork
from codream_secure.privacy import Adjacency, Adversary
from codream_secure.releases import NoisyReleases, OpenReleases
from codream_secure.streams import make_terms
from protocols import make_protocol

CLIENTS = 6
COORDINATES = 16
IMAGES = 32
BASE = (
    f"data.clients={CLIENTS}",
    f"dreaming.images={IMAGES}",
    "dreaming.labels=probabilities",
    "dreaming.steps=5",
    "run.rounds=2",
    "dp.unit=client",
    "dp.delta=1e-3",
    "protocol.dropout=0",
)


def settings(*overrides: str) -> Config:
    budget = () if any("noise_multiplier" in each for each in overrides) else ("dp.epsilon=4",)
    return make_config({}, [*BASE, *budget, *overrides])


def channel(config: Config, *, rates: FaultRates | None = None) -> Channel:
    releases = make_releases(config, coordinates=COORDINATES, classes=10, examples=60)
    noisy = releases.sums if isinstance(releases, NoisyReleases) else None
    return Channel(
        make_protocol(config.protocol.protection),
        CLIENTS,
        terms=make_terms(config, noisy),
        network=FaultyNetwork(0, rates) if rates else None,
        releases=releases,
    )


def updates(scale: float = 1.0, *, clients: int = CLIENTS, shape: tuple[int, ...] = (IMAGES, COORDINATES)) -> Any:
    generator = torch.Generator().manual_seed(3)
    return {k: [scale * torch.randn(shape, generator=generator)] for k in range(clients)}


def noisy(link: Channel) -> NoisyReleases:
    assert isinstance(link.releases, NoisyReleases)
    return link.releases


@pytest.mark.parametrize(
    ("protection", "adversary"),
    [("plain", Adversary.RECIPIENT), ("masked", Adversary.SUM_SERVER), ("bfv", Adversary.SUM_CLIENT)],
)
def test_noise_of_the_planned_size_is_in_every_sum_and_in_the_account(protection: str, adversary: Adversary) -> None:
    """Variance over 512 coordinates, standard error 6 %: six deviations, false alarms below 1e-8."""
    link = channel(settings(f"protocol.protection={protection}"))
    sent = updates()
    link.begin_round(1)
    if link.opened_by_clients:
        found = link.mean_at_clients(sent, phase="dream_updates", held={}, bound=1.0)
        assert all(torch.equal(found[0][0], found[k][0]) for k in found)
        (mean,) = found[0]
    else:
        (mean,) = link.mean(sent, phase="dream_updates", bound=1.0)
    exact = sum(parts[0] / parts[0].norm() for parts in sent.values()) / CLIENTS
    sums = noisy(link).sums
    # All clients' noise is there, of which all but the planned dropouts and colluders make up the multiplier.
    present = sums.noise.clients / sums.noise.honest
    planned = sums.multiplier("dream_updates") * math.sqrt(present) / CLIENTS
    assert (mean - exact).square().mean().item() == pytest.approx(planned**2, rel=6 * math.sqrt(2 / 512))
    ledger = noisy(link).ledger
    assert ledger.adversary is adversary
    (event,) = ledger.events
    assert (event.name, event.count) == ("dream_updates", 1)  # type: ignore[attr-defined]
    assert event == sums.event("dream_updates", values=IMAGES * COORDINATES)


def test_single_messages_of_a_local_unit_carry_all_noise() -> None:
    link = channel(settings("dp.unit=local"))
    sums = noisy(link).sums
    assert sums.noise.client_variance == sums.noise.variance
    assert noisy(link).ledger.adversary is Adversary.SERVER
    link.begin_round(1)
    (mean,) = link.mean(updates(0.0), phase="dream_updates", bound=1.0)
    planned = sums.multiplier("dream_updates") / math.sqrt(CLIENTS)
    assert mean.square().mean().item() == pytest.approx(planned**2, rel=6 * math.sqrt(2 / 512))


def test_a_contribution_a_thousand_times_too_long_moves_a_sum_no_further() -> None:
    """The sensitivity that is accounted for, in integers, for both ways to bound."""
    for bounding in ("normalise", "clip"):
        releases = noisy(channel(settings(f"dp.bounding={bounding}", "dp.clip=2")))
        encoding = releases.sums.encoding("dream_updates")
        for scale in (1e-3, 1.0, 1e3, 1e30):
            vector = (scale * np.random.default_rng(0).standard_normal(IMAGES * COORDINATES)).astype(np.float32)
            ready = releases.contribution(vector, "dream_updates", bound=2.0)
            squared = sum(int(value) ** 2 for value in encoding.encode(ready).ring.view(np.int32))
            assert squared <= releases.sums.norms["dream_updates"] ** 2
            if bounding == "normalise" or scale > 1:
                assert squared > 0.999 * releases.sums.norms["dream_updates"] ** 2


def test_a_zero_contribution_stays_zero() -> None:
    releases = noisy(channel(settings()))
    assert not releases.contribution(np.zeros(9, dtype=np.float32), "dream_updates", bound=1.0).any()


def test_the_denominator_is_fixed() -> None:
    """A mean over survivors would move by more than the sensitivity when one is missing."""
    link = channel(settings("dp.noise_multiplier=1e-3", "protocol.dropout=0.7"))
    link.begin_round(1)
    vector = torch.zeros(IMAGES, COORDINATES)
    vector[0, 0] = 1.0
    few = {k: [vector] for k in range(2)}
    (mean,) = link.mean(few, phase="dream_updates", bound=1.0)
    assert mean[0, 0].item() == pytest.approx(2 / CLIENTS, abs=1e-2)


def test_the_budget_is_enforced_before_a_sum_is_taken() -> None:
    link = channel(settings("dreaming.steps=2", "run.rounds=1", "distillation.cutmix=0"))
    link.begin_round(1)
    for _ in range(2):
        link.mean(updates(), phase="dream_updates", bound=1.0)
    link.mean(updates(shape=(IMAGES, 10)), phase="soft_labels", bound=1.0)
    before = (link.ledger.client_total(0), noisy(link).ledger.events)
    with pytest.raises(BudgetExceededError, match="dream_updates"):
        link.mean(updates(), phase="dream_updates", bound=1.0)
    assert (link.ledger.client_total(0), noisy(link).ledger.events) == before
    assert noisy(link).ledger.statement().epsilon <= 4


def test_a_sum_that_is_asked_for_again_is_accounted_for_again() -> None:
    config = settings("protocol.protection=masked", "protocol.dropout=0.2", "dp.noise_multiplier=3")
    link = channel(config, rates=FaultRates(setup=0.0, contribute=0.3, open=0.0))
    for number in range(1, 9):
        link.begin_round(number)
        link.mean(updates(), phase="dream_updates", bound=1.0)
    (event,) = noisy(link).ledger.events
    assert link.ledger.retries > 0
    assert event.count == 8 + link.ledger.retries  # type: ignore[attr-defined]


def test_what_nothing_accounts_for_does_not_leave() -> None:
    link = channel(settings())
    link.begin_round(1)
    with pytest.raises(PrivacyError, match="'weights' have no noise planned"):
        link.mean(updates(), phase="weights", bound=1.0)
    with pytest.raises(PrivacyError, match="no bound"):
        link.mean(updates(), phase="dream_updates")
    with pytest.raises(PrivacyError, match="without an account"):
        link.sum(updates(), phase="dream_updates")
    assert noisy(link).ledger.events == ()
    assert link.ledger.client_total(0) == (0, 0)


def test_examples_units_let_through_what_comes_from_dreamers_alone() -> None:
    config = make_config({}, ["dp.unit=example", "dp.epsilon=3", "dreaming.moments=channel", f"data.clients={CLIENTS}"])
    link = channel(config)
    link.begin_round(1)
    link.mean(updates(), phase="dream_updates")
    with pytest.raises(PrivacyError, match="'evaluation' come from private data"):
        link.mean(updates(), phase="evaluation")
    ledger = link.releases.ledger
    assert ledger is not None
    assert [event.name for event in ledger.events] == ["dream_updates"]
    assert ledger.statement().epsilon == 0


def test_nothing_is_claimed_by_default() -> None:
    assert isinstance(channel(make_config({}, [f"data.clients={CLIENTS}"])).releases, OpenReleases)


def test_noise_has_no_seed() -> None:
    """Two channels alike in everything, after seeding all generators alike: different noise."""
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        link = channel(settings())
        link.begin_round(1)
        found.append(link.mean(updates(), phase="dream_updates", bound=1.0)[0])
    assert not torch.equal(*found)


def test_what_is_not_finite_counts_as_zero_and_names_nobody() -> None:
    """An error that names a client, or its absence, would be one more release."""
    link = channel(settings("protocol.protection=masked"))
    sent = updates()
    sent[2][0][0, 0] = float("nan")
    sent[3][0][0, 0] = float("inf")
    link.begin_round(1)
    (mean,) = link.mean(sent, phase="dream_updates", bound=1.0)
    assert mean.isfinite().all()
    assert not noisy(link).contribution(np.array([1.0, np.nan], np.float32), "dream_updates", bound=1.0).any()


def test_statements_say_how_many_clients_may_work_with_the_adversary() -> None:
    masked, plain = (noisy(channel(settings(f"protocol.protection={name}"))).ledger for name in ("masked", "plain"))
    assert "with up to 1 of the other clients" in str(masked.statement())
    assert "other clients" not in str(plain.statement())
    # A client that opens sums is itself the one whose noise is not counted.
    alone, helped = (
        noisy(channel(settings("protocol.protection=bfv", f"dp.colluders={count}"))).ledger for count in (1, 2)
    )
    assert "other clients" not in str(alone.statement())
    assert "with up to 1 of the other clients" in str(helped.statement())


def test_a_local_unit_is_replaced_for_its_sending_is_no_secret() -> None:
    ledger = noisy(channel(settings("dp.unit=local", "protocol.dropout=0.3"))).ledger
    assert ledger.adjacency is Adjacency.REPLACE_ONE
