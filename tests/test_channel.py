"""Broadcasts and sums: values, bytes, and no shared memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from codream_secure.channel import Channel
from codream_secure.config import make_config
from codream_secure.faults import FaultRates, FaultyNetwork
from codream_secure.streams import make_terms
from protocols import (
    ContributionError,
    ProtocolError,
    ReplicaError,
    SumResult,
    TooFewSurvivorsError,
    available_protocols,
    make_protocol,
)


def channel(*overrides: str, clients: int = 3, protection: str = "plain", rates: FaultRates | None = None) -> Channel:
    terms = make_terms(make_config({}, [f"data.clients={clients}", *overrides]))
    network = FaultyNetwork(0, rates) if rates else None
    return Channel(make_protocol(protection), clients, terms=terms, network=network)


@pytest.mark.parametrize("protection", available_protocols())
def test_sums_keep_shapes_and_count_what_was_handed_over(protection: str) -> None:
    link = channel(protection=protection)
    parts = {k: [torch.full((2, 3), float(k)), torch.tensor([10.0 * k])] for k in range(3)}
    (images, count), contributors = link.sum(parts, phase="dream_updates")
    assert contributors == (0, 1, 2)
    assert torch.equal(images, torch.full((2, 3), 3.0))
    assert torch.equal(count, torch.tensor([30.0]))
    for client in range(3):
        up, down = link.ledger.by_phase(client)["dream_updates"]
        assert up >= 7 * 4
        assert down > 0
        assert link.ledger.cpu_by_phase(client)["dream_updates"] > 0


def test_a_plain_sum_costs_four_bytes_a_value_and_a_small_frame() -> None:
    link = channel()
    for values in (1000, 2000):
        link.sum({k: [torch.zeros(values)] for k in range(3)}, phase="dream_updates")
    up, _ = link.ledger.by_phase(0)["dream_updates"]
    assert 4 * 3000 < up < 4 * 3000 + 2 * 64


def test_broadcasts_reach_everyone_as_copies() -> None:
    link = channel()
    tensor = torch.zeros(5)
    (received,) = link.broadcast([tensor], phase="dreams")
    received.add_(1)
    assert torch.equal(tensor, torch.zeros(5))
    assert [link.ledger.client_total(k) for k in range(3)] == [(0, 20)] * 3


@pytest.mark.parametrize("protection", available_protocols())
def test_a_mean_over_survivors_divides_by_the_survivors(protection: str) -> None:
    link = channel("protocol.dropout=0.4", "protocol.corruption=0", protection=protection)
    (mean,) = link.mean({0: [torch.tensor([1.0])], 2: [torch.tensor([4.0])]}, phase="soft_labels")
    assert mean.item() == 2.5


@pytest.mark.parametrize("protection", available_protocols())
def test_weights_travel_inside_the_sum(protection: str) -> None:
    link = channel("fedavg.weighted=true", protection=protection)
    values = {k: [torch.tensor([float(k), 1.0])] for k in range(3)}
    (mean,) = link.mean(values, phase="weights", weights={0: 1, 1: 0, 2: 3})
    torch.testing.assert_close(mean, torch.tensor([1.5, 1.0]))


@pytest.mark.parametrize(
    ("weights", "message"), [({0: -1, 1: 2, 2: 1}, "client 0: the weight"), (dict.fromkeys(range(3), 0), "sum to 0")]
)
def test_bad_weights_are_refused(weights: dict[int, int], message: str) -> None:
    link = channel("fedavg.weighted=true")
    with pytest.raises(ProtocolError, match=message):
        link.mean({k: [torch.ones(2)] for k in range(3)}, phase="weights", weights=weights)


def test_a_value_that_is_not_finite_never_enters_a_sum() -> None:
    link = channel()
    bad = {0: [torch.zeros(2)], 1: [torch.tensor([0.0, float("nan")])], 2: [torch.zeros(2)]}
    with pytest.raises(ContributionError, match="client 1: the value at index 1 is NaN"):
        link.sum(bad, phase="dream_updates")
    (total,), _ = link.sum({k: [torch.ones(2)] for k in range(3)}, phase="dream_updates")
    assert torch.equal(total, torch.full((2,), 3.0))


def test_shapes_must_agree_and_not_only_sizes() -> None:
    with pytest.raises(ContributionError, match=r"client 1 handed over shapes \[\(3, 2\)\]"):
        channel().sum({0: [torch.zeros(2, 3)], 1: [torch.zeros(3, 2)]}, phase="dream_updates")
    with pytest.raises(ContributionError, match="at least one client"):
        channel().sum({}, phase="dream_updates")


def test_values_beyond_the_bound_are_clipped_and_counted() -> None:
    link = channel("protocol.clip.dream_updates=2")
    (total,), _ = link.sum({k: [torch.tensor([9.0, 1.0])] for k in range(3)}, phase="dream_updates")
    assert torch.equal(total, torch.tensor([6.0, 3.0]))
    assert link.ledger.clipped_fraction() == 0.5


@pytest.mark.parametrize("protection", available_protocols())
def test_lost_clients_are_missing_from_one_sum_and_back_for_the_next(protection: str) -> None:
    link = channel(clients=10, protection=protection, rates=FaultRates(contribute=0.2))
    link.begin_round(1)
    seen = [
        link.sum({k: [torch.tensor([2.0 ** (k - 5)])] for k in range(10)}, phase="dream_updates") for _ in range(12)
    ]
    for tensors, contributors in seen:
        assert tensors[0].item() == sum(2.0 ** (k - 5) for k in contributors)
        assert len(contributors) >= 7
    assert len({contributors for _, contributors in seen}) > 3


def test_the_same_clients_are_lost_under_every_protection() -> None:
    def survivors(protection: str) -> list[tuple[int, ...]]:
        link = channel(clients=5, protection=protection, rates=FaultRates(contribute=0.15))
        values = {k: [torch.zeros(1)] for k in range(5)}
        return [link.sum(values, phase="dream_updates").contributors for _ in range(10)]

    lists = [survivors(protection) for protection in available_protocols()]
    assert all(one == lists[0] for one in lists)
    assert any(len(contributors) < 5 for contributors in lists[0])


def test_clients_lost_in_the_set_up_are_out_until_the_next_round() -> None:
    link = channel(clients=10, protection="masked", rates=FaultRates(setup=0.1))
    values = {k: [torch.ones(1)] for k in range(10)}
    cohorts = []
    for number in range(6):
        link.begin_round(number)
        cohorts.append([link.sum(values, phase="dream_updates").contributors for _ in range(3)])
    assert all(len(set(rounds)) == 1 for rounds in cohorts)
    assert len({rounds[0] for rounds in cohorts}) > 1


def test_what_clients_know_is_told_apart_tensor_by_tensor() -> None:
    """By shape and type too: the same bytes in a row may be other tensors."""
    one, other = torch.arange(4.0), torch.arange(4.0, 6.0)
    lists = [
        [one, other],
        [torch.cat([one, other])],
        [torch.cat([one, other])[:2], torch.cat([one, other])[2:]],
        [one.reshape(2, 2), other],
        [one, other.view(torch.int32)],
        [one, other, torch.zeros(0)],
        [other, one],
    ]
    link = channel(protection="bfv")
    states = [link._states({0: tensors})[0] for tensors in lists]
    assert len(set(states)) == len(states)
    assert link._states({0: [one.clone(), other.clone()]})[0] == states[0]
    # What is shared, or shown, leads to the same distinction.
    opened, shown = set(), set()
    for tensors in lists:
        link = channel(protection="bfv")
        link.share(tensors, phase="soft_labels")
        opened.add(link._states({})[0])
        link.broadcast(tensors, phase="dreams")
        shown.add(link._shown.digest())
    assert len(opened) == len(shown) == len(lists)


@pytest.mark.parametrize("protection", ["bfv", "ckks"])
def test_a_client_that_does_not_contribute_is_held_to_what_the_others_know(protection: str) -> None:
    link = channel("protocol.dropout=0.4", "protocol.corruption=0", protection=protection)
    values = {k: [torch.tensor([float(k)])] for k in (0, 1)}
    same = {k: [torch.ones(3)] for k in range(3)}
    found = link.mean_at_clients(values, phase="dream_updates", held=same)
    assert {k: mean.item() for k, (mean,) in found.items()} == dict.fromkeys(range(3), 0.5)
    with pytest.raises(ReplicaError, match=r"clients \[2\] could not open"):
        link.mean_at_clients(values, phase="dream_updates", held=same | {2: [torch.zeros(3)]})


def test_a_cohort_that_is_never_there_ends_with_the_named_error() -> None:
    link = channel(rates=FaultRates(contribute=0.999))
    with pytest.raises(TooFewSurvivorsError):
        link.sum({k: [torch.ones(1)] for k in range(3)}, phase="dream_updates")
    assert link.ledger.retries == 50


def test_a_round_that_takes_more_sums_than_were_prepared_is_set_up_again() -> None:
    link = channel("protocol.steps=2", protection="masked")
    for _ in range(5):
        (total,), _ = link.sum({k: [torch.ones(1)] for k in range(3)}, phase="dream_updates")
        assert total.item() == 3
    before = link.ledger.by_phase(0)["protocol_setup"]
    link.sum({k: [torch.ones(1)] for k in range(3)}, phase="dream_updates")
    assert link.ledger.by_phase(0)["protocol_setup"] == before
    link.begin_round(2)
    link.sum({k: [torch.ones(1)] for k in range(3)}, phase="dream_updates")
    assert link.ledger.by_phase(0)["protocol_setup"] > before


def test_a_sum_that_failed_while_it_was_opened_is_repeated_over_the_same_clients() -> None:
    link = channel(clients=10, protection="masked", rates=FaultRates(contribute=0.1, open=0.25))
    asked: list[tuple[int, ...] | None] = []
    original = link._simulation.sum

    def watched(*arguments: Any, **options: Any) -> SumResult:
        try:
            result = original(*arguments, **options)
        except TooFewSurvivorsError as error:
            asked.append(error.asked_to_open or (asked[-1] if asked else None))
            raise
        if asked and asked[-1] is not None:
            assert result.contributors == asked[-1]
            repeated.append(result.contributors)
        asked.append(None)
        return result

    repeated: list[tuple[int, ...]] = []
    link._simulation.sum = watched  # type: ignore[method-assign]
    for _ in range(12):
        link.sum({k: [torch.ones(1)] for k in range(10)}, phase="dream_updates")
    assert repeated
