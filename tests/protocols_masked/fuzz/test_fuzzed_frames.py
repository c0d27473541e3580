"""Bytes from hell for the decoder of messages: it decodes or refuses by name, and gives no memory away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import MessageError, Phase, PhaseError, wire

Make = Callable[..., Any]
Mutators = Callable[[int], Any]
Framed = Callable[..., bytes]
Peak = Callable[..., int]

KINDS = wire.Message.__subclasses__()
TAIL = wire.CHECKSUM_BYTES
MEMBERS = (3, 7, 8)


def read(frame: Any, *kinds: type[wire.Message]) -> Any:
    return wire.decode(frame, *(kinds or KINDS), limit=2**31)


@pytest.fixture(scope="module")
def messages(make_cohort: Make) -> list[bytes]:
    """All messages of an honest run in active mode, one step with somebody missing among them."""
    cohort = make_cohort(MEMBERS, active=True, dropout=0.34, values=3)
    cohort.finish()
    cohort.go(Phase.COLLECT)
    cohort.go(Phase.VOTE, absent=[8])
    cohort.finish(contributors=[3, 7])
    return [sent.message for sent in cohort.transcript] + [cohort.abort(0), cohort.abort(None)]


def decode_mutated(messages: list[bytes], cases: int, seed: int, make_mutator: Mutators) -> int:
    """Decode mutated messages as every kind; how many of them were well-formed."""
    mutator, decoded = make_mutator(seed), 0
    for case in range(cases):
        hostile = mutator.mutate(mutator.random.choice(messages), messages)
        kinds = KINDS if case % 2 else [mutator.random.choice(KINDS)]
        try:
            message = read(hostile, *kinds)
        except (MessageError, PhaseError):
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}, case {case}: {hostile.hex()}") from error
        decoded += 1
        # What is accepted is what was said: encoding it again gives a message that means the same.
        assert read(wire.encode(message), type(message)) == message
    return decoded


def test_every_kind_of_message_is_among_those_that_are_mutated(messages: list[bytes]) -> None:
    """Kinds 13 and up are those of homomorphic sums."""
    assert {type(read(message)) for message in messages} == {k for k in KINDS if k.__struct_config__.tag <= 12}


def test_mutated_frames_decode_or_are_refused_by_name(messages: list[bytes], make_mutator: Mutators) -> None:
    assert 100 < decode_mutated(messages, 4000, seed=4, make_mutator=make_mutator) < 3900


@pytest.mark.slow
def test_many_more_mutated_frames_decode_or_are_refused_by_name(messages: list[bytes], make_mutator: Mutators) -> None:
    decode_mutated(messages, 150_000, seed=5, make_mutator=make_mutator)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_refused_by_name(framed: Framed, data: bytes, with_checksum: bool) -> None:
    frame = framed(data) if with_checksum else data
    try:
        read(frame)
    except MessageError:
        return
    assert with_checksum


@pytest.mark.parametrize("place", ["version", "body", "checksum"])
def test_every_single_bit_that_flips_is_noticed(messages: list[bytes], place: str) -> None:
    where = {"version": range(1), "checksum": range(-TAIL, 0)}
    for message in {len(message): message for message in messages}.values():
        for at in where.get(place, range(1, len(message) - TAIL, max(1, len(message) // 60))):
            for bit in range(8):
                damaged = bytearray(message)
                damaged[at] ^= 1 << bit
                with pytest.raises(MessageError):
                    read(bytes(damaged))


def test_every_truncation_is_noticed(messages: list[bytes], framed: Framed) -> None:
    for message in {len(message): message for message in messages}.values():
        for length in [*range(min(80, len(message))), len(message) - 1]:
            for cut in (message[:length], framed(message[1 : max(1, length - TAIL)])):
                if cut != message:
                    with pytest.raises(MessageError):
                        read(cut)


@pytest.mark.parametrize("what", [None, "text", 7, [1, 2], object()])
def test_what_is_not_bytes_is_refused_by_name(what: Any) -> None:
    with pytest.raises(MessageError):
        read(what)


# Lengths that are declared and not delivered


def headers(body: bytes) -> Iterator[tuple[int, int, str]]:
    """Where each array, string and byte string of a msgpack body begins, how long its header is, and what it is."""
    at = 0
    while at < len(body):
        first = body[at]
        match first:
            case _ if first <= 0x7F or first >= 0xE0 or first in (0xC0, 0xC2, 0xC3):
                at += 1
            case _ if 0x90 <= first <= 0x9F:
                yield at, 1, "array"
                at += 1
            case 0xDC:
                yield at, 3, "array"
                at += 3
            case _ if 0xA0 <= first <= 0xBF:
                yield at, 1, "text"
                at += 1 + first - 0xA0
            case 0xC4:
                yield at, 2, "bytes"
                at += 2 + body[at + 1]
            case 0xC5:
                yield at, 3, "bytes"
                at += 3 + int.from_bytes(body[at + 1 : at + 3], "big")
            case 0xCC | 0xCD | 0xCE | 0xCF:
                at += 1 + (1 << (first - 0xCC))
            case _:
                raise AssertionError(f"byte {first:#x} at {at} begins nothing that a message holds")


LARGE = (2**32 - 1, 2**31, 2**28, 1_000_000, 100_000)


def test_a_length_that_is_declared_and_not_delivered_takes_no_memory(
    messages: list[bytes], framed: Framed, peak_of: Peak
) -> None:
    prefixes = {"array": b"\xdd", "text": b"\xdb", "bytes": b"\xc6"}
    seen = Counter[str]()
    for message in {read(message).__class__: message for message in messages}.values():
        body = message[1:-TAIL]
        for at, size, kind in list(headers(body))[:12]:
            for declared in LARGE:
                hostile = body[:at] + prefixes[kind] + declared.to_bytes(4, "big") + body[at + size :]
                peak = peak_of(read, framed(hostile))
                # Pytest and the error itself take some; a list of 100,000 pointers would take 800,000.
                assert peak < 100_000, f"{declared} {kind} at {at} of {message.hex()[:40]}: {peak} bytes"
                seen[kind] += 1
    assert all(seen[kind] for kind in prefixes)


@pytest.mark.parametrize("nested", [b"\x91", b"\x81\x00", b"\xdd\x00\x00\x00\x01", b"\xdc\xff\xff"])
def test_a_message_nested_without_end_is_refused_by_name(nested: bytes, framed: Framed) -> None:
    for start in (b"", b"\x93\x01\xc4\x10" + bytes(16), b"\x93\x05\xc4\x10" + bytes(16) + b"\x90"):
        with pytest.raises(MessageError):
            read(framed(start + nested * 100_000))
