"""Unchanged apps and strategies, behind the mod and the wrapper, end where they end without them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed")

from flower_harness import NODES, SIZES, OneProcess, initial, protection, trained
from flwr.app import Array, ArrayRecord
from flwr.clientapp.mod import LocalDpMod
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi

from codream_secure.flower import Member, Protected, protected_mod

MakeGrid = Callable[..., OneProcess]


def floats() -> ArrayRecord:
    """For server optimisers, which are for floating-point arrays."""
    return ArrayRecord({name: array for name, array in initial().items() if name != "seen"} | {"seen": _one()})


def _one() -> Array:
    return Array(np.zeros(1, np.float32))


def run(grid: Any, strategy: Any, **named: Any) -> Any:
    return strategy.start(grid, initial_arrays=named.pop("initial_arrays", initial()), **{"num_rounds": 2, **named})


def assert_close(found: ArrayRecord, expected: ArrayRecord, tolerance: float) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].numpy().dtype == array.numpy().dtype
        np.testing.assert_allclose(found[name].numpy(), array.numpy(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["plain", "masked", "bfv"])
@pytest.mark.parametrize("ring_bits", [32, 64])
def test_two_rounds_of_fedavg_give_the_weighted_mean(
    name: str, ring_bits: Any, make_grid: MakeGrid, plain_grid: OneProcess, members: list[Member]
) -> None:
    sums = protection(name, ring_bits=ring_bits)
    expected = run(plain_grid, FedAvg())
    grid = make_grid(sums)
    found = run(grid, Protected(FedAvg(), sums, roster=members[0].roster))
    assert not grid.errors
    # Two rounds' rounding to the fixed point, and to float32.
    assert_close(found.arrays, expected.arrays, 2 * (sums.resolution / 2 + 2**-23))
    coarse = {64: 1e-6, 32: 1e-2}[ring_bits]
    for at in (1, 2):
        assert found.train_metrics_clientapp[at]["loss"] == pytest.approx(
            expected.train_metrics_clientapp[at]["loss"], abs=coarse
        )
        assert "secret" not in found.train_metrics_clientapp[at]
        assert found.evaluate_metrics_clientapp[at]["accuracy"] == pytest.approx(
            expected.evaluate_metrics_clientapp[at]["accuracy"], abs=coarse
        )


def test_the_messages_of_a_run(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection()
    grid = make_grid(sums)
    run(grid, Protected(FedAvg(), sums, roster=members[0].roster))
    assert grid.kinds == ["hello", "open", "relay", *["step", "relay"] * 4, "close"]


def test_a_guard_against_an_active_server_costs_one_message_more(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection(active=True, clear=("evaluate",))
    grid = make_grid(sums)
    run(grid, Protected(FedAvg(), sums, roster=members[0].roster))
    one = ["step", "relay", "relay", "clear"]
    assert grid.kinds == ["hello", "open", "relay", *one, *one, "close"]
    assert not grid.errors


@pytest.mark.parametrize("kind", [FedProx, FedAvgM, FedAdagrad, FedAdam, FedYogi])
def test_strategies_that_need_the_mean_alone(
    kind: Any, make_grid: MakeGrid, plain_grid: OneProcess, members: list[Member]
) -> None:
    sums = protection()
    named = {"proximal_mu": 0.1} if kind is FedProx else {}
    expected = run(plain_grid, kind(**named), initial_arrays=floats())
    found = run(make_grid(sums), Protected(kind(**named), sums, roster=members[0].roster), initial_arrays=floats())
    # Adaptive steps divide by small numbers, which magnifies float32's rounding.
    assert_close(found.arrays, expected.arrays, 1e-3)


def test_flowers_local_noise_is_added_before_the_sum(
    make_grid: MakeGrid, plain_grid: OneProcess, members: list[Member]
) -> None:
    sums = protection()
    # Bounds that clip nothing and noise of 1e-5: what is shown is that the mods stand in the right order.
    noise = LocalDpMod(clipping_norm=10.0, sensitivity=1.0, epsilon=1e6, delta=1e-5)
    expected = run(plain_grid, FedAvg(fraction_evaluate=0.0), initial_arrays=floats(), num_rounds=1)
    grid = OneProcess(
        lambda number: [protected_mod(sums, credentials=lambda context: members[number]), noise],
        lambda exchange, number: False,
    )
    strategy = Protected(FedAvg(fraction_evaluate=0.0), sums, roster=members[0].roster)
    found = run(grid, strategy, initial_arrays=floats(), num_rounds=1)
    assert not grid.errors
    assert_close(found.arrays, expected.arrays, 1e-3)
    assert not np.array_equal(found.arrays["weights"].numpy(), expected.arrays["weights"].numpy())


@pytest.mark.parametrize("name", ["masked", "bfv"])
def test_no_message_holds_an_array_a_count_or_a_metric(name: str, make_grid: MakeGrid, members: list[Member]) -> None:
    def secrets() -> list[bytes]:
        found = []
        arrays = {key: array.numpy() for key, array in initial().items()}
        for number in range(NODES):
            moved = trained(number, arrays)
            for key in ("weights", "bias"):
                fixed = np.rint((moved[key].astype(np.float64) - arrays[key]) / sums.resolution).astype("<i8")
                found += [moved[key].tobytes(), (moved[key] - arrays[key]).tobytes(), fixed.tobytes()]
                found += [(fixed * SIZES[number]).tobytes()]
        count = SIZES[1]
        found += [struct.pack("<q", count), struct.pack("<d", count), _varint(count), struct.pack("<d", 0.125)]
        return found

    sums = protection(name)
    grid = make_grid(sums)
    run(grid, Protected(FedAvg(), sums, roster=members[0].roster), num_rounds=1)
    assert not [secret for secret in secrets() for message in grid.wire if secret in message]
    # The search finds them where they are: in plain sums, and in Flower's own messages.
    sums = protection("plain")
    grid = make_grid(sums)
    run(grid, Protected(FedAvg(), sums), num_rounds=1)
    assert any(struct.pack("<q", SIZES[1]) in message for message in grid.wire)


def test_flowers_own_messages_hold_all_of_it(plain_grid: OneProcess) -> None:
    run(plain_grid, FedAvg(), num_rounds=1)
    arrays = {key: array.numpy() for key, array in initial().items()}
    assert any(trained(1, arrays)["weights"].tobytes() in message for message in plain_grid.wire)
    assert any(_varint(SIZES[1]) in message for message in plain_grid.wire)


def _varint(value: int) -> bytes:
    """As protobuf writes whole numbers: zigzag, seven bits a byte."""
    value, parts = value << 1, []
    while value >= 128:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
