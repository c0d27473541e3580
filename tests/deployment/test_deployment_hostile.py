"""Somebody at the door: strangers, forgers, recordings, floods, and those who say nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from codream_secure.deployment.streams import Backoff, Limits, Tls
from codream_secure.deployment.streams.certificates import load, make_certificates
from codream_secure.deployment.streams.client import StreamClient
from codream_secure.deployment.streams.errors import RefusedError, UnreachableError
from codream_secure.deployment.streams.frames import Bye, Challenge, Codec, Data, Frame, Hello, Welcome
from codream_secure.deployment.streams.handshake import greet, prove
from codream_secure.deployment.streams.library import METHOD, SERVICE
from codream_secure.deployment.streams.server import Arrived, Dealt, Event, StreamServer
from codream_secure.errors import ConfigError
from protocols import Identity, Roster

grpc = pytest.importorskip("grpc")

LIMITS = Limits(frame_bytes=1 << 16, message_bytes=1 << 20, window_bytes=1 << 22, handshake_s=1.0, unauthenticated=3)
CODEC = Codec(1 << 20)


class Speaker:
    """A stream whose every frame the test chooses."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def say(self, frame: Frame | bytes) -> None:
        await self.call.write(frame if isinstance(frame, bytes) else CODEC.encode(frame))

    async def hear(self, kind: type) -> Any:
        return CODEC.decode(await self.call.read(), kind)

    async def status(self) -> str:
        """How the stream ended, once all that came has been read."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await self.call.read() is not grpc.aio.EOF:
                pass
        return str((await self.call.code()).name)

    async def enter(self, deployment: Any, member: int, *, session_id: bytes = b"", received: int = 0) -> Welcome:
        identity = deployment.identities[member]
        hello = greet(
            member, identity, roster=deployment.roster, round_id=b"", session_id=session_id, received=received
        )
        await self.say(hello)
        await self.say(prove(identity, hello, await self.hear(Challenge)))
        welcome: Welcome = await self.hear(Welcome)
        return welcome


@contextlib.asynccontextmanager
async def stream(port: int, tls: Tls) -> AsyncIterator[Speaker]:
    credentials = grpc.ssl_channel_credentials(tls.authority, tls.private_key, tls.certificate)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        yield Speaker(channel.stream_stream(f"/{SERVICE}/{METHOD}")())


@pytest.fixture
def scene(deploy: Any) -> Any:
    """A deployment, and its aggregator."""
    deployment = deploy(3)
    return deployment, deployment.aggregator(limits=LIMITS)


def client(deployment: Any, port: int, **changes: Any) -> StreamClient:
    arguments = {
        "member": 1,
        "identity": deployment.identities[1],
        "roster": deployment.roster,
        "tls": load(deployment.folder, "member"),
        "limits": LIMITS,
        "backoff": Backoff(first_s=0.05, most_s=0.1, patience_s=0.5),
    }
    return StreamClient(f"127.0.0.1:{port}", **(arguments | changes))


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))  # type: ignore[arg-type]


def test_a_forged_key_is_refused_and_told_why(scene: Any) -> None:
    deployment, aggregator = scene
    with pytest.raises(RefusedError, match="the key is not that of member 1 on the roster"):
        asyncio.run(client(deployment, aggregator.port, identity=Identity.generate()).run())
    with pytest.raises(RefusedError, match="member 7 is not on the roster"):
        asyncio.run(client(deployment, aggregator.port, member=7).run())
    other = Roster({1: deployment.identities[1].public_key, 2: Identity.generate().public_key})
    with pytest.raises(RefusedError, match="another roster"):
        asyncio.run(client(deployment, aggregator.port, roster=other).run())
    assert not aggregator.present


def test_a_public_key_without_its_private_key_is_not_enough(scene: Any) -> None:
    deployment, aggregator = scene

    async def forge() -> None:
        async with stream(aggregator.port, load(deployment.folder, "member")) as speaker:
            forger = Identity.generate()
            hello = greet(1, forger, roster=deployment.roster, round_id=b"", session_id=b"", received=0)
            hello = msgspec.structs.replace(hello, public_key=deployment.identities[1].public_key)
            await speaker.say(hello)
            await speaker.say(prove(forger, hello, await speaker.hear(Challenge)))
            bye = await speaker.hear(Bye)
            assert "not signed with member 1's key" in bye.reason
            assert not bye.retry

    run(forge)
    assert not aggregator.present


def test_recorded_frames_let_nobody_in(scene: Any) -> None:
    deployment, aggregator = scene
    tls = load(deployment.folder, "member")

    async def replay() -> None:
        identity = deployment.identities[1]
        hello = greet(1, identity, roster=deployment.roster, round_id=b"", session_id=b"", received=0)
        async with stream(aggregator.port, tls) as speaker:
            await speaker.say(hello)
            proof = prove(identity, hello, await speaker.hear(Challenge))
            await speaker.say(proof)
            await speaker.hear(Welcome)
        async with stream(aggregator.port, tls) as speaker:
            await speaker.say(hello)
            await speaker.hear(Challenge)
            await speaker.say(proof)
            assert "for this connection" in (await speaker.hear(Bye)).reason

    run(replay)


def test_recorded_bytes_of_a_whole_connection_let_nobody_in(scene: Any, tools: Any) -> None:
    """Below the frames: what TLS carried means nothing on another connection."""
    deployment, aggregator = scene
    wire = deployment.wire(aggregator.port)

    async def record() -> None:
        async with stream(wire.port, load(deployment.folder, "member")) as speaker:
            await speaker.enter(deployment, 1)
            tools.until(lambda: 1 in aggregator.present, "member 1 is in")

    run(record)
    recorded = b"".join(wire.upward)
    tools.until(lambda: 1 not in aggregator.present, "member 1 is gone")
    with socket.create_connection(("127.0.0.1", aggregator.port), timeout=60) as replayed:
        replayed.sendall(recorded)
        with contextlib.suppress(ConnectionError):
            while replayed.recv(1 << 16):
                pass
    assert not aggregator.present


def test_a_second_stream_replaces_the_first_only_with_a_proof(scene: Any, tools: Any) -> None:
    deployment, aggregator = scene
    tls = load(deployment.folder, "member")

    async def compete() -> None:
        async with stream(aggregator.port, tls) as first:
            welcome = await first.enter(deployment, 1)
            async with stream(aggregator.port, tls) as forger:
                hello = greet(
                    1,
                    deployment.identities[2],
                    roster=deployment.roster,
                    round_id=b"",
                    session_id=welcome.session_id,
                    received=0,
                )
                hello = msgspec.structs.replace(hello, public_key=deployment.identities[1].public_key)
                await forger.say(hello)
                await forger.say(prove(deployment.identities[2], hello, await forger.hear(Challenge)))
                assert "not signed" in (await forger.hear(Bye)).reason
            assert 1 in aggregator.present
            async with stream(aggregator.port, tls) as second:
                resumed = await second.enter(deployment, 1, session_id=welcome.session_id)
                assert resumed.resumed
                assert resumed.session_id == welcome.session_id
                assert "taken over" in (await first.hear(Bye)).reason
                assert 1 in aggregator.present

    run(compete)


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


@pytest.mark.parametrize("bare", [True, False])
def test_a_machine_without_a_certificate_of_the_deployment_gets_nowhere(scene: Any, tmp_path: Path, bare: bool) -> None:
    deployment, aggregator = scene
    make_certificates(tmp_path / "other", ["member"])
    foreign, ours = load(tmp_path / "other", "member"), load(deployment.folder, "member")

    async def knock() -> None:
        credentials = grpc.ssl_channel_credentials(
            ours.authority, None if bare else foreign.private_key, None if bare else foreign.certificate
        )
        async with grpc.aio.secure_channel(f"127.0.0.1:{aggregator.port}", credentials) as channel:
            call = channel.stream_stream(f"/{SERVICE}/{METHOD}")()
            assert await Speaker(call).status() == "UNAVAILABLE"

    run(knock)


def test_a_server_without_a_certificate_of_the_deployment_is_not_spoken_to(scene: Any, tmp_path: Path) -> None:
    deployment, aggregator = scene
    make_certificates(tmp_path / "other", ["member"])
    ours = load(deployment.folder, "member")
    tls = dataclasses.replace(ours, authority=load(tmp_path / "other", "member").authority)
    with pytest.raises(UnreachableError, match="patience_s"):
        asyncio.run(client(deployment, aggregator.port, tls=tls).run())
    assert not aggregator.present


def test_a_member_here_for_another_round_is_told_so(scene: Any) -> None:
    deployment, aggregator = scene
    with pytest.raises(UnreachableError, match="round 00000000000000000000000000000000 is not going on here"):
        asyncio.run(client(deployment, aggregator.port, round_id=bytes(16)).run())


def test_an_address_in_use_is_named(scene: Any) -> None:
    deployment, aggregator = scene
    with pytest.raises(ConfigError, match=f"127.0.0.1:{aggregator.port}"):
        type(aggregator)(
            f"127.0.0.1:{aggregator.port}",
            protocol=aggregator._protocol,
            terms=deployment.terms,
            roster=deployment.roster,
            tls=load(deployment.folder, "server"),
        )


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
