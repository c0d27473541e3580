"""A member's end of the stream: connects outwards, proves who it is, and connects again when the line is cut."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from typing import Any, NamedTuple

from codream_secure.deployment.streams.buffers import keep_freed_memory
from codream_secure.deployment.streams.errors import (
    FrameError,
    GapError,
    RefusedError,
    SessionError,
    StreamError,
    UnreachableError,
    printable,
)
from codream_secure.deployment.streams.frames import Bye, Challenge, Codec, Welcome, farewell
from codream_secure.deployment.streams.handshake import greet, prove
from codream_secure.deployment.streams.library import METHOD, SERVICE, load_grpc
from codream_secure.deployment.streams.limits import Backoff, Limits
from codream_secure.deployment.streams.line import Line
from codream_secure.deployment.streams.session import Session
from codream_secure.deployment.streams.tls import Tls
from protocols import Identity, Roster

_LOG = logging.getLogger(__name__)


class Arrival(NamedTuple):
    """A message of a session; None says that the session is new, and whatever the one before was about is lost."""

    session_id: bytes
    message: bytes | memoryview | None


class StreamClient:
    """A member's session with one server. Lives in one event loop; :meth:`run` does the work.

    Args:
        address: ``HOST:PORT``; the server's certificate has to name the host.
        member: its number.
        identity: its key pair, which the roster has.
        roster: the deployment's.
        tls: this end's certificate, and who issues the server's.
        limits: sizes; the server's.
        backoff: when to try again, and for how long.
        round_id: the one round to take part in; empty for any.

    Attributes:
        arrivals: messages in order, each to be followed by :meth:`consumed`.
        connections: how often it got through.
    """

    def __init__(
        self,
        address: str,
        *,
        member: int,
        identity: Identity,
        roster: Roster,
        tls: Tls,
        limits: Limits,
        backoff: Backoff,
        round_id: bytes = b"",
    ) -> None:
        self._grpc = load_grpc()
        keep_freed_memory()
        self._address = address
        self._member = member
        self._identity = identity
        self._roster = roster
        self._tls = tls
        self._limits = limits
        self._backoff = backoff
        self._round_id = round_id
        self._codec = Codec(limits.frame_bytes)
        self._session: Session | None = None
        self._line: Line | None = None
        self.arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        self.connections = 0

    # What the participant says

    def send(self, session_id: bytes, message: bytes | tuple[bytes | memoryview, ...]) -> None:
        """Send within a session; dropped if another has begun since.

        Raises:
            BacklogError: too much waits already.
        """
        if self._session is not None and self._session.session_id == session_id:
            self._session.send(message)
            if self._line is not None:
                self._line.nudge()

    def consumed(self, session_id: bytes) -> None:
        """The oldest message of this session has been dealt with."""
        if self._session is not None and self._session.session_id == session_id:
            self._session.consumed()
            if self._line is not None and self._session.owes_acknowledgement:
                self._line.nudge()

    async def flush(self, timeout_s: float) -> None:
        """Wait until everything has been written, though not for ever."""
        if self._line is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._line.idle.wait(), timeout_s)

    def hang_up(self, reason: str) -> None:
        """Say goodbye, if somebody listens; the server forgets the session."""
        if self._line is not None:
            self._line.close(farewell(reason, retry=False))

    # Connections

    async def run(self) -> None:
        """Keep the session going, over as many connections as it takes, until :meth:`hang_up`.

        Raises:
            RefusedError: the server does not let this member in.
            UnreachableError: there has been no working connection for longer than ``backoff.patience_s``.
        """
        attempt, since = 0, time.monotonic()
        while True:
            before = self.connections
            try:
                if await self._connect():
                    return
                problem = "the server hung up"
            except RefusedError as error:
                if not error.retry:
                    raise
                problem = str(error)
            except (StreamError, TimeoutError) as error:
                problem = str(error) or "the server did not answer in time"
            except asyncio.InvalidStateError:
                problem = "the stream was over while something was being written"
            except self._grpc.aio.AioRpcError as error:
                problem = f"{error.code().name}: {printable(error.details() or '')}"
            if self.connections > before:
                attempt, since = 0, time.monotonic()
            if time.monotonic() - since > self._backoff.patience_s:
                raise UnreachableError(
                    f"no connection to {self._address} for {self._backoff.patience_s:g} s (patience_s); the last "
                    f"attempt: {problem}"
                )
            wait = self._backoff.longest(attempt) * random.uniform(0.5, 1.0)
            _LOG.info("member %d connects to %s again in %.2f s: %r", self._member, self._address, wait, problem)
            attempt += 1
            await asyncio.sleep(wait)

    async def _connect(self) -> bool:
        """One connection; whether it was this side that hung up."""
        credentials = self._grpc.ssl_channel_credentials(
            root_certificates=self._tls.authority,
            private_key=self._tls.private_key,
            certificate_chain=self._tls.certificate,
        )
        limits = self._limits
        options = [
            ("grpc.max_receive_message_length", limits.frame_bytes),
            ("grpc.max_send_message_length", limits.frame_bytes),
            ("grpc.keepalive_time_ms", round(1000 * limits.keepalive_s)),
            ("grpc.keepalive_timeout_ms", round(1000 * limits.keepalive_s)),
            ("grpc.enable_retries", 0),
            # Each attempt is one of its own: no waits but this client's.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        async with self._grpc.aio.secure_channel(self._address, credentials, options=options) as channel:
            call = channel.stream_stream(f"/{SERVICE}/{METHOD}")()
            try:
                async with asyncio.timeout(limits.handshake_s):
                    welcome = await self._introduce(call)
                return await self._carry(call, welcome)
            finally:
                call.cancel()

    async def _read(self, call: Any) -> bytes | None:
        content = await call.read()
        if content is not self._grpc.aio.EOF:
            return bytes(content)
        code = await call.code()
        if code is not self._grpc.StatusCode.OK:
            raise StreamError(f"{code.name}: {printable(await call.details() or '')}")
        return None

    async def _expect(self, call: Any, kind: type[Challenge] | type[Welcome]) -> Any:
        content = await self._read(call)
        if content is None:
            raise StreamError("the server hung up during the handshake")
        frame: Any = self._codec.decode(content, kind, Bye)
        if isinstance(frame, Bye):
            raise RefusedError(printable(frame.reason), retry=frame.retry)
        return frame

    async def _introduce(self, call: Any) -> Welcome:
        session = self._session
        hello = greet(
            self._member,
            self._identity,
            roster=self._roster,
            round_id=self._round_id,
            session_id=session.session_id if session else b"",
            received=session.received if session else 0,
        )
        await call.write(self._codec.encode(hello))
        asked = await self._expect(call, Challenge)
        await call.write(self._codec.encode(prove(self._identity, hello, asked)))
        welcome: Welcome = await self._expect(call, Welcome)
        return welcome

    async def _carry(self, call: Any, welcome: Welcome) -> bool:
        session = self._enter(welcome)
        self.connections += 1
        line = Line(
            session,
            self._codec,
            read=lambda: self._read(call),
            write=call.write,
            deliver=lambda message: self.arrivals.put_nowait(Arrival(session.session_id, message)),
        )
        self._line = line
        try:
            bye = await line.run()
        except GapError:
            raise
        except (FrameError, SessionError):
            # Nothing that such a server says can be relied on: begin anew.
            self._session = None
            raise
        finally:
            self._line = None
        if bye is not None:
            raise RefusedError(printable(bye.reason), retry=bye.retry)
        return line.closed

    def _enter(self, welcome: Welcome) -> Session:
        """The session that the server goes on with."""
        if welcome.resumed:
            if self._session is None or self._session.session_id != welcome.session_id:
                raise SessionError("the server goes on with a session that this client does not know")
            try:
                self._session.resume(welcome.received)
            except SessionError:
                self._session = None
                raise
            return self._session
        self._session = Session(welcome.session_id, limits=self._limits)
        while not self.arrivals.empty():
            self.arrivals.get_nowait()
        self.arrivals.put_nowait(Arrival(welcome.session_id, None))
        return self._session
