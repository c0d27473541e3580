"""Holding out: disjoint, complete, stratified, deterministic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codream_secure.data import hold_out
from codream_secure.errors import PartitionError


@settings(max_examples=200, deadline=None)
@given(labels=st.lists(st.integers(0, 8), min_size=1, max_size=100), seed=st.integers(0, 2**63), data=st.data())
def test_shares_are_proportional_and_nothing_is_lost(labels: list[int], seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(labels) - 1))
    tensor = torch.tensor(labels)
    kept, held = hold_out(tensor, count, seed=seed)
    assert kept.dtype == held.dtype == torch.int64
    assert sorted(kept.tolist() + held.tolist()) == list(range(len(labels)))
    assert len(held) == count
    assert kept.tolist() == sorted(kept.tolist())
    sizes = np.bincount(labels)
    shares = np.bincount(tensor[held].numpy(), minlength=len(sizes))
    present = sizes > 0
    if count <= (sizes[present] - 1).sum():
        assert (shares[present] < sizes[present]).all()
    exact = count * sizes / len(labels)
    # Largest remainder stays within one of the exact share, unless a class is too small to give its share.
    if (np.ceil(exact) <= np.maximum(sizes - 1, 0))[present].all():
        assert (np.abs(shares - exact) < 1).all()
    again = hold_out(tensor, count, seed=seed)
    assert torch.equal(kept, again[0])
    assert torch.equal(held, again[1])


def test_known_shares_and_ties_to_the_lower_label() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    assert torch.bincount(labels[hold_out(labels, 10, seed=0)[1]]).tolist() == [5, 3, 2]
    even = torch.arange(4).repeat(10)
    assert torch.bincount(even[hold_out(even, 6, seed=0)[1]]).tolist() == [2, 2, 1, 1]


def test_the_seed_matters_and_is_apart_from_the_partition() -> None:
    labels = torch.arange(1000) % 10
    assert not torch.equal(hold_out(labels, 100, seed=0)[1], hold_out(labels, 100, seed=1)[1])
    # Drawn within each class, not from its front or back.
    assert hold_out(labels, 100, seed=0)[1].double().mean() == pytest.approx(500, abs=150)


@pytest.mark.parametrize(
    ("labels", "count", "seed", "message"),
    [
        (torch.arange(5), 5, 0, "count is 5, but there are 5 samples: between 0 and 4"),
        (torch.arange(5), -1, 0, "count is -1"),
        (torch.empty(0, dtype=torch.int64), 1, 0, "between 0 and 0"),
        (torch.arange(5), 1, -3, "seed is -3"),
        (torch.arange(5.0), 1, 0, "float32"),
        (torch.zeros(2, 2, dtype=torch.int64), 1, 0, r"\(2, 2\)"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(labels: torch.Tensor, count: int, seed: int, message: str) -> None:
    with pytest.raises(PartitionError, match=message):
        hold_out(labels, count, seed=seed)
