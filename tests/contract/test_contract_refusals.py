"""What every protocol has to refuse, by name, and without harm to the machine that refuses."""

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
    CohortError,
    ContributionError,
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
    Terms,
    TermsError,
    TooFewSurvivorsError,
    available_protocols,
    wire,
)
from protocols.driver import Envelope

Simulate = Callable[..., Simulation]
ByHand = Callable[..., Any]
MakeTerms = Callable[..., Terms]
ExactSum = Callable[..., tuple[list[int], list[float]]]
Drawn = Callable[..., dict[int, np.ndarray]]

ONES = np.ones(3, np.float32)
BAD_VECTORS = {
    "NaN": np.array([1, np.nan, 0], np.float32),
    "infinite": np.array([1, 0, np.inf]),
    "minus infinity": np.array([-np.inf, 0, 1], np.float32),
    "NaN and infinities": np.array([np.inf, np.nan, -np.inf], np.float32),
    "two dimensions": np.ones((1, 3), np.float32),
    "no dimension": np.float32(1).reshape(()),
    "too short": np.ones(2, np.float32),
    "too long": np.ones(4, np.float32),
    "half precision": np.ones(3, np.float16),
    "integers": np.ones(3, np.int64),
    "complex": np.ones(3, np.complex64),
    "foreign byte order": np.ones(3, ">f4"),
    "a list": [1.0, 1.0, 1.0],
    "None": None,
}


@pytest.mark.parametrize("name", BAD_VECTORS)
def test_a_vector_that_cannot_be_summed_is_refused_and_another_one_is_taken(by_hand: ByHand, name: str) -> None:
    cohort = by_hand(range(3))
    cohort.ask("gradients", 3)
    with pytest.raises(ContributionError):
        cohort.clients[1].contribute(BAD_VECTORS[name], stream="gradients")
    assert cohort.answer(dict.fromkeys(range(3), ONES)).total.tolist() == [3.0, 3.0, 3.0]


def test_a_value_beyond_the_bound_is_refused_where_it_is_not_clipped(by_hand: ByHand) -> None:
    streams = {
        "gradients": FixedPoint(clip=1.0, clients=2, excess="refuse"),
        "norm": FixedPoint(clip=1.0, clients=2, excess="refuse", norm="l2"),
    }
    cohort = by_hand([0, 1], streams=streams)
    for stream in streams:
        cohort.ask(stream, 3)
        with pytest.raises(ContributionError, match="beyond the bound of 1.0"):
            cohort.clients[0].contribute(np.array([0.0, 0.0, -1.0000001]), stream=stream)
        vector = np.array([0.0, -1.0, 0.0])
        assert cohort.answer({0: vector, 1: vector}, stream=stream).total.tolist() == [0.0, -2.0, 0.0]


@pytest.mark.parametrize("weight", [None, -1, 6, 1.0, True, np.int64(2), "1"])
def test_a_weight_that_is_none_is_refused_and_another_one_is_taken(by_hand: ByHand, weight: object) -> None:
    cohort = by_hand([0, 1], streams={"gradients": FixedPoint(clip=1.0, clients=2, max_weight=5)})
    cohort.ask("gradients", 3)
    with pytest.raises(ContributionError, match=r"weight is not an integer in \[0, 5\]"):
        cohort.clients[0].contribute(ONES, stream="gradients", weight=weight)
    assert cohort.answer({0: ONES, 1: ONES}, weights={0: 5, 1: 0}).weight == 5


def test_a_weight_for_a_stream_without_weights_is_refused(by_hand: ByHand) -> None:
    cohort = by_hand([0, 1])
    cohort.ask("gradients", 3)
    with pytest.raises(ContributionError, match="set max_weight"):
        cohort.clients[0].contribute(ONES, stream="gradients", weight=1)
    assert cohort.answer({0: ONES, 1: ONES}).weight is None


def test_a_vector_is_handed_over_once_and_only_for_what_was_asked(by_hand: ByHand) -> None:
    streams = {name: FixedPoint(clip=1.0, clients=2) for name in ("gradients", "labels")}
    cohort = by_hand([0, 1], streams=streams)
    with pytest.raises(PhaseError):
        cohort.clients[0].contribute(ONES, stream="gradients")
    cohort.ask("gradients", 3)
    with pytest.raises(PhaseError, match="labels"):
        cohort.clients[0].contribute(ONES, stream="labels")
    assert cohort.answer({0: ONES, 1: ONES}).total.tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(PhaseError):
        cohort.clients[0].contribute(ONES, stream="gradients")


def test_a_client_whose_vector_is_refused_ends_only_that_step(simulate: Simulate, drawn: Drawn) -> None:
    cohort = simulate(range(3))
    with pytest.raises(ContributionError, match="client 1: the value at index 2 is infinite"):
        cohort.sum({0: ONES, 1: np.array([0, 1, -np.inf]), 2: ONES}, stream="gradients")
    assert cohort.sum(dict.fromkeys(range(3), ONES), stream="gradients").total.tolist() == [3.0, 3.0, 3.0]


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


def test_a_server_refuses_steps_that_the_terms_do_not_allow(by_hand: ByHand) -> None:
    cohort = by_hand([0, 1], steps=2, max_values=10)
    with pytest.raises(TermsError, match="'weights' is not in the terms: gradients"):
        cohort.server.request("weights", 3)
    for values in (-1, 11):
        with pytest.raises(TermsError, match=f"values is {values}"):
            cohort.server.request("gradients", values)
    for _ in range(2):
        assert cohort.step({0: ONES, 1: ONES}).total.tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(StepError, match="all 2 steps of this round are used"):
        cohort.server.request("gradients", 3)


def test_calls_out_of_turn_are_refused(by_hand: ByHand) -> None:
    cohort = by_hand([0, 1], opened=False)
    for call in (cohort.server.advance, cohort.server.snapshot, lambda: cohort.server.request("gradients", 3)):
        with pytest.raises(PhaseError):
            call()
    with pytest.raises(PhaseError):
        cohort.server.receive(0, b"")
    assert cohort.server.expected == frozenset()
    for client in cohort.clients.values():
        with pytest.raises(PhaseError):
            client.contribute(ONES, stream="gradients")
    cohort.settle(cohort.server.open())
    for call in (cohort.server.open, cohort.server.advance, cohort.server.result):
        with pytest.raises(PhaseError):
            call()
    with pytest.raises(PhaseError):
        cohort.server.receive(0, b"")
    cohort.ask("gradients", 3)
    for call in (cohort.server.result, cohort.server.snapshot, lambda: cohort.server.request("gradients", 3)):
        with pytest.raises(PhaseError):
            call()
    assert cohort.server.expected == {0, 1}
    assert cohort.answer({0: ONES, 1: ONES}).total.tolist() == [2.0, 2.0, 2.0]
    assert cohort.server.expected == frozenset()


def test_a_round_that_is_closed_takes_nothing_more(by_hand: ByHand) -> None:
    cohort = by_hand([0, 1])
    request = cohort.server.request("gradients", 3)
    cohort.server.close()
    with pytest.raises(PhaseError):
        cohort.server.request("gradients", 3)
    with pytest.raises(PhaseError):
        cohort.server.receive(0, b"")
    for member, client in cohort.clients.items():
        assert client.member == member
        client.close()
        client.close()
        with pytest.raises(PhaseError, match="closed"):
            client.receive(request[member])
        with pytest.raises(PhaseError):
            client.contribute(ONES, stream="gradients")
        with pytest.raises(PhaseError):
            client.snapshot(bytes(32))


def test_a_server_can_end_a_round_for_its_clients(by_hand: ByHand) -> None:
    cohort = by_hand([0, 1])
    abort = wire.encode(wire.Abort(cohort.round_id, None, 1, 2))
    with pytest.raises(TooFewSurvivorsError, match="1 members are left, where 2 are needed"):
        cohort.clients[0].receive(abort)
    with pytest.raises(PhaseError, match="closed"):
        cohort.clients[0].receive(abort)


@pytest.mark.parametrize("step", [0, 2, 7])
def test_an_abort_of_another_step_does_not_end_the_one_going_on(by_hand: ByHand, step: int) -> None:
    cohort = by_hand([0, 1])
    cohort.step({0: ONES, 1: ONES})
    cohort.ask("gradients", 3)
    with pytest.raises(StepError, match=f"step {step}, which is given up, is not the one going on"):
        cohort.clients[0].receive(wire.encode(wire.Abort(cohort.round_id, step, 1, 2)))
    assert cohort.answer({0: ONES, 1: ONES}).total.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("cohort", [[1, 0], [0, 0], [0, 1, 1], [-1, 0], [0, 2**32], [0, True], [0, 1.0], [0, "1"]])
def test_a_cohort_that_cannot_be_is_refused(
    by_hand: ByHand, protocol: SumProtocol, make_terms: MakeTerms, cohort: list[Any]
) -> None:
    parties = by_hand([0, 1], opened=False)
    with pytest.raises(CohortError):
        protocol.server(cohort, terms=make_terms(4), round_id=bytes(16), roster=parties.roster)


@pytest.mark.parametrize("member", [-1, 2**32, True, 1.0, "1", None])
def test_a_member_that_cannot_be_is_refused(
    by_hand: ByHand, protocol: SumProtocol, make_terms: MakeTerms, member: Any
) -> None:
    parties = by_hand([0, 1], opened=False)
    with pytest.raises(CohortError):
        protocol.client(member, terms=make_terms(2), credentials=parties.credentials[1])


@pytest.mark.parametrize("members", [[1, 2], [], [0, 2, 1], [0, 0, 1], [1, 0]])
def test_a_client_refuses_a_cohort_without_it_or_out_of_order(by_hand: ByHand, members: list[int]) -> None:
    cohort = by_hand([0, 1, 2], opened=False)
    offer = wire.decode(cohort.server.open()[0], wire.Offer, limit=1000)
    with pytest.raises(CohortError):
        cohort.clients[0].receive(wire.encode(msgspec.structs.replace(offer, cohort=members)))
    cohort.clients[0].receive(wire.encode(offer))


def test_a_client_refuses_a_round_under_other_terms(by_hand: ByHand, make_terms: MakeTerms) -> None:
    """Or under another protocol: a server that could choose one would choose the one without protection."""
    cohort = by_hand([0, 1, 2], opened=False)
    digests = [make_terms(3, steps=9).digest(cohort.protocol.name), cohort.terms.digest("another"), bytes(32)]
    digests += [cohort.terms.digest(name) for name in available_protocols() if name != cohort.protocol.name]
    offer = wire.decode(cohort.server.open()[0], wire.Offer, limit=1000)
    for digest in digests:
        with pytest.raises(TermsError, match="under other terms, or another protocol"):
            cohort.clients[0].receive(wire.encode(msgspec.structs.replace(offer, terms=digest)))
    cohort.clients[0].receive(wire.encode(offer))


def test_a_cohort_that_is_too_large_or_too_small_for_the_terms_is_refused(
    by_hand: ByHand, protocol: SumProtocol, make_terms: MakeTerms
) -> None:
    parties = by_hand([0, 1, 2], opened=False)
    with pytest.raises(TermsError, match="3 members, but stream 'gradients' is encoded for at most 2"):
        protocol.server([0, 1, 2], terms=make_terms(2), round_id=bytes(16), roster=parties.roster)
    with pytest.raises(TermsError, match="3 members: the terms ask for at least 4"):
        protocol.server([0, 1, 2], terms=make_terms(5, min_cohort=4), round_id=bytes(16), roster=parties.roster)
    cohort = by_hand([0, 1, 2, 3], opened=False, min_cohort=4)
    offer = wire.decode(cohort.server.open()[0], wire.Offer, limit=1000)
    with pytest.raises(TermsError, match="3 members: the terms ask for at least 4"):
        cohort.clients[0].receive(wire.encode(msgspec.structs.replace(offer, cohort=[0, 1, 2])))


def test_a_client_that_was_shown_something_else_refuses_to_answer(by_hand: ByHand) -> None:
    cohort = by_hand(range(3))
    for member, request in cohort.server.request("gradients", 3, context=b"dreams").items():
        cohort.clients[member].receive(request)
    for shown in (b"", b"other dreams"):
        with pytest.raises(PhaseError, match="the contexts differ"):
            cohort.clients[1].contribute(ONES, stream="gradients", context=shown)
    for member, client in cohort.clients.items():
        cohort.server.receive(member, client.contribute(ONES, stream="gradients", context=b"dreams"))
    cohort.settle(cohort.server.advance())
    assert cohort.result().total.tolist() == [3.0, 3.0, 3.0]


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


def test_a_sum_over_exactly_these_is_opened_over_all_of_them_or_not_at_all(by_hand: ByHand) -> None:
    """Others are not asked; and when one of them is missing, the others' sum stays closed."""
    cohort = by_hand(range(10))
    chosen = [0, 2, 3, 4, 6, 7, 8, 9]
    request = cohort.server.request("gradients", 3, exactly=chosen)
    assert sorted(request) == chosen
    for member, message in request.items():
        cohort.clients[member].receive(message)
    assert cohort.answer(dict.fromkeys(chosen, ONES)).contributors == tuple(chosen)
    for member, message in cohort.server.request("gradients", 3, exactly=chosen).items():
        cohort.clients[member].receive(message)
    for member in chosen[:-1]:
        cohort.server.receive(member, cohort.clients[member].contribute(ONES, stream="gradients"))
    for member, message in cohort.server.advance().items():
        with pytest.raises(TooFewSurvivorsError, match="7 members are left, where 8 are needed"):
            cohort.clients[member].receive(message)
    with pytest.raises(TooFewSurvivorsError):
        cohort.server.result()
    assert cohort.step(dict.fromkeys(range(10), ONES)).total.tolist() == [10.0] * 3


def test_a_sum_over_exactly_too_few_or_over_strangers_is_refused(by_hand: ByHand) -> None:
    cohort = by_hand(range(10))
    with pytest.raises(CohortError, match="6 members: no sum of fewer than 7"):
        cohort.server.request("gradients", 3, exactly=range(6))
    with pytest.raises(CohortError, match="not part of this round"):
        cohort.server.request("gradients", 3, exactly=[*range(9), 10])
    assert cohort.step(dict.fromkeys(range(10), ONES)).total.tolist() == [10.0] * 3


def test_no_error_holds_a_private_value(by_hand: ByHand) -> None:
    """Of a vector that is refused, the text names a place at most."""
    secrets = np.array([7654.321, -7654.321, np.nan])
    streams = {
        "gradients": FixedPoint(clip=1.0, clients=2, excess="refuse"),
        "norm": FixedPoint(clip=1.0, clients=2, excess="refuse", norm="l2", max_weight=9),
    }
    cohort = by_hand([0, 1], streams=streams, steps=20)
    texts = []
    for stream, weight in (("gradients", None), ("gradients", 7654), ("norm", 7654), ("norm", 3)):
        for vector in (secrets, secrets[:2], secrets[:2].astype(np.float32), secrets[:1], secrets.reshape(1, 3)):
            cohort.ask(stream, vector.size)
            with pytest.raises(ContributionError) as caught:
                cohort.clients[0].contribute(vector, stream=stream, weight=weight)
            texts.append(str(caught.value))
            cohort.settle(cohort.server.advance(), silent=[0, 1])
    assert len(texts) == 20
    assert not any("7654" in text or "321" in text for text in texts)
