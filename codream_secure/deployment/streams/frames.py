"""What passes over a stream: versioned frames, strictly decoded, none longer than a limit.

A frame is ``version (1 byte) | msgpack array``, and the array begins with the frame's number. TLS keeps frames whole
and private on the way; what a member's key vouches for is in :mod:`~codream_secure.deployment.streams.handshake`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from codream_secure.deployment.streams.errors import FrameError
from protocols.terms import MAX_MEMBER

VERSION = 1
ID_BYTES = 16
NONCE_BYTES = 32
MAX_REASON = 400
MAX_BATCH = 15
"""As many as a msgpack array has without a length of its own."""

Seq = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Id = Annotated[bytes, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
OptionalId = Annotated[bytes, msgspec.Meta(max_length=ID_BYTES)]


class Frame(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Any frame."""


class Hello(Frame, frozen=True, tag=1):
    """Client to server, first of all: who it says it is, and where it left off.

    Attributes:
        version: of this protocol.
        member: its number.
        public_key: its key on the roster.
        roster: the digest of its roster.
        round_id: the one round it is here for; empty for whichever comes.
        session_id: what it wants to go on with; empty if there is nothing.
        received: the last frame of that session that reached it.
        nonce: fresh randomness.
    """

    version: Annotated[int, msgspec.Meta(ge=0, le=255)]
    member: Annotated[int, msgspec.Meta(ge=0, le=MAX_MEMBER)]
    public_key: Bytes32
    roster: Bytes32
    round_id: OptionalId
    session_id: OptionalId
    received: Seq
    nonce: Bytes32


class Challenge(Frame, frozen=True, tag=2):
    """Server to client: sign this, so that no recorded proof serves again."""

    nonce: Bytes32


class Proof(Frame, frozen=True, tag=3):
    """Client to server: the signature of its roster key."""

    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Welcome(Frame, frozen=True, tag=4):
    """Server to client: the session, whether it is the one that was asked for, and the last frame that reached here."""

    session_id: Id
    resumed: bool
    received: Seq


class Data(Frame, frozen=True, tag=5):
    """A chunk of a message.

    Attributes:
        seq: its number in this direction of the session, from 1.
        ack: the last chunk of the other direction that has been dealt with.
        size: of the whole message in its first chunk; 0 in the others.
        payload: at least one byte.
    """

    seq: Seq
    ack: Seq
    size: Seq
    payload: memoryview


class Ack(Frame, frozen=True, tag=6):
    """An acknowledgement on its own, where no data goes the same way."""

    ack: Seq


class Bye(Frame, frozen=True, tag=7):
    """The sender hangs up, and whether to try again makes sense."""

    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON)]
    retry: bool


class Batch(Frame, frozen=True, tag=8):
    """Frames that were ready at the same time: a question travels with what it is about."""

    frames: Annotated[list[Data | Ack], msgspec.Meta(max_length=MAX_BATCH)]


class Strewn(NamedTuple):
    """A :class:`Data` to send whose payload, at least 64 KiB, lies in several places: it is copied only once."""

    seq: int
    ack: int
    size: int
    payload: tuple[bytes | memoryview, ...]


Outgoing = Data | Strewn | Ack
AnyFrame = Hello | Challenge | Proof | Welcome | Data | Ack | Bye | Batch
_F = TypeVar("_F", bound=Frame)
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(AnyFrame)
_PREFIX = bytes([VERSION])
LONG_BYTES = 1 << 16
"""From here on msgpack gives a length four bytes."""
_NOTHING = memoryview(b"")


class Codec:
    """Frames as bytes and back.

    Args:
        limit: the longest frame, in bytes; longer ones are neither made nor looked at.
        remember: keep the latest frame with a long payload and hand it out again where the same is to be sent, for one
            who sends many the same: whoever is shown a broadcast is mostly at the same numbers.
    """

    def __init__(self, limit: int, *, remember: bool = False) -> None:
        self.limit = limit
        self._remember = remember
        self._latest: tuple[tuple[Outgoing, ...], bytes] = ((), b"")

    def encode(self, frame: Frame) -> bytes:
        """A frame as bytes.

        Raises:
            FrameError: it is longer than the limit.
        """
        return self._limited(b"".join((_PREFIX, *_parts(frame))))

    def encode_together(self, frames: Sequence[Outgoing]) -> bytes:
        """One frame, or a batch of them.

        Raises:
            FrameError: they are more than 15, or longer than the limit.
        """
        if len(frames) > MAX_BATCH:
            raise FrameError(f"{len(frames)} frames are no batch: at most {MAX_BATCH}")
        earlier, content = self._latest
        if len(frames) == len(earlier) and all(map(_alike, frames, earlier)):
            return content
        parts = (part for frame in frames for part in _parts(frame))
        head = (_PREFIX,) if len(frames) == 1 else (_PREFIX, b"\x92\x08", bytes([0x90 | len(frames)]))
        content = self._limited(b"".join((*head, *parts)))
        if self._remember and len(content) >= LONG_BYTES:
            self._latest = tuple(frames), content
        return content

    def _limited(self, content: bytes) -> bytes:
        if len(content) > self.limit:
            raise FrameError(f"the frame to send has {len(content)} bytes, where at most {self.limit} are allowed")
        return content

    def decode(self, content: bytes, *kinds: type[_F]) -> _F:
        """One frame of one of the given kinds; payloads are views into ``content``.

        Raises:
            FrameError: too long, malformed, of another version or another kind.
        """
        if not isinstance(content, bytes):
            raise FrameError(f"a frame has to be bytes, not {type(content).__name__}")
        if len(content) > self.limit:
            raise FrameError(f"the frame has {len(content)} bytes, where at most {self.limit} are expected")
        if not content or content[0] != VERSION:
            found = f"version {content[0]}" if content else "no version"
            raise FrameError(f"the frame has {found}, this is version {VERSION}")
        try:
            frame = _DECODER.decode(memoryview(content)[1:])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError(f"the frame is malformed: {type(error).__name__}") from None
        if not isinstance(frame, kinds):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise FrameError(f"the frame is {type(frame).__name__}, where {expected} is expected")
        return frame


def _alike(one: Outgoing, other: Outgoing) -> bool:
    """Whether two frames are the same for sure, without a look at what they carry."""
    if isinstance(one, Ack) or isinstance(other, Ack):
        return type(one) is type(other) and one.ack == other.ack
    return one.payload is other.payload and one.seq == other.seq and one.ack == other.ack and one.size == other.size


def _parts(frame: Frame | Strewn) -> tuple[bytes | memoryview, ...]:
    """The msgpack array in pieces, so that a chunk is copied only once."""
    if not isinstance(frame, Data | Strewn) or (length := carried(frame)) < LONG_BYTES:
        return (_ENCODER.encode(frame),)
    head = _ENCODER.encode(Data(frame.seq, frame.ack, frame.size, _NOTHING))
    payload = frame.payload if isinstance(frame, Strewn) else (frame.payload,)
    return long_binary(head, length), *payload


def carried(frame: Outgoing) -> int:
    """Bytes of the chunk in a frame."""
    if isinstance(frame, Strewn):
        return sum(map(len, frame.payload))
    return len(frame.payload) if isinstance(frame, Data) else 0


def long_binary(packed: bytes, length: int) -> bytes:
    """A msgpack array that ends in empty binary data, up to where so many bytes take their place.

    Args:
        packed: the array.
        length: at least 65,536.
    """
    return packed.removesuffix(b"\xc4\x00") + b"\xc6" + length.to_bytes(4, "big")


def farewell(reason: str, *, retry: bool) -> Bye:
    """A :class:`Bye` whose reason is short enough."""
    return Bye(reason[:MAX_REASON], retry)
