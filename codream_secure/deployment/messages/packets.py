"""What goes to a member and comes back where there are messages and no streams: calls in packets, one answer each.

A packet holds all that a member has to be told until it has to answer. It says how many calls came before, so that one
that is lost, repeated or out of order is noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, TypeVar

import msgspec

from codream_secure.deployment.streams.calls import Ask, Begin, Downward, End, decode_downward
from codream_secure.deployment.streams.errors import BacklogError, FrameError
from codream_secure.deployment.streams.frames import Id
from codream_secure.deployment.streams.limits import Limits

MAX_CALLS = 4096


class Packet(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """From the server to a member.

    Attributes:
        round_id: of the round that it belongs to.
        position: of the first call within the round, from 0.
        calls: encoded; the last of them that asks for an answer is answered.
    """

    version: Literal[1]
    round_id: Id
    position: Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
    calls: Annotated[list[memoryview], msgspec.Meta(min_length=1, max_length=MAX_CALLS)]


class Reply(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """From a member to the server.

    Attributes:
        out: the packet was not the next of the member's round, or has thrown it out: it cannot go on from there.
        answer: the encoded answer; empty if there is none.
    """

    version: Literal[1]
    out: bool
    answer: memoryview


_ENCODER = msgspec.msgpack.Encoder()
_PACKET, _REPLY = msgspec.msgpack.Decoder(Packet), msgspec.msgpack.Decoder(Reply)
_T = TypeVar("_T")


def pack(round_id: bytes, position: int, calls: Sequence[bytes], *, limits: Limits) -> bytes:
    """A packet.

    Raises:
        BacklogError: it is longer than ``limits.window_bytes``, or of too many calls.
    """
    size = sum(map(len, calls))
    if size > limits.window_bytes or len(calls) > MAX_CALLS:
        raise BacklogError(
            f"{len(calls)} calls of {size} bytes wait for one message: at most {MAX_CALLS} of {limits.window_bytes} "
            "(window_bytes) go into it"
        )
    return _ENCODER.encode(Packet(1, round_id, position, [memoryview(call) for call in calls]))


class Unpacked(NamedTuple):
    """A packet whose calls are decoded, each beside what came."""

    round_id: bytes
    position: int
    calls: list[tuple[Downward, memoryview]]


def unpack(message: bytes, *, limits: Limits) -> Unpacked:
    """What is in a packet.

    Raises:
        FrameError: it is malformed, too long, or its calls are not in an order that a server keeps.
    """
    packet = _decode(_PACKET, message, limits.window_bytes + 16 * MAX_CALLS)
    calls: list[tuple[Downward, memoryview]] = []
    for content in packet.calls:
        if len(content) > limits.message_bytes:
            raise FrameError(f"a call of {len(content)} bytes: at most {limits.message_bytes} (message_bytes)")
        calls.append((decode_downward(content), content))
    for place, (call, _) in enumerate(calls):
        if isinstance(call, Begin) and (place or packet.position):
            raise FrameError("a round begins in the middle of a round")
        if isinstance(call, End | Ask) and place < len(calls) - 1:
            raise FrameError("a packet goes on after a question, or a round after its end")
        if isinstance(call, Begin | End) and call.round_id != packet.round_id:
            raise FrameError("a call belongs to another round than its packet")
    return Unpacked(packet.round_id, packet.position, calls)


def reply(answer: bytes = b"", *, out: bool = False) -> bytes:
    """A reply."""
    return _ENCODER.encode(Reply(1, out, memoryview(answer)))


def read_reply(message: bytes, *, limits: Limits) -> Reply:
    """What a member replied.

    Raises:
        FrameError: it is malformed or too long.
    """
    return _decode(_REPLY, message, limits.message_bytes + 64)


def _decode(decoder: msgspec.msgpack.Decoder[_T], message: bytes, limit: int) -> _T:
    if len(message) > limit:
        raise FrameError(f"a message of {len(message)} bytes: at most {limit}")
    try:
        return decoder.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"the message is malformed: {type(error).__name__}") from None
