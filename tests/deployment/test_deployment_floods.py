"""Too much at the door, and too little: floods, long messages, broken rules, and those who say nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from stranger import CODEC, LIMITS, client, run, stream

from codream_secure.deployment.streams.certificates import load
from codream_secure.deployment.streams.errors import RefusedError, UnreachableError
from codream_secure.deployment.streams.frames import Bye, Challenge, Data, Hello
from codream_secure.deployment.streams.handshake import greet
from codream_secure.deployment.streams.server import Arrived, Dealt, Event, StreamServer


def test_a_message_beyond_the_limit_is_refused_without_being_held(deploy: Any, tools: Any) -> None:
    """Memory's high-water mark is of this process, which listens; the 256 MB are another's."""
    deployment = deploy(3)
    aggregator = deployment.aggregator()
    marks = Path("/proc/self/clear_refs")
    if not marks.exists():
        pytest.skip("no /proc to measure memory with")
    marks.write_text("5")
    before = high_water()
    sender = deployment.start("long_message_process.py", port=aggregator.port, megabytes=256)
    ended = tools.read_line(sender)
    assert ended["ended"] == "RESOURCE_EXHAUSTED"
    assert high_water() - before < 32 << 20


def high_water() -> int:
    """Most bytes that this process has held in memory since the mark was reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (Data(1, 0, (1 << 20) + 1, memoryview(bytes(1000))), "is announced"),
        (Data(5, 0, 4, memoryview(b"late")), "follows upon"),
        (b"\x01nonsense", "malformed"),
        (Data(1, 0, 4, memoryview(b"what")), "malformed"),
    ],
)
def test_a_member_that_breaks_the_rules_is_hung_up_on(scene: Any, frame: Any, problem: str) -> None:
    deployment, aggregator = scene

    async def misbehave() -> None:
        async with stream(aggregator.port, load(deployment.folder, "member")) as speaker:
            await speaker.enter(deployment, 1)
            # Calls are looked at by the aggregator's thread, frames by the streams' own.
            aggregator.wait_for([1], timeout_s=60)
            aggregator._attendance.enrol([1])
            await speaker.say(frame)
            await asyncio.to_thread(aggregator.wait_for, [2], timeout_s=0.2)
            assert problem in (await speaker.hear(Bye)).reason

    run(misbehave)


def test_whoever_says_nothing_is_shown_out(scene: Any) -> None:
    """At each stage: before TLS, before the greeting, and before the proof."""
    deployment, aggregator = scene
    tls = load(deployment.folder, "member")

    async def dawdle() -> None:
        async with stream(aggregator.port, tls) as speaker:
            await speaker.call.wait_for_connection()
            assert await speaker.status() == "DEADLINE_EXCEEDED"
        async with stream(aggregator.port, tls) as speaker:
            hello = greet(
                1, deployment.identities[1], roster=deployment.roster, round_id=b"", session_id=b"", received=0
            )
            await speaker.say(hello)
            await speaker.hear(Challenge)
            assert await speaker.status() == "DEADLINE_EXCEEDED"

    run(dawdle)
    for said in (b"", b"\x16\x03\x01"):
        with socket.create_connection(("127.0.0.1", aggregator.port), timeout=60) as silent:
            silent.sendall(said)
            with contextlib.suppress(ConnectionError):
                assert silent.recv(1 << 10) == b""


def test_only_so_many_may_be_at_the_door(deploy: Any) -> None:
    deployment = deploy(3)
    limits = dataclasses.replace(LIMITS, handshake_s=30.0)
    aggregator = deployment.aggregator(limits=limits)
    tls = load(deployment.folder, "member")

    async def crowd() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(limits.unauthenticated):
                speaker = await stack.enter_async_context(stream(aggregator.port, tls))
                hello = greet(
                    2, deployment.identities[2], roster=deployment.roster, round_id=b"", session_id=b"", received=0
                )
                await speaker.say(hello)
                await speaker.hear(Challenge)
            async with stream(aggregator.port, tls) as speaker:
                assert await speaker.status() == "RESOURCE_EXHAUSTED"
        while True:
            # Those at the door have gone; the server notices in its own time.
            async with stream(aggregator.port, tls) as speaker:
                with contextlib.suppress(Exception):
                    await speaker.enter(deployment, 1)
                    return
            await asyncio.sleep(0.05)

    run(crowd)


def test_a_hello_is_small(deploy: Any) -> None:
    """What is read before anybody has proved anything fits into a few hundred bytes."""
    deployment = deploy(3)
    hello = greet(
        1,
        deployment.identities[1],
        roster=deployment.roster,
        round_id=bytes(16),
        session_id=bytes(16),
        received=1 << 60,
    )
    assert len(CODEC.encode(hello)) < 256
    assert CODEC.decode(CODEC.encode(hello), Hello) == hello


async def flood(deployment: Any, port: int, sessions: int, size: int) -> None:
    """One member that begins sessions, one after the other, and sends a message in each."""
    for _ in range(sessions):
        one = client(deployment, port)
        task = asyncio.create_task(one.run())
        arrival = await one.arrivals.get()
        one.send(arrival.session_id, os.urandom(size))
        await one.flush(5)
        one.hang_up("enough")
        with contextlib.suppress(RefusedError, UnreachableError):
            await task


def test_a_member_fills_no_more_than_a_window_by_beginning_sessions(deploy: Any) -> None:
    deployment = deploy(3)
    events: list[Event] = []

    async def attack() -> None:
        server = StreamServer(
            "127.0.0.1:0",
            roster=deployment.roster,
            tls=load(deployment.folder, "server"),
            limits=LIMITS,
            emit=events.append,
        )
        port = await server.start()
        size = LIMITS.window_bytes // 5
        await flood(deployment, port, 8, size)
        arrived = [event for event in events if isinstance(event, Arrived)]
        assert len(arrived) == 4
        # What has been dealt with makes room, whatever became of its session.
        server.post((), [Dealt(event.member, event.session_id, len(event.message)) for event in arrived])
        await flood(deployment, port, 1, size)
        assert sum(isinstance(event, Arrived) for event in events) == 5
        await server.stop()

    run(attack)


def test_messages_of_members_outside_the_round_are_not_kept(scene: Any) -> None:
    deployment, aggregator = scene
    size, batches = LIMITS.window_bytes // 5, 3
    tracemalloc.start()
    try:
        for _ in range(batches):
            asyncio.run(flood(deployment, aggregator.port, 4, size))
            assert not aggregator.present
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 4 * size
    finally:
        tracemalloc.stop()
