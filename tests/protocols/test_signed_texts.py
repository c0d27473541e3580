"""What members sign and what that is bound to: sessions, advertisements, votes and requests."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import Identity, PeerKeyError, Roster
from protocols.graph import Topology
from protocols.keys import (
    advertisement,
    ballot,
    context_digest,
    label,
    request_context,
    session_digest,
)

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
