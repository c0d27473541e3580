"""Hostile bytes made out of honest ones, and what a machine takes of memory to refuse them."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from protocols import MessageError, wire

Receive = Callable[[bytes], Any]

TAIL = wire.CHECKSUM_BYTES


def framed(body: bytes, version: int = 1) -> bytes:
    """A frame with a right checksum around any body."""
    return bytes([version]) + body + wire.checksum(version, body)


class Mutator:
    """Makes hostile bytes out of honest ones, the same for the same seed and messages."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def mutate(self, message: bytes, others: list[bytes]) -> bytes:
        if self.random.random() < 0.6:
            return framed(self.structure(message))
        body = bytearray(message[1:-TAIL])
        for _ in range(self.random.choice((1, 1, 1, 2, 5))):
            body = self._once(body, others)
        draw = self.random.random()
        if draw < 0.75:
            return framed(bytes(body))
        if draw < 0.8:
            return framed(bytes(body), version=self.random.randrange(256))
        # The checksum stays as it was.
        return message[:1] + bytes(body) + message[-TAIL:]

    def _once(self, body: bytearray, others: list[bytes]) -> bytearray:
        if not body:
            return bytearray(self.random.randbytes(10))
        place, end = sorted(self.random.randrange(len(body) + 1) for _ in range(2))
        spot = self.random.randrange(len(body))
        # Headers lie in front; most of a long message is one run of random bytes.
        if self.random.random() < 0.5:
            spot = min(spot, self.random.randrange(40))
        match self.random.randrange(9):
            case 0 | 1:
                body[spot] ^= 1 << self.random.randrange(8)
            case 2:
                body[spot] = self.random.choice(
                    (0x00, 0x7F, 0x80, 0x90, 0xC0, 0xC4, 0xC6, 0xCF, 0xDB, 0xDD, 0xDF, 0xFF)
                )
            case 3:
                del body[place:]
            case 4:
                del body[place : min(end, place + 8)]
            case 5:
                body += self.random.randbytes(self.random.choice((1, 4, 32, 300)))
            case 6:
                other = self.random.choice(others)[1:-TAIL]
                body[place:] = other[min(place, len(other)) :]
            case 7:
                body[place:place] = body[place:end]
            case 8:
                header = self.random.choice((b"\xdd", b"\xc6", b"\xdb", b"\xdf", b"\xc9", b"\xce", b"\xcf"))
                body[spot : spot + 1] = header + self.random.choice(
                    (b"\xff" * 4, b"\x00\x0f\x42\x40", b"\x7f" + b"\xff" * 3)
                )
        return body

    def structure(self, message: bytes) -> bytes:
        """Well-formed msgpack: something like the message, or something else altogether."""
        if self.random.random() < 0.1:
            return msgspec.msgpack.encode(self._value(4))
        fields = msgspec.msgpack.decode(message[1:-TAIL])
        draw = self.random.random()
        if draw < 0.05:
            fields.append(self._value(2))
        elif draw < 0.1:
            fields.pop()
        elif draw < 0.15:
            fields[0] = self.random.choice((0, 1, 5, 8, 13, -1, 2**63, "1", None))
        elif draw < 0.2:
            fields[1] = self.random.randbytes(self.random.choice((16, 16, 15)))
        for _ in range(self.random.choice((1, 1, 1, 2))):
            self._change(fields, first=2)
        return msgspec.msgpack.encode(fields)

    def _change(self, items: list[Any], *, first: int = 0) -> None:
        """Change one leaf, or how a list goes on; mostly into something of the same shape."""
        if len(items) <= first:
            items.append(self._value(1))
            return
        place = self.random.randrange(first, len(items))
        other = self.random.randrange(first, len(items))
        draw = self.random.random()
        match items[place]:
            case list() as inner if draw < 0.85:
                self._change(inner)
            case bytes() as old if old and draw < 0.5:
                items[place] = self._flipped(old)
            case bytes() as old if draw < 0.7:
                items[place] = self.random.choice((old[:-1], old + b"\0", bytes(len(old)), b"\xff" * len(old), b""))
            case int() as old if draw < 0.7:
                items[place] = min(2**64 - 1, max(-1, old + self.random.choice((-5, -1, 1, 1, 2, 7, 2**16, 2**32))))
            case _ if first == 0 and draw < 0.9:
                self.random.choice(
                    (
                        lambda: items.insert(place, items[other]),
                        lambda: items.pop(place),
                        lambda: items.__setitem__(place, items[other]),
                        lambda: self.random.shuffle(items),
                    )
                )()
            case _:
                items[place] = self._value(2)

    def _flipped(self, old: bytes) -> bytes:
        changed = bytearray(old)
        changed[self.random.randrange(len(changed))] ^= 1 << self.random.randrange(8)
        return bytes(changed)

    def _value(self, depth: int) -> Any:
        numbers = (0, 1, -1, 3, 7, 8, 127, 128, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1, -(2**63))
        match self.random.randrange(9 if depth else 6):
            case 0 | 1:
                return self.random.choice(numbers)
            case 2 | 3:
                return self.random.randbytes(self.random.choice((0, 1, 16, 32, 64, 200)))
            case 4:
                return self.random.choice((None, True, False, 0.5, float("nan"), float("inf"), "g", "\u00e9" * 70))
            case 5:
                return msgspec.msgpack.Ext(self.random.randrange(-128, 128), self.random.randbytes(4))
            case 6:
                return {self.random.choice((0, "a", b"b", None)): self._value(depth - 1) for _ in range(3)}
            case _:
                return [self._value(depth - 1) for _ in range(self.random.randrange(5))]


def peak_of(receive: Receive, message: bytes, *, match: str | None = None) -> int:
    """The most memory that Python held at once while a message was refused, in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(MessageError, match=match):
            receive(message)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="session")
def make_mutator() -> Callable[[int], Mutator]:
    """Build a :class:`Mutator` from its seed."""
    return Mutator


@pytest.fixture(scope="session", name="framed")
def framed_fixture() -> Callable[..., bytes]:
    return framed


@pytest.fixture(scope="session", name="peak_of")
def peak_of_fixture() -> Callable[..., int]:
    return peak_of
