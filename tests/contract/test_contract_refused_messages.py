"""Messages that every protocol refuses by name: damaged, forged, misplaced, repeated, stale and early ones."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocols import (
    AUTHORITY,
    SERVER,
    FixedPoint,
    MessageError,
    Network,
    PeerKeyError,
    Phase,
    PhaseError,
    ProtocolError,
    SenderError,
    Simulation,
    StepError,
    SumProtocol,
    wire,
)
from protocols.driver import Envelope

Simulate = Callable[..., Simulation]
ByHand = Callable[..., Any]
ExactSum = Callable[..., tuple[list[int], list[float]]]
Drawn = Callable[..., dict[int, np.ndarray]]

ONES = np.ones(3, np.float32)


class Spoiled(Network):
    """Before each message arrives what ``spoil`` makes of it, and what it makes has to be refused."""

    def __init__(self, spoil: Callable[[Envelope], list[Envelope]]) -> None:
        self.spoil = spoil
        self.spoiled: list[Envelope] = []

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        arriving: list[Envelope] = []
        for envelope in envelopes:
            bad = self.spoil(envelope)
            self.spoiled += bad
            arriving += [*bad, envelope]
        return arriving


def check_refused(cohort: Simulation, network: Spoiled, *kinds: type[ProtocolError]) -> None:
    """Everything that was spoiled was refused for one of these reasons, and nothing else was."""
    assert network.spoiled
    assert [rejection.envelope for rejection in cohort.rejections] == network.spoiled
    assert {type(rejection.error) for rejection in cohort.rejections} <= set(kinds)


def framed(content: bytes) -> bytes:
    """Version and body with the checksum that belongs to them: a GMAC whose key everybody knows."""
    mac = Cipher(algorithms.AES256(bytes(32)), modes.GCM(content[:1].rjust(12, b"\0"))).encryptor()
    mac.authenticate_additional_data(content[1:])
    mac.finalize()
    return content + mac.tag


END = 16
"""Bytes of the checksum."""


def flipped(message: bytes) -> list[bytes]:
    """One bit of the message turned, at the ends and at a few places between."""
    places = [0, 1, 2, len(message) // 2, len(message) - END - 1, len(message) - END, len(message) - 1]
    return [message[:at] + bytes([message[at] ^ 1 << at % 8]) + message[at + 1 :] for at in places]


MALFORMED: dict[str, Callable[[bytes], list[bytes]]] = {
    "empty": lambda message: [b""],
    "short": lambda message: [message[:1], message[:5], message[:END], bytes(END)],
    "truncated": lambda message: [message[:-1], message[: len(message) // 2], message[1:]],
    "truncated with a checksum": lambda message: [framed(message[: -END - 1]), framed(message[: len(message) // 2])],
    "bits turned": flipped,
    "another version": lambda message: [framed(bytes([version]) + message[1:-END]) for version in (0, 2, 255)],
    "longer": lambda message: [message + b"\0", framed(message[:-END] + b"\xc0")],
    "oversized": lambda message: [framed(message[:-END] + bytes(2**20)), bytes(2**20)],
    "twice in one": lambda message: [message + message, framed(message[:-END] + message[1:-END])],
    "no body": lambda message: [framed(message[:1]), framed(message[:1] + b"\x90"), framed(message[:1] + b"\x91\x63")],
    "deeply nested": lambda message: [framed(message[:1] + b"\x91" * 5000)],
    "text": lambda message: [b"GET / HTTP/1.1\r\n\r\n", message.hex().encode()],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_bytes_are_refused_and_what_they_spoiled_is_taken(
    simulate: Simulate, exact_sum: ExactSum, drawn: Drawn, name: str
) -> None:
    """Each message of the set-up and of a step with a dropout, to clients and to the server, is spoiled."""
    network = Spoiled(lambda envelope: [envelope._replace(message=bad) for bad in MALFORMED[name](envelope.message)])
    # A party that opens sums takes messages as long as the longest sum, so that one has to be short.
    cohort = simulate(range(4), network=network, max_values=100)
    vectors = drawn(range(3), 4)
    result = cohort.sum(vectors, stream="gradients")
    assert result.ring.tolist() == exact_sum(vectors, FixedPoint(clip=1.0, clients=4))[0]
    check_refused(cohort, network, MessageError)
    if name == "oversized":
        assert all("bytes, where at most" in str(rejection.error) for rejection in cohort.rejections)


def test_messages_are_framed_as_this_test_frames_them(by_hand: ByHand) -> None:
    """Or what it damages would be refused for another reason."""
    cohort = by_hand([0, 1])
    for message in cohort.server.request("gradients", 3).values():
        assert framed(message[:-END]) == message


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_messages_may_come_as_any_bytes(by_hand: ByHand, kind: Callable[[bytes], Any]) -> None:
    cohort = by_hand([0, 1])
    for member, message in cohort.server.request("gradients", 3).items():
        cohort.clients[member].receive(kind(message))
    for member, client in cohort.clients.items():
        cohort.server.receive(member, kind(client.contribute(ONES, stream="gradients")))
    cohort.settle({member: kind(message) for member, message in cohort.server.advance().items()})
    assert cohort.result().total.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("message", [None, "text", 7, [b"bytes"]])
def test_what_is_not_bytes_is_refused(by_hand: ByHand, message: Any) -> None:
    cohort = by_hand([0, 1])
    with pytest.raises(MessageError, match="has to be bytes"):
        cohort.clients[0].receive(message)
    cohort.ask("gradients", 3)
    with pytest.raises(MessageError, match="has to be bytes"):
        cohort.server.receive(0, message)
    assert cohort.answer({0: ONES, 1: ONES}).total.tolist() == [2.0, 2.0, 2.0]


def altered(envelope: Envelope, **changes: Any) -> list[Envelope]:
    """The message with some fields set to others, where it has them; the offer, which sets a round, is left alone."""
    message = wire.decode(envelope.message, wire.Message, limit=len(envelope.message))
    if isinstance(message, wire.Offer) or not changes.keys() <= set(message.__struct_fields__):
        return []
    return [envelope._replace(message=wire.encode(msgspec.structs.replace(message, **changes)))]


def other_kinds(envelope: Envelope, *, opened_by: str) -> list[Envelope]:
    """Well-formed messages of the same round that have no place here; round-wide aborts are always in place."""
    message = wire.decode(envelope.message, wire.Message, limit=len(envelope.message))
    spare: list[wire.Message] = [
        wire.Offer(message.round_id, bytes(32), [0, 1, 2, 3]),
        wire.Advertise(message.round_id, 0, bytes(32), bytes(64)),
        wire.Keys(message.round_id, []),
        wire.Shares(message.round_id, 0, [], b"", []),
        wire.Inbox(message.round_id, [], []),
        wire.StepRequest(message.round_id, 0, "gradients", 4, bytes(32)),
        wire.Contribution(message.round_id, 0, 0, memoryview(bytes(16))),
        wire.OpenRequest(message.round_id, 0, []),
        wire.Vote(message.round_id, 0, 0, bytes(64)),
        wire.Ballots(message.round_id, 0, []),
        wire.Openings(message.round_id, 0, 0, b""),
        wire.SealedKeys(message.round_id, 0, []),
        wire.Grant(message.round_id, bytes(32), bytes(64), [], []),
        wire.Welcome(message.round_id, [], bytes(32), bytes(64), [], b""),
        wire.Ciphertexts(message.round_id, 0, 0, bytes(wire.SEALED_BYTES), bytes(64), memoryview(bytes(16))),
        wire.Total(message.round_id, 0, "gradients", 4, bytes(32), [], memoryview(bytes(16))),
        wire.Opened(message.round_id, 0, bytes(64), memoryview(bytes(16))),
    ]
    own = {type(message)}
    # A client that is told to begin a step, or to open one, may be told the other as well: that is another test.
    step: set[type] = {
        wire.StepRequest,
        *([wire.Total] if opened_by == "clients" else [wire.OpenRequest, wire.Ballots]),
    }
    if envelope.recipient >= 0 and own & step:
        own |= step
    return [envelope._replace(message=wire.encode(other)) for other in spare if type(other) not in own]


def test_messages_of_another_round_are_refused(simulate: Simulate, exact_sum: ExactSum, drawn: Drawn) -> None:
    network = Spoiled(lambda envelope: altered(envelope, round_id=bytes(16)))
    cohort = simulate(range(4), network=network)
    vectors = drawn(range(4), 4)
    result = cohort.sum(vectors, stream="gradients")
    assert result.ring.tolist() == exact_sum(vectors, FixedPoint(clip=1.0, clients=4))[0]
    check_refused(cohort, network, MessageError)


def test_messages_of_another_kind_are_refused(
    simulate: Simulate, exact_sum: ExactSum, drawn: Drawn, protocol: SumProtocol
) -> None:
    network = Spoiled(lambda envelope: other_kinds(envelope, opened_by=protocol.opened_by))
    cohort = simulate(range(4), network=network)
    vectors = drawn(range(4), 4)
    result = cohort.sum(vectors, stream="gradients")
    assert result.ring.tolist() == exact_sum(vectors, FixedPoint(clip=1.0, clients=4))[0]
    # A message that is longer than any that belongs here is looked at no further.
    check_refused(cohort, network, PhaseError, MessageError)


def test_strangers_are_refused(simulate: Simulate, exact_sum: ExactSum, drawn: Drawn) -> None:
    def from_strangers(envelope: Envelope) -> list[Envelope]:
        strangers = {4, 2**40, SERVER, AUTHORITY} - {envelope.sender}
        return [envelope._replace(sender=sender) for sender in strangers] if envelope.recipient == SERVER else []

    network = Spoiled(from_strangers)
    cohort = simulate(range(4), network=network)
    vectors = drawn(range(4), 4)
    result = cohort.sum(vectors, stream="gradients")
    assert result.ring.tolist() == exact_sum(vectors, FixedPoint(clip=1.0, clients=4))[0]
    check_refused(cohort, network, SenderError)


@pytest.mark.parametrize("other", [3, 4, 2**32 - 1])
def test_messages_in_somebody_elses_name_are_refused(
    simulate: Simulate, exact_sum: ExactSum, drawn: Drawn, other: int
) -> None:
    """Member 3 is expected too, the others are nobody."""

    def posing(envelope: Envelope) -> list[Envelope]:
        return altered(envelope, member=other) if envelope.sender not in (SERVER, other) else []

    network = Spoiled(posing)
    cohort = simulate(range(4), network=network)
    vectors = drawn(range(4), 4)
    result = cohort.sum(vectors, stream="gradients")
    assert result.ring.tolist() == exact_sum(vectors, FixedPoint(clip=1.0, clients=4))[0]
    check_refused(cohort, network, SenderError)


class Repeating(Network):
    """Every message arrives twice."""

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        return [copy for envelope in envelopes for copy in (envelope, envelope)]


def test_repeated_messages_are_refused(simulate: Simulate, exact_sum: ExactSum, drawn: Drawn) -> None:
    cohort = simulate(range(4), network=Repeating())
    for seed in range(2):
        vectors = drawn(range(4), 4, seed=seed)
        result = cohort.sum(vectors, stream="gradients")
        assert result.ring.tolist() == exact_sum(vectors, FixedPoint(clip=1.0, clients=4))[0]
    to_server = [type(r.error) for r in cohort.rejections if r.envelope.recipient == SERVER]
    assert to_server == [SenderError] * len(to_server)
    # A long message of the set-up is looked at no further in a step, where only short ones are expected.
    to_clients = [r.error for r in cohort.rejections if r.envelope.recipient != SERVER]
    assert all(isinstance(error, PhaseError | StepError | MessageError) for error in to_clients)
    assert any(isinstance(error, StepError) for error in to_clients)
    assert len(to_server) >= 8
    assert len(to_clients) >= 12


class Remembering(Network):
    """Before each message of a step come all of the steps before it, from and to the same parties."""

    def __init__(self) -> None:
        self.old: list[Envelope] = []
        self.present: list[Envelope] = []
        self.replayed: list[Envelope] = []

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        arriving: list[Envelope] = []
        for envelope in envelopes:
            again = [old for old in self.old if old[:2] == envelope[:2]]
            self.replayed += again
            arriving += [*again, envelope]
        self.present += envelopes
        return arriving

    def turn(self) -> None:
        """The present step is over."""
        self.old, self.present = self.old + self.present, []


def test_stale_messages_are_refused(simulate: Simulate, exact_sum: ExactSum, drawn: Drawn) -> None:
    network = Remembering()
    cohort = simulate(range(4), network=network)
    for seed in range(3):
        network.turn()
        vectors = drawn(range(4), 4, seed=seed)
        result = cohort.sum(vectors, stream="gradients")
        assert result.ring.tolist() == exact_sum(vectors, FixedPoint(clip=1.0, clients=4))[0]
    assert network.replayed
    assert [rejection.envelope for rejection in cohort.rejections] == network.replayed
    assert {type(r.error) for r in cohort.rejections} <= {
        StepError,
        PhaseError,
        MessageError,
        *StepError.__subclasses__(),
    }
    assert any(isinstance(r.error, StepError) and r.envelope.recipient == SERVER for r in cohort.rejections)
    assert any(isinstance(r.error, StepError) and r.envelope.recipient != SERVER for r in cohort.rejections)


def test_messages_of_steps_to_come_are_refused(simulate: Simulate, exact_sum: ExactSum, drawn: Drawn) -> None:
    """A client takes a later request for what it is (somebody missed a step), but not one beyond the last step."""

    def early(envelope: Envelope) -> list[Envelope]:
        ahead = [8, 9, 999_999] if envelope.recipient != SERVER else [1, 2, 8, 999_999]
        return [bad for step in ahead for bad in altered(envelope, step=step)]

    network = Spoiled(early)
    cohort = simulate(range(4), network=network, steps=8)
    vectors = drawn(range(4), 4)
    result = cohort.sum(vectors, stream="gradients")
    assert result.ring.tolist() == exact_sum(vectors, FixedPoint(clip=1.0, clients=4))[0]
    check_refused(cohort, network, StepError)
    assert len(network.spoiled) >= 28


def test_a_client_refuses_to_be_asked_for_what_is_not_in_its_terms(by_hand: ByHand) -> None:
    cohort = by_hand([0, 1], max_values=10)
    requests = cohort.server.request("gradients", 3)
    for changes in ({"stream": "weights"}, {"values": 11}, {"values": 2**28}):
        (bad,) = altered(Envelope(SERVER, 0, requests[0]), **changes)
        with pytest.raises(PhaseError, match="terms"):
            cohort.clients[0].receive(bad.message)
    for member, request in requests.items():
        cohort.clients[member].receive(request)
    assert cohort.answer({0: ONES, 1: ONES}).total.tolist() == [2.0, 2.0, 2.0]


def test_a_contribution_of_another_length_is_refused(by_hand: ByHand) -> None:
    """Where contributions are signed, so is their length."""
    cohort = by_hand([0, 1])
    cohort.ask("gradients", 3)
    frames = {member: client.contribute(ONES, stream="gradients") for member, client in cohort.clients.items()}
    message = wire.decode(frames[0], wire.Message, limit=2**20)
    (name,) = {"ring", "body"} & set(message.__struct_fields__)
    content = bytes(getattr(message, name))
    for length in (0, 4, len(content) - 1, len(content) + 1, len(content) + 4):
        changes = {name: memoryview((content + bytes(4))[:length])}
        if hasattr(message, "signature"):
            refusal = pytest.raises(PeerKeyError, match="member 0")
        else:
            refusal = pytest.raises(MessageError, match=f"{len(content)} are expected")
        with refusal:
            cohort.server.receive(0, wire.encode(msgspec.structs.replace(message, **changes)))
    for member, frame in frames.items():
        cohort.server.receive(member, frame)
    cohort.settle(cohort.server.advance())
    assert cohort.result().total.tolist() == [2.0, 2.0, 2.0]


def test_vectors_that_answer_different_questions_do_not_add_up(by_hand: ByHand, protocol: SumProtocol) -> None:
    """Where vectors are hidden: a server that asks one client something else learns nothing from the sum.

    That the masks cancel nevertheless has probability 2^-96.
    """
    cohort, total = by_hand(range(3)), None
    frames = {}
    for member, request in cohort.server.request("gradients", 3).items():
        shown = b"other dreams" if member == 1 else b""
        (asked,) = altered(Envelope(SERVER, member, request), context=hashlib.sha256(shown).digest())
        cohort.clients[member].receive(asked.message)
        frames[member] = cohort.clients[member].contribute(ONES, stream="gradients", context=shown)
    with contextlib.suppress(ProtocolError):
        for member, frame in frames.items():
            cohort.server.receive(member, frame)
        cohort.settle(cohort.server.advance())
        total = cohort.result().total.tolist()
    assert (total == [3.0, 3.0, 3.0]) != protocol.needs_credentials
