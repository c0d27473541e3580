"""A server that tampers with the shares and members that it passes on: the set-up does not end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocols import CohortError, MessageError, Phase, ShareError, TooFewSurvivorsError, wire
from protocols.openings import parcel_context
from protocols.shares import seal, unseal

Make = Callable[..., Any]
Read = Callable[..., Any]

VICTIM = 8
STRANGER = 9


def _flip(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def _with_ciphertext(parcels: list[Any], place: int, ciphertext: bytes) -> list[Any]:
    return [*parcels[:place], wire.Parcel(parcels[place].peer, ciphertext), *parcels[place + 1 :]]


INBOX_PARCELS: dict[str, Callable[[list[Any], dict[int, list[Any]]], list[Any]]] = {
    "first bit flipped": lambda p, _: _with_ciphertext(p, 0, _flip(p[0].ciphertext, 0)),
    "a bit flipped in the middle": lambda p, _: _with_ciphertext(p, 2, _flip(p[2].ciphertext, 100)),
    "tag flipped": lambda p, _: _with_ciphertext(p, 3, _flip(p[3].ciphertext, -1)),
    "zeros": lambda p, _: _with_ciphertext(p, 1, bytes(len(p[1].ciphertext))),
    "truncated": lambda p, _: _with_ciphertext(p, 1, p[1].ciphertext[:-1]),
    "without its tag": lambda p, _: _with_ciphertext(p, 1, p[1].ciphertext[:-16]),
    "extended": lambda p, _: _with_ciphertext(p, 1, p[1].ciphertext + b"\0"),
    "empty": lambda p, _: _with_ciphertext(p, 1, b""),
    "swapped between senders": lambda p, _: [
        wire.Parcel(p[0].peer, p[1].ciphertext),
        wire.Parcel(p[1].peer, p[0].ciphertext),
        *p[2:],
    ],
    "one sender's for all": lambda p, _: [wire.Parcel(parcel.peer, p[0].ciphertext) for parcel in p],
    "meant for somebody else": lambda p, others: _with_ciphertext(
        p, 0, next(parcel.ciphertext for parcel in others[20] if parcel.peer == p[0].peer)
    ),
    "the victim's own sent back": lambda p, others: _with_ciphertext(
        p, 0, next(parcel.ciphertext for parcel in others[p[0].peer] if parcel.peer == VICTIM)
    ),
    "missing": lambda p, _: p[1:],
    "all missing": lambda p, _: [],
    "duplicate": lambda p, _: [p[0], *p],
    "duplicate in another's place": lambda p, _: [p[0], p[0], *p[2:]],
    "out of order": lambda p, _: p[::-1],
    "one from itself": lambda p, _: sorted([*p, wire.Parcel(VICTIM, p[0].ciphertext)], key=lambda q: q.peer),
    "one from a stranger": lambda p, _: [*p, wire.Parcel(STRANGER, p[0].ciphertext)],
}


@pytest.mark.parametrize("forgery", INBOX_PARCELS)
def test_shares_that_were_tampered_with_are_not_held(make_cohort: Make, forgery: str, read_message: Read) -> None:
    cohort = make_cohort()
    outbox = cohort.go(Phase.READY)
    honest = read_message(outbox[VICTIM], wire.Inbox)
    forged = INBOX_PARCELS[forgery](
        list(honest.parcels),
        {member: list(read_message(message, wire.Inbox).parcels) for member, message in outbox.items()},
    )
    cohort.refuses(VICTIM, wire.encode(wire.Inbox(cohort.round_id, honest.members, forged)), ShareError)
    cohort.finish()


def test_a_parcel_is_bound_to_its_round_and_both_ends_by_more_than_its_key() -> None:
    key, session = bytes(range(32)), bytes(32)
    parcel = seal(key, b"shares", parcel_context(session, 3, VICTIM))
    assert unseal(key, parcel, parcel_context(session, 3, VICTIM)) == b"shares"
    for context in (
        parcel_context(session, 7, VICTIM),
        parcel_context(session, 3, 7),
        parcel_context(session, VICTIM, 3),
        parcel_context(bytes(31) + b"x", 3, VICTIM),
    ):
        with pytest.raises(ShareError):
            unseal(key, parcel, context)


def test_shares_of_another_round_are_not_held(make_cohort: Make, read_message: Read) -> None:
    earlier = make_cohort()
    old = read_message(earlier.go(Phase.READY)[VICTIM], wire.Inbox)
    cohort = make_cohort(before=earlier)
    honest = read_message(cohort.go(Phase.READY)[VICTIM], wire.Inbox)
    for parcels in (old.parcels, [old.parcels[0], *honest.parcels[1:]]):
        replayed = wire.encode(wire.Inbox(cohort.round_id, honest.members, list(parcels)))
        cohort.refuses(VICTIM, replayed, ShareError)
    cohort.refuses(VICTIM, wire.encode(old), MessageError)
    cohort.finish()


INBOX_MEMBERS: dict[str, tuple[type[Exception], list[int]]] = {
    "without me": (CohortError, [3, 7, 20, 41]),
    "a stranger": (CohortError, [3, 7, 8, STRANGER, 20, 41]),
    "repeated": (CohortError, [3, 7, 8, 20, 20, 41]),
    "unsorted": (CohortError, [7, 3, 8, 20, 41]),
    "too few": (TooFewSurvivorsError, [7, 8]),
    "only me": (TooFewSurvivorsError, [8]),
    "nobody": (CohortError, []),
    "one whose shares are missing": (ShareError, [3, 7, 8, 20, 41]),
}


@pytest.mark.parametrize("forgery", INBOX_MEMBERS)
def test_an_impossible_set_of_members_ends_no_set_up(make_cohort: Make, forgery: str, read_message: Read) -> None:
    error, members = INBOX_MEMBERS[forgery]
    cohort = make_cohort()
    honest = read_message(cohort.go(Phase.READY)[VICTIM], wire.Inbox)
    parcels = [parcel for parcel in honest.parcels if parcel.peer in members]
    if error is ShareError:
        del parcels[-1]
    cohort.refuses(VICTIM, wire.encode(wire.Inbox(cohort.round_id, members, parcels)), error)
    cohort.finish()


def test_who_never_advertised_a_key_cannot_have_completed_the_set_up(make_cohort: Make, read_message: Read) -> None:
    cohort = make_cohort()
    cohort.go(Phase.ADVERTISE)
    cohort.go(Phase.SHARE, absent=[41])
    honest = read_message(cohort.go(Phase.READY)[VICTIM], wire.Inbox)
    assert honest.members == [3, 7, 8, 20]
    forged = wire.Inbox(cohort.round_id, [3, 7, 8, 20, 41], [*honest.parcels, wire.Parcel(41, bytes(272))])
    cohort.refuses(VICTIM, wire.encode(forged), CohortError)
    cohort.finish(contributors=[3, 7, 8, 20])


def test_too_few_neighbours_end_no_set_up_though_the_cohort_has_enough_members(
    make_cohort: Make, read_message: Read, sparse: dict[str, Any]
) -> None:
    cohort = make_cohort(**sparse)
    group = {entry.member for entry in read_message(cohort.go(Phase.SHARE)[5], wire.Keys).keys}
    honest = read_message(cohort.go(Phase.READY)[5], wire.Inbox)
    gone = sorted(group - {5})[: 36 - cohort.topology.survivors]
    members = [member for member in honest.members if member not in gone]
    parcels = [parcel for parcel in honest.parcels if parcel.peer not in gone]
    cohort.refuses(5, wire.encode(wire.Inbox(cohort.round_id, members, parcels)), TooFewSurvivorsError)
    cohort.finish()


def test_too_few_members_end_no_set_up_though_all_neighbours_are_there(
    make_cohort: Make, read_message: Read, sparse: dict[str, Any]
) -> None:
    cohort = make_cohort(**sparse)
    group = {entry.member for entry in read_message(cohort.go(Phase.SHARE)[5], wire.Keys).keys}
    honest = read_message(cohort.go(Phase.READY)[5], wire.Inbox)
    gone = [member for member in cohort.members if member not in group][: 37 - cohort.topology.survivors]
    members = [member for member in honest.members if member not in gone]
    forged = wire.Inbox(cohort.round_id, members, honest.parcels)
    cohort.refuses(5, wire.encode(forged), TooFewSurvivorsError)
    cohort.finish()
