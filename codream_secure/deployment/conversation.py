"""Where a member's stream, which is called by the aggregator, meets a method, which asks for what it needs next.

The stream runs in threads of its own and puts down what happens: a round began, arrays were shown, a vector is asked
for, the round is over or lost. The method takes these in order. A question waits until the method has its vector; if it
comes again, because the sum failed and nothing was shown since, the same vector answers it, for a sum over the same
members as before.

Where the program is started anew for every message, the method lives through the round's earlier events once more:
vectors that were given are not computed again, and it pauses where the message ends.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections import deque
from collections.abc import Callable

import msgspec
import numpy as np

from codream_secure.deployment.consents import Consents
from codream_secure.deployment.events import (
    Began,
    DesyncError,
    Ended,
    Event,
    Given,
    Gone,
    Lost,
    Paused,
    PausedError,
    Question,
    RoundLostError,
    Vector,
)
from codream_secure.deployment.heading import OVER
from codream_secure.deployment.streams import Asked, Shown
from protocols import PhaseError
from protocols.snapshots import SecretState

_EVENT_COST = 512
"""What an event counts for beside its arrays."""
_SHOWN, _CONTENT, _PLACE = (f"codream-secure question v1 {name}\0".encode() for name in ("shown", "content", "place"))


class Standing(SecretState):
    """How far a conversation has got in a round, as it is kept between two processes.

    Attributes:
        number: of the round of training; None before :meth:`Conversation.enter`.
        asked: what the vector answers that the machine has masked; see :meth:`Conversation.agree`.
        stream: of that vector; empty if something was shown since.
        vector: that vector, float32, as bytes.
    """

    number: int | None
    asked: tuple[int, list[bytes]] | None
    stream: str
    vector: bytes


def _cost(event: Event) -> int:
    arrays = event.tensors if isinstance(event, Shown) else []
    return _EVENT_COST + sum(array.nbytes for array in arrays)


class Conversation:
    """Events in order, from any thread to one.

    Args:
        consents: over whom vectors were summed; None keeps that in memory.
        most_bytes: of events that wait for the method. Beyond that the stream waits, too, and what it does not read is
            bounded by its window: a server that shows faster than the method looks hangs up at last.
    """

    def __init__(self, consents: Consents | None = None, *, most_bytes: int = 256 << 20) -> None:
        self._most_bytes = most_bytes
        self.held = 0
        """Bytes of events that wait."""
        self._consents = consents or Consents()
        self._number: int | None = None
        """Of the round of training, once :meth:`enter` has said it."""
        self._base = -1
        """The round whose state vectors follow from."""
        self._place = 0
        """Of the next sum within the round."""
        self._seen = [b""]
        """Digests of what was shown that vectors follow from, with the buffer and without: some depend on it, and some
        do not. Empty while there is nothing."""
        self._answering: tuple[int, list[bytes]] | None = None
        """What the latest vector answers: base and digests."""
        self._asked: tuple[int, list[bytes]] | None = None
        """The same, of the vector that the machine has masked, here or in another process, and may be asked to open."""
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._put_back: deque[Event] = deque()
        self._lock = threading.Condition()
        self._pending: set[Question] = set()
        self._closed = False
        self._last: tuple[str, Vector] | None = None
        """The latest answer, as long as nothing has been shown since."""

    # The stream's side

    def put(self, event: Event) -> None:
        """Something happened; returns when there is room for it, or nobody listens any more."""
        with self._lock:
            # That the stream is over may always be said: nothing follows.
            self._lock.wait_for(lambda: self._has_room(event) or self._closed or isinstance(event, Gone))
            self.held += _cost(event)
        self._events.put(event)

    def _has_room(self, event: Event) -> bool:
        return not self.held or self.held + _cost(event) <= self._most_bytes

    def _take(self) -> Event:
        event = self._events.get()
        with self._lock:
            self.held -= _cost(event)
            self._lock.notify_all()
        return event

    def ask(self, asked: Asked) -> Vector | None:
        """The vector for a question, once the method has it; None if nobody will answer."""
        question = Question(asked)
        with self._lock:
            if self._closed:
                return None
            self._pending.add(question)
        self.put(question)
        try:
            return question.answer.result()
        finally:
            with self._lock:
                self._pending.discard(question)

    def standing(self) -> Standing:
        """What :meth:`stand` takes in another process."""
        masked = self._last if self._answering is self._asked else None
        stream, vector = masked or ("", np.zeros(0, np.float32))
        return Standing(self._number, self._asked, stream, vector.tobytes())

    def stand(self, standing: Standing) -> None:
        """Be ready to agree to what the vector that was masked in another process is summed over."""
        self._asked = standing.asked

    def masked(self) -> None:
        """The machine has masked the latest vector: from here on it is this one that is opened."""
        self._asked = self._answering

    @property
    def oldest(self) -> int | None:
        """The round after which the state was kept that the masked vector follows from; None if there is none."""
        return None if self._asked is None else self._asked[0]

    def agree(self, survivors: tuple[int, ...]) -> None:
        """Return if the vector that the machine has masked may be summed over these members.

        Raises:
            AlreadyAnsweredError: the same question was answered before, for a sum over others.
            PhaseError: none was given.
        """
        if self._asked is None:
            raise PhaseError("a sum is to be opened, and this client has given no vector")
        base, questions = self._asked
        self._consents.agree(base, questions, survivors=survivors)

    # The method's side

    def enter(self, number: int, *, base: int, buffer: Shown | None = None) -> None:
        """Say what the questions from here on belong to.

        Args:
            number: the round of training.
            base: the round after which the state was kept that vectors follow from.
            buffer: what was shown and taken over, if anything was. Nothing else that was shown so far tells in
                vectors, so a server cannot make a question a new one by it.
        """
        self._number, self._base, self._place, self._seen = number, base, 0, [b""]
        if buffer is not None:
            # A server that shows another buffer must not get the same update for the same dreams as a new question.
            self._seen.append(_follows(b"", buffer))

    def _note(self, shown: Shown) -> None:
        self._seen = [_follows(seen, shown) for seen in self._seen]

    def _questions(self, phase: str) -> list[bytes]:
        """Under what a question may come again: its place in training, and all that its answer follows from.

        The latter without the number of the round, which the server chooses.
        """
        place = [self._place - 1, phase]
        found = []
        if self._number is not None:
            found.append(_PLACE + msgspec.msgpack.encode([self._number, *place]))
        for seen in self._seen:
            if seen or self._number is None:
                found.append(_CONTENT + msgspec.msgpack.encode([seen, *place]))
        return [hashlib.sha256(question).digest() for question in found]

    def close(self) -> None:
        """Nobody listens any more: whoever waits for an answer gets none."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            pending = list(self._pending)
        for question in pending:
            if not question.answer.done():
                question.answer.set_result(None)

    def next(self) -> Event:
        """The next event that is not a question asked before.

        Raises:
            StreamError: or whatever else ended the stream.
        """
        while True:
            event = self._put_back.popleft() if self._put_back else self._take()
            if isinstance(event, Question):
                if self._last is None or not _fits(event, self._last[0], len(self._last[1])):
                    return event
                event.answer.set_result(self._last[1])
                continue
            if isinstance(event, Gone | Paused):
                self._put_back.appendleft(event)
            else:
                self._last = None
                if isinstance(event, Began):
                    self._number, self._base, self._place, self._seen = None, -1, 0, [b""]
            return event

    def show(self) -> Shown:
        """What is shown next.

        Raises:
            RoundLostError: the round is over before anything is.
            PausedError: it may come with another message.
            DesyncError: something else is asked for.
        """
        event = self.next()
        if isinstance(event, Shown):
            self._note(event)
            return event
        if isinstance(event, Question):
            event.answer.set_result(None)
            raise DesyncError(
                f"the server asks for {event.asked.values} values of {event.asked.stream!r}, where something was to be "
                "shown: it does not follow these terms of training"
            )
        if isinstance(event, Given):
            raise DesyncError(
                f"{event.stream!r} was given where something was to be shown: the round's record is wrong"
            )
        raise self._lost(event)

    def contribute(self, phase: str, values: int, compute: Callable[[], Vector]) -> None:
        """Answer the next question; if the sum is taken without this member, there is none.

        Args:
            phase: the stream.
            values: how many values the vector has.
            compute: gives it, if it is asked for now.

        Raises:
            RoundLostError: the round was lost.
            PausedError: the question may come with another message.
            DesyncError: another stream or length is asked for.
        """
        event = self.next()
        self._place += 1
        if isinstance(event, Question):
            if not _fits(event, phase, values):
                event.answer.set_result(None)
                raise _wrong(event.asked.stream, event.asked.values, phase, values)
            vector = compute()
            self._last = (phase, vector)
            self._answering = self._base, self._questions(phase)
            event.answer.set_result(vector)
        elif isinstance(event, Given):
            if (event.stream, event.values) != (phase, values):
                raise _wrong(event.stream, event.values, phase, values)
        elif isinstance(event, Lost | Gone | Paused):
            raise self._lost(event)
        else:
            self._put_back.appendleft(event)

    def _lost(self, event: Event) -> RoundLostError | PausedError:
        """Whatever comes next is for whoever waits for the next round."""
        if isinstance(event, Paused):
            return PausedError("the message is over, and the round is not")
        if isinstance(event, Began | Gone) or event == Ended(OVER):
            self._put_back.appendleft(event)
        return RoundLostError(f"the round was lost: {type(event).__name__.lower()}")


def _follows(seen: bytes, shown: Shown) -> bytes:
    """32 bytes for all that was shown so far and then this."""
    digest = hashlib.sha256(_SHOWN + seen)
    for array in shown.tensors:
        digest.update(msgspec.msgpack.encode([shown.phase, array.dtype.name, array.shape]))
        # Zeros of either sign are the same to whoever computes with them.
        positive = np.add(array, 0.0, dtype=array.dtype) if array.dtype.kind == "f" else array
        digest.update(positive.tobytes())
    return digest.digest()


def _fits(question: Question, phase: str, values: int) -> bool:
    return question.asked.stream == phase and question.asked.values == values


def _wrong(stream: str, asked: int, phase: str, values: int) -> DesyncError:
    return DesyncError(
        f"the server asks for {asked} values of {stream!r}, where this client has {values} of {phase!r}: it does not "
        "follow these terms of training"
    )
