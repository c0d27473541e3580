"""Broadcasts and sums: values, bytes, and no shared memory."""

from __future__ import annotations

import pytest
import torch

from codream_secure.channel import Channel, Ledger
from protocols import ContributionError, PlainSum


def channel(clients: int = 3) -> Channel:
    return Channel(PlainSum(), clients)


def test_sums_keep_shapes_and_count_what_was_handed_over() -> None:
    link = channel()
    parts = {k: [torch.full((2, 3), float(k)), torch.tensor([10.0 * k])] for k in range(3)}
    images, count = link.sum(parts, phase="dreams")
    assert torch.equal(images, torch.full((2, 3), 3.0))
    assert torch.equal(count, torch.tensor([30.0]))
    assert all(link.ledger.by_phase(k) == {"dreams": (28, 0)} for k in range(3))


def test_broadcasts_reach_everyone_as_copies() -> None:
    link = channel()
    tensor = torch.zeros(5)
    (received,) = link.broadcast([tensor], phase="dreams")
    received.add_(1)
    assert torch.equal(tensor, torch.zeros(5))
    assert [link.ledger.client_total(k) for k in range(3)] == [(0, 20)] * 3


def test_a_mean_over_survivors_divides_by_the_survivors() -> None:
    link = channel()
    (mean,) = link.mean({0: [torch.tensor([1.0])], 2: [torch.tensor([4.0])]}, phase="labels")
    assert mean.item() == 2.5
    assert link.ledger.client_total(1) == (0, 0)


def test_weights_travel_inside_the_sum() -> None:
    link = channel()
    values = {k: [torch.tensor([float(k), 1.0])] for k in range(3)}
    (mean,) = link.mean(values, phase="labels", weights={0: 1.0, 1: 0.0, 2: 3.0})
    torch.testing.assert_close(mean, torch.tensor([1.5, 1.0]))
    assert link.ledger.client_total(0) == (12, 0)


@pytest.mark.parametrize(
    ("weights", "message"), [({0: -1.0, 1: 2.0}, r"weights\[0\] is -1"), ({0: 0.0, 1: 0.0}, "weights sum to 0")]
)
def test_bad_weights_are_refused(weights: dict[int, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        channel().mean({k: [torch.ones(2)] for k in range(2)}, phase="labels", weights=weights)


def test_a_value_that_is_not_finite_never_enters_a_sum() -> None:
    with pytest.raises(ContributionError, match="client 1's vector is NaN at index 1"):
        channel().sum({0: [torch.zeros(2)], 1: [torch.tensor([0.0, float("nan")])]}, phase="dreams")


def test_shapes_must_agree_and_not_only_sizes() -> None:
    with pytest.raises(ContributionError, match=r"client 1 handed over shapes \[\(3, 2\)\]"):
        channel().sum({0: [torch.zeros(2, 3)], 1: [torch.zeros(3, 2)]}, phase="dreams")


def test_the_ledger_survives_a_checkpoint() -> None:
    ledger, other = Ledger(), Ledger()
    ledger.add_up(0, "dreams", 5)
    ledger.add_up(0, "dreams", 6)
    ledger.add_down(1, "labels", 7)
    other.load_state_dict(ledger.state_dict())
    assert other.by_phase(0) == {"dreams": (11, 0)}
    assert other.client_total(1) == (0, 7)
