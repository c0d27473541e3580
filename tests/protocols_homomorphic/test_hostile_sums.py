"""Sums that are none: whoever holds the key names what is wrong, opens nothing, and opens the true sum afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import (
    AUTHORITY,
    CiphertextError,
    CohortError,
    ContributionError,
    Identity,
    MessageError,
    NoiseBudgetError,
    PeerKeyError,
    PhaseError,
    ProtocolError,
    ReplicaError,
    StepError,
    TermsError,
    TooFewSurvivorsError,
    VoucherError,
    wire,
)
from protocols.homomorphic.coefficients import from_bytes, to_bytes
from protocols.homomorphic.seal import backend
from protocols.homomorphic.secrets import secret_key
from protocols.homomorphic.vectors import BodySum
from protocols.homomorphic.vouchers import statement
from protocols.keys import Secret, request_context

Change = Callable[..., bytes]
Read = Callable[[bytes], Any]


def added(rd: Any, messages: list[bytes], read: Read, elements: int) -> memoryview:
    """The body that a server makes of these contributions."""
    total = BodySum(rd.plan, elements)
    for message in messages:
        total.add(read(message).body)
    return memoryview(total.body())


def refused(rd: Any, message: bytes, error: type[ProtocolError], match: str | None = None) -> None:
    """Everybody who could open it refuses it for this reason, and has no sum."""
    for opener in rd.openers.values():
        with pytest.raises(error, match=match) as caught:
            opener.receive(message)
        assert type(caught.value) is error
    for client in rd.clients.values():
        with pytest.raises(PhaseError):
            client.result()


class Step:
    """A step of length 5 that is collected but not opened: what was contributed, and the sum."""

    def __init__(self, rd: Any, read: Read, **kinds: Any) -> None:
        self.vectors = rd.vectors()
        rd.ask(5, stream=kinds.get("stream", "g"), context=kinds.get("context", b""))
        self.sent = rd.contributions(self.vectors, **kinds)
        rd.collect(self.sent)
        self.outbox = rd.server.advance()
        self.message = next(iter(self.outbox.values()))
        self.total = read(self.message)

    def finish(self, rd: Any) -> None:
        assert rd.finish(self.outbox).ring.tolist() == rd.ring(self.vectors)


def voucher_of(rd: Any, read: Read, message: bytes) -> wire.Voucher:
    """The voucher of one contribution, whatever step it is of."""
    sent = read(message)
    return wire.Voucher(sent.member, hashlib.sha256(sent.body).digest(), sent.sealed, sent.signature)


@pytest.mark.parametrize("kind", ["dropped", "doubled", "replaced", "nothing", "another step's", "scaled"])
def test_a_body_that_is_not_the_sum_of_what_was_vouched_for_is_refused(
    opened: Any, read: Read, change: Change, kind: str
) -> None:
    old = Step(opened, read)
    old.finish(opened)
    step = Step(opened, read)
    sent = list(step.sent.values())
    bodies = {
        "dropped": sent[1:],
        "doubled": [*sent, sent[0]],
        "replaced": [sent[0], *sent[:-1]],
        "another step's": [next(iter(old.sent.values())), *sent[1:]],
        "scaled": [*sent, *sent],
    }
    body = added(opened, bodies[kind], read, 5) if kind in bodies else memoryview(bytes(len(step.total.body)))
    refused(opened, change(step.message, body=body), VoucherError, "not the sum")
    step.finish(opened)


def test_a_voucher_that_is_left_out_or_of_another_step_is_found_out(opened: Any, read: Read, change: Change) -> None:
    old = Step(opened, read)
    old.finish(opened)
    step = Step(opened, read)
    vouchers = step.total.vouchers
    refused(opened, change(step.message, vouchers=vouchers[1:]), VoucherError, "not the sum")
    older = voucher_of(opened, read, old.sent[3])
    refused(opened, change(step.message, vouchers=[older, *vouchers[1:]]), PeerKeyError, "member 3")
    refused(opened, change(step.message, vouchers=old.total.vouchers), PeerKeyError)
    refused(opened, change(step.message, vouchers=old.total.vouchers, body=old.total.body), PeerKeyError)
    step.finish(opened)


def test_contributions_to_another_stream_context_or_length_do_not_pass(opened: Any, read: Read, change: Change) -> None:
    """What a contributor signs names all of them."""
    step = Step(opened, read, context=b"dreams")
    for changes in ({"stream": "h"}, {"context": bytes(32)}, {"values": 4}, {"values": 6}, {"step": 1}, {"step": 5}):
        refused(opened, change(step.message, **changes), PeerKeyError, "member 3")
    refused(opened, change(step.message, stream="i"), TermsError, "stream 'i'")
    refused(opened, change(step.message, values=4001), TermsError, "4001 values")
    step.finish(opened)


def test_forged_and_foreign_vouchers_are_refused(opened: Any, read: Read, change: Change) -> None:
    step = Step(opened, read)
    first, second, *rest = step.total.vouchers
    stranger = Identity.generate()
    signed = statement(opened.session, first.member, bytes(40), first.digest, first.sealed)
    for forged in (
        msgspec.structs.replace(first, signature=bytes(64)),
        msgspec.structs.replace(first, signature=second.signature),
        msgspec.structs.replace(first, signature=stranger.sign(signed)),
        msgspec.structs.replace(first, digest=bytes(32)),
        msgspec.structs.replace(first, sealed=second.sealed),
        msgspec.structs.replace(second, member=first.member),
    ):
        refused(opened, change(step.message, vouchers=[forged, second, *rest]), PeerKeyError, "member 3")
    step.finish(opened)


def test_a_sealed_tag_that_a_colluder_signed_again_does_not_open(opened: Any, read: Read, change: Change) -> None:
    """Whoever can sign for a member can still not pass another's tag, or another step's, for its own."""
    old = Step(opened, read)
    old.finish(opened)
    step = Step(opened, read)
    request = request_context(step.total.step, "g", 5, step.total.context)
    first, second, *rest = step.total.vouchers
    for digest, sealed in (
        (first.digest, second.sealed),
        (second.digest, first.sealed),
        (first.digest, old.total.vouchers[0].sealed),
        (old.total.vouchers[0].digest, old.total.vouchers[0].sealed),
        (first.digest, bytes(wire.SEALED_BYTES)),
    ):
        signature = opened.identities[3].sign(statement(opened.session, 3, request, digest, sealed))
        forged = wire.Voucher(3, digest, sealed, signature)
        refused(opened, change(step.message, vouchers=[forged, second, *rest]), VoucherError, "member 3 does not open")
    step.finish(opened)


def test_vouchers_of_strangers_repeated_out_of_order_or_too_few_are_refused(
    opened: Any, read: Read, change: Change
) -> None:
    step = Step(opened, read)
    vouchers = step.total.vouchers
    stranger = msgspec.structs.replace(vouchers[0], member=2)
    for bad, error in (
        ([stranger, *vouchers], CohortError),
        ([vouchers[0], *vouchers], CohortError),
        (vouchers[::-1], CohortError),
        ([vouchers[1], vouchers[0], *vouchers[2:]], CohortError),
        (vouchers[2:], TooFewSurvivorsError),
        ([], TooFewSurvivorsError),
    ):
        refused(opened, change(step.message, vouchers=bad), error)
    step.finish(opened)


def test_a_member_that_dropped_out_of_the_set_up_vouches_for_nothing(
    make_round: Any, name: str, read: Read, change: Change
) -> None:
    rd = make_round(name)
    rd.collect(rd.deliver(rd.server.open(), without=[20]))
    while rd.server.phase.name != "READY":
        outbox = rd.server.advance()
        rd.collect(rd.deliver(outbox))
    del rd.clients[20]
    vectors = {member: np.zeros(5) for member in (3, 7, 8)}
    totals = rd.totals(vectors)
    message = next(iter(totals.values()))
    vouchers = read(message).vouchers
    late = msgspec.structs.replace(vouchers[0], member=20)
    refused(rd, change(message, vouchers=[*vouchers, late]), CohortError, "did not complete the set-up")
    assert rd.finish(totals).contributors == (3, 7, 8)


@pytest.mark.parametrize("place", [0, 0.1, 0.25, 0.49, 0.5, 0.7, 0.99])
@pytest.mark.parametrize("byte", [0, 1, 2, 3])
def test_a_polynomial_that_was_altered_in_one_byte_is_refused(
    opened: Any, read: Read, change: Change, place: float, byte: int
) -> None:
    step = Step(opened, read)
    body, width = bytearray(step.total.body), opened.plan.parameters.coefficient_bytes
    at = int(place * len(body)) // width * width + byte
    body[at] ^= 0x40
    refused(opened, change(step.message, body=memoryview(body)), VoucherError, "not the sum")
    step.finish(opened)


def test_no_multiple_of_the_key_gets_into_a_sum(opened: Any, read: Read, change: Change) -> None:
    """A constant added to a second polynomial adds as many times the secret key to what the sum decrypts to."""
    step = Step(opened, read)
    parameters = opened.plan.parameters
    modulus, width = backend(parameters).modulus, parameters.coefficient_bytes
    body = from_bytes(step.total.body, width, modulus)
    body[len(body) // 2] += np.uint64(modulus >> parameters.message_bits)
    altered = to_bytes(body % np.uint64(modulus), width)
    refused(opened, change(step.message, body=memoryview(altered)), VoucherError, "not the sum")
    step.finish(opened)


def test_a_body_of_another_length_or_beyond_the_modulus_is_refused(opened: Any, read: Read, change: Change) -> None:
    step = Step(opened, read)
    body = bytes(step.total.body)
    width = opened.plan.parameters.coefficient_bytes
    for cut in (body[:-1], body[: len(body) // 2], body[:-width], b"", body + bytes(width)):
        with pytest.raises((CiphertextError, VoucherError)):
            next(iter(opened.openers.values())).receive(change(step.message, body=memoryview(cut)))
    for start in (0, len(body) - width):
        bad = memoryview(body[:start] + b"\xff" * width + body[start + width :])
        refused(opened, change(step.message, body=bad), CiphertextError, "not below the modulus")
    refused(opened, change(step.message, body=memoryview(b"\xff" * len(body))), CiphertextError)
    step.finish(opened)


def test_a_sum_is_opened_once_and_not_out_of_turn(opened: Any, read: Read, change: Change) -> None:
    first = Step(opened, read)
    first.finish(opened)
    for opener in opened.openers.values():
        with pytest.raises(StepError, match="has been opened"):
            opener.receive(first.message)
    step = Step(opened, read)
    refused(opened, first.message, StepError)
    refused(opened, change(step.message, step=0), StepError)
    refused(opened, change(step.message, step=6), StepError, "beyond the 6")
    refused(opened, change(step.message, round_id=bytes(16)), MessageError, "another round")
    step.finish(opened)


def test_two_sums_of_one_step_are_not_both_opened(make_round: Any, name: str, read: Read, change: Change) -> None:
    """Over all and over all but one: their difference would be that one's vector."""
    rd = make_round(name).open()
    step = Step(rd, read)
    fewer = list(step.sent.values())[1:]
    other = change(step.message, vouchers=step.total.vouchers[1:], body=added(rd, fewer, read, 5))
    for opener in rd.openers.values():
        opener.receive(other)
        with pytest.raises(StepError, match="has been opened"):
            opener.receive(step.message)


def test_an_older_sum_of_another_round_is_refused(make_round: Any, name: str, read: Read, change: Change) -> None:
    """Even under the round id of this one: sessions are bound to it."""
    before = make_round(name).open()
    old = Step(before, read)
    rd = make_round(name, before=before).open()
    step = Step(rd, read)
    refused(rd, change(old.message, round_id=rd.round_id), PeerKeyError)
    step.finish(rd)


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
def test_a_client_that_holds_another_state_is_named(make_round: Any, scheme: str, read: Read) -> None:
    rd = make_round(scheme).open()
    rd.ask(5)
    states = dict.fromkeys(rd.members, b"dreams after step 3") | {8: b"other dreams"}
    rd.collect(rd.contributions(rd.vectors(), held=states))
    outbox = rd.server.advance()
    for member, client in rd.clients.items():
        with pytest.raises(ReplicaError, match="member 3" if member == 8 else "member 8"):
            client.receive(outbox[member])
        with pytest.raises(PhaseError):
            client.result()
    assert rd.sum(rd.vectors(), held=dict.fromkeys(rd.members, b"dreams")).contributors == rd.members


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
def test_a_client_that_was_not_asked_refuses_a_sum_that_answers_something_else(make_round: Any, scheme: str) -> None:
    """A server that keeps a client out of a step could otherwise have it follow the others from another state."""
    rd = make_round(scheme).open()
    everybody = dict.fromkeys(rd.members, b"dreams")
    for held, agrees in ((b"other dreams", False), (b"", False), (b"dreams", True)):
        rd.deliver(rd.server.request("g", 5), without=[20])
        vectors = {member: vector for member, vector in rd.vectors().items() if member != 20}
        rd.collect(rd.contributions(vectors, held=everybody | {20: held}))
        totals = rd.server.advance()
        if agrees:
            assert rd.finish(totals).contributors == (3, 7, 8)
            continue
        with pytest.raises(ReplicaError, match="member 3 holds another state"):
            rd.clients[20].receive(totals[20])
        rd.deliver(totals, without=[20])
        with pytest.raises(PhaseError):
            rd.clients[20].result()
        assert rd.clients[7].result().contributors == (3, 7, 8)


@pytest.mark.parametrize("scheme", ["bfv-authority", "ckks-authority"])
def test_where_the_server_learns_sums_clients_hold_nothing(make_round: Any, scheme: str) -> None:
    rd = make_round(scheme).open()
    with pytest.raises(ContributionError, match=r"hold\(\) was called, but it is the server"):
        rd.clients[3].hold(b"dreams")


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
def test_the_server_learns_nothing_of_what_clients_share(make_round: Any, scheme: str, read: Read) -> None:
    """Equal states and different ones look alike: the digest travels sealed."""
    rd = make_round(scheme).open()
    rd.ask(5)
    sent = rd.contributions(rd.vectors(), held=dict.fromkeys(rd.members, b"dreams"))
    sealed = [read(message).sealed for message in sent.values()]
    pieces = [{found[at : at + 8] for at in range(len(found) - 8)} for found in sealed]
    assert not pieces[0] & pieces[1]


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
def test_a_server_that_asks_clients_for_a_result_gets_none(make_round: Any, scheme: str) -> None:
    rd = make_round(scheme).open()
    rd.sum(rd.vectors())
    with pytest.raises(PhaseError, match="it is the clients that open it"):
        rd.server.result()


def test_a_contribution_under_another_key_spoils_the_sum_and_is_noticed(make_round: Any, name: str, read: Read) -> None:
    """Its member vouches for it, so the sum is one; but it decrypts to nothing."""
    rd, other = make_round(name).open(), make_round(name).open()
    parameters = rd.plan.parameters
    if parameters.public:
        rd.clients[7]._keys[parameters] = other.clients[7]._keys[parameters]
    else:
        rd.clients[7]._loaded[parameters] = secret_key(Secret(bytes(32)), parameters)
    step = Step(rd, read)
    if not parameters.public:
        del rd.clients[7]._loaded[parameters]
    refused(rd, step.message, NoiseBudgetError, "does not decrypt")


def test_the_authority_passes_over_no_step_twice(make_round: Any) -> None:
    """A step that was skipped is over once a later one was opened; a restored authority has its log."""
    rd = make_round("bfv-authority").open()
    snapshot = rd.authority.snapshot(bytes(32))
    missed = rd.totals(rd.vectors())
    assert rd.server.expected == {AUTHORITY}
    rd.server.advance()
    later = rd.totals(rd.vectors())
    rd.finish(later)
    for message in (missed[AUTHORITY], later[AUTHORITY]):
        with pytest.raises(StepError, match="passed over"):
            rd.authority.receive(message)
    clone = rd.protocol.restore_authority(snapshot, bytes(32), terms=rd.terms, credentials=rd.credentials(AUTHORITY))
    for message in (missed[AUTHORITY], later[AUTHORITY]):
        with pytest.raises(StepError):
            clone.receive(message)
