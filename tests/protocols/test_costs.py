"""Counting bytes and seconds."""

from __future__ import annotations

import time

import pytest

from protocols import SERVER, Cost, Costs


def test_bytes_are_counted_at_both_ends() -> None:
    costs = Costs()
    costs.moved(SERVER, 3, "setup", 100)
    costs.moved(SERVER, 4, "setup", 10)
    costs.moved(3, SERVER, "setup", 1)
    costs.moved(3, SERVER, "step", 7)
    assert costs.of(SERVER, "setup") == Cost(sent=110, received=1)
    assert costs.of(3, "setup") == Cost(sent=1, received=100)
    assert costs.of(4, "setup") == Cost(received=10)
    assert costs.of(3, "step") == Cost(sent=7)
    assert costs.of(SERVER, "step") == Cost(received=7)


def test_what_never_happened_costs_nothing() -> None:
    costs = Costs()
    assert costs.of(5, "step") == costs.mean_client("step") == Cost()
    assert costs.by_party == {}


def burn(seconds: float) -> float:
    """Use this thread's processor time; its end."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return end


def test_processor_time_is_counted_and_waiting_is_not() -> None:
    costs = Costs()
    with costs.timed(1, "step"):
        burn(0.01)
    with costs.timed(1, "step"):
        burn(0.01)
    with costs.timed(2, "step"):
        time.sleep(0.02)
    assert costs.of(1, "step").cpu_seconds >= 0.02
    assert 0 < costs.of(2, "step").cpu_seconds < costs.of(1, "step").cpu_seconds


def test_time_until_an_error_counts_too() -> None:
    costs = Costs()
    with pytest.raises(ZeroDivisionError), costs.timed(1, "setup"):
        burn(0.001) / 0
    assert costs.of(1, "setup").cpu_seconds >= 0.001


def test_the_mean_is_over_the_clients_of_a_phase() -> None:
    costs = Costs()
    for member, count in ((0, 10), (1, 21), (2, 0)):
        costs.moved(member, SERVER, "step", count)
        costs.by_party[member, "step"].cpu_seconds = 0.5 * member
    costs.moved(SERVER, 0, "step", 6)
    costs.moved(SERVER, 9, "setup", 6000)
    assert costs.mean_client("step") == Cost(sent=10, received=2, cpu_seconds=0.5)
    assert costs.mean_client("setup") == Cost(received=6000)
