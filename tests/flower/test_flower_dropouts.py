"""Nodes that vanish: what a run survives, and what it does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed")

from flower_harness import OneProcess, initial, mean_of, protection, run
from flwr.app import Array, ArrayRecord

from codream_secure.flower import Member, SumLostError

MakeGrid = Callable[..., OneProcess]


@pytest.mark.parametrize("name", ["plain", "masked", "bfv"])
def test_a_node_whose_vector_is_lost_is_not_in_the_mean(name: str, make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection(name)
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: grid.kinds[exchange] == "step" and number == 2
    found = run(grid, sums, members, rounds=1)
    np.testing.assert_allclose(found.arrays["weights"].numpy(), mean_of([0, 1, 3]), atol=1e-6)


@pytest.mark.parametrize("name", ["masked", "bfv"])
def test_a_node_that_vanishes_while_keys_are_exchanged_is_back_in_the_next_round(
    name: str, make_grid: MakeGrid, members: list[Member]
) -> None:
    sums = protection(name)
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: exchange == 2 and number == 1
    found = run(grid, sums, members, rounds=2)
    first = ["hello", "open", "relay", "step", {"masked": "relay", "bfv": "total"}[name]]
    assert grid.kinds == [*first, *first[1:], "close"]
    once = ArrayRecord({"weights": Array(mean_of([0, 2, 3]).astype(np.float32)), "bias": initial()["bias"]})
    once["seen"] = initial()["seen"]
    # The bias is drawn before the weights, so that what comes of the latter does not depend on it.
    np.testing.assert_allclose(found.arrays["weights"].numpy(), mean_of([0, 1, 2, 3], once), atol=1e-6)


@pytest.mark.parametrize(("name", "opening"), [("masked", "relay"), ("bfv", "total")])
def test_a_node_that_vanishes_while_the_sum_is_opened_is_in_it(
    name: str, opening: str, make_grid: MakeGrid, members: list[Member]
) -> None:
    sums = protection(name)
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: exchange == 4 and number == 3
    found = run(grid, sums, members, rounds=1)
    assert grid.kinds[4] == opening
    np.testing.assert_allclose(found.arrays["weights"].numpy(), mean_of([0, 1, 2, 3]), atol=1e-6)


def test_a_sum_of_too_few_is_given_up_and_the_next_round_goes_on(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection()
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: exchange == 3 and number < 2
    found = run(grid, sums, members, rounds=2)
    assert not found.train_metrics_clientapp.get(1)
    np.testing.assert_allclose(found.arrays["weights"].numpy(), mean_of([0, 1, 2, 3]), atol=1e-6)


def test_nodes_that_do_not_say_who_they_are_count_as_missing(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection()
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: exchange == 0 and number < 2
    found = run(grid, sums, members, rounds=2)
    assert grid.kinds[:3] == ["hello", "hello", "open"]
    assert list(found.train_metrics_clientapp) == [2]
    np.testing.assert_allclose(found.arrays["weights"].numpy(), mean_of([0, 1, 2, 3]), atol=1e-6)


def test_a_sum_that_may_be_open_ends_the_run(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection()
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: exchange == 4 and number < 2
    with pytest.raises(SumLostError, match="begin a new run"):
        run(grid, sums, members)
    assert grid.kinds[-1] == "close"


def test_facing_an_active_server_a_sum_of_too_few_ends_the_run(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection(active=True)
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: exchange == 3 and number < 2
    with pytest.raises(SumLostError, match="begin a new run"):
        run(grid, sums, members)
