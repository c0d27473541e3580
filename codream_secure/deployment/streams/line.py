"""One connection while it carries a session: reads, writes and hangs up, on either side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from codream_secure.deployment.streams.frames import MAX_BATCH, Ack, Batch, Bye, Codec, Data, Outgoing, carried
from codream_secure.deployment.streams.limits import FRAME_OVERHEAD
from codream_secure.deployment.streams.session import Session

_FAREWELL_S = 1.0


class Line:
    """A connection past its handshake.

    Args:
        session: what it carries. It is touched only while this line is open, so an older line that is still being torn
            down takes nothing from it and adds nothing to it.
        codec: makes and reads frames.
        read: the next frame's bytes; None when the other side has finished.
        write: sends a frame's bytes, and returns when there is room for more.
        deliver: told every message, in order.
    """

    def __init__(
        self,
        session: Session,
        codec: Codec,
        *,
        read: Callable[[], Awaitable[bytes | None]],
        write: Callable[[bytes], Awaitable[None]],
        deliver: Callable[[bytes | memoryview], None],
    ) -> None:
        self.session = session
        self._codec = codec
        self._read_bytes = read
        self._write_bytes = write
        self._deliver = deliver
        self._open = True
        self._wake = asyncio.Event()
        self._wake.set()
        self._closing: Bye | None = None
        self._closes: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.idle = asyncio.Event()
        """Set while all that the session has to say has been written."""

    def nudge(self) -> None:
        """The session may have something to say."""
        self.idle.clear()
        self._wake.set()

    def close(self, farewell: Bye) -> None:
        """Take nothing more in, say goodbye and hang up; :meth:`run` then returns."""
        self._open = False
        if self._closing is None:
            self._closing = farewell
            self._closes.set_result(None)
            self._wake.set()

    @property
    def closed(self) -> bool:
        """Whether it was this side that hung up."""
        return self._closing is not None

    async def run(self) -> Bye | None:
        """Carry the session until somebody hangs up.

        Returns:
            The other side's goodbye; None if it just finished, or it was this side that hung up.

        Raises:
            FrameError, SessionError: the other side breaks the rules.
        """
        reader, writer = asyncio.create_task(self._read()), asyncio.create_task(self._write())
        try:
            watched: set[asyncio.Future[Any]] = {reader, writer, self._closes}
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if self._closing is not None:
                # The other side reads the goodbye and finishes; cancelling first would take the goodbye back.
                await asyncio.wait({reader, writer}, timeout=_FAREWELL_S)
                return None
            if writer.done():
                writer.result()
            return await reader
        finally:
            self._open = False
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _read(self) -> Bye | None:
        while (content := await self._read_bytes()) is not None and self._open:
            frame = self._codec.decode(content, Data, Ack, Bye, Batch)
            if isinstance(frame, Bye):
                return frame
            assert isinstance(frame, Data | Ack | Batch)
            for one in frame.frames if isinstance(frame, Batch) else (frame,):
                message = self.session.receive(one)
                if message is not None:
                    self._deliver(message)
                elif isinstance(one, Data):
                    self.nudge()
        return None

    def _ready(self) -> list[Outgoing]:
        """As many of the frames that are ready as go into one."""
        frames: list[Outgoing] = []
        room: int | None = None
        while len(frames) < MAX_BATCH and (frame := self.session.outgoing(room)) is not None:
            frames.append(frame)
            taken = FRAME_OVERHEAD + carried(frame)
            room = (self._codec.limit if room is None else room) - taken - FRAME_OVERHEAD
        return frames

    async def _write(self) -> None:
        while self._closing is None:
            self._wake.clear()
            while self._open and (frames := self._ready()):
                await self._write_bytes(self._codec.encode_together(frames))
            if not self._wake.is_set():
                self.idle.set()
                await self._wake.wait()
        await self._write_bytes(self._codec.encode(self._closing))
