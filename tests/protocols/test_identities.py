"""Identities, and rosters of their public keys."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocols import CohortError, Identity, PeerKeyError, Roster, RosterError


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
