"""A conversation that outlives its connections: every message arrives once and in order, or the session is over.

No socket here. Either side numbers the chunks that it sends and keeps them until the other side has said that they
arrived. When a connection is cut, both say on the next one what had reached them, and the rest is sent again, the same
bytes under the same numbers; what comes twice is dropped. So a step is never asked for twice nor answered twice, and an
answer that was on its way is not made anew.

Acknowledgements ride on data. One travels alone only when a quarter of the window waits for it: in a conversation of
questions and answers, never.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from codream_secure.deployment.streams.errors import BacklogError, GapError, SessionError
from codream_secure.deployment.streams.frames import LONG_BYTES, Ack, Data, Outgoing, Strewn
from codream_secure.deployment.streams.limits import CHUNK_COST, Limits


def cut(message: bytes, chunk_bytes: int) -> list[memoryview]:
    """A message as views of so many bytes, the last one of what is left."""
    view = memoryview(message)
    return [view[start : start + chunk_bytes] for start in range(0, len(view), chunk_bytes)]


@dataclass(slots=True)
class _Chunk:
    """A chunk that was handed over for sending; the content is dropped once it has arrived."""

    seq: int
    cost: int
    size: int
    content: memoryview | tuple[bytes | memoryview, ...] | None


class Session:
    """One side of a session.

    Args:
        session_id: 16 bytes that name it.
        limits: sizes; the same on both sides.

    Attributes:
        received: the last chunk that reached this side.
        sent: the last chunk that was given a number.
        acknowledged: the last chunk that the other side has dealt with.
        waiting: bytes handed over for sending and not yet acknowledged.
    """

    def __init__(self, session_id: bytes, *, limits: Limits) -> None:
        self.session_id = session_id
        self._limits = limits
        self.sent = 0
        self.acknowledged = 0
        self.waiting = 0
        self._window: deque[_Chunk] = deque()
        """Chunks that are not acknowledged, in order."""
        self._reached = 0
        """The last chunk that the other side has said had reached it; what it holds is not kept here."""
        self._next = 1
        """The next chunk to put on the present connection."""
        self.received = 0
        self._held = 0
        """Bytes that arrived and were not dealt with."""
        self._partial: list[memoryview] = []
        self._missing = 0
        """Bytes that the message in ``_partial`` still lacks."""
        self._cost = 0
        """What it counts for so far."""
        self._delivered: deque[tuple[int, int]] = deque()
        """Last chunk and cost of each message that was given out and not dealt with, in order."""
        self._dealt_with = 0
        """The last chunk to acknowledge."""
        self._untold = 0
        """Bytes dealt with since."""
        self._ack_due = False

    # Sending

    def send(
        self, message: bytes | tuple[bytes | memoryview, ...], *, chunks: Sequence[memoryview] | None = None
    ) -> None:
        """Take a message on; it stays here until the other side has it.

        Args:
            message: at least one byte; in pieces if need be, which are put together when it is sent.
            chunks: what :func:`cut` makes of it, where several sessions send it: frames with the very same chunk are
                made once.

        Raises:
            BacklogError: it is too long, or too much waits already; nothing was taken on.
        """
        size = sum(map(len, message)) if isinstance(message, tuple) else len(message)
        if not 0 < size <= self._limits.message_bytes:
            raise BacklogError(
                f"the message has {size} bytes: 1 to {self._limits.message_bytes} (message_bytes) are allowed"
            )
        cost = self._limits.cost(size)
        if self.waiting + cost > self._limits.window_bytes:
            raise BacklogError(
                f"{self.waiting} bytes wait for acknowledgement, so {cost} more are above the window of "
                f"{self._limits.window_bytes} (window_bytes): the other side does not keep up"
            )
        self.waiting += cost
        if isinstance(message, tuple) and LONG_BYTES <= size <= self._limits.chunk_bytes:
            self._take_on(size, size, message)
            return
        whole = b"".join(message) if isinstance(message, tuple) else message
        for content in cut(whole, self._limits.chunk_bytes) if chunks is None else chunks:
            self._take_on(len(content), size, content)
            size = 0

    def _take_on(self, length: int, size: int, content: memoryview | tuple[bytes | memoryview, ...]) -> None:
        self.sent += 1
        self._window.append(_Chunk(self.sent, length + CHUNK_COST, size, content))

    def outgoing(self, room: int | None = None) -> Outgoing | None:
        """The next frame for the present connection; None if there is nothing to say.

        Args:
            room: leave a chunk of more bytes for later; None takes any.
        """
        if self._next <= self.sent:
            chunk = self._window[self._next - self._window[0].seq]
            assert chunk.content is not None
            if room is not None and chunk.cost - CHUNK_COST > room:
                return None
            self._next += 1
            self._tell()
            kind = Strewn if isinstance(chunk.content, tuple) else Data
            return kind(chunk.seq, self._dealt_with, chunk.size, chunk.content)  # type: ignore[arg-type]
        if self.owes_acknowledgement:
            self._tell()
            return Ack(self._dealt_with)
        return None

    @property
    def has_more(self) -> bool:
        """Whether :meth:`outgoing` has something to say."""
        return self._next <= self.sent or self.owes_acknowledgement

    @property
    def owes_acknowledgement(self) -> bool:
        """Whether one should go out even if no data does."""
        return self._ack_due or self._untold > self._limits.window_bytes // 4

    def _tell(self) -> None:
        self._untold, self._ack_due = 0, False

    def resume(self, received: int) -> None:
        """Go on over a new connection: what the other side lacks is sent again.

        Args:
            received: the last chunk that reached the other side, as it says.

        Raises:
            SessionError: it cannot be; this session is over.
        """
        least = max(self.acknowledged, self._reached)
        if not least <= received <= self.sent:
            raise SessionError(
                f"the other side says that chunk {received} was the last to reach it, where {least} to {self.sent} "
                "are possible"
            )
        self._reached = received
        for chunk in self._window:
            if chunk.seq > received:
                break
            chunk.content = None
        self._next = received + 1
        # The connection that broke may have taken an acknowledgement with it.
        self._ack_due = self._dealt_with > 0

    # Receiving

    def receive(self, frame: Data | Ack) -> bytes | memoryview | None:
        """Take a frame; the message that it completes, if any.

        Raises:
            GapError: a chunk before this one is missing; connect again.
            SessionError: the other side does what it must not.
        """
        self._take_ack(frame.ack)
        if isinstance(frame, Ack):
            return None
        if frame.seq <= self.received:
            self._ack_due = True
            return None
        if frame.seq != self.received + 1:
            raise GapError(f"chunk {frame.seq} follows upon chunk {self.received}")
        length = len(frame.payload)
        self._check(frame.size, length)
        self.received = frame.seq
        self._held += length + CHUNK_COST
        self._cost += length + CHUNK_COST
        self._missing = (frame.size or self._missing) - length
        if self._missing or self._partial:
            self._partial.append(frame.payload)
        if self._missing:
            return None
        self._delivered.append((self.received, self._cost))
        whole = b"".join(self._partial) if self._partial else frame.payload
        self._partial, self._cost = [], 0
        return whole

    def _check(self, size: int, length: int) -> None:
        """Refuse what would make this side hold more than it has agreed to, before it holds it."""
        if not length:
            raise SessionError("a chunk is empty")
        if bool(size) == bool(self._partial):
            raise SessionError("a chunk begins a message within another, or goes on with none")
        if size > self._limits.message_bytes:
            raise SessionError(f"a message of {size} bytes is announced: at most {self._limits.message_bytes}")
        if length != min(size or self._missing, self._limits.chunk_bytes):
            raise SessionError(f"a chunk of {length} bytes is neither full nor the end of its message")
        if self._held + length + CHUNK_COST > self._limits.window_bytes:
            raise SessionError(f"the other side sent more than the window of {self._limits.window_bytes} bytes")

    def consumed(self) -> None:
        """The oldest message that :meth:`receive` gave out and that was still open has been dealt with.

        Raises:
            SessionError: there is none.
        """
        if not self._delivered:
            raise SessionError("consumed() was called more often than messages arrived")
        self._dealt_with, cost = self._delivered.popleft()
        self._held -= cost
        self._untold += cost

    def _take_ack(self, ack: int) -> None:
        if ack > self.sent:
            raise SessionError(f"chunk {ack} is acknowledged, where {self.sent} was the last")
        while self._window and self._window[0].seq <= ack:
            self.waiting -= self._window.popleft().cost
        self.acknowledged = max(self.acknowledged, ack)
        # What was acknowledged after a cut need not be sent again.
        self._next = max(self._next, ack + 1)
