"""Noise in Flower sums: it is there, it is what the statement says, and it ends where the budget does."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from scipy.stats import chi2

pytest.importorskip("flwr", reason="flwr is not installed")

from flower_harness import NODES, SIZES, OneProcess, initial, trained
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp.strategy import FedAvg

from codream_secure.errors import ConfigError, PrivacyError
from codream_secure.flower import ClientLevel, Member, Protected, ProtectedGrid, Protection, protected_mod

MakeGrid = Callable[..., OneProcess]
VALUES = 20_016
FALSE_ALARM = 1e-9
"""Of each statistical test, on either side: noise comes from the operating system, and cannot be seeded."""
DELTA = 1e-3


def private(name: str = "masked", *, clip: float = 50.0, **changes: Any) -> Protection:
    """With ``clip`` 50 none of the updates below is shortened."""
    given: dict[str, Any] = {"values": VALUES, "sums": 5, "delta": DELTA, "noise_multiplier": 2.0}
    outer = {key: changes.pop(key) for key in ("dropout", "active", "min_cohort", "corruption") if key in changes}
    return Protection(name=name, clip=clip, clients=NODES, dp=ClientLevel(**{**given, **changes}), **outer)


def wide() -> ArrayRecord:
    """Enough coordinates to tell a variance from another that is a tenth off."""
    arrays = {name: array for name, array in initial().items() if name != "weights"}
    return ArrayRecord({**arrays, "weights": Array(np.zeros((2001, 10), np.float32))})


def run(grid: Any, sums: Protection, members: list[Member], *, rounds: int = 1, arrays: Any = None) -> Any:
    strategy = Protected(FedAvg(fraction_evaluate=0.0), sums, roster=members[0].roster)
    return strategy.start(grid, initial_arrays=arrays or wide(), num_rounds=rounds)


def flat(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([arrays[name].astype(np.float64).ravel() for name in sorted(arrays)])


def updates(numbers: list[int]) -> np.ndarray:
    """What these nodes would add up to."""
    before = {name: array.numpy() for name, array in wide().items()}
    return np.sum([flat(trained(number, before)) - flat(before) for number in numbers], axis=0)


def moved(found: Any) -> np.ndarray:
    return flat({name: array.numpy() for name, array in found.arrays.items()}) - flat(
        {name: array.numpy() for name, array in wide().items()}
    )


@pytest.mark.parametrize("mechanism", ["discrete_gaussian", "skellam"])
@pytest.mark.parametrize(("name", "lost"), [("masked", None), ("masked", 2), ("bfv", None)])
def test_the_noise_of_the_nodes_is_in_the_mean_and_of_the_size_that_is_accounted_for(
    name: str, lost: int | None, mechanism: str, make_grid: MakeGrid, members: list[Member]
) -> None:
    sums = private(name, mechanism=mechanism)
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: grid.kinds[exchange] == "step" and number == lost
    there = [number for number in range(NODES) if number != lost]
    found = run(grid, sums, members)
    assert not grid.errors
    # The divisor is the number of clients, whoever is there; numbers of examples weigh nothing.
    noise = moved(found) * NODES - updates(there)
    assert noise.size == VALUES - 2
    # One dropout (0.3 of four) and one colluder: two nodes' noise is z C, of which each adds its share.
    variance = (2.0 * 50.0) ** 2 / 2 * len(there)
    size = float(noise @ noise) / variance
    assert chi2.ppf(FALSE_ALARM, noise.size) < size < chi2.isf(FALSE_ALARM, noise.size)


def test_two_runs_have_noise_of_their_own(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = private()
    grids = [make_grid(sums) for _ in range(2)]
    grids[1].run_id += 1
    first, second = (moved(run(grid, sums, members)) for grid in grids)
    difference = (first - second) * NODES
    size = float(difference @ difference) / (2 * (2.0 * 50.0) ** 2 / 2 * NODES)
    assert chi2.ppf(FALSE_ALARM, difference.size) < size < chi2.isf(FALSE_ALARM, difference.size)


def test_an_update_is_shortened_to_the_bound_whatever_its_length(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = private(clip=0.5, noise_multiplier=1e-4)
    change = moved(run(make_grid(sums), sums, members))
    before = {name: array.numpy() for name, array in wide().items()}
    each = [flat(trained(number, before)) - flat(before) for number in range(NODES)]
    expected = np.mean([one * (0.5 / np.linalg.norm(one)) for one in each], axis=0)
    # Eight standard deviations, which noise exceeds in one of these coordinates with 3e-11; and float32's rounding.
    deviation = 1e-4 * 0.5 * math.sqrt(NODES / 2) / NODES
    np.testing.assert_allclose(change, expected, rtol=0, atol=8 * deviation + 1e-6)
    assert np.abs(expected).max() > 20 * deviation


def test_a_vector_that_is_not_finite_counts_as_zero(members: list[Member]) -> None:
    def spoil(message: Message, context: Context, call_next: Any) -> Message:
        reply = call_next(message, context)
        if message.metadata.dst_node_id == 1000:
            reply.content["arrays"]["bias"] = Array(np.array([0, math.nan, 0], np.float32))
        return reply

    sums = private(noise_multiplier=1e-6)
    grid = OneProcess(
        lambda number: [protected_mod(sums, credentials=lambda context: members[number]), spoil],
        lambda exchange, number: False,
    )
    change = moved(run(grid, sums, members))
    assert not grid.errors
    np.testing.assert_allclose(change, updates([1, 2, 3]) / NODES, rtol=0, atol=1e-3)


# What is said


def stated(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for text in caplog.messages if "epsilon = " in text and "no more sums" not in text]


def epsilon_in(text: str) -> float:
    return float(re.findall(r"epsilon = ([0-9.e+-]+)", text)[-1])


@pytest.mark.parametrize(
    ("name", "against"),
    [
        ("masked", "server that sees the sums with their noise and who takes part, with up to 1 of the other clients"),
        ("bfv", "client that opens the sums, knows its own share of their noise and who takes part;"),
    ],
)
def test_every_round_says_what_was_spent_as_dp_accounting_computes_it(
    name: str, against: str, make_grid: MakeGrid, members: list[Member], caplog: pytest.LogCaptureFixture
) -> None:
    sums = private(name)
    with caplog.at_level(logging.INFO, logger="flwr"):
        run(make_grid(sums), sums, members, rounds=3)
    texts = stated(caplog)
    assert len(texts) == 3
    for taken, text in enumerate(texts, start=1):
        event = dp_event.SelfComposedDpEvent(dp_event.GaussianDpEvent(2.0), taken)
        orders = [*np.arange(1.05, 20, 0.05), *range(20, 200)]
        # In ring units the noise is so large that discrete and continuous Gaussians cost the same.
        assert epsilon_in(text) == pytest.approx(RdpAccountant(orders).compose(event).get_epsilon(DELTA), rel=1e-3)
        exact = PLDAccountant().compose(event).get_epsilon(DELTA)
        assert exact <= epsilon_in(text) <= 1.2 * exact
        assert f"at delta = {DELTA:g} for the unit client under add_remove" in text
        assert against in text
        assert "it covers train (" in text
        assert text.endswith(f"Sums so far: {taken}.")


def test_a_sum_that_failed_is_counted(
    make_grid: MakeGrid, members: list[Member], caplog: pytest.LogCaptureFixture
) -> None:
    sums = private()
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: exchange == 3 and number < 2
    with caplog.at_level(logging.INFO, logger="flwr"):
        found = run(grid, sums, members, rounds=2)
    assert list(found.train_metrics_clientapp) == [2]
    (text,) = stated(caplog)
    assert text.endswith("Sums so far: 2.")


# Where it ends


def test_the_budget_stops_the_sums_before_it_is_exceeded_and_the_run_keeps_its_arrays(
    make_grid: MakeGrid, members: list[Member], caplog: pytest.LogCaptureFixture
) -> None:
    free = private()
    account = free.releases()
    costs = []
    for _ in range(3):
        account.before_sum("train", values=VALUES)
        assert account.ledger is not None
        costs.append(account.ledger.statement(delta=DELTA).epsilon)
    budget = (costs[1] + costs[2]) / 2
    sums = private(epsilon=budget)
    grid = make_grid(sums)
    with caplog.at_level(logging.INFO, logger="flwr"):
        found = run(grid, sums, members, rounds=5)
    assert grid.kinds == ["hello", "open", "relay", *["step", "relay"] * 2, "close"]
    assert not grid.errors
    assert list(found.train_metrics_clientapp) == [1, 2]
    assert np.linalg.norm(moved(found)) > 1
    assert all(epsilon_in(text) <= budget for text in stated(caplog))
    assert sum("no more sums" in text for text in caplog.messages) == 3


def test_noise_is_solved_for_all_sums_and_no_more_are_taken(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = private(epsilon=4.0, noise_multiplier=None, sums=2)
    grid = make_grid(sums)
    run(grid, sums, members, rounds=4)
    assert grid.kinds.count("step") == 2
    account = sums.releases()
    assert account.fits({"train": 2})
    account.before_sum("train", values=VALUES)
    account.before_sum("train", values=VALUES)
    assert account.ledger is not None
    assert 0.99 * 4.0 < account.ledger.statement().epsilon <= 4.0


def test_nodes_count_too_and_through_the_end_of_a_run(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = private(sums=2)
    grid = make_grid(sums)
    run(grid, sums, members)
    assert grid.kinds.count("step") == 1
    # A server that forgets what it took.
    others = ArrayRecord({name: Array(np.asarray(array.numpy() + 1)) for name, array in wide().items()})
    forgetful = run(grid, sums, members, rounds=2, arrays=others)
    assert list(forgetful.train_metrics_clientapp) == [1]
    assert len(grid.errors) == NODES
    assert all("sum 3 of this run is beyond what was planned or budgeted for" in error for error in grid.errors)


def test_two_starts_of_one_strategy_have_one_account(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = private(sums=2)
    grid = make_grid(sums)
    strategy = Protected(FedAvg(fraction_evaluate=0.0), sums, roster=members[0].roster)
    for _ in range(2):
        strategy.start(grid, initial_arrays=wide(), num_rounds=2)
    assert grid.kinds.count("step") == 2
    assert not grid.errors


# What is refused


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "plain"}, "each message is seen with its own small share"),
        ({"max_weight": 10}, "max_weight is 10 with dp.*all clients weigh the same"),
        ({"metrics": {"loss": 1.0}}, "metrics is .*nothing accounts for them"),
        ({"evaluate_metrics": {"accuracy": 1.0}}, "evaluate_metrics is .*nothing accounts"),
        ({"clear": ("evaluate",)}, "clear is .*has no noise"),
        ({"ring_bits": 64}, "ring_bits is 64 with dp"),
        ({"clip": math.inf}, "clip is inf"),
        ({"min_cohort": 3}, "masks withstand 0 of the smallest cohort, 3"),
        ({"corruption": 0.0}, "masks withstand 0"),
    ],
)
def test_settings_that_would_leave_a_client_unaccounted_for(changes: dict[str, Any], error: str) -> None:
    dp = ClientLevel(values=10, sums=2, delta=DELTA, noise_multiplier=1.0)
    with pytest.raises(ConfigError, match=error):
        Protection(**{"name": "masked", "clip": 1.0, "clients": NODES, "dp": dp, **changes})


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"noise_multiplier": None}, "give a budget, or how much noise"),
        ({"noise_multiplier": 0.0}, "noise_multiplier is 0"),
        ({"colluders": 0}, "give at least 1"),
        ({"delta": 0.3}, "below 1/4"),
        ({"epsilon": 0.01}, "does not allow a single sum"),
        ({"mechanism": "laplace"}, "one of discrete_gaussian, skellam"),
        ({"sums": 0}, "sums is 0"),
    ],
)
def test_claims_that_cannot_be_made(changes: dict[str, Any], error: str) -> None:
    with pytest.raises((ConfigError, PrivacyError), match=error):
        private(**changes)


def test_without_dp_numbers_of_examples_are_bounded() -> None:
    with pytest.raises(ConfigError, match="max_weight is None"):
        Protection(clip=1.0, clients=NODES)


def test_evaluate_replies_leave_no_node(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = private()
    with pytest.raises(ConfigError, match="fraction_evaluate is 1.0 with dp"):
        Protected(FedAvg(), sums, roster=members[0].roster)
    grid = make_grid(sums)
    protected = ProtectedGrid(grid, sums, roster=members[0].roster)
    messages = list(FedAvg().configure_evaluate(1, wide(), ConfigRecord(), protected))
    with pytest.raises(ConfigError, match="evaluate on the server's own data"):
        protected.send_and_receive(messages)
    content = RecordDict({"arrays": wide(), "config": ConfigRecord()})
    asked = [Message(content, dst_node_id=node, message_type=MessageType.EVALUATE) for node in grid.nodes]
    assert all(reply.has_error() for reply in grid.send_and_receive(asked))


def test_longer_arrays_than_accounted_for(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = private(values=VALUES - 3)
    with pytest.raises(ConfigError, match=f"the arrays have {VALUES - 2} values.*raise dp.values"):
        run(make_grid(sums), sums, members)


@pytest.mark.parametrize("change", [{"clip": 25.0}, {"noise_multiplier": 1.9}, {"epsilon": 90.0}, {"colluders": 2}])
def test_nodes_with_other_claims_take_no_part(
    change: dict[str, Any], make_grid: MakeGrid, members: list[Member]
) -> None:
    sums = private(corruption=0.5, dropout=0.0)
    grid = make_grid(private(**{"corruption": 0.5, "dropout": 0.0, **change}))
    assert not run(grid, sums, members).train_metrics_clientapp
    assert grid.errors


def test_clients_weigh_the_same_whatever_their_numbers_of_examples(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = private(noise_multiplier=1e-6)
    found = run(make_grid(sums), sums, members)
    assert len(set(SIZES)) == NODES
    np.testing.assert_allclose(moved(found), updates(list(range(NODES))) / NODES, rtol=0, atol=1e-3)
