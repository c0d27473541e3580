"""Rounds over real processes and sockets: the sums are right, and members may die, stop, and come back."""

from __future__ import annotations

import os
import re
import signal
import socket
from typing import Any

import numpy as np
import pytest

from codream_secure.deployment.streams import Limits
from codream_secure.deployment.streams.errors import StreamError
from protocols import PhaseError, TooFewSurvivorsError

pytest.importorskip("grpc")


@pytest.mark.parametrize("active", [False, True])
def test_sums_over_four_processes_are_those_of_the_simulation(deploy: Any, tools: Any, active: bool) -> None:
    deployment = deploy(4, active=active)
    aggregator = deployment.aggregator()
    processes = deployment.start_members(aggregator.port, rounds=2)
    for _ in range(2):
        aggregator.open_round(deployment.members)
        for number in range(4):
            stream, values = (("gradients", 5000), ("weighted", 37))[number % 2]
            found = tools.step(aggregator, number, values, stream=stream)
            assert tools.same(found, deployment.in_one_process(number, values, deployment.members, stream))
        assert aggregator.refusals == []
        aggregator.close_round()
    for number, process in zip(deployment.members, processes, strict=True):
        assert process.wait(60) == 0
        assert deployment.asked(number) == [0, 1, 2, 3] * 2
        assert deployment.events(number)[-1]["ended"] == "well"
        assert deployment.events(number)[-1]["connections"] == 1


def test_a_message_of_many_frames_arrives_in_a_round_that_was_announced_elsewhere(deploy: Any, tools: Any) -> None:
    """The members know the round's id before the aggregator opens it, and leave when it is over."""
    deployment = deploy(3)
    aggregator = deployment.aggregator()
    round_id = os.urandom(16)
    processes = deployment.start_members(aggregator.port, round_id=round_id.hex(), rounds=1)
    assert aggregator.open_round(deployment.members, round_id=round_id) == round_id
    values = 700_001
    assert tools.same(tools.step(aggregator, 0, values), deployment.in_one_process(0, values, deployment.members))
    aggregator.close_round()
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert deployment.events(0)[-1]["ended"] == "well"


def test_a_member_that_does_not_keep_up_is_out_of_the_round_and_not_waited_for(deploy: Any, tools: Any) -> None:
    deployment = deploy(4)
    sizes = {"frame_bytes": 1 << 18, "message_bytes": 1 << 20, "window_bytes": 1 << 22}
    aggregator = deployment.aggregator(limits=Limits(**sizes), contribute_s=3600, open_s=3600)
    processes = deployment.start_members(aggregator.port, limits=sizes)
    aggregator.open_round(deployment.members)
    tools.step(aggregator, 0)
    processes[3].send_signal(signal.SIGSTOP)
    for number in range(1, 9):
        # All read what they are shown but the one that has stopped.
        aggregator.broadcast([np.full(250_000, number, dtype=np.float32)])
        tools.until(lambda number=number: deployment.shown(0)[-1] == number, "member 0 has read it")
        tools.until(lambda number=number: deployment.shown(1)[-1] == number, "member 1 has read it")
        tools.until(lambda number=number: deployment.shown(2)[-1] == number, "member 2 has read it")
    assert aggregator.sum("gradients", 1000).contributors == (0, 1, 2)
    processes[3].send_signal(signal.SIGCONT)
    tools.until(lambda: 3 in aggregator.present, "member 3 is back")
    aggregator.open_round(deployment.members)
    assert tools.step(aggregator, 9).contributors == (0, 1, 2, 3)


def test_a_member_killed_between_steps_is_missing_from_the_next_sum(deploy: Any, tools: Any) -> None:
    deployment = deploy(4)
    aggregator = deployment.aggregator(reconnect_s=0.5)
    processes = deployment.start_members(aggregator.port)
    aggregator.open_round(deployment.members)
    assert tools.step(aggregator, 0).contributors == (0, 1, 2, 3)
    processes[2].kill()
    processes[2].wait(60)
    assert tools.same(tools.step(aggregator, 1), deployment.in_one_process(1, 1000, (0, 1, 3)))
    # Its machine is gone with it, so a new process of the member's waits for the next round.
    deployment.start_member(2, aggregator.port)
    tools.until(lambda: 2 in aggregator.present, "member 2 connects again")
    assert tools.step(aggregator, 2).contributors == (0, 1, 3)
    aggregator.open_round(deployment.members)
    assert tools.same(tools.step(aggregator, 3), deployment.in_one_process(3, 1000, deployment.members))
    assert deployment.asked(2) == [0, 3]


def test_a_member_that_stops_misses_its_deadline_and_returns(deploy: Any, tools: Any) -> None:
    deployment = deploy(4)
    aggregator = deployment.aggregator(contribute_s=2.0)
    processes = deployment.start_members(aggregator.port)
    aggregator.open_round(deployment.members)
    tools.step(aggregator, 0)
    processes[1].send_signal(signal.SIGSTOP)
    for number in (1, 2):
        assert tools.same(tools.step(aggregator, number), deployment.in_one_process(number, 1000, (0, 2, 3)))
    processes[1].send_signal(signal.SIGCONT)

    def back() -> bool:
        return bool(tools.step(aggregator, 3).contributors == (0, 1, 2, 3))

    tools.until(back, "member 1 is back")
    assert deployment.asked(1)[0] == 0
    # Whatever it missed was not computed more than once.
    assert len(deployment.asked(1)) <= len(deployment.asked(0))


def test_too_few_members_end_a_step_and_not_the_round(deploy: Any, tools: Any) -> None:
    deployment = deploy(4)
    aggregator = deployment.aggregator(contribute_s=1.5)
    processes = deployment.start_members(aggregator.port)
    aggregator.open_round(deployment.members)
    for process in processes[:3]:
        process.send_signal(signal.SIGSTOP)
    with pytest.raises(TooFewSurvivorsError):
        tools.step(aggregator, 0)
    for process in processes[:3]:
        process.send_signal(signal.SIGCONT)

    def all_there() -> bool:
        try:
            return bool(tools.step(aggregator, 1).contributors == (0, 1, 2, 3))
        except TooFewSurvivorsError:
            return False

    tools.until(all_there, "everybody is back")


def test_without_a_round_or_members_an_error_says_what_to_do(deploy: Any) -> None:
    aggregator = deploy(3).aggregator()
    with pytest.raises(PhaseError, match="open_round"):
        aggregator.sum("gradients", 10)
    with pytest.raises(StreamError, match="wait_for"):
        aggregator.open_round()


def test_an_aggregator_killed_within_a_round_is_followed_by_a_fresh_round(deploy: Any, tools: Any) -> None:
    """The members are the same processes all the while; no round and no step comes twice."""
    deployment = deploy(4)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"port": port, "members": list(deployment.members), "values": 300}
    first = deployment.start("aggregator_process.py", **settings, steps=10_000)
    members = deployment.start_members(port, rounds=1)
    said = [tools.read_line(first) for _ in range(3)]
    first.kill()
    first.wait(60)
    second = deployment.start("aggregator_process.py", **settings, steps=5)
    said_then = [tools.read_line(second) for _ in range(5)]
    assert second.wait(60) == 0
    assert {line["round"] for line in said}.isdisjoint(line["round"] for line in said_then)
    for line in said + said_then:
        assert line["who"] == [0, 1, 2, 3]
        assert line["ring"] == deployment.in_one_process(line["step"], 300, deployment.members).ring.tolist()
    for number, process in zip(deployment.members, members, strict=True):
        assert process.wait(60) == 0
        events = [event for event in deployment.events(number) if "asked" in event]
        assert len({event["pid"] for event in events}) == 1
        claims = re.findall(r"([0-9a-f]{32}) (-?\d+) ", (deployment.folder / f"{number}.rounds").read_text())
        assert len(claims) == len(set(claims)), "a step was masked twice"
        assert len({round_id for round_id, _ in claims}) == 2
        assert len(events) == len([claim for claim in claims if int(claim[1]) >= 0])
