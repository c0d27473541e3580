"""The server's end of the streams: lets members in, keeps their sessions, and says what happens.

Everything here runs in one event loop. It binds a port and waits; members connect outwards to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from codream_secure.deployment.streams.buffers import keep_freed_memory
from codream_secure.deployment.streams.errors import BacklogError, FrameError, GapError, RefusedError, SessionError
from codream_secure.deployment.streams.frames import ID_BYTES, Bye, Codec, Hello, Proof, Welcome, farewell
from codream_secure.deployment.streams.handshake import challenge, check_hello, check_proof
from codream_secure.deployment.streams.library import METHOD, SERVICE, load_grpc
from codream_secure.deployment.streams.limits import Limits
from codream_secure.deployment.streams.line import Line
from codream_secure.deployment.streams.session import Session, cut
from codream_secure.deployment.streams.tls import Tls
from codream_secure.errors import ConfigError
from protocols import Roster

_LOG = logging.getLogger(__name__)
_STREAMS_A_CONNECTION = 4
_REFUSAL_S = 2.0


class Joined(NamedTuple):
    """A member's stream stands."""

    member: int
    session_id: bytes
    resumed: bool


class Arrived(NamedTuple):
    """A member's message, once and in order."""

    member: int
    session_id: bytes
    message: bytes | memoryview


class Left(NamedTuple):
    """A member's stream is gone; ``over`` says that its session is, too."""

    member: int
    session_id: bytes
    over: bool


Event = Joined | Arrived | Left


class Dealt(NamedTuple):
    """A member's message of so many bytes has been dealt with, or dropped: it is not held any more."""

    member: int
    session_id: bytes
    size: int


class Outgoing(NamedTuple):
    """A message for a member, within a session."""

    member: int
    session_id: bytes
    message: bytes


@dataclass
class _Peer:
    session: Session
    line: Line | None = None


class StreamServer:
    """Sessions with the members of a roster.

    Args:
        address: ``HOST:PORT`` to listen on; port 0 takes a free one.
        roster: who is let in.
        tls: this end's certificate, and who issues the clients'.
        limits: what is taken from a client.
        emit: told every event, within the event loop; must not block.

    Attributes:
        round_id: what clients that are here for one round have to name; empty while there is none.
        turned_away: streams that were refused.
    """

    def __init__(
        self, address: str, *, roster: Roster, tls: Tls, limits: Limits, emit: Callable[[Event], None]
    ) -> None:
        self._grpc = load_grpc()
        keep_freed_memory()
        self._address = address
        self._roster = roster
        self._tls = tls
        self._limits = limits
        self._emit = emit
        self._codec = Codec(limits.frame_bytes, remember=True)
        self._peers: dict[int, _Peer] = {}
        self._unread: dict[int, int] = {}
        """What each member's messages count for that were told and not dealt with, in whatever session they came."""
        self._strangers = 0
        self.turned_away = 0
        self._server: Any = None
        self.round_id = b""

    async def start(self) -> int:
        """Listen.

        Returns:
            The port.

        Raises:
            ConfigError: the address cannot be bound, or the certificates do not fit.
        """
        grpc, limits = self._grpc, self._limits
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", limits.frame_bytes),
                ("grpc.max_send_message_length", limits.frame_bytes),
                ("grpc.max_metadata_size", 8192),
                ("grpc.max_concurrent_streams", _STREAMS_A_CONNECTION),
                # A connection that says nothing, before TLS or after it.
                ("grpc.server_handshake_timeout_ms", round(1000 * limits.handshake_s)),
                ("grpc.max_connection_idle_ms", round(2000 * limits.handshake_s)),
                ("grpc.keepalive_time_ms", round(1000 * limits.keepalive_s)),
                ("grpc.keepalive_timeout_ms", round(1000 * limits.keepalive_s)),
                ("grpc.http2.min_ping_interval_without_data_ms", round(500 * limits.keepalive_s)),
                # Two servers on one port would each get half of the members.
                ("grpc.so_reuseport", 0),
            ]
        )
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        credentials = grpc.ssl_server_credentials(
            [(self._tls.private_key, self._tls.certificate)],
            root_certificates=self._tls.authority,
            require_client_auth=True,
        )
        try:
            port = self._server.add_secure_port(self._address, credentials)
        except RuntimeError:
            port = 0
        if not port:
            raise ConfigError(
                f"address={self._address!r} cannot be listened on: it is in use, is none of this machine's, or the "
                "certificate and private key do not fit each other"
            )
        await self._server.start()
        return int(port)

    async def stop(self) -> None:
        """Hang up on everybody."""
        for peer in self._peers.values():
            if peer.line is not None:
                peer.line.close(farewell("the server stops", retry=True))
        if self._server is not None:
            await self._server.stop(grace=2.0)

    @property
    def connected(self) -> int:
        """Members with a stream; a look from any thread."""
        return sum(peer.line is not None for peer in list(self._peers.values()))

    # What the aggregator says

    def post(self, messages: Iterable[Outgoing], consumed: Iterable[Dealt] = (), linger_s: float = 0.0) -> None:
        """Send. Messages of sessions that are over are dropped; whoever does not keep up is hung up on.

        Args:
            messages: in order.
            consumed: what has been dealt with, so that its senders may send more.
            linger_s: give what follows a chance to travel along.
        """
        for dealt in consumed:
            self._acknowledge(dealt)
        chunks: dict[int, list[memoryview]] = {}
        lingering: list[Line] = []
        for member, session_id, message in messages:
            peer = self._peer(member, session_id)
            if peer is None:
                continue
            if id(message) not in chunks:
                chunks[id(message)] = cut(message, self._limits.chunk_bytes)
            try:
                peer.session.send(message, chunks=chunks[id(message)])
            except BacklogError as error:
                self.hang_up(member, str(error))
                continue
            if peer.line is None:
                continue
            if linger_s:
                lingering.append(peer.line)
            else:
                peer.line.nudge()
        if lingering:
            asyncio.get_running_loop().call_later(linger_s, _nudge_all, lingering)

    def _acknowledge(self, dealt: Dealt) -> None:
        left = self._unread.pop(dealt.member, 0) - self._limits.cost(dealt.size)
        if left > 0:
            self._unread[dealt.member] = left
        peer = self._peer(dealt.member, dealt.session_id)
        if peer is not None:
            peer.session.consumed()
            if peer.line is not None and peer.session.owes_acknowledgement:
                peer.line.nudge()

    def hang_up(self, member: int, reason: str) -> None:
        """End a member's session; it may begin another."""
        peer = self._peers.pop(member, None)
        if peer is not None:
            _LOG.warning("member %d is hung up on: %r", member, reason, extra={"member": member})
            if peer.line is not None:
                peer.line.close(farewell(reason, retry=True))
            self._emit(Left(member, peer.session.session_id, True))

    def _peer(self, member: int, session_id: bytes) -> _Peer | None:
        peer = self._peers.get(member)
        return peer if peer is not None and peer.session.session_id == session_id else None

    # What clients say

    def _deliver(self, member: int, session_id: bytes, message: bytes | memoryview) -> None:
        """Tell of a message.

        Raises:
            SessionError: too many of this member's wait: a session bounds its own, and whoever begins one after the
                other would fill the memory.
        """
        unread = self._unread.get(member, 0) + self._limits.cost(len(message))
        if unread > self._limits.window_bytes:
            raise SessionError(
                f"more than {self._limits.window_bytes} bytes of this member's sessions wait to be dealt with"
            )
        self._unread[member] = unread
        self._emit(Arrived(member, session_id, message))

    async def _serve(self, _: object, context: Any) -> None:
        """One stream, from its first byte to its last."""
        if self._strangers >= self._limits.unauthenticated:
            code = self._grpc.StatusCode.RESOURCE_EXHAUSTED
            await context.abort(code, "too many streams have not said who they are")
        read, write = self._ends(context)
        self._strangers += 1
        try:
            async with asyncio.timeout(self._limits.handshake_s):
                hello = await self._authenticate(read, write)
        except (RefusedError, FrameError) as error:
            self.turned_away += 1
            _LOG.warning("a stream from %s is refused: %r", context.peer(), str(error))
            bye = farewell(str(error), retry=isinstance(error, RefusedError) and error.retry)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REFUSAL_S):
                    await write(self._codec.encode(bye))
            return
        except TimeoutError:
            _LOG.warning("a stream from %s did not say in time who it is", context.peer())
            await context.abort(self._grpc.StatusCode.DEADLINE_EXCEEDED, "the handshake took too long")
        except self._grpc.aio.BaseError:
            _LOG.info("a stream from %s broke before it said who it is", context.peer())
            return
        finally:
            self._strangers -= 1
        await self._attend(hello, read, write)

    def _ends(self, context: Any) -> tuple[Callable[[], Awaitable[bytes | None]], Callable[[bytes], Awaitable[None]]]:
        end_of_stream = self._grpc.aio.EOF

        async def read() -> bytes | None:
            content = await context.read()
            return None if content is end_of_stream else content

        return read, context.write

    async def _authenticate(
        self, read: Callable[[], Awaitable[bytes | None]], write: Callable[[bytes], Awaitable[None]]
    ) -> Hello:
        hello = self._codec.decode(await read() or b"", Hello)
        check_hello(hello, self._roster, round_id=self.round_id)
        asked = challenge()
        await write(self._codec.encode(asked))
        proof = self._codec.decode(await read() or b"", Proof)
        check_proof(hello, asked, proof, self._roster)
        return hello

    async def _attend(
        self, hello: Hello, read: Callable[[], Awaitable[bytes | None]], write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Carry a member's session; an older stream of the same member gives way, now that this one has its proof."""
        member = hello.member
        peer, resumed = self._enter(hello)
        session = peer.session
        line = Line(
            session,
            self._codec,
            read=read,
            write=write,
            deliver=lambda message: self._deliver(member, session.session_id, message),
        )
        peer.line = line
        self._emit(Joined(member, session.session_id, resumed))
        over = False
        try:
            await write(self._codec.encode(Welcome(session.session_id, resumed, session.received)))
            over = isinstance(await line.run(), Bye)
        except GapError as error:
            await self._dismiss(write, str(error))
        except (FrameError, SessionError) as error:
            _LOG.warning("member %d breaks the rules: %r", member, str(error), extra={"member": member})
            over = True
            await self._dismiss(write, str(error))
        except self._grpc.aio.BaseError:
            _LOG.info("the stream of member %d broke", member, extra={"member": member})
        finally:
            if peer.line is line:
                peer.line = None
                if over and self._peers.get(member) is peer:
                    del self._peers[member]
                if not over or self._peers.get(member) is None:
                    self._emit(Left(member, session.session_id, over))

    def _enter(self, hello: Hello) -> tuple[_Peer, bool]:
        """The session that a proven member goes on with, and whether it is the one it asked for."""
        peer = self._peers.get(hello.member)
        if peer is not None and peer.line is not None:
            peer.line.close(farewell("another stream of this member has taken over", retry=False))
            peer.line = None
        if peer is not None and peer.session.session_id == hello.session_id:
            try:
                peer.session.resume(hello.received)
                return peer, True
            except SessionError as error:
                _LOG.warning("member %d cannot go on with its session: %r", hello.member, str(error))
        peer = self._peers[hello.member] = _Peer(Session(os.urandom(ID_BYTES), limits=self._limits))
        return peer, False

    async def _dismiss(self, write: Callable[[bytes], Awaitable[None]], reason: str) -> None:
        with contextlib.suppress(TimeoutError, self._grpc.aio.BaseError):
            async with asyncio.timeout(_REFUSAL_S):
                await write(self._codec.encode(farewell(reason, retry=True)))


def _nudge_all(lines: Iterable[Line]) -> None:
    """Have them say what they have not said by now."""
    for line in lines:
        if line.session.has_more:
            line.nudge()
