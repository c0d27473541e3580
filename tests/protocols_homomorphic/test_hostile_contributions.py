"""Contributions that are none, and openings that the authority did not write: the server names what is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from protocols import (
    AUTHORITY,
    CiphertextError,
    Identity,
    MessageError,
    OpeningError,
    PeerKeyError,
    PhaseError,
    ProtocolError,
    SenderError,
    StepError,
    TooFewSurvivorsError,
    wire,
)
from protocols.homomorphic.authority import opened as statement_of_sum
from protocols.homomorphic.vouchers import statement
from protocols.keys import context_digest, request_context

Change = Callable[..., bytes]
Read = Callable[[bytes], Any]
GRANTED = pytest.mark.parametrize("scheme", ["bfv-authority", "ckks-authority"])


def signed(rd: Any, message: bytes, read: Read, body: bytes, *, member: int = 3) -> bytes:
    """A contribution with another body, signed by the member itself: one that does not follow the protocol."""
    sent = read(message)
    request = request_context(sent.step, "g", 5, context_digest(b""))
    digest = hashlib.sha256(body).digest()
    signature = rd.identities[member].sign(statement(rd.session, member, request, digest, sent.sealed))
    return wire.encode(wire.Ciphertexts(sent.round_id, member, sent.step, sent.sealed, signature, memoryview(body)))


def refused(rd: Any, sender: int, message: bytes, error: type[ProtocolError], match: str | None = None) -> None:
    expected = rd.server.expected
    with pytest.raises(error, match=match) as caught:
        rd.server.receive(sender, message)
    assert type(caught.value) is error
    assert rd.server.expected == expected


def test_ciphertexts_that_are_none_are_refused(opened: Any, read: Read) -> None:
    opened.ask(5)
    vectors = opened.vectors()
    sent = opened.contributions(vectors)
    body = bytes(read(sent[3]).body)
    width = opened.plan.parameters.coefficient_bytes
    for bad in (b"", body[:-1], body[: len(body) // 2], body + b"\0", body + bytes(300)):
        refused(opened, 3, signed(opened, sent[3], read, bad), CiphertextError, f"{len(body)} are expected")
    refused(opened, 3, signed(opened, sent[3], read, body + bytes(2000)), MessageError, "at most")
    for start in (0, width * 2047):
        bad = body[:start] + b"\xff" * width + body[start + width :]
        refused(opened, 3, signed(opened, sent[3], read, bad), CiphertextError, "not below the modulus")
    opened.collect(sent)
    assert opened.finish(opened.server.advance()).ring.tolist() == opened.ring(vectors)


def test_ciphertexts_of_other_parameters_are_refused(opened: Any, make_round: Any, name: str, read: Read) -> None:
    """Of the other kind of key, and so of another degree or modulus, or with both polynomials."""
    other = {"bfv": "bfv-authority", "ckks": "ckks-authority"}
    other |= {second: first for first, second in other.items()}
    foreign = make_round(other[name]).open()
    foreign.ask(5)
    body = bytes(read(foreign.contributions(foreign.vectors())[3]).body)
    opened.ask(5)
    sent = opened.contributions(opened.vectors())
    own = len(read(sent[3]).body)
    assert len(body) != own
    with pytest.raises((CiphertextError, MessageError)):
        opened.server.receive(3, signed(opened, sent[3], read, body))
    # Cut or filled to the right length it is still no ciphertext of ours, unless all coefficients are by chance.
    opened.collect(sent)


def test_contributions_that_are_not_the_sender_s_are_refused(opened: Any, read: Read, change: Change) -> None:
    opened.ask(5)
    vectors = opened.vectors()
    sent = opened.contributions(vectors)
    message = sent[3]
    sealed = read(message).sealed
    for changes in (
        {"signature": bytes(64)},
        {"signature": read(sent[7]).signature},
        {"sealed": read(sent[7]).sealed},
        {"sealed": sealed[:-1] + bytes([sealed[-1] ^ 1])},
        {"body": read(sent[7]).body},
    ):
        refused(opened, 3, change(message, **changes), PeerKeyError, "member 3")
    stranger = Identity.generate().sign(b"anything")
    refused(opened, 3, change(message, signature=stranger), PeerKeyError)
    refused(opened, 7, message, SenderError, "speaks for 3")
    refused(opened, 7, change(message, member=7), PeerKeyError, "member 7")
    for sender in (2, 21, -1, AUTHORITY):
        refused(opened, sender, change(message, member=max(sender, 0)), SenderError)
    refused(opened, 3, change(message, step=1), StepError)
    refused(opened, 3, change(message, round_id=bytes(16)), MessageError)
    opened.collect(sent)
    refused(opened, 3, message, SenderError)
    assert opened.finish(opened.server.advance()).ring.tolist() == opened.ring(vectors)


def test_contributions_of_another_step_stream_or_context_are_refused(opened: Any, read: Read, change: Change) -> None:
    opened.ask(5)
    first = opened.contributions(opened.vectors())
    opened.collect(first)
    opened.finish(opened.server.advance())
    opened.ask(5)
    refused(opened, 3, first[3], StepError, "step 0, this is step 1")
    refused(opened, 3, change(first[3], step=1), PeerKeyError)
    vectors = opened.vectors(seed=1)
    opened.collect(opened.contributions(vectors))
    assert opened.finish(opened.server.advance()).ring.tolist() == opened.ring(vectors)
    # A request that was altered on its way: what answers it is signed for something else.
    for changes in ({"stream": "h"}, {"values": 4}, {"context": context_digest(b"other dreams")}):
        for member, message in opened.server.request("g", 5).items():
            opened.clients[member].receive(change(message, **changes) if member == 3 else message)
        shape = {"stream": changes.get("stream", "g"), "context": b"other dreams" if "context" in changes else b""}
        vector = np.zeros(changes.get("values", 5))
        refused(opened, 3, opened.clients[3].contribute(vector, **shape), PeerKeyError, "member 3")
        vectors = {member: vector for member, vector in opened.vectors().items() if member != 3}
        opened.collect(opened.contributions(vectors))
        totals = opened.server.advance()
        totals.pop(3, None)
        answers = opened.deliver(totals)
        if opened.authority is not None:
            opened.collect(answers)
            opened.server.advance()
            assert opened.server.result().contributors == (7, 8, 20)
        else:
            assert opened.clients[7].result().contributors == (7, 8, 20)


def test_a_client_gives_one_contribution_a_step(opened: Any) -> None:
    opened.ask(5)
    opened.contributions(opened.vectors())
    with pytest.raises(PhaseError):
        opened.clients[3].contribute(np.zeros(5), stream="g")


def test_below_the_threshold_no_sum_is_made(opened: Any) -> None:
    opened.ask(5)
    vectors = {member: np.zeros(5) for member in (3, 7)}
    opened.collect(opened.contributions(vectors))
    outbox = opened.server.advance()
    assert AUTHORITY not in outbox
    with pytest.raises(TooFewSurvivorsError, match="2 members are left, where 3 are needed"):
        opened.server.result()
    for member, message in outbox.items():
        with pytest.raises(TooFewSurvivorsError):
            opened.clients[member].receive(message)


@GRANTED
def test_an_opening_that_the_authority_did_not_write_is_refused(
    make_round: Any, scheme: str, read: Read, change: Change
) -> None:
    rd = make_round(scheme).open()
    old = rd.deliver(rd.totals(rd.vectors()))[AUTHORITY]
    rd.collect({AUTHORITY: old})
    rd.server.advance()
    vectors = rd.vectors(seed=1)
    answer = rd.deliver(rd.totals(vectors))[AUTHORITY]
    ring = bytes(read(answer).ring)
    request = request_context(1, "g", 5, context_digest(b""))
    forged = Identity.generate().sign(statement_of_sum(rd.session, request, rd.members, memoryview(bytes(20))))
    fewer = rd.identities[AUTHORITY].sign(statement_of_sum(rd.session, request, rd.members[1:], memoryview(ring)))
    for changes in (
        {"ring": memoryview(bytes(20))},
        {"ring": memoryview(ring[:-1] + bytes([ring[-1] ^ 1]))},
        {"ring": memoryview(bytes(20)), "signature": forged},
        {"ring": read(old).ring},
        {"ring": read(old).ring, "signature": read(old).signature},
        {"signature": bytes(64)},
        {"signature": fewer},
    ):
        refused(rd, AUTHORITY, change(answer, **changes), PeerKeyError, "key authority")
    for length in (0, 16, 19, 21, 24):
        bad = memoryview((ring + bytes(4))[:length])
        refused(rd, AUTHORITY, change(answer, ring=bad), MessageError, "20 are expected")
    refused(rd, AUTHORITY, old, StepError, "opened step 0, this is step 1")
    refused(rd, AUTHORITY, change(answer, step=2), StepError)
    for sender in (*rd.members, 99, -1):
        refused(rd, sender, answer, SenderError)
    rd.collect({AUTHORITY: answer})
    refused(rd, AUTHORITY, answer, SenderError)
    rd.server.advance()
    assert rd.server.result().ring.tolist() == rd.ring(vectors)


@GRANTED
@pytest.mark.parametrize("whole", [False, True])
def test_an_abort_after_a_contribution_says_that_the_sum_may_be_open(make_round: Any, scheme: str, whole: bool) -> None:
    """Of the step or of the whole round, by a server that may lie; of a step that was only asked for it is none."""
    rd = make_round(scheme).open()
    rd.ask(5)
    rd.contributions({3: np.zeros(5)})
    abort = wire.encode(wire.Abort(rd.round_id, None if whole else 0, 1, 3))
    for member, expected in ((3, rd.members), (7, None)):
        with pytest.raises(TooFewSurvivorsError) as told:
            rd.clients[member].receive(abort)
        assert told.value.asked_to_open == expected
    if whole:
        return
    rd.server.advance()
    rd.ask(5)
    with pytest.raises(TooFewSurvivorsError) as told:
        rd.clients[3].receive(wire.encode(wire.Abort(rd.round_id, 1, 1, 3)))
    assert told.value.asked_to_open is None


@GRANTED
def test_a_silent_authority_fails_the_step_and_says_what_may_be_open(make_round: Any, scheme: str) -> None:
    rd = make_round(scheme).open()
    rd.totals({member: np.zeros(5) for member in (3, 7, 20)})
    outbox = rd.server.advance()
    with pytest.raises(OpeningError, match="did not open the sum of step 0") as caught:
        rd.server.result()
    assert caught.value.asked_to_open == (3, 7, 20)
    for member, message in outbox.items():
        with pytest.raises(TooFewSurvivorsError) as told:
            rd.clients[member].receive(message)
        # Whoever contributed has to reckon with it that the server has the sum, whatever it says; member 8 did not.
        assert told.value.asked_to_open == (None if member == 8 else rd.members)
    vectors = rd.vectors()
    assert rd.sum(vectors).ring.tolist() == rd.ring(vectors)


@GRANTED
def test_a_restored_client_still_knows_that_it_contributed(make_round: Any, scheme: str) -> None:
    """The abort of a step that its snapshot was taken after: the server may have had the sum opened before."""
    rd = make_round(scheme).open()
    rd.ask(5)
    rd.collect(rd.contributions(rd.vectors()))
    client = rd.clients[3]
    client = rd.protocol.restore_client(
        client.snapshot(bytes(32)), bytes(32), terms=rd.terms, credentials=client._credentials
    )
    with pytest.raises(TooFewSurvivorsError) as told:
        client.receive(wire.encode(wire.Abort(rd.round_id, 0, 1, 3)))
    assert told.value.asked_to_open == rd.members
