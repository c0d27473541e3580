"""Packets and replies come from whoever carries messages: they are read strictly, and in bounds."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codream_secure.deployment.messages.packets import MAX_CALLS, pack, read_reply, reply, unpack
from codream_secure.deployment.streams import Limits
from codream_secure.deployment.streams.calls import Ask, Begin, Call, End, Relay, Show, encode
from codream_secure.deployment.streams.errors import BacklogError, FrameError

ROUND = bytes(range(16))
LIMITS = Limits(frame_bytes=4096, message_bytes=1000, window_bytes=2000)
BEGIN, END = Begin(ROUND), End(ROUND, "over")
RELAY, ASK = Relay(1, memoryview(b"x")), Ask(2, "train", 3, memoryview(b"y"))


def packed(*calls: Call, position: int = 0, round_id: bytes = ROUND) -> bytes:
    return pack(round_id, position, [encode(call) for call in calls], limits=LIMITS)


@given(
    st.integers(0, 2**40),
    st.lists(st.sampled_from([RELAY, Show("dreams", [])]), max_size=8),
    st.sampled_from([RELAY, ASK, Show("dreams", []), END]),
)
def test_what_is_packed_is_unpacked(position: int, first: list[Call], last: Call) -> None:
    calls = [*first, last]
    found = unpack(packed(*calls, position=position), limits=LIMITS)
    assert (found.round_id, found.position) == (ROUND, position)
    assert [type(call) for call, _ in found.calls] == [type(call) for call in calls]
    assert [bytes(content) for _, content in found.calls] == [encode(call) for call in calls]


@given(st.binary(max_size=300), st.booleans())
def test_replies_come_back(answer: bytes, out: bool) -> None:
    found = read_reply(reply(answer, out=out), limits=LIMITS)
    assert (found.out, bytes(found.answer)) == (out, answer)


@settings(max_examples=300)
@given(st.data())
def test_whatever_bytes_come_nothing_else_is_raised_than_that_they_are_malformed(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([packed(BEGIN, RELAY), packed(RELAY, END, position=3), reply(b"answer")]))
    place = data.draw(st.integers(0, len(good) - 1))
    changed = data.draw(
        st.one_of(
            st.binary(max_size=64),
            st.just(good[:place]),
            st.integers(1, 255).map(lambda flip: good[:place] + bytes([good[place] ^ flip]) + good[place + 1 :]),
        )
    )
    for read in (unpack, read_reply):
        with contextlib.suppress(FrameError):
            read(changed, limits=LIMITS)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (packed(RELAY, BEGIN), "in the middle of a round"),
        (packed(BEGIN, position=1), "in the middle of a round"),
        (packed(END, RELAY), "after its end"),
        (packed(ASK, RELAY), "after a question"),
        (packed(ASK, ASK), "after a question"),
        (packed(ASK, END), "after a question"),
        (packed(BEGIN, round_id=bytes(16)), "another round than its packet"),
        (packed(END, round_id=bytes(16)), "another round than its packet"),
        (msgspec.msgpack.encode([1, ROUND, 0, []]), "malformed"),
        (msgspec.msgpack.encode([2, ROUND, 0, [encode(RELAY)]]), "malformed"),
        (msgspec.msgpack.encode([1, ROUND, -1, [encode(RELAY)]]), "malformed"),
        (msgspec.msgpack.encode([1, ROUND[:15], 0, [encode(RELAY)]]), "malformed"),
        (msgspec.msgpack.encode([1, ROUND, 0, [encode(RELAY)] * (MAX_CALLS + 1)]), "malformed|at most"),
        (msgspec.msgpack.encode([1, ROUND, 0, [encode(Relay(1, memoryview(bytes(1000))))]]), "message_bytes"),
        (bytes(2000 + 16 * MAX_CALLS + 1), "at most"),
    ],
)
def test_what_no_server_sends_is_refused(message: bytes, said: str) -> None:
    with pytest.raises(FrameError, match=said):
        unpack(message, limits=LIMITS)


def test_replies_are_bounded() -> None:
    with pytest.raises(FrameError, match="at most 1064"):
        read_reply(reply(bytes(1064)), limits=LIMITS)


def test_what_is_too_much_for_a_message_is_not_sent() -> None:
    with pytest.raises(BacklogError, match=r"3 calls of 3018 bytes .* at most 4096 of 2000 \(window_bytes\)"):
        packed(*[Relay(1, memoryview(bytes(1000)))] * 3)
    with pytest.raises(BacklogError, match="4097 calls"):
        packed(*[RELAY] * (MAX_CALLS + 1))
