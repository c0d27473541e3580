"""Identities, rosters and the secrets of pairs, against RFC 5869 and RFC 2104 written out."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from protocols import CohortError, Identity, PeerKeyError, Roster, RosterError
from protocols.graph import Topology
from protocols.keys import (
    PairSecrets,
    RoundKey,
    Secret,
    advertisement,
    ballot,
    context_digest,
    label,
    request_context,
    session_digest,
)

SESSION = hashlib.sha256(b"a session").digest()
P = 2**255 - 19


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """RFC 2104."""
    padded = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()


def hkdf_sha256(secret: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869: extract, then expand."""
    key = hmac_sha256(salt or bytes(32), secret)
    block, output, counter = b"", b"", 1
    while len(output) < length:
        block = hmac_sha256(key, block + info + bytes([counter]))
        output, counter = output + block, counter + 1
    return output[:length]


def test_the_oracle_reproduces_the_test_vectors_of_rfc_5869() -> None:
    """Appendix A.1 and A.3."""
    first = hkdf_sha256(b"\x0b" * 22, salt=bytes(range(13)), info=bytes(range(0xF0, 0xFA)), length=42)
    assert first.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
    third = hkdf_sha256(b"\x0b" * 22, salt=b"", info=b"", length=42)
    assert third.hex() == ("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8")


def values(pair: PairSecrets) -> tuple[bytes, bytes, bytes]:
    return bytes(pair.masks.value), bytes(pair.outgoing.value), bytes(pair.incoming.value)


@pytest.mark.parametrize(("me", "peer"), [(0, 1), (7, 3), (2**32 - 1, 0)])
def test_both_ends_of_a_pair_derive_the_same_secrets(me: int, peer: int) -> None:
    mine, theirs = RoundKey(), RoundKey()
    here = values(mine.agree(SESSION, me, peer, theirs.public_key))
    there = values(theirs.agree(SESSION, peer, me, mine.public_key))
    assert here == (there[0], there[2], there[1])
    assert len(set(here)) == 3
    assert {len(secret) for secret in here} == {32}


@pytest.mark.parametrize(("me", "peer"), [(4, 9), (9, 4)])
def test_the_secrets_of_a_pair_are_hkdf_over_the_exchange(me: int, peer: int) -> None:
    """The other end is played by an X25519 key of the test's own."""
    mine, theirs = RoundKey(), X25519PrivateKey.generate()
    their_key = theirs.public_key().public_bytes_raw()
    exchanged = theirs.exchange(X25519PublicKey.from_public_bytes(mine.public_key))
    ends = {me: mine.public_key, peer: their_key}
    info = b"codream-secure masked v1 pair\0" + b"".join(m.to_bytes(4, "big") + ends[m] for m in sorted(ends))
    material = hkdf_sha256(exchanged, salt=SESSION, info=info, length=96)
    masks, outgoing, incoming = values(mine.agree(SESSION, me, peer, their_key))
    assert masks == material[:32]
    from_below, from_above = material[32:64], material[64:]
    assert (outgoing, incoming) == ((from_below, from_above) if me < peer else (from_above, from_below))


def test_a_pairs_secrets_change_with_everything_they_are_bound_to() -> None:
    mine, theirs, third = RoundKey(), RoundKey(), RoundKey()
    agreed = [
        mine.agree(SESSION, 1, 2, theirs.public_key),
        mine.agree(SESSION[::-1], 1, 2, theirs.public_key),
        mine.agree(SESSION, 1, 3, theirs.public_key),
        mine.agree(SESSION, 0, 2, theirs.public_key),
        mine.agree(SESSION, 2, 1, theirs.public_key),
        mine.agree(SESSION, 1, 2, third.public_key),
        RoundKey().agree(SESSION, 1, 2, theirs.public_key),
    ]
    assert len({secret for pair in agreed for secret in values(pair)}) == 3 * len(agreed)


# All encodings of points of order 1, 2, 4 and 8, on the curve and on its twist.
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
    P,
    P + 1,
]


@pytest.mark.parametrize("point", LOW_ORDER)
@pytest.mark.parametrize("high_bit", [0, 1])
def test_a_degenerate_point_is_refused(point: int, high_bit: int) -> None:
    """The result of such an exchange is zero, whoever takes part in it; the highest bit is ignored."""
    key = (point | high_bit << 255).to_bytes(32, "little")
    with pytest.raises(PeerKeyError, match="the key of member 2 is degenerate"):
        RoundKey().agree(SESSION, 1, 2, key)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(PeerKeyError):
        RoundKey().agree(SESSION, 1, 2, bytes([9] * length))


def test_a_round_key_serves_until_it_is_forgotten() -> None:
    theirs = RoundKey()
    with RoundKey() as mine:
        public = mine.public_key
        mine.agree(SESSION, 1, 2, theirs.public_key)
    assert mine.public_key == public
    with pytest.raises(ValueError, match="dropped"):
        mine.agree(SESSION, 1, 2, theirs.public_key)
    mine.forget()


def test_a_secret_shows_itself_to_nobody_by_accident() -> None:
    text = b"0123456789abcdef0123456789abcdef"
    secret = Secret(text)
    assert repr(secret) == str(secret) == f"{secret}" == "Secret(...)"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(secret, protocol=protocol)
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            duplicate(secret)
    with pytest.raises(AttributeError):
        secret.name = "x"  # type: ignore[attr-defined]


def test_secrets_are_not_compared() -> None:
    """Equal contents are not equal secrets: there is no comparison whose time could tell how far they agree."""
    assert Secret(b"x" * 32) != Secret(b"x" * 32)
    assert Secret(b"x" * 32) != b"x" * 32


def test_a_wiped_secret_is_zero_and_gone() -> None:
    original = bytearray(b"k" * 32)
    secret = Secret(original)
    buffer = secret.value
    assert buffer == original
    assert buffer is secret.value
    secret.wipe()
    assert buffer == bytes(32)
    assert original == b"k" * 32
    for use in (lambda: secret.value, lambda: secret.derive(b"label")):
        with pytest.raises(ValueError, match="wiped"):
            use()
    secret.wipe()


def test_a_pair_is_wiped_as_a_whole() -> None:
    pair = RoundKey().agree(SESSION, 1, 2, RoundKey().public_key)
    buffers = [pair.masks.value, pair.outgoing.value, pair.incoming.value]
    assert all(any(buffer) for buffer in buffers)
    pair.wipe()
    assert [bytes(buffer) for buffer in buffers] == [bytes(32)] * 3


@pytest.mark.parametrize("length", [1, 32, 64, 65, 200])
def test_what_is_derived_is_an_hmac(length: int) -> None:
    key, label = os.urandom(length), b"some label"
    assert Secret(key).derive(label) == hmac_sha256(key, label)


def test_an_identity_is_kept_by_its_private_bytes() -> None:
    identity = Identity.generate()
    again = Identity(identity.private_bytes())
    assert again.public_key == identity.public_key
    assert len(identity.public_key) == len(identity.private_bytes()) == 32
    Ed25519PublicKey.from_public_bytes(identity.public_key).verify(again.sign(b"text"), b"text")
    assert Identity.generate().public_key != identity.public_key


def test_an_identity_shows_its_public_key_only() -> None:
    identity = Identity.generate()
    assert repr(identity) == f"Identity(public_key={identity.public_key.hex()})"
    assert identity.private_bytes().hex() not in repr(identity)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_private_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(RosterError, match=f"the private key has {length} bytes"):
        Identity(bytes(length))


@pytest.fixture
def people() -> dict[int, Identity]:
    return {member: Identity.generate() for member in (0, 3, 8)}


@pytest.fixture
def roster(people: dict[int, Identity]) -> Roster:
    return Roster({member: identity.public_key for member, identity in people.items()})


def test_a_roster_tells_signatures_apart(people: dict[int, Identity], roster: Roster) -> None:
    signature = people[3].sign(b"text")
    roster.verify(3, signature, b"text")
    for member, forged, text in (
        (0, signature, b"text"),
        (3, signature, b"Text"),
        (3, signature, b""),
        (3, signature[:-1], b"text"),
        (3, signature[:-1] + bytes([signature[-1] ^ 1]), b"text"),
        (3, bytes(64), b"text"),
        (3, b"", b"text"),
    ):
        with pytest.raises(PeerKeyError, match=f"not member {member}'s"):
            roster.verify(member, forged, text)


def test_strangers_are_on_no_roster(people: dict[int, Identity], roster: Roster) -> None:
    assert 3 in roster
    assert 4 not in roster
    assert len(roster) == 3
    assert roster.holds(3, people[3].public_key)
    assert not roster.holds(3, people[0].public_key)
    assert not roster.holds(4, people[3].public_key)
    with pytest.raises(RosterError, match="member 4 is not on the roster"):
        roster.verify(4, people[3].sign(b"text"), b"text")


def test_only_equal_rosters_have_equal_digests(people: dict[int, Identity]) -> None:
    keys = {member: identity.public_key for member, identity in people.items()}
    roster = Roster(keys)
    text = b"".join(member.to_bytes(4, "big") + keys[member] for member in (0, 3, 8))
    assert roster.digest == hashlib.sha256(b"codream-secure masked v1 roster\0" + text).digest()
    assert Roster(dict(reversed(keys.items()))).digest == roster.digest
    swapped = {0: keys[3], 3: keys[0], 8: keys[8]}
    renamed = {0: keys[0], 3: keys[3], 9: keys[8]}
    shorter = {0: keys[0], 3: keys[3]}
    assert len({roster.digest, *(Roster(other).digest for other in (swapped, renamed, shorter))}) == 4


def test_an_edition_is_part_of_the_digest_and_nothing_is_without_one(people: dict[int, Identity]) -> None:
    keys = {member: identity.public_key for member, identity in people.items()}
    text = b"".join(member.to_bytes(4, "big") + keys[member] for member in (0, 3, 8))
    authority, edition = Identity.generate().public_key, bytes(range(32))
    expected = text + b"authority" + authority + b"edition" + edition
    found = Roster(keys, authority=authority, edition=edition).digest
    assert found == hashlib.sha256(b"codream-secure masked v1 roster\0" + expected).digest()
    without = hashlib.sha256(b"codream-secure masked v1 roster\0" + text).digest()
    assert Roster(keys, edition=b"").digest == Roster(keys).digest == without
    assert Roster(keys, edition=edition).digest != Roster(keys, edition=edition[::-1]).digest


@pytest.mark.parametrize("length", [1, 31, 33])
def test_an_edition_of_another_length_is_refused(people: dict[int, Identity], length: int) -> None:
    with pytest.raises(RosterError, match=f"the edition has {length} bytes: give 32, or none"):
        Roster({0: people[0].public_key}, edition=bytes(length))


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda keys: keys | {1: keys[0]}, RosterError, "same public key"),
        (lambda keys: keys | {1: keys[0][:-1]}, RosterError, "the public key of member 1 is not an Ed25519"),
        (lambda keys: keys | {1: b""}, RosterError, "the public key of member 1"),
        (lambda keys: keys | {1: bytes(33)}, RosterError, "the public key of member 1"),
        (lambda keys: keys | {-1: bytes(32)}, CohortError, "not in"),
        (lambda keys: keys | {2**32: bytes(32)}, CohortError, "not in"),
        (lambda keys: keys | {0.5: bytes(32)}, CohortError, "not an integer"),
    ],
)
def test_a_roster_that_cannot_be_is_refused(
    people: dict[int, Identity], spoil: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Roster(spoil({member: identity.public_key for member, identity in people.items()}))


TOPOLOGY = Topology(size=3, degree=2, threshold=2, survivors=2, corrupt=1)
ROUND: dict[str, Any] = {
    "round_id": bytes(range(16)),
    "roster": hashlib.sha256(b"roster").digest(),
    "terms": hashlib.sha256(b"terms").digest(),
    "cohort": (0, 3, 8),
    "topology": TOPOLOGY,
}


def session_of(**changes: Any) -> bytes:
    arguments = ROUND | changes
    return session_digest(arguments.pop("round_id"), **arguments)


OTHER_SESSIONS = {
    "round": session_of(round_id=bytes(16)),
    "roster": session_of(roster=bytes(32)),
    "terms": session_of(terms=bytes(32)),
    "fewer": session_of(cohort=(0, 3)),
    "others": session_of(cohort=(0, 3, 9)),
    "degree": session_of(topology=replace(TOPOLOGY, degree=4)),
    "threshold": session_of(topology=replace(TOPOLOGY, threshold=3)),
    "survivors": session_of(topology=replace(TOPOLOGY, survivors=3)),
}


def test_a_session_is_the_hash_of_all_that_it_is_bound_to() -> None:
    numbers = b"".join(number.to_bytes(4, "big") for number in (2, 2, 2, 3, 0, 3, 8))
    text = b"codream-secure masked v1 session\0" + ROUND["roster"] + ROUND["terms"] + numbers + ROUND["round_id"]
    assert session_of() == hashlib.sha256(text).digest()
    assert len({session_of(), *OTHER_SESSIONS.values()}) == 1 + len(OTHER_SESSIONS)


def test_an_advertisement_is_good_for_one_member_in_one_round_of_one_cohort_under_one_set_of_terms(
    people: dict[int, Identity], roster: Roster
) -> None:
    key, session = os.urandom(32), session_of()
    signature = people[3].sign(advertisement(session, 3, key))
    roster.verify(3, signature, advertisement(session, 3, key))
    others = [advertisement(other, 3, key) for other in OTHER_SESSIONS.values()]
    others += [advertisement(session, 0, key), advertisement(session, 3, key[::-1])]
    others += [ballot(session, request_context(3, "gradients", 5, b""), members=(0, 3, 8), dead=())]
    assert len(set(others)) == len(OTHER_SESSIONS) + 3
    for other in others:
        with pytest.raises(PeerKeyError):
            roster.verify(3, signature, other)
    for member in (0, 8):
        with pytest.raises(PeerKeyError):
            roster.verify(member, signature, advertisement(session, 3, key))


def test_a_vote_is_good_for_one_set_at_one_step_of_one_round(people: dict[int, Identity], roster: Roster) -> None:
    session, asked, everybody = session_of(), request_context(5, "gradients", 100, b"dreams"), (0, 3, 8)
    signature = people[8].sign(ballot(session, asked, members=everybody, dead=(0,)))
    roster.verify(8, signature, ballot(session, asked, members=everybody, dead=(0,)))
    others = [ballot(other, asked, members=everybody, dead=(0,)) for other in OTHER_SESSIONS.values()]
    others += [
        ballot(session, request, members=everybody, dead=(0,))
        for request in (
            request_context(4, "gradients", 100, b"dreams"),
            request_context(5, "labels", 100, b"dreams"),
            request_context(5, "gradients", 101, b"dreams"),
            request_context(5, "gradients", 100, b"others"),
        )
    ]
    others += [ballot(session, asked, members=everybody, dead=dead) for dead in ((), (3,), (0, 3), (3, 0))]
    others += [ballot(session, asked, members=members, dead=(0,)) for members in ((0, 8), (0, 3), (0, 3, 8, 9))]
    others += [advertisement(session, 8, bytes(32))]
    assert len(set(others)) == len(OTHER_SESSIONS) + 12
    for other in others:
        with pytest.raises(PeerKeyError):
            roster.verify(8, signature, other)


def test_members_do_not_move_between_the_lists_of_a_vote() -> None:
    """Whoever reads the text knows where one list ends and the next begins."""
    session, asked = session_of(), request_context(0, "a", 1, b"")
    lists = [(), (0,), (1,), (0, 1), (1, 0), (0, 0, 1), (2,), (0, 0)]
    texts = {ballot(session, asked, members=members, dead=dead) for members in lists for dead in lists}
    assert len(texts) == len(lists) ** 2


def test_what_a_step_answers_is_told_by_its_hash() -> None:
    assert context_digest(b"dreams") == hashlib.sha256(b"dreams").digest()


REQUESTS = st.tuples(
    st.integers(0, 2**40),
    st.text("ab1 ", min_size=1, max_size=5),
    st.integers(0, 2**28),
    st.binary(min_size=32, max_size=32),
)
Asked = tuple[int, str, int, bytes]


@given(REQUESTS, REQUESTS)
def test_only_equal_requests_have_equal_contexts(one: Asked, other: Asked) -> None:
    assert (request_context(*one) == request_context(*other)) == (one == other)
    step, stream, values, context = one
    text = step.to_bytes(8, "big") + values.to_bytes(8, "big") + len(stream).to_bytes(4, "big") + stream.encode()
    assert request_context(*one) == text + context


def test_no_label_begins_another() -> None:
    labels = [label(purpose) for purpose in ("pair", "pairwise mask", "pairwise seed", "backup", "backup key")]
    assert not any(a != b and b.startswith(a) for a in labels for b in labels)
