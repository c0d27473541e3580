"""Somebody at the door: strangers, forgers and recordings."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
from stranger import Speaker, client, run, stream

from codream_secure.deployment.streams.certificates import load, make_certificates
from codream_secure.deployment.streams.errors import RefusedError, UnreachableError
from codream_secure.deployment.streams.frames import Bye, Challenge, Welcome
from codream_secure.deployment.streams.handshake import greet, prove
from codream_secure.deployment.streams.library import METHOD, SERVICE
from codream_secure.errors import ConfigError
from protocols import Identity, Roster

grpc = pytest.importorskip("grpc")


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
