"""A stream is cut within a round, by a network that knows no more than to close sockets."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("grpc")


def test_a_cut_stream_is_taken_up_again_and_no_step_is_answered_twice(deploy: Any, tools: Any) -> None:
    deployment = deploy(4)
    aggregator = deployment.aggregator()
    wire = deployment.wire(aggregator.port)
    members = [deployment.start_member(0, wire.port, rounds=1)]
    members += [deployment.start_member(number, aggregator.port, rounds=1) for number in (1, 2, 3)]
    aggregator.open_round(deployment.members)
    for number in range(6):
        if number in (1, 2, 4):
            wire.cut()
        found = tools.step(aggregator, number)
        assert tools.same(found, deployment.in_one_process(number, 1000, deployment.members))
    assert aggregator.late == 0
    assert aggregator.refusals == []
    aggregator.close_round()
    for number, process in zip(deployment.members, members, strict=True):
        assert process.wait(60) == 0
        assert deployment.asked(number) == list(range(6))
    assert deployment.events(0)[-1]["connections"] == wire.connections >= 3


def test_a_stream_cut_in_the_middle_of_a_vector_sends_the_rest(deploy: Any, tools: Any) -> None:
    """The answer is not made anew: the member computes once, and what it had made is sent again."""
    deployment = deploy(3)
    aggregator = deployment.aggregator()
    wire = deployment.wire(aggregator.port)
    deployment.start_member(0, wire.port)
    deployment.start_member(1, aggregator.port)
    deployment.start_member(2, aggregator.port)
    aggregator.open_round(deployment.members)
    tools.step(aggregator, 0)
    values = 700_000
    for number, megabytes in enumerate((0.3, 1.1, 2.0), start=1):
        wire.cut_after = sum(map(len, wire.upward)) + round(megabytes * 1e6)
        found = tools.step(aggregator, number, values)
        assert tools.same(found, deployment.in_one_process(number, values, deployment.members))
        assert wire.cut_after is None, "the stream was not cut"
    assert deployment.asked(0) == [0, 1, 2, 3]
    assert wire.connections == 4


def test_a_member_that_stays_away_too_long_is_not_waited_for(deploy: Any, tools: Any) -> None:
    deployment = deploy(3)
    aggregator = deployment.aggregator(reconnect_s=0.5)
    wire = deployment.wire(aggregator.port)
    deployment.start_member(0, wire.port)
    for number in (1, 2):
        deployment.start_member(number, aggregator.port)
    aggregator.open_round(deployment.members)
    wire.close()
    assert tools.same(tools.step(aggregator, 0), deployment.in_one_process(0, 1000, (1, 2)))
