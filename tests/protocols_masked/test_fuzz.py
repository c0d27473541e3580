"""Bytes from hell: whatever arrives, in whatever phase, only a ProtocolError comes out, and no memory is given away."""

from __future__ import annotations

import functools
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import (
    CohortError,
    FileRoundLog,
    Identity,
    MessageError,
    Phase,
    PhaseError,
    ProtocolError,
    Roster,
    RosterError,
    RoundReuseError,
    ShareError,
    make_protocol,
    wire,
)
from protocols.masked_client import MaskedClient
from protocols.masked_server import MaskedServer
from protocols.openings import open_backup
from protocols.shares import from_bytes, unseal

Make = Callable[..., Any]
Receive = Callable[[bytes], Any]

KINDS = wire.Message.__subclasses__()
TAIL = wire.CHECKSUM_BYTES
MEMBERS = (3, 7, 8)
VICTIM = 7


def read(frame: Any, *kinds: type[wire.Message]) -> Any:
    return wire.decode(frame, *(kinds or KINDS), limit=2**31)


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


# The machines, in every phase

CLIENT_STATES = ("offer", "keys", "inbox", "ready", "asked", "contributed", "voted", "opened", "closed")
SERVER_PHASES = (
    Phase.NEW,
    Phase.ADVERTISE,
    Phase.SHARE,
    Phase.READY,
    Phase.COLLECT,
    Phase.VOTE,
    Phase.OPEN,
    Phase.CLOSED,
)
STATIONS = [
    (active, state)
    for active in (False, True)
    for state in (*CLIENT_STATES, *SERVER_PHASES)
    if active or state not in ("voted", Phase.VOTE)
]


def client_station(make: Make, active: bool, state: str) -> tuple[Any, Receive, list[bytes], list[bytes]]:
    """A cohort, its client's door, what could come through it now, and what came and went."""
    cohort = make(MEMBERS, active=active, dropout=0.34, values=3)
    match state:
        case "offer":
            cohort.go(Phase.ADVERTISE)
        case "keys":
            cohort.go(Phase.SHARE)
        case "inbox":
            cohort.go(Phase.READY)
        case "ready":
            cohort.go(Phase.COLLECT)
        case "asked":
            cohort.clients[VICTIM].receive(cohort.go(Phase.COLLECT)[VICTIM])
        case "contributed":
            cohort.go(Phase.VOTE if active else Phase.OPEN)
        case "voted":
            cohort.go(Phase.OPEN)
        case "opened":
            cohort.go(Phase.OPEN)
            cohort.clients[VICTIM].receive(cohort.outbox[VICTIM])
        case "closed":
            cohort.go(Phase.OPEN)
            cohort.clients[VICTIM].close()
    likely = [*cohort.outbox.values(), cohort.abort(max(0, cohort.step)), cohort.abort(None)]
    if cohort.step >= 0:
        likely += [cohort.open_request(0, [8]), cohort.request(1)]
    return cohort, cohort.clients[VICTIM].receive, likely, [sent.message for sent in cohort.transcript]


def server_station(make: Make, active: bool, phase: Phase) -> tuple[Any, Receive, list[bytes], list[bytes]]:
    """The same for the server, at whose door the victim stands."""
    cohort = make(MEMBERS, active=active, dropout=0.34, values=3)
    answers: dict[int, bytes] = {}
    if phase is Phase.CLOSED:
        cohort.ready()
        cohort.server.close()
    elif phase is not Phase.NEW:
        cohort.go(phase)
        for member, message in cohort.outbox.items():
            answer = cohort.clients[member].receive(message)
            if phase is Phase.COLLECT:
                answer = cohort.clients[member].contribute(cohort.vector(member), stream="g")
            if answer is not None:
                answers[member] = answer
    cohort.outbox = {}
    cohort.answers = answers
    past = [sent.message for sent in cohort.transcript]
    likely = [answers[VICTIM]] * 4 + list(answers.values()) if answers else past[:1] or [cohort.abort(None)]
    return cohort, functools.partial(cohort.server.receive, VICTIM), likely, past


def run_on(cohort: Any) -> None:
    """Go on with whatever was accepted, to the end of two steps; machines may refuse, but by name."""
    server, answers = cohort.server, dict(getattr(cohort, "answers", {}))
    for _ in range(16):
        for member, message in cohort.outbox.items():
            try:
                answer = cohort.clients[member].receive(message)
                if server.phase is Phase.COLLECT:
                    answer = cohort.clients[member].contribute(cohort.vector(member), stream="g")
            except ProtocolError:
                continue
            if answer is not None:
                answers[member] = answer
        for member, answer in answers.items():
            try:
                server.receive(member, answer)
            except ProtocolError:
                continue
        answers = {}
        if server.phase is Phase.CLOSED or (server.phase is Phase.READY and cohort.step >= 1):
            return
        cohort.advance()


def fuzz_station(make: Make, active: bool, state: str | Phase, cases: int, seed: int) -> Counter[str]:
    """Throw mutated messages at one machine in one phase; how they ended."""
    build = client_station if isinstance(state, str) else server_station
    mutator, ends = Mutator(1000 * seed + STATIONS.index((active, state))), Counter[str]()
    station = None
    for case in range(cases):
        if station is None:
            station = build(make, active, state)
        cohort, receive, likely, past = station
        message = mutator.random.choice(likely if mutator.random.random() < 0.7 or not past else past)
        hostile = mutator.mutate(message, likely + past)
        try:
            receive(hostile)
        except ProtocolError as error:
            ends[type(error).__name__] += 1
            if isinstance(state, str) and cohort.clients[VICTIM]._state.name == "CLOSED" and state != "closed":
                station = None
        except Exception as error:
            raise AssertionError(f"seed {seed}, case {case}: {hostile.hex()}") from error
        else:
            ends["accepted"] += 1
            station = None
            try:
                run_on(cohort)
            except Exception as error:
                raise AssertionError(f"seed {seed}, case {case}, later: {hostile.hex()}") from error
    return ends


@pytest.mark.parametrize(("active", "state"), STATIONS)
def test_mutated_messages_are_refused_by_name_in_every_phase(make_cohort: Make, active: bool, state: Any) -> None:
    ends = fuzz_station(make_cohort, active, state, 200, seed=1)
    assert sum(ends.values()) == 200


@pytest.mark.slow
@pytest.mark.parametrize(("active", "state"), STATIONS)
def test_many_more_mutated_messages_are_refused_by_name(make_cohort: Make, active: bool, state: Any) -> None:
    fuzz_station(make_cohort, active, state, 5000, seed=2)


@pytest.mark.parametrize("role", ["client", "server"])
def test_mutated_messages_are_refused_by_name_without_protection_too(make_cohort: Make, role: str) -> None:
    cohort, plain, mutator = make_cohort(MEMBERS, values=3), make_protocol("plain"), Mutator(3)
    cohort.finish()
    past = [sent.message for sent in cohort.transcript]
    for _ in range(500):
        client, server = (
            plain.client(VICTIM, terms=cohort.terms),
            plain.server(MEMBERS, terms=cohort.terms, round_id=cohort.round_id),
        )
        client.receive(server.open()[VICTIM])
        client.receive(server.request("g", 3)[VICTIM])
        receive = client.receive if role == "client" else functools.partial(server.receive, VICTIM)
        try:
            receive(mutator.mutate(mutator.random.choice(past), past))
        except ProtocolError:
            continue


# The decoders by themselves


@pytest.fixture(scope="module")
def messages(make_cohort: Make) -> list[bytes]:
    """All messages of an honest run in active mode, one step with somebody missing among them."""
    cohort = make_cohort(MEMBERS, active=True, dropout=0.34, values=3)
    cohort.finish()
    cohort.go(Phase.COLLECT)
    cohort.go(Phase.VOTE, absent=[8])
    cohort.finish(contributors=[3, 7])
    return [sent.message for sent in cohort.transcript] + [cohort.abort(0), cohort.abort(None)]


def decode_mutated(messages: list[bytes], cases: int, seed: int) -> int:
    """Decode mutated messages as every kind; how many of them were well-formed."""
    mutator, decoded = Mutator(seed), 0
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


def test_mutated_frames_decode_or_are_refused_by_name(messages: list[bytes]) -> None:
    assert 100 < decode_mutated(messages, 4000, seed=4) < 3900


@pytest.mark.slow
def test_many_more_mutated_frames_decode_or_are_refused_by_name(messages: list[bytes]) -> None:
    decode_mutated(messages, 150_000, seed=5)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_refused_by_name(data: bytes, with_checksum: bool) -> None:
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


def test_every_truncation_is_noticed(messages: list[bytes]) -> None:
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


def test_states_that_were_damaged_are_refused_by_name(make_cohort: Make) -> None:
    cohort, mutator, key = make_cohort(MEMBERS, values=3), random.Random(6), bytes(range(32))
    cohort.finish()
    saved = cohort.clients[VICTIM].snapshot(key), cohort.server.snapshot()
    restores: list[Receive] = [
        lambda data: MaskedClient.restore(data, key, terms=cohort.terms, credentials=cohort.credentials(VICTIM)),
        lambda data: MaskedServer.restore(data, terms=cohort.terms, roster=cohort.roster),
        lambda data: make_protocol("plain").restore_client(data, key, terms=cohort.terms),
        lambda data: make_protocol("plain").restore_server(data, terms=cohort.terms),
    ]
    for case in range(1000):
        data = bytearray(saved[case % 2])
        match case % 5:
            case 0:
                del data[mutator.randrange(len(data)) :]
            case 1:
                data += mutator.randbytes(8)
            case 2:
                data = bytearray(mutator.randbytes(len(data)))
            case _:
                data[mutator.randrange(len(data))] ^= 1 << mutator.randrange(8)
        for restore in restores:
            with pytest.raises(MessageError):
                restore(bytes(data))
    for restore in restores[2:]:
        for whole in saved:
            with pytest.raises(MessageError):
                restore(whole)


def test_a_round_log_that_was_damaged_is_refused_by_name_or_remembers_what_it_can(tmp_path: Path) -> None:
    mutator, path = random.Random(7), tmp_path / "rounds"
    log = FileRoundLog(path)
    for number in range(3):
        log.claim(bytes([number]) * 16)
        log.claim_step(bytes([number]) * 16, number)
    log.close()
    whole = path.read_bytes()
    refused = 0
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(mutator.choice((1, 1, 3))):
            data[mutator.randrange(len(data))] = mutator.randrange(256)
        if mutator.random() < 0.3:
            del data[mutator.randrange(len(data)) :]
        path.write_bytes(bytes(data))
        try:
            FileRoundLog(path).close()
        except RoundReuseError:
            refused += 1
    assert refused > 50


def test_shares_parcels_and_backups_from_anywhere_are_refused_by_name() -> None:
    mutator, key = random.Random(8), bytes(32)
    for _ in range(1000):
        data = mutator.randbytes(mutator.choice((0, 1, 11, 16, 31, 32, 33, 64, 272)))
        for read in (
            lambda data: unseal(key, data, b"context"),
            lambda data: open_backup(data, 5, bytes(32), 3, 0),
        ):
            with pytest.raises(ShareError):
                read(data)
        if len(data) % 32:
            with pytest.raises(ShareError):
                from_bytes(data)
    with pytest.raises(ShareError):
        from_bytes(b"\xff" * 32)


@given(st.dictionaries(st.integers(-2, 2**33), st.binary(min_size=30, max_size=34), max_size=3), st.binary(max_size=40))
def test_rosters_and_identities_from_anywhere_are_refused_by_name(keys: dict[int, bytes], private: bytes) -> None:
    for build in (lambda: Roster(keys), lambda: Identity(private)):
        try:
            build()
        except (RosterError, CohortError):
            continue


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


def peak_of(receive: Receive, message: bytes, *, match: str | None = None) -> int:
    """The most memory that Python held at once while a message was refused, in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(MessageError, match=match):
            receive(message)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_length_that_is_declared_and_not_delivered_takes_no_memory(messages: list[bytes]) -> None:
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
def test_a_message_nested_without_end_is_refused_by_name(nested: bytes) -> None:
    for start in (b"", b"\x93\x01\xc4\x10" + bytes(16), b"\x93\x05\xc4\x10" + bytes(16) + b"\x90"):
        with pytest.raises(MessageError):
            read(framed(start + nested * 100_000))


@pytest.mark.parametrize("state", ["offer", "keys", "inbox", "asked", "contributed"])
def test_a_client_looks_at_no_message_longer_than_it_can_be(make_cohort: Make, state: str) -> None:
    _, receive, likely, _ = client_station(make_cohort, False, state)
    long = framed(likely[0][1:-TAIL] + bytes(30_000_000))
    assert peak_of(receive, long, match="at most") < 100_000


@pytest.mark.parametrize("phase", [Phase.ADVERTISE, Phase.SHARE, Phase.COLLECT, Phase.OPEN])
def test_a_server_looks_at_no_message_longer_than_it_can_be(make_cohort: Make, phase: Phase) -> None:
    _, receive, likely, _ = server_station(make_cohort, False, phase)
    long = framed(likely[0][1:-TAIL] + bytes(30_000_000))
    assert peak_of(receive, long, match="at most") < 100_000
