"""A server that cheats while keys are handed out: each attack ends in its named error, and without keys."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import (
    AUTHORITY,
    CiphertextError,
    CohortError,
    Identity,
    MessageError,
    OpeningError,
    PeerKeyError,
    Phase,
    PhaseError,
    ProtocolError,
    RosterError,
    RoundReuseError,
    SenderError,
    ShareError,
    TermsError,
    TooFewSurvivorsError,
    wire,
)
from protocols.homomorphic.granted_key import grant
from protocols.homomorphic.shared_key import PARCEL_BYTES
from protocols.keys import RoundKey, Secret, advertisement
from protocols.shares import TAG_BYTES, seal

Change = Callable[..., bytes]
Read = Callable[[bytes], Any]
SHARED = pytest.mark.parametrize("scheme", ["bfv", "ckks"])
GRANTED = pytest.mark.parametrize("scheme", ["bfv-authority", "ckks-authority"])


def advertised(make_round: Any, name: str) -> tuple[Any, dict[int, bytes]]:
    """A round in which everybody has advertised a key, and what the server sends then."""
    rd = make_round(name)
    rd.collect(rd.deliver(rd.server.open()))
    return rd, rd.server.advance()


def shared(make_round: Any, name: str) -> tuple[Any, dict[int, bytes]]:
    """A round in which everybody, or the authority, has sent keys, and what the server sends then."""
    rd, outbox = advertised(make_round, name)
    rd.collect(rd.deliver(outbox))
    return rd, rd.server.advance()


def refuses(machine: Any, message: bytes, error: type[ProtocolError], match: str | None = None) -> None:
    with pytest.raises(error, match=match) as caught:
        machine.receive(message)
    assert type(caught.value) is error


def proceeds(rd: Any, outbox: dict[int, bytes]) -> None:
    """The true messages are taken, and the round gives a sum."""
    while rd.server.phase is not Phase.READY:
        rd.collect(rd.deliver(outbox))
        outbox = rd.server.advance()
    rd.deliver(outbox)
    vectors = rd.vectors()
    assert rd.sum(vectors).ring.tolist() == rd.ring(vectors)


def test_replaced_and_foreign_keys_are_refused(make_round: Any, name: str, read: Read, change: Change) -> None:
    """By clients that share a key, or by the authority that grants one: whoever sees the advertised keys."""
    rd, outbox = advertised(make_round, name)
    number = max(outbox)
    machine, keys = rd.party(number), read(outbox[number]).keys
    with RoundKey() as own:
        stolen = own.public_key
    me = read(outbox[number]).keys[0].member
    forged = Identity.generate().sign(advertisement(rd.session, me, stolen))
    for signature in (keys[0].signature, bytes(64), forged, rd.identities[7].sign(b"another thing")):
        bad = wire.PublicKey(me, stolen, signature)
        refuses(machine, change(outbox[number], keys=[bad, *keys[1:]]), PeerKeyError)
    swapped = msgspec.structs.replace(keys[1], public_key=keys[0].public_key, signature=keys[0].signature)
    refuses(machine, change(outbox[number], keys=[keys[0], swapped, *keys[2:]]), PeerKeyError)
    stranger = msgspec.structs.replace(keys[0], member=2)
    refuses(machine, change(outbox[number], keys=[stranger, *keys]), CohortError)
    refuses(machine, change(outbox[number], keys=[keys[0], *keys]), CohortError)
    refuses(machine, change(outbox[number], keys=keys[::-1]), CohortError)
    left = [keys[0], keys[-1]]
    refuses(machine, change(outbox[number], keys=left), TooFewSurvivorsError)
    proceeds(rd, outbox)


@SHARED
def test_a_client_s_own_key_is_not_replaced(make_round: Any, scheme: str, read: Read, change: Change) -> None:
    """Even by another that it signed, and not left out either."""
    rd, outbox = advertised(make_round, scheme)
    keys = read(outbox[7]).keys
    with RoundKey() as other:
        public = other.public_key
    signature = rd.identities[7].sign(advertisement(rd.session, 7, public))
    own = wire.PublicKey(7, public, signature)
    refuses(rd.clients[7], change(outbox[7], keys=[keys[0], own, *keys[2:]]), PeerKeyError, "own key")
    refuses(rd.clients[7], change(outbox[7], keys=[keys[0], *keys[2:]]), PeerKeyError, "own key")
    proceeds(rd, outbox)


def test_a_degenerate_key_is_refused(make_round: Any, name: str, read: Read, change: Change) -> None:
    """One whose exchange is the same for everybody, signed by a member that colludes."""
    rd, outbox = advertised(make_round, name)
    number = max(outbox)
    keys = read(outbox[number]).keys
    signature = rd.identities[3].sign(advertisement(rd.session, 3, bytes(32)))
    bad = change(outbox[number], keys=[wire.PublicKey(3, bytes(32), signature), *keys[1:]])
    refuses(rd.party(number), bad, PeerKeyError, "degenerate")
    proceeds(rd, outbox)


def test_an_advertisement_that_is_not_the_sender_s_is_refused_by_the_server(
    make_round: Any, name: str, change: Change
) -> None:
    rd = make_round(name)
    answers = rd.deliver(rd.server.open())
    refuses_from = rd.server.receive
    with pytest.raises(SenderError):
        refuses_from(7, answers[3])
    for bad in (change(answers[3], public_key=os.urandom(32)), change(answers[3], signature=bytes(64))):
        with pytest.raises(PeerKeyError, match="member 3"):
            refuses_from(3, bad)
    with pytest.raises(MessageError, match="another round"):
        refuses_from(3, change(answers[3], round_id=bytes(16)))
    rd.collect(answers)
    with pytest.raises(SenderError):
        refuses_from(3, answers[3])
    proceeds(rd, rd.server.advance())


@SHARED
def test_sealed_keys_reach_nobody_else(make_round: Any, scheme: str, read: Read, change: Change) -> None:
    """The holder's parcels, relayed to the wrong member, from another round or altered, open nothing."""
    before, earlier = shared(make_round, scheme)
    old = read(earlier[7]).parcels
    rd, outbox = shared(make_round, scheme)
    (parcel,), (other,) = (read(outbox[member]).parcels for member in (7, 8))
    turned = bytes([parcel.ciphertext[0] ^ 1]) + parcel.ciphertext[1:]
    for ciphertext in (other.ciphertext, old[0].ciphertext, turned, parcel.ciphertext[:-1], b"", bytes(64)):
        bad = change(outbox[7], parcels=[wire.Parcel(3, ciphertext)])
        refuses(rd.clients[7], bad, ShareError)
    refuses(rd.clients[7], change(outbox[7], parcels=[]), ShareError)
    refuses(rd.clients[7], change(outbox[7], parcels=[wire.Parcel(8, parcel.ciphertext)]), ShareError)
    refuses(rd.clients[7], change(outbox[7], parcels=[parcel, other]), ShareError)
    refuses(rd.clients[3], change(outbox[3], parcels=[parcel]), ShareError)
    for client in rd.clients.values():
        with pytest.raises(PhaseError):
            client.contribute(np.zeros(5), stream="g")
    proceeds(rd, outbox)
    assert before is not rd


@SHARED
def test_a_server_cannot_make_two_halves_of_a_cohort_hold_two_keys(
    make_round: Any, scheme: str, read: Read, change: Change
) -> None:
    """Telling member 20 that member 3 is gone would make member 7's secret count: there is no parcel of it."""
    rd, outbox = shared(make_round, scheme)
    (parcel,) = read(outbox[20]).parcels
    for peer in (3, 7):
        bad = change(outbox[20], members=[7, 8, 20], parcels=[wire.Parcel(peer, parcel.ciphertext)])
        refuses(rd.clients[20], bad, ShareError)
    for members, error in (
        ([3, 7, 8], CohortError),
        ([2, 3, 7, 8, 20], CohortError),
        ([3, 20], TooFewSurvivorsError),
        ([7, 3, 20], CohortError),
    ):
        refuses(rd.clients[20], change(outbox[20], members=members), error)
    proceeds(rd, outbox)


@SHARED
def test_a_member_that_never_advertised_has_not_completed_the_set_up(
    make_round: Any, scheme: str, read: Read, change: Change
) -> None:
    rd = make_round(scheme)
    rd.collect(rd.deliver(rd.server.open(), without=[20]))
    rd.collect(rd.deliver(rd.server.advance()))
    outbox = rd.server.advance()
    refuses(rd.clients[7], change(outbox[7], members=[3, 7, 8, 20]), CohortError, "never advertised")


@SHARED
def test_a_holder_whose_keys_come_out_differently_is_named(
    make_round: Any, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of SEAL may make other keys of the same seed: a check travels with the secret."""
    rd, outbox = shared(make_round, scheme)
    monkeypatch.setattr("protocols.homomorphic.shared_key.key_check", lambda root, sets: bytes(16))
    refuses(rd.clients[7], outbox[7], ShareError, "member 3's secret gives other keys")


@SHARED
@pytest.mark.parametrize("length", [0, 1, 31, 32, 47, 49, 64])
def test_a_secret_of_another_length_is_refused_by_name(
    make_round: Any, scheme: str, read: Read, change: Change, length: int
) -> None:
    """Sealed by a holder that deviates, and relayed by a server that lets it through."""
    rd, outbox = advertised(make_round, scheme)
    answers = rd.deliver(outbox)
    holder = rd.clients[3]
    assert length != PARCEL_BYTES - TAG_BYTES
    ciphertext = seal(holder._pairs[7].outgoing, bytes(length), holder._parcel(3, 7))
    rd.collect(answers)
    outbox = rd.server.advance()
    bad = change(outbox[7], parcels=[wire.Parcel(3, ciphertext)])
    refuses(rd.clients[7], bad, ShareError, f"member 3 sealed {length} bytes")
    proceeds(rd, outbox)


@GRANTED
@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_tags_of_another_length_are_refused_by_name(
    make_round: Any, scheme: str, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """Sealed and signed by an authority that deviates."""

    def other(key: Secret, content: bytes, context: bytes) -> bytes:
        return seal(key, content.ljust(length, b"\0")[:length], context)

    monkeypatch.setattr("protocols.homomorphic.authority.seal", other)
    rd, outbox = shared(make_round, scheme)
    for member in rd.members:
        refuses(rd.clients[member], outbox[member], ShareError, f"sealed {length} bytes")
        with pytest.raises(PhaseError):
            rd.clients[member].contribute(np.zeros(5), stream="g")


@SHARED
def test_the_server_refuses_secrets_that_were_sealed_for_others(
    make_round: Any, scheme: str, read: Read, change: Change
) -> None:
    rd, outbox = advertised(make_round, scheme)
    answers = rd.deliver(outbox)
    parcels = read(answers[3]).parcels
    short = [msgspec.structs.replace(parcels[0], ciphertext=parcels[0].ciphertext[:-1]), *parcels[1:]]
    for bad in (parcels[1:], parcels[::-1], [*parcels, wire.Parcel(99, bytes(64))], short, []):
        with pytest.raises(MessageError):
            rd.server.receive(3, change(answers[3], parcels=bad))
    with pytest.raises(SenderError):
        rd.server.receive(7, answers[3])
    rd.collect(answers)
    proceeds(rd, rd.server.advance())


@GRANTED
def test_a_welcome_that_the_authority_did_not_write_is_refused(
    make_round: Any, scheme: str, read: Read, change: Change
) -> None:
    before, earlier = shared(make_round, scheme)
    rd, outbox = shared(make_round, scheme)
    welcome, other = read(outbox[7]), read(outbox[8])
    client = rd.clients[7]
    with RoundKey() as own:
        public = own.public_key
    posing = Identity.generate().sign(grant(rd.session, welcome.members, welcome.public_key, welcome.encryption_keys))
    for changes in (
        {"members": [3, 7, 8]},
        {"public_key": public},
        {"encryption_keys": read(earlier[7]).encryption_keys},
        {"encryption_keys": [bytes(len(welcome.encryption_keys[0]))]},
        {"encryption_keys": []},
        {"encryption_keys": [welcome.encryption_keys[0][:-1]]},
        {"signature": bytes(64)},
        {"signature": posing},
        {"signature": read(earlier[7]).signature},
    ):
        refuses(client, change(outbox[7], **changes), PeerKeyError, "key authority")
    for members, error in (([3, 8, 20], CohortError), ([2, 3, 7], CohortError), ([7, 8], TooFewSurvivorsError)):
        refuses(client, change(outbox[7], members=members), error)
    sealed = welcome.sealed
    turned = bytes([sealed[0] ^ 1]) + sealed[1:]
    for bad in (other.sealed, read(earlier[7]).sealed, turned, sealed[:-1], b""):
        refuses(client, change(outbox[7], sealed=bad), ShareError)
    with pytest.raises(PhaseError):
        client.contribute(np.zeros(5), stream="g")
    proceeds(rd, outbox)
    assert before is not rd


@GRANTED
def test_keys_that_are_none_are_refused_even_from_the_authority(
    make_round: Any, scheme: str, read: Read, change: Change
) -> None:
    rd, outbox = shared(make_round, scheme)
    welcome = read(outbox[7])
    (key,) = welcome.encryption_keys
    for keys in ([], [key[:-1]], [b"\xff" * len(key)]):
        signature = rd.identities[AUTHORITY].sign(grant(rd.session, welcome.members, welcome.public_key, keys))
        refuses(rd.clients[7], change(outbox[7], encryption_keys=keys, signature=signature), CiphertextError)
    proceeds(rd, outbox)


@GRANTED
def test_a_grant_that_the_authority_did_not_write_is_refused_by_the_server(
    make_round: Any, scheme: str, read: Read, change: Change
) -> None:
    rd, outbox = advertised(make_round, scheme)
    answer = rd.deliver(outbox)[AUTHORITY]
    parcels = read(answer).parcels
    for changes in ({"signature": bytes(64)}, {"public_key": bytes(32)}, {"encryption_keys": []}):
        with pytest.raises(PeerKeyError, match="key authority"):
            rd.server.receive(AUTHORITY, change(answer, **changes))
    for bad in (parcels[1:], [*parcels, parcels[0]], []):
        with pytest.raises(MessageError, match="exactly those who advertised"):
            rd.server.receive(AUTHORITY, change(answer, parcels=bad))
    for sender in rd.members:
        with pytest.raises(SenderError):
            rd.server.receive(sender, answer)
    rd.collect({AUTHORITY: answer})
    with pytest.raises(SenderError):
        rd.server.receive(AUTHORITY, answer)
    proceeds(rd, rd.server.advance())


@GRANTED
def test_without_an_authority_there_is_no_round(make_round: Any, scheme: str) -> None:
    rd, _ = advertised(make_round, scheme)
    assert rd.server.expected == {AUTHORITY}
    outbox = rd.server.advance()
    with pytest.raises(OpeningError, match="granted no keys"):
        rd.server.result()
    assert set(outbox) == {AUTHORITY, *rd.members}
    for number, message in outbox.items():
        refuses(rd.party(number), message, TooFewSurvivorsError)
    with pytest.raises(RosterError, match="key authority's public key on the roster"):
        rd.protocol.client(3, terms=rd.terms, credentials=make_round("bfv").credentials(3))


def test_an_offer_is_taken_once_and_under_the_terms_only(make_round: Any, name: str, change: Change) -> None:
    rd = make_round(name)
    outbox = rd.server.open()
    for number, message in outbox.items():
        machine = rd.party(number)
        refuses(machine, change(message, terms=bytes(32)), TermsError)
        refuses(machine, change(message, cohort=[20, 3]), CohortError)
        with pytest.raises((TermsError, RosterError)):
            machine.receive(change(message, cohort=[3, 7, 8, 20, 21]))
        machine.receive(message)
        refuses(machine, message, PhaseError)
    again = make_round(name, before=rd)
    for number, message in outbox.items():
        refuses(again.party(number), message, RoundReuseError)
