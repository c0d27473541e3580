"""What aggregator and participants say to each other, inside a session's messages.

The sums' own messages pass through as they are; around them stands only what whoever moves them has to know.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from codream_secure.deployment.streams.errors import FrameError
from codream_secure.deployment.streams.frames import LONG_BYTES, Id, long_binary

MAX_TENSORS = 1024
_CONTEXT = b"codream-secure stream v1 context\0"
_DTYPES = ("float32", "float64", "int32", "int64", "uint8")

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Exchange = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class Call(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Any of them."""


class Begin(Call, frozen=True, tag=1):
    """A round begins: make a fresh machine for it, and drop the one before."""

    round_id: Id


class Relay(Call, frozen=True, tag=2):
    """A message for the member's machine; its answer belongs to this exchange."""

    exchange: Exchange
    message: memoryview


class Ask(Call, frozen=True, tag=3):
    """A message for the member's machine that asks for a vector."""

    exchange: Exchange
    stream: Name
    values: Annotated[int, msgspec.Meta(ge=0)]
    message: memoryview


class Tensor(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """An array, little-endian and in C order."""

    dtype: Name
    shape: Annotated[list[Annotated[int, msgspec.Meta(ge=0, lt=2**40)]], msgspec.Meta(max_length=16)]
    content: memoryview


class Show(Call, frozen=True, tag=4):
    """Arrays for every member of the round; what later vectors answer."""

    phase: Name
    tensors: Annotated[list[Tensor], msgspec.Meta(max_length=MAX_TENSORS)]


class End(Call, frozen=True, tag=5):
    """The round is over."""

    round_id: Id
    reason: Annotated[str, msgspec.Meta(max_length=400)]


class Answer(Call, frozen=True, tag=6):
    """The machine's answer in an exchange."""

    exchange: Exchange
    message: memoryview


class Refusal(Call, frozen=True, tag=7):
    """There will be no answer in this exchange; the reason says no more than an error's text may."""

    exchange: Exchange
    reason: Annotated[str, msgspec.Meta(max_length=400)]


Downward = Begin | Relay | Ask | Show | End
Upward = Answer | Refusal
_ENCODER = msgspec.msgpack.Encoder()
_DOWNWARD = msgspec.msgpack.Decoder(Downward)
_UPWARD = msgspec.msgpack.Decoder(Upward)
_T = TypeVar("_T")

encode = _ENCODER.encode
"""A call as bytes."""


def encode_answer(call: Upward) -> bytes | tuple[bytes, memoryview]:
    """A call upwards as bytes; an answer with a long message in two pieces, so that the message is not copied."""
    if not isinstance(call, Answer) or len(call.message) < LONG_BYTES:
        return encode(call)
    return long_binary(encode(Answer(call.exchange, memoryview(b""))), len(call.message)), call.message


def decode_downward(message: bytes | memoryview) -> Downward:
    """What the aggregator says.

    Raises:
        FrameError: it is malformed.
    """
    return _decode(_DOWNWARD, message)


def decode_upward(message: bytes | memoryview) -> Upward:
    """What a participant says.

    Raises:
        FrameError: it is malformed.
    """
    return _decode(_UPWARD, message)


def _decode(decoder: msgspec.msgpack.Decoder[_T], message: bytes | memoryview) -> _T:
    try:
        return decoder.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"the message is malformed: {type(error).__name__}") from None


def show(phase: str, tensors: Sequence[npt.NDArray[np.generic]]) -> Show:
    """Arrays as a call.

    Raises:
        FrameError: an array has another type than float32, float64, int32, int64 or uint8.
    """
    packed = []
    for tensor in tensors:
        if tensor.dtype.name not in _DTYPES:
            raise FrameError(f"an array has dtype {tensor.dtype.name}: use one of {', '.join(_DTYPES)}")
        content = np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<"))
        packed.append(Tensor(tensor.dtype.name, list(tensor.shape), content.reshape(-1).view(np.uint8).data))
    return Show(phase, packed)


def shown(call: Show) -> list[npt.NDArray[np.generic]]:
    """The arrays of a call: read-only views into it.

    Raises:
        FrameError: an array's type, shape and bytes contradict each other.
    """
    arrays = []
    for tensor in call.tensors:
        if tensor.dtype not in _DTYPES:
            raise FrameError("an array has a type that is never sent")
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        if math.prod(tensor.shape) * dtype.itemsize != len(tensor.content):
            raise FrameError(f"an array of shape {tensor.shape} came with {len(tensor.content)} bytes")
        try:
            array = np.frombuffer(tensor.content, dtype=dtype).reshape(tensor.shape)
        except ValueError:
            # Of no elements, and with other sides longer than numpy counts.
            raise FrameError(f"an array of shape {tensor.shape} cannot be") from None
        array.flags.writeable = False
        arrays.append(array)
    return arrays


def first_context(round_id: bytes) -> bytes:
    """32 bytes that stand for a round in which nothing has been shown yet."""
    return hashlib.sha256(_CONTEXT + round_id).digest()


def next_context(context: bytes, message: bytes | memoryview) -> bytes:
    """32 bytes that stand for everything shown so far and then this :class:`Show`, as encoded."""
    return hashlib.sha256(_CONTEXT + context + hashlib.sha256(message).digest()).digest()
