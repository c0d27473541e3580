"""Streams to an aggregator whose every frame the test chooses, and clients that try a little while only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from codream_secure.deployment.streams import Backoff, Limits, Tls
from codream_secure.deployment.streams.certificates import load
from codream_secure.deployment.streams.client import StreamClient
from codream_secure.deployment.streams.frames import Challenge, Codec, Frame, Welcome
from codream_secure.deployment.streams.handshake import greet, prove
from codream_secure.deployment.streams.library import METHOD, SERVICE

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
