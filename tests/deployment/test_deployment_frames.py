"""Frames and proofs as bytes that somebody hostile may have made."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codream_secure.deployment.streams import calls
from codream_secure.deployment.streams.errors import FrameError, RefusedError
from codream_secure.deployment.streams.frames import Ack, Bye, Challenge, Codec, Data, Frame, Hello, Proof, Welcome
from codream_secure.deployment.streams.frames import farewell as make_bye
from codream_secure.deployment.streams.handshake import challenge, check_hello, check_proof, greet, prove
from codream_secure.deployment.streams.limits import Backoff, Deadlines, Limits
from codream_secure.errors import ConfigError
from protocols import Identity, Roster

CODEC = Codec(4096)
IDENTITIES = {member: Identity.generate() for member in range(3)}
ROSTER = Roster({member: identity.public_key for member, identity in IDENTITIES.items()})
ROUND = bytes(range(16))


def hello(**changes: object) -> Hello:
    made = greet(1, IDENTITIES[1], roster=ROSTER, round_id=b"", session_id=b"", received=0)
    return msgspec.structs.replace(made, **changes)


FRAMES = [
    hello(),
    challenge(),
    prove(IDENTITIES[1], hello(), challenge()),
    Welcome(bytes(16), True, 5),
    Data(1, 0, 3, memoryview(b"abc")),
    Ack(7),
    Bye("enough", False),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_a_frame_survives_the_way(frame: Frame) -> None:
    assert CODEC.decode(CODEC.encode(frame), type(frame)) == frame


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_by_name(content: bytes) -> None:
    for prefix in (b"", b"\x01"):
        try:
            CODEC.decode(prefix + content, Data, Ack, Bye)
        except FrameError:
            continue


@given(st.sampled_from(FRAMES), st.data())
def test_damaged_frames_are_refused_by_name(frame: Frame, damage: st.DataObject) -> None:
    content = bytearray(CODEC.encode(frame))
    content[damage.draw(st.integers(0, len(content) - 1))] ^= damage.draw(st.integers(1, 255))
    for kept in (len(content), damage.draw(st.integers(0, len(content)))):
        try:
            CODEC.decode(bytes(content[:kept]), Hello, Challenge, Proof, Welcome, Data, Ack, Bye)
        except FrameError:
            continue


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no version"),
        (b"\x02" + CODEC.encode(Ack(1))[1:], "version 2"),
        (CODEC.encode(Ack(1)) + b"\x00", "malformed"),
        (CODEC.encode(Ack(1))[:-1], "malformed"),
        (bytes(4097), "at most 4096"),
        (CODEC.encode(Welcome(bytes(16), False, 0)), "Welcome"),
        ("text", "bytes"),
    ],
)
def test_what_is_no_frame_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(FrameError, match=problem):
        CODEC.decode(content, Data, Ack)


@pytest.mark.parametrize("length", [1, 255, 256, (1 << 16) - 1, 1 << 16, (1 << 16) + 1])
def test_chunks_of_every_length_are_plain_msgpack(length: int) -> None:
    frame = Data(1 << 40, 3, length, memoryview(bytes(range(256)) * 300)[:length])
    content = Codec(1 << 20).encode(frame)
    assert content == b"\x01" + msgspec.msgpack.encode(frame)
    assert Codec(1 << 20).decode(content, Data) == frame


def test_a_frame_above_the_limit_is_not_made() -> None:
    with pytest.raises(FrameError, match="at most"):
        CODEC.encode(Data(1, 0, 5000, memoryview(bytes(5000))))
    assert len(make_bye("x" * 1000, retry=True).reason) == 400


@pytest.mark.parametrize(
    ("greeting", "problem", "retry"),
    [
        (hello(version=2), "version 2", False),
        (hello(roster=bytes(32)), "another roster", False),
        (hello(member=9), "not on the roster", False),
        (hello(public_key=Identity.generate().public_key), "not that of member 1", False),
        (hello(member=2), "not that of member 2", False),
        (hello(round_id=bytes(16)), "not going on", True),
    ],
)
def test_a_greeting_that_does_not_fit_is_refused_and_told_why(greeting: Hello, problem: str, retry: bool) -> None:
    with pytest.raises(RefusedError, match=problem) as refused:
        check_hello(greeting, ROSTER, round_id=ROUND)
    assert refused.value.retry is retry


def test_a_proof_is_for_one_greeting_and_one_challenge() -> None:
    greeting, asked = hello(round_id=ROUND), challenge()
    check_hello(greeting, ROSTER, round_id=ROUND)
    proof = prove(IDENTITIES[1], greeting, asked)
    check_proof(greeting, asked, proof, ROSTER)
    others = [hello(round_id=ROUND)]
    changed = {"session_id": bytes(16), "received": 1, "round_id": b"", "roster": bytes(32), "version": 3}
    others += [msgspec.structs.replace(greeting, **{name: value}) for name, value in changed.items()]
    for other in others:
        with pytest.raises(RefusedError, match="not signed"):
            check_proof(other, asked, proof, ROSTER)
    with pytest.raises(RefusedError, match="not signed"):
        check_proof(greeting, challenge(), proof, ROSTER)
    with pytest.raises(RefusedError, match="not signed"):
        check_proof(greeting, asked, prove(IDENTITIES[2], greeting, asked), ROSTER)


def test_arrays_survive_the_way_and_cannot_be_changed() -> None:
    arrays = [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.array(3, dtype=np.int64),
        np.zeros((0, 4), dtype=np.uint8),
    ]
    call = calls.decode_downward(calls.encode(calls.show("dreams", arrays)))
    assert isinstance(call, calls.Show)
    for array, arrived in zip(arrays, calls.shown(call), strict=True):
        assert arrived.dtype == array.dtype
        assert np.array_equal(arrived, array)
        assert not arrived.flags.writeable


@pytest.mark.parametrize(
    "tensor",
    [
        calls.Tensor("float32", [3], memoryview(bytes(8))),
        calls.Tensor("object", [1], memoryview(bytes(8))),
        calls.Tensor("float64", [2**39, 2**39, 0, 1], memoryview(bytes(8))),
    ],
)
def test_arrays_that_contradict_themselves_are_refused(tensor: calls.Tensor) -> None:
    with pytest.raises(FrameError):
        calls.shown(calls.Show("dreams", [tensor]))


def test_arrays_of_objects_are_not_sent() -> None:
    with pytest.raises(FrameError, match="dtype object"):
        calls.show("dreams", [np.array([None])])


def test_contexts_tell_what_was_shown_apart() -> None:
    start = calls.first_context(ROUND)
    found = {start, calls.first_context(bytes(16))}
    found |= {calls.next_context(start, b"a"), calls.next_context(start, b"b")}
    found.add(calls.next_context(calls.next_context(start, b"a"), b"b"))
    found.add(calls.next_context(start, b"ab"))
    assert len(found) == 6


@pytest.mark.parametrize("content", [b"", b"\x93\x01", calls.encode(calls.Answer(1, memoryview(b"x")))])
def test_calls_in_the_wrong_direction_are_refused(content: bytes) -> None:
    with pytest.raises(FrameError, match="malformed"):
        calls.decode_downward(content)


@pytest.mark.parametrize(
    ("kind", "settings", "problem"),
    [
        (Limits, {"frame_bytes": 100}, "frame_bytes is 100"),
        (Limits, {"message_bytes": 200 << 20}, "window_bytes"),
        (Limits, {"handshake_s": 0}, "handshake_s is 0"),
        (Deadlines, {"open_s": -1}, "open_s is -1"),
        (Backoff, {"first_s": True}, "first_s is True"),
    ],
)
def test_limits_make_sense(kind: type, settings: dict[str, float], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        kind(**settings)


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 100_000])
def test_an_answer_in_pieces_is_the_answer(size: int) -> None:
    answer = calls.Answer(3, memoryview(bytes(size)))
    found = calls.encode_answer(answer)
    assert isinstance(found, tuple) == (size >= 65_536)
    whole = b"".join(found) if isinstance(found, tuple) else found
    assert whole == calls.encode(answer)
    assert calls.decode_upward(whole) == answer


def test_a_refusal_is_one_piece() -> None:
    refusal = calls.Refusal(3, "no")
    assert calls.encode_answer(refusal) == calls.encode(refusal)
