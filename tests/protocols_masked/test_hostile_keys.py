"""A server that hands out forged keys: no shares are made for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from protocols import CohortError, Identity, PeerKeyError, Phase, PhaseError, Roster, TooFewSurvivorsError, wire
from protocols.keys import RoundKey, advertisement
from protocols.masked_server import MaskedServer

Make = Callable[..., Any]
Read = Callable[..., Any]

VICTIM = 8
STRANGER = 9

LOW_ORDER_POINTS = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]
"""Public keys whose exchange gives zeros whatever the private key (RFC 7748, section 6.1)."""


def _signed(cohort: Any, number: int, /, *, by: int | None = None, key: bytes | None = None, **session: Any) -> Any:
    public_key = key or RoundKey().public_key
    text = advertisement(cohort.session(**session), number, public_key)
    return wire.PublicKey(number, public_key, cohort.identities[by if by is not None else number].sign(text))


FORGED_KEYS: dict[str, tuple[type[Exception], Callable[[Any, list[Any]], list[Any]]]] = {
    "unsigned": (PeerKeyError, lambda c, k: [k[0], wire.PublicKey(7, k[1].public_key, bytes(64)), *k[2:]]),
    "signed by another member": (PeerKeyError, lambda c, k: [k[0], _signed(c, 7, by=20), *k[2:]]),
    "signed by the victim": (PeerKeyError, lambda c, k: [k[0], _signed(c, 7, by=VICTIM), *k[2:]]),
    "signed for another round": (PeerKeyError, lambda c, k: [k[0], _signed(c, 7, round_id=bytes(16)), *k[2:]]),
    "signed for another cohort": (PeerKeyError, lambda c, k: [k[0], _signed(c, 7, cohort=(3, 7, 8, 20)), *k[2:]]),
    "signed under other terms": (PeerKeyError, lambda c, k: [k[0], _signed(c, 7, terms=bytes(32)), *k[2:]]),
    "signed under another roster": (PeerKeyError, lambda c, k: [k[0], _signed(c, 7, roster=bytes(32)), *k[2:]]),
    "signed as another number": (
        PeerKeyError,
        lambda c, k: [k[0], msgspec.structs.replace(_signed(c, 20, by=7), member=7), *k[2:]],
    ),
    "replaced under its signature": (
        PeerKeyError,
        lambda c, k: [k[0], msgspec.structs.replace(k[1], public_key=RoundKey().public_key), *k[2:]],
    ),
    "swapped": (
        PeerKeyError,
        lambda c, k: [msgspec.structs.replace(k[1], member=3), msgspec.structs.replace(k[0], member=7), *k[2:]],
    ),
    "own one replaced": (PeerKeyError, lambda c, k: [*k[:2], _signed(c, VICTIM, by=20), *k[3:]]),
    # Not even by a key that the victim itself did sign once.
    "own one replaced by a signed one": (PeerKeyError, lambda c, k: [*k[:2], _signed(c, VICTIM), *k[3:]]),
    "own one missing": (PeerKeyError, lambda c, k: [*k[:2], *k[3:]]),
    "none at all": (PeerKeyError, lambda c, k: []),
    "repeated": (CohortError, lambda c, k: [k[0], k[1], k[1], *k[2:]]),
    "two of one member": (CohortError, lambda c, k: [k[0], k[1], _signed(c, 7), *k[2:]]),
    "out of order": (CohortError, lambda c, k: k[::-1]),
    "a stranger's": (CohortError, lambda c, k: [*k, msgspec.structs.replace(_signed(c, 41), member=42)]),
    "too few": (TooFewSurvivorsError, lambda c, k: k[1:3]),
}


@pytest.mark.parametrize("forgery", FORGED_KEYS)
def test_no_shares_are_made_for_forged_keys(make_cohort: Make, forgery: str, read_message: Read) -> None:
    error, forge = FORGED_KEYS[forgery]
    cohort = make_cohort()
    honest = read_message(cohort.go(Phase.SHARE)[VICTIM], wire.Keys).keys
    cohort.refuses(VICTIM, wire.encode(wire.Keys(cohort.round_id, forge(cohort, list(honest)))), error)
    cohort.finish()


@pytest.mark.parametrize("point", LOW_ORDER_POINTS, ids=lambda point: point.hex()[:6])
def test_a_degenerate_key_is_refused_even_with_a_valid_signature(
    make_cohort: Make, point: bytes, read_message: Read
) -> None:
    cohort = make_cohort()
    keys = read_message(cohort.go(Phase.SHARE)[VICTIM], wire.Keys).keys
    forged = [keys[0], _signed(cohort, 7, key=point), *keys[2:]]
    cohort.refuses(VICTIM, wire.encode(wire.Keys(cohort.round_id, forged)), PeerKeyError)
    cohort.finish()


def test_a_key_of_somebody_who_is_no_neighbour_is_refused(
    make_cohort: Make, read_message: Read, sparse: dict[str, Any]
) -> None:
    cohort = make_cohort(**sparse)
    keys = cohort.go(Phase.SHARE)
    mine = read_message(keys[5], wire.Keys).keys
    known = {entry.member for entry in mine}
    other = next(
        entry
        for number, message in keys.items()
        if number not in known
        for entry in read_message(message, wire.Keys).keys
        if entry.member == number
    )
    forged = sorted([*mine, other], key=lambda entry: entry.member)
    cohort.refuses(5, wire.encode(wire.Keys(cohort.round_id, forged)), CohortError)
    cohort.finish()


def test_keys_are_taken_once(make_cohort: Make) -> None:
    cohort = make_cohort()
    keys = cohort.go(Phase.SHARE)[VICTIM]
    cohort.answer(VICTIM)
    cohort.refuses(VICTIM, keys, PhaseError)
    cohort.finish()


def test_a_roster_of_the_servers_own_making_has_no_key_in_common_with_the_clients(make_cohort: Make) -> None:
    cohort = make_cohort()
    # The server keeps the real members and adds one of its own to the roster that it computes with.
    forged = Roster(
        {member: identity.public_key for member, identity in cohort.identities.items()}
        | {STRANGER: Identity.generate().public_key}
    )
    server = MaskedServer(cohort.members, terms=cohort.terms, round_id=cohort.round_id, roster=forged)
    answer = cohort.clients[VICTIM].receive(server.open()[VICTIM])
    with pytest.raises(PeerKeyError):
        server.receive(VICTIM, answer)
