"""Sessions over connections that are cut, lose and repeat: everything arrives once and in order, or not yet."""

from __future__ import annotations

from collections import deque

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from codream_secure.deployment.streams.errors import BacklogError, FrameError, GapError, SessionError
from codream_secure.deployment.streams.frames import Ack, Batch, Codec, Data, Strewn
from codream_secure.deployment.streams.limits import CHUNK_COST, Limits
from codream_secure.deployment.streams.session import Session, cut

LIMITS = Limits(frame_bytes=4096, message_bytes=20_000, window_bytes=60_000)
CHUNK = LIMITS.chunk_bytes
ID = bytes(16)


def pair() -> tuple[Session, Session]:
    return Session(ID, limits=LIMITS), Session(ID, limits=LIMITS)


def pump(one: Session, other: Session) -> list[bytes]:
    """All that one side has to say reaches the other; what arrives."""
    arrived = []
    while (frame := one.outgoing()) is not None:
        message = other.receive(frame)
        if message is not None:
            arrived.append(bytes(message))
    return arrived


class Conversation(RuleBasedStateMachine):
    """Two ends, the wire between them, and somebody who cuts it, loses frames and repeats them."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = pair()
        self.codec = Codec(LIMITS.frame_bytes)
        self.wires: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
        self.sent: tuple[list[bytes], list[bytes]] = ([], [])
        self.arrived: tuple[list[bytes], list[bytes]] = ([], [])
        self.open = [0, 0]
        self.content: dict[tuple[int, int], bytes] = {}
        self.count = 0

    @rule(end=st.integers(0, 1), size=st.sampled_from([1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 20_000]))
    def say(self, end: int, size: int) -> None:
        self.count += 1
        message = (self.count.to_bytes(4, "big") * (size // 4 + 1))[:size]
        try:
            self.ends[end].send(message)
        except BacklogError:
            assert self.ends[end].waiting + size + CHUNK_COST * -(-size // CHUNK) > LIMITS.window_bytes
        else:
            self.sent[end].append(message)

    @rule(end=st.integers(0, 1), frames=st.integers(1, 6), room=st.sampled_from([None, 500, CHUNK]))
    def write(self, end: int, frames: int, room: int | None) -> None:
        for _ in range(frames):
            frame = self.ends[end].outgoing(room)
            if frame is None:
                return
            if isinstance(frame, Data):
                # What is sent again is the same, byte for byte.
                content = bytes(frame.payload)
                assert self.content.setdefault((end, frame.seq), content) == content
            self.wires[end].append(self.codec.encode(frame))

    @precondition(lambda self: any(self.wires))
    @rule(end=st.integers(0, 1), frames=st.integers(1, 6))
    def carry(self, end: int, frames: int) -> None:
        for _ in range(frames):
            if not self.wires[end]:
                return
            self._hand_over(end, self.wires[end].popleft())

    @precondition(lambda self: any(self.wires))
    @rule(end=st.integers(0, 1))
    def repeat(self, end: int) -> None:
        if self.wires[end]:
            self._hand_over(end, self.wires[end][0])

    @precondition(lambda self: any(self.wires))
    @rule(end=st.integers(0, 1))
    def lose(self, end: int) -> None:
        if self.wires[end]:
            self.wires[end].popleft()

    @rule(end=st.integers(0, 1))
    def deal_with(self, end: int) -> None:
        if self.open[end]:
            self.ends[end].consumed()
            self.open[end] -= 1

    @rule()
    def cut(self) -> None:
        for wire in self.wires:
            wire.clear()
        one, other = self.ends
        told = one.received, other.received
        one.resume(told[1])
        other.resume(told[0])

    def _hand_over(self, sender: int, content: bytes) -> None:
        end = 1 - sender
        try:
            message = self.ends[end].receive(self.codec.decode(content, Data, Ack))
        except GapError:
            self.cut()
            return
        if message is not None:
            self.arrived[end].append(bytes(message))
            self.open[end] += 1

    @invariant()
    def nothing_comes_twice_or_out_of_order(self) -> None:
        for end in (0, 1):
            assert self.arrived[end] == self.sent[1 - end][: len(self.arrived[end])]
            assert self.ends[end].waiting <= LIMITS.window_bytes

    def teardown(self) -> None:
        """Once the wire is good, everything arrives."""
        self.cut()
        for _ in range(8):
            for end in (0, 1):
                for message in pump(self.ends[end], self.ends[1 - end]):
                    self.arrived[1 - end].append(message)
                    self.open[1 - end] += 1
                while self.open[1 - end]:
                    self.deal_with(1 - end)
        for end in (0, 1):
            assert self.arrived[end] == self.sent[1 - end]


Conversation.TestCase.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
TestConversation = Conversation.TestCase


def test_a_stream_of_messages_never_fills_the_window_if_they_are_dealt_with() -> None:
    one, other = pair()
    for _ in range(50):
        one.send(bytes(20_000))
        assert len(pump(one, other)) == 1
        other.consumed()
        pump(other, one)
    assert one.waiting < LIMITS.window_bytes // 2


def test_the_window_bounds_what_waits() -> None:
    one, _ = pair()
    one.send(bytes(20_000))
    one.send(bytes(20_000))
    with pytest.raises(BacklogError, match="window_bytes"):
        one.send(bytes(20_000))
    with pytest.raises(BacklogError, match="message_bytes"):
        one.send(bytes(20_001))


def data(seq: int, size: int, length: int, *, ack: int = 0) -> Data:
    return Data(seq, ack, size, memoryview(bytes(length)))


@pytest.mark.parametrize(
    ("frames", "problem"),
    [
        ([data(1, 20_001, CHUNK)], "is announced"),
        ([data(1, 0, 5)], "goes on with none"),
        ([data(1, 2 * CHUNK, CHUNK), data(2, 5, 5)], "within another"),
        ([data(1, 2 * CHUNK, 1)], "neither full nor the end"),
        ([data(1, 5, 6)], "neither full nor the end"),
        ([data(1, 5, 0)], "empty"),
        ([data(1, 5, 5, ack=1)], "acknowledged"),
        ([data(seq, 1, 1) for seq in range(1, 200)], "more than the window"),
    ],
)
def test_what_would_cost_memory_or_makes_no_sense_ends_the_session(frames: list[Data], problem: str) -> None:
    _, other = pair()

    def receive_all() -> None:
        for frame in frames:
            other.receive(frame)

    with pytest.raises(SessionError, match=problem):
        receive_all()


def test_cuts_do_not_make_room_in_the_window() -> None:
    """What has arrived and was not dealt with counts, on however many connections it came."""
    one, other = pair()
    one.send(bytes(20_000))
    one.send(bytes(20_000))
    pump(one, other)
    one.resume(other.received)
    with pytest.raises(BacklogError):
        one.send(bytes(20_000))


@pytest.mark.parametrize("received", [0, 3])
def test_a_side_that_claims_what_cannot_be_is_not_gone_on_with(received: int) -> None:
    one, other = pair()
    one.send(b"first")
    one.send(b"second")
    pump(one, other)
    other.consumed()
    one.receive(Ack(1))
    with pytest.raises(SessionError, match="possible"):
        one.resume(received)


def test_what_the_other_side_once_said_had_reached_it_is_not_asked_for_again() -> None:
    one, other = pair()
    for _ in range(5):
        one.send(b"message")
    pump(one, other)
    one.resume(4)
    with pytest.raises(SessionError, match="4 to 5 are possible"):
        one.resume(2)
    one.resume(5)
    assert one.outgoing() is None


def test_consuming_needs_a_message() -> None:
    with pytest.raises(SessionError, match="consumed"):
        pair()[0].consumed()


def test_what_comes_twice_is_dropped_and_acknowledged_again() -> None:
    one, other = pair()
    one.send(b"first")
    frame = one.outgoing()
    assert isinstance(frame, Data)
    assert other.receive(frame) == b"first"
    other.consumed()
    assert other.outgoing() is None
    assert other.receive(frame) is None
    assert other.outgoing() == Ack(1)


def test_an_acknowledgement_that_a_cut_took_is_told_again() -> None:
    one, other = pair()
    one.send(b"first")
    pump(one, other)
    other.consumed()
    one.resume(other.received)
    other.resume(one.received)
    pump(other, one)
    assert one.waiting == 0


def test_what_has_arrived_is_not_kept() -> None:
    one, other = pair()
    one.send(bytes(CHUNK))
    pump(one, other)
    one.resume(other.received)
    assert [chunk.content for chunk in one._window] == [None]


def test_an_acknowledgement_of_what_was_not_written_yet_is_taken_at_its_word() -> None:
    one, _ = pair()
    one.send(b"first")
    one.send(b"second")
    one.receive(Ack(1))
    frame = one.outgoing()
    assert isinstance(frame, Data)
    assert frame.seq == 2


def test_frames_travel_together_as_plain_msgpack() -> None:
    codec = Codec(1 << 20)
    frames = [Data(1, 0, 70_000, memoryview(bytes(70_000))), Ack(7), Data(2, 0, 3, memoryview(b"abc"))]
    content = codec.encode_together(frames)
    assert content == b"\x01" + msgspec.msgpack.encode(Batch(frames))
    assert codec.decode(content, Batch).frames == frames
    assert codec.encode_together(frames[1:2]) == codec.encode(Ack(7))
    with pytest.raises(FrameError, match="at most 15"):
        codec.encode_together([Ack(1)] * 16)
    with pytest.raises(FrameError, match="malformed"):
        codec.decode(b"\x01" + msgspec.msgpack.encode(Batch([Ack(1)] * 16)), Batch)


def test_chunks_that_were_cut_once_serve_many_sessions() -> None:
    message = bytes(range(256)) * 50
    chunks = cut(message, CHUNK)
    for _ in range(2):
        one, other = pair()
        one.send(message, chunks=chunks)
        plain, _ = pair()
        plain.send(message)
        assert one.waiting == plain.waiting
        assert pump(one, other) == [message]


def test_a_session_says_whether_it_has_more_to_say() -> None:
    one, other = pair()
    assert not one.has_more
    one.send(b"message")
    assert one.has_more
    pump(one, other)
    assert not one.has_more
    other.consumed()
    other.resume(0)
    assert other.has_more


def test_a_frame_for_many_is_made_once_and_never_confused_with_another() -> None:
    message = bytes(200_000)
    chunks = cut(message, 100_000)
    codec, plain = Codec(1 << 20, remember=True), Codec(1 << 20)
    first = codec.encode_together([Data(1, 0, 200_000, chunks[0]), Ack(3)])
    assert codec.encode_together([Data(1, 0, 200_000, chunks[0]), Ack(3)]) is first
    for frames in (
        [Data(1, 0, 200_000, chunks[0])],
        [Data(1, 0, 200_000, chunks[0]), Ack(4)],
        [Data(1, 0, 200_000, chunks[0]), Data(2, 0, 3, memoryview(b"abc"))],
        [Data(2, 0, 200_000, chunks[0]), Ack(3)],
        [Data(1, 1, 200_000, chunks[0]), Ack(3)],
        [Data(1, 0, 0, chunks[0]), Ack(3)],
        [Data(1, 0, 200_000, chunks[1]), Ack(3)],
        [Data(1, 0, 200_000, memoryview(b"short")), Ack(3)],
    ):
        codec.encode_together([Data(1, 0, 200_000, chunks[0]), Ack(3)])
        assert codec.encode_together(frames) == plain.encode_together(frames)


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 150_000, 300_000])
def test_a_message_in_pieces_arrives_as_one_and_again_after_a_cut(size: int) -> None:
    limits = Limits(frame_bytes=200_000, message_bytes=400_000, window_bytes=800_000)
    one, other = Session(ID, limits=limits), Session(ID, limits=limits)
    codec = Codec(limits.frame_bytes)
    message = bytes(number % 251 for number in range(size))
    one.send((message[:1], memoryview(message)[1:]))
    assert one.waiting == limits.cost(size)
    for _ in range(2):
        arrived = b""
        while (frame := one.outgoing()) is not None:
            content = codec.decode(codec.encode_together([frame]), Data)
            arrived = other.receive(content) or arrived
        assert arrived == message
        one.resume(0)
        other = Session(ID, limits=limits)


def test_pieces_are_limited_and_framed_like_one_message() -> None:
    one, _ = pair()
    with pytest.raises(BacklogError, match="has 20001 bytes"):
        one.send((bytes(1), bytes(20_000)))
    with pytest.raises(BacklogError, match="has 0 bytes"):
        one.send((b"", b""))
    codec, message = Codec(1 << 20), bytes(range(256)) * 300
    strewn = Strewn(3, 2, 76_800, (message[:10], memoryview(message)[10:]))
    assert codec.encode_together([strewn, Ack(1)]) == codec.encode_together(
        [Data(3, 2, 76_800, memoryview(message)), Ack(1)]
    )
