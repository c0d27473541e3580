"""A server that does what it must not: each attack ends in its named error on the client, and no secret leaves it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocols import (
    AlreadyAnsweredError,
    CohortError,
    ContributionError,
    EquivocationError,
    FileRoundLog,
    Identity,
    MessageError,
    PeerKeyError,
    Phase,
    PhaseError,
    Roster,
    RosterError,
    RoundReuseError,
    ShareError,
    StepError,
    TermsError,
    TooFewSurvivorsError,
    make_protocol,
    wire,
)
from protocols.keys import RoundKey, advertisement, context_digest, request_context
from protocols.masked_client import MaskedClient
from protocols.masked_server import MaskedServer
from protocols.masks import pair_mask_key, self_mask_key
from protocols.openings import open_backup, parcel_context, self_secret
from protocols.shares import PRIME, seal, unseal

Make = Callable[..., Any]

VICTIM = 8
STRANGER = 9
SPARSE = {"members": range(36), "steps": 1, "dropout": 0.2, "corruption": 0.1, "sigma": 1, "eta": 1}
"""Terms under which each member has 14 neighbours; the security that they ask for is as little as can be asked for."""
BOTH_MODES = pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])


def read(message: bytes, kind: type[wire.Message]) -> Any:
    return wire.decode(message, kind, limit=len(message))


# Both kinds of shares of one peer


@pytest.mark.parametrize("first", [(), (20,), (3, 41)])
@pytest.mark.parametrize("second", [(), (20,), (41,), (3, 41)])
def test_no_two_requests_get_both_kinds_of_shares(make_cohort: Make, first: tuple, second: tuple) -> None:
    cohort = make_cohort()
    cohort.go(Phase.OPEN)
    answer = cohort.clients[VICTIM].receive(cohort.open_request(0, first))
    opened = read(answer, wire.Openings)
    assert len(opened.shares) == 32 * len(cohort.members)
    cohort.refuses(VICTIM, cohort.open_request(0, second), AlreadyAnsweredError)


@BOTH_MODES
@pytest.mark.parametrize(
    ("dead", "error"),
    [
        ((20, 20), CohortError),
        ((20, 3), CohortError),
        ((VICTIM,), CohortError),
        ((3, VICTIM), CohortError),
        ((STRANGER,), CohortError),
        ((0,), CohortError),
        ((3, 7, 20), TooFewSurvivorsError),
        ((3, 7, 20, 41), TooFewSurvivorsError),
        ((3, 7, VICTIM, 20, 41), CohortError),
    ],
)
def test_a_set_of_dead_that_cannot_be_opens_nothing(
    make_cohort: Make, active: bool, dead: tuple, error: type[Exception]
) -> None:
    cohort = make_cohort(active=active)
    cohort.go(Phase.VOTE if active else Phase.OPEN)
    cohort.refuses(VICTIM, cohort.open_request(0, dead), error)
    cohort.finish()


@BOTH_MODES
def test_one_dead_more_than_the_terms_allow_opens_nothing(make_cohort: Make, active: bool) -> None:
    cohort = make_cohort(active=active)
    cohort.go(Phase.VOTE if active else Phase.OPEN)
    others = [member for member in cohort.members if member != VICTIM]
    allowed = len(cohort.members) - cohort.topology.survivors
    cohort.refuses(VICTIM, cohort.open_request(0, others[: allowed + 1]), TooFewSurvivorsError)
    assert cohort.clients[VICTIM].receive(cohort.open_request(0, others[:allowed])) is not None


@BOTH_MODES
def test_who_never_completed_the_set_up_cannot_be_named_dead(make_cohort: Make, active: bool) -> None:
    cohort = make_cohort(active=active)
    cohort.go(Phase.SHARE)
    cohort.go(Phase.READY, absent=[41])
    cohort.go(Phase.COLLECT)
    cohort.go(Phase.VOTE if active else Phase.OPEN)
    cohort.refuses(VICTIM, cohort.open_request(0, [41]), CohortError)
    cohort.finish(contributors=[3, 7, 8, 20])


def test_too_many_dead_neighbours_open_nothing_though_the_cohort_has_enough_members_left(make_cohort: Make) -> None:
    cohort = make_cohort(**SPARSE)
    assert not cohort.topology.complete
    group = {entry.member for entry in read(cohort.go(Phase.SHARE)[5], wire.Keys).keys}
    cohort.go(Phase.OPEN)
    dead = sorted(group - {5})[: 36 - cohort.topology.survivors]
    assert len(group) - len(dead) < cohort.topology.threshold
    cohort.refuses(5, cohort.open_request(0, dead), TooFewSurvivorsError)
    cohort.finish()


def test_too_many_dead_strangers_open_nothing_though_all_neighbours_are_left(make_cohort: Make) -> None:
    cohort = make_cohort(**SPARSE)
    group = {entry.member for entry in read(cohort.go(Phase.SHARE)[5], wire.Keys).keys}
    cohort.go(Phase.OPEN)
    allowed = 36 - cohort.topology.survivors
    dead = [member for member in cohort.members if member not in group][: allowed + 1]
    cohort.refuses(5, cohort.open_request(0, dead), TooFewSurvivorsError)
    assert cohort.clients[5].receive(cohort.open_request(0, dead[:-1])) is not None


# Steps: twice, backwards, ahead, and without this client


def test_a_step_is_opened_once_however_often_it_is_asked_for(make_cohort: Make) -> None:
    cohort = make_cohort()
    request = cohort.go(Phase.OPEN)[VICTIM]
    cohort.answer(VICTIM)
    for _ in range(3):
        cohort.refuses(VICTIM, request, AlreadyAnsweredError)
    cohort.finish()
    cohort.refuses(VICTIM, request, AlreadyAnsweredError)
    cohort.finish()


def test_survivors_are_signed_once_and_opened_once_in_active_mode(make_cohort: Make) -> None:
    cohort = make_cohort(active=True)
    request = cohort.go(Phase.VOTE)[VICTIM]
    cohort.answer(VICTIM)
    cohort.refuses(VICTIM, request, AlreadyAnsweredError)
    cohort.refuses(VICTIM, cohort.open_request(0, [41]), AlreadyAnsweredError)
    ballots = cohort.go(Phase.OPEN)[VICTIM]
    cohort.answer(VICTIM)
    for message in (ballots, request, cohort.open_request(0, [41])):
        cohort.refuses(VICTIM, message, AlreadyAnsweredError)
    cohort.finish()
    cohort.refuses(VICTIM, ballots, AlreadyAnsweredError)


@BOTH_MODES
def test_a_step_that_was_rolled_back_is_neither_masked_nor_opened(make_cohort: Make, active: bool) -> None:
    cohort = make_cohort(active=active)
    cohort.finish()
    cohort.finish()
    for step in (0, 1):
        cohort.refuses(VICTIM, cohort.request(step), StepError)
        cohort.refuses(VICTIM, cohort.open_request(step), AlreadyAnsweredError)
    with pytest.raises(PhaseError):
        cohort.clients[VICTIM].contribute(cohort.vector(VICTIM), stream="g")
    cohort.finish()


@BOTH_MODES
def test_a_step_that_was_asked_for_is_not_asked_for_again(make_cohort: Make, active: bool) -> None:
    cohort = make_cohort(active=active)
    cohort.go(Phase.COLLECT)
    cohort.clients[VICTIM].receive(cohort.request(0))
    cohort.refuses(VICTIM, cohort.request(0), StepError)
    cohort.refuses(VICTIM, cohort.request(0, values=1), StepError)
    cohort.hand_in(VICTIM, cohort.clients[VICTIM].contribute(cohort.vector(VICTIM), stream="g"))
    cohort.refuses(VICTIM, cohort.request(0), StepError)
    with pytest.raises(PhaseError):
        cohort.clients[VICTIM].contribute(cohort.vector(VICTIM), stream="g")
    del cohort.outbox[VICTIM]
    cohort.finish()


@BOTH_MODES
def test_an_unopened_step_stays_shut_once_the_next_one_was_asked_for(make_cohort: Make, active: bool) -> None:
    cohort = make_cohort(active=active)
    request = cohort.go(Phase.VOTE if active else Phase.OPEN)[VICTIM]
    cohort.clients[VICTIM].receive(cohort.request(1))
    cohort.refuses(VICTIM, request, StepError)
    cohort.clients[VICTIM].contribute(cohort.vector(VICTIM), stream="g")
    cohort.refuses(VICTIM, request, StepError)


def test_ballots_of_a_step_count_no_more_once_the_next_one_was_asked_for(make_cohort: Make) -> None:
    cohort = make_cohort(active=True)
    ballots = cohort.go(Phase.OPEN)[VICTIM]
    cohort.clients[VICTIM].receive(cohort.request(1))
    cohort.refuses(VICTIM, ballots, StepError)
    cohort.clients[VICTIM].contribute(cohort.vector(VICTIM), stream="g")
    cohort.refuses(VICTIM, ballots, StepError)
    replayed = [(vote.member, vote.signature) for vote in read(ballots, wire.Ballots).votes]
    cohort.refuses(VICTIM, cohort.ballots(1, replayed), PhaseError)


@BOTH_MODES
@pytest.mark.parametrize("step", [1, 2, 3, 999_999])
def test_a_step_that_lies_ahead_is_not_opened(make_cohort: Make, active: bool, step: int) -> None:
    cohort = make_cohort(active=active)
    cohort.go(Phase.VOTE if active else Phase.OPEN)
    cohort.refuses(VICTIM, cohort.open_request(step), StepError)
    cohort.finish()


@BOTH_MODES
def test_a_step_without_a_contribution_of_its_own_is_not_opened(make_cohort: Make, active: bool) -> None:
    cohort = make_cohort(active=active)
    cohort.go(Phase.COLLECT)
    cohort.refuses(VICTIM, cohort.open_request(0), StepError)
    cohort.clients[VICTIM].receive(cohort.outbox.pop(VICTIM))
    cohort.refuses(VICTIM, cohort.open_request(0), StepError)
    cohort.finish(contributors=[3, 7, 20, 41])
    cohort.finish()


@BOTH_MODES
@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"step": 4}, StepError),
        ({"step": 999_999}, StepError),
        ({"step": 0, "stream": "unheard of"}, PhaseError),
        ({"step": 0, "values": 65}, PhaseError),
        ({"step": 0, "values": 2**28}, PhaseError),
    ],
)
def test_nothing_is_handed_over_beyond_what_the_terms_allow(
    make_cohort: Make, active: bool, asked: dict[str, Any], error: type[Exception]
) -> None:
    cohort = make_cohort(active=active, max_values=64)
    cohort.go(Phase.COLLECT)
    cohort.refuses(VICTIM, cohort.request(**asked), error)
    cohort.finish()


@BOTH_MODES
def test_a_vector_is_not_handed_over_as_the_answer_to_something_else(
    make_cohort: Make, look_into: Callable[[Any], Any], active: bool
) -> None:
    """The client was shown some dreams; the server names none, others, another stream or another length."""
    cohort = make_cohort(active=active)
    cohort.go(Phase.COLLECT)
    client = cohort.clients[VICTIM]
    client.receive(cohort.outbox.pop(VICTIM))
    before = look_into(client)
    for stream, context, values, error in (
        ("g", b"dreams", cohort.vector(VICTIM), PhaseError),
        ("h", b"", cohort.vector(VICTIM), PhaseError),
        ("g", b"", cohort.vector(VICTIM)[:-1], ContributionError),
        ("g", b"", np.append(cohort.vector(VICTIM), 0.0), ContributionError),
    ):
        with pytest.raises(error):
            client.contribute(values, stream=stream, context=context)
        assert look_into(client) == before
    cohort.hand_in(VICTIM, client.contribute(cohort.vector(VICTIM), stream="g"))
    cohort.finish()


# Forged keys

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
def test_no_shares_are_made_for_forged_keys(make_cohort: Make, forgery: str) -> None:
    error, forge = FORGED_KEYS[forgery]
    cohort = make_cohort()
    honest = read(cohort.go(Phase.SHARE)[VICTIM], wire.Keys).keys
    cohort.refuses(VICTIM, wire.encode(wire.Keys(cohort.round_id, forge(cohort, list(honest)))), error)
    cohort.finish()


@pytest.mark.parametrize("point", LOW_ORDER_POINTS, ids=lambda point: point.hex()[:6])
def test_a_degenerate_key_is_refused_even_with_a_valid_signature(make_cohort: Make, point: bytes) -> None:
    cohort = make_cohort()
    keys = read(cohort.go(Phase.SHARE)[VICTIM], wire.Keys).keys
    forged = [keys[0], _signed(cohort, 7, key=point), *keys[2:]]
    cohort.refuses(VICTIM, wire.encode(wire.Keys(cohort.round_id, forged)), PeerKeyError)
    cohort.finish()


def test_a_key_of_somebody_who_is_no_neighbour_is_refused(make_cohort: Make) -> None:
    cohort = make_cohort(**SPARSE)
    keys = cohort.go(Phase.SHARE)
    mine = read(keys[5], wire.Keys).keys
    known = {entry.member for entry in mine}
    other = next(
        entry
        for number, message in keys.items()
        if number not in known
        for entry in read(message, wire.Keys).keys
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


# Equivocation on the survivors


def _votes(cohort: Any, dead: tuple[int, ...], voters: tuple[int, ...], /, **other: Any) -> list[tuple[int, bytes]]:
    """What these members would sign if they were shown these dead."""
    return [cohort.vote(voter, dead, **other) for voter in voters]


FORGED_BALLOTS: dict[str, tuple[type[Exception], Callable[[Any], list[tuple[int, bytes]]]]] = {
    "nobody's": (EquivocationError, lambda c: []),
    "its own alone": (EquivocationError, lambda c: _votes(c, (), (8,))),
    "one too few": (EquivocationError, lambda c: _votes(c, (), (3, 7))),
    "one too few beside its own": (EquivocationError, lambda c: _votes(c, (), (3, 7, 8))),
    "enough, but under another set": (EquivocationError, lambda c: _votes(c, (41,), (3, 7, 8, 20))),
    "one under another set": (
        EquivocationError,
        lambda c: sorted(_votes(c, (), (3, 7, 8, 20)) + _votes(c, (3,), (41,))),
    ),
    "its own under another set": (
        EquivocationError,
        lambda c: sorted(_votes(c, (), (3, 7, 20, 41)) + _votes(c, (41,), (8,))),
    ),
    "of another step": (EquivocationError, lambda c: _votes(c, (), (3, 7, 8, 20, 41), step=1)),
    "of another round": (EquivocationError, lambda c: _votes(c, (), (3, 7, 20, 41), round_id=bytes(16))),
    "under other terms": (EquivocationError, lambda c: _votes(c, (), (3, 7, 20, 41), terms=bytes(32))),
    "of another cohort": (EquivocationError, lambda c: _votes(c, (), (3, 7, 20, 41), cohort=(3, 7, 8, 20))),
    "of another stream": (EquivocationError, lambda c: _votes(c, (), (3, 7, 20, 41), stream="h")),
    "of another length": (EquivocationError, lambda c: _votes(c, (), (3, 7, 20, 41), values=7)),
    "about other dreams": (EquivocationError, lambda c: _votes(c, (), (3, 7, 20, 41), context=b"other dreams")),
    "of another set-up": (EquivocationError, lambda c: _votes(c, (), (3, 7, 20, 41), members=(3, 7, 8, 20))),
    "signed by one for all": (EquivocationError, lambda c: _votes(c, (), (3, 7, 20, 41), by=20)),
    "unsigned": (EquivocationError, lambda c: [(voter, bytes(64)) for voter in (3, 7, 20, 41)]),
    "repeated": (CohortError, lambda c: _votes(c, (), (3, 7, 7, 20, 41))),
    "out of order": (CohortError, lambda c: _votes(c, (), (41, 20, 7, 3))),
    "a stranger's": (CohortError, lambda c: sorted([*_votes(c, (), (3, 7, 20)), (STRANGER, bytes(64))])),
}


@pytest.mark.parametrize("forgery", FORGED_BALLOTS)
def test_ballots_that_do_not_agree_open_nothing(make_cohort: Make, forgery: str) -> None:
    error, forge = FORGED_BALLOTS[forgery]
    cohort = make_cohort(active=True)
    cohort.go(Phase.OPEN)
    cohort.refuses(VICTIM, cohort.ballots(0, forge(cohort)), error)
    cohort.finish()


def test_the_votes_of_the_dead_do_not_count(make_cohort: Make) -> None:
    cohort = make_cohort(active=True)
    cohort.go(Phase.COLLECT)
    cohort.go(Phase.OPEN, absent=[41])
    cohort.refuses(VICTIM, cohort.ballots(0, _votes(cohort, (41,), (3, 7, 20, 41))), CohortError)
    cohort.finish(contributors=[3, 7, 8, 20])


def test_different_survivors_shown_to_different_clients_open_nothing(make_cohort: Make) -> None:
    cohort = make_cohort(active=True)
    cohort.go(Phase.VOTE)
    shown: dict[int, tuple[int, ...]] = {3: (20,), 7: (20,), 41: (20,), VICTIM: (), 20: ()}
    votes = {}
    for member, dead in shown.items():
        vote = read(cohort.clients[member].receive(cohort.open_request(0, dead)), wire.Vote)
        votes[member] = (member, vote.signature)
    for member, dead in shown.items():
        voters = sorted(other for other in shown if other not in dead)
        agreeing = [votes[other] for other in voters if shown[other] == dead]
        cohort.refuses(member, cohort.ballots(0, agreeing), EquivocationError)
        cohort.refuses(member, cohort.ballots(0, [votes[other] for other in voters]), EquivocationError)


def test_different_set_ups_shown_to_different_clients_open_nothing(make_cohort: Make) -> None:
    cohort = make_cohort(active=True)
    inboxes = cohort.go(Phase.READY)
    honest = read(inboxes[VICTIM], wire.Inbox)
    # The victim is told that member 41 never completed the set-up; everybody else knows that it did.
    shorter = wire.Inbox(cohort.round_id, [3, 7, 8, 20], [entry for entry in honest.parcels if entry.peer != 41])
    inboxes[VICTIM] = wire.encode(shorter)
    cohort.go(Phase.VOTE)
    votes = []
    for member in cohort.members:
        vote = read(cohort.clients[member].receive(cohort.open_request(0)), wire.Vote)
        votes.append((member, vote.signature))
    for member in cohort.members:
        cohort.refuses(member, cohort.ballots(0, votes), CohortError if member == VICTIM else EquivocationError)
    known = [vote for vote in votes if vote[0] != 41]
    assert len(known) >= cohort.topology.survivors
    cohort.refuses(VICTIM, cohort.ballots(0, known), EquivocationError)


def test_different_questions_asked_of_different_clients_open_nothing(make_cohort: Make) -> None:
    cohort = make_cohort(active=True)
    outbox = cohort.go(Phase.COLLECT)
    victim = cohort.clients[VICTIM]
    outbox.pop(VICTIM)
    victim.receive(cohort.request(0, values=5))
    victim.contribute(cohort.vector(VICTIM)[:5], stream="g")
    cohort.settle(())
    votes = []
    for member in cohort.members:
        vote = read(cohort.clients[member].receive(cohort.open_request(0)), wire.Vote)
        votes.append((member, vote.signature))
    for member in cohort.members:
        cohort.refuses(member, cohort.ballots(0, votes), EquivocationError)


def test_ballots_without_a_vote_open_nothing(make_cohort: Make) -> None:
    cohort = make_cohort(active=True)
    cohort.go(Phase.VOTE)
    ballots = cohort.ballots(0, _votes(cohort, (), cohort.members))
    cohort.refuses(VICTIM, ballots, PhaseError)
    cohort.finish()
    # Nor does the vote of one step count for the next.
    cohort.go(Phase.VOTE)
    cohort.refuses(VICTIM, cohort.ballots(1, _votes(cohort, (), cohort.members, step=1)), PhaseError)
    cohort.finish()


def test_ballots_open_nothing_before_a_contribution(make_cohort: Make) -> None:
    cohort = make_cohort(active=True)
    cohort.go(Phase.COLLECT)
    cohort.clients[VICTIM].receive(cohort.request(0))
    cohort.refuses(VICTIM, cohort.ballots(0, _votes(cohort, (), cohort.members)), StepError)


# Rounds


def test_a_round_id_is_used_once(make_cohort: Make) -> None:
    first = make_cohort()
    first.finish()
    again = make_cohort(before=first, round_id=first.round_id)
    offer = again.server.open()[VICTIM]
    again.refuses(VICTIM, offer, RoundReuseError)
    make_cohort(before=first).finish()


def test_a_round_id_is_used_once_though_the_client_was_restarted(make_cohort: Make, tmp_path: Path) -> None:
    first = make_cohort()
    first.rounds[VICTIM] = FileRoundLog(tmp_path / "rounds")
    first.clients[VICTIM] = first.new_client(VICTIM)
    first.finish()
    again = make_cohort(before=first, round_id=first.round_id)
    again.rounds[VICTIM].close()
    again.rounds[VICTIM] = FileRoundLog(tmp_path / "rounds")
    again.clients[VICTIM] = again.new_client(VICTIM)
    again.refuses(VICTIM, again.server.open()[VICTIM], RoundReuseError)
    make_cohort(before=again).finish()


def test_a_round_whose_set_up_was_never_finished_counts_as_used(make_cohort: Make, tmp_path: Path) -> None:
    cohort = make_cohort()
    cohort.rounds[VICTIM] = FileRoundLog(tmp_path / "rounds")
    cohort.clients[VICTIM] = cohort.new_client(VICTIM)
    offer = cohort.go(Phase.ADVERTISE)[VICTIM]
    assert cohort.clients[VICTIM].receive(offer) is not None
    cohort.rounds[VICTIM].close()
    cohort.rounds[VICTIM] = FileRoundLog(tmp_path / "rounds")
    cohort.clients[VICTIM] = cohort.new_client(VICTIM)
    cohort.refuses(VICTIM, offer, RoundReuseError)


@BOTH_MODES
def test_a_client_that_was_restored_once_too_often_masks_no_step_again(
    make_cohort: Make, active: bool, tmp_path: Path
) -> None:
    cohort = make_cohort(active=active)
    cohort.rounds[VICTIM] = FileRoundLog(tmp_path / "rounds")
    cohort.clients[VICTIM] = cohort.new_client(VICTIM)
    cohort.finish()
    key = bytes(range(32))
    saved = cohort.clients[VICTIM].snapshot(key)
    cohort.finish()
    # A machine that was set back, with a log that was read again.
    cohort.rounds[VICTIM].close()
    cohort.rounds[VICTIM] = FileRoundLog(tmp_path / "rounds")
    old = MaskedClient.restore(saved, key, terms=cohort.terms, credentials=cohort.credentials(VICTIM))
    old.receive(cohort.request(1))
    with pytest.raises(StepError, match="step 1 is over"):
        old.contribute(cohort.vector(VICTIM), stream="g")
    with pytest.raises(StepError):
        old.receive(cohort.open_request(1))
    old.receive(cohort.request(2))
    assert old.contribute(cohort.vector(VICTIM), stream="g")


# The cohort that is offered

OFFERS: dict[str, tuple[type[Exception], list[int]]] = {
    "without me": (CohortError, [3, 7, 20, 41]),
    "nobody": (CohortError, []),
    "only me": (TermsError, [VICTIM]),
    "a stranger": (RosterError, [3, 7, 8, STRANGER, 20]),
    "repeated": (CohortError, [3, 7, 8, 20, 20]),
    "me twice": (CohortError, [3, 7, 8, 8, 20]),
    "unsorted": (CohortError, [3, 8, 7, 20, 41]),
    "not a single friend": (RosterError, [VICTIM, STRANGER]),
}


@pytest.mark.parametrize("offered", OFFERS)
def test_a_wrong_cohort_is_not_joined(make_cohort: Make, offered: str) -> None:
    error, members = OFFERS[offered]
    cohort = make_cohort()
    cohort.go(Phase.ADVERTISE)
    cohort.refuses(VICTIM, cohort.offer(members), error)
    # The refused offer did not use the round id up.
    cohort.finish()


def test_a_round_under_other_terms_or_another_protocol_is_not_joined(make_cohort: Make) -> None:
    cohort = make_cohort()
    cohort.go(Phase.ADVERTISE)
    for name, value in {"dropout": 0.3, "corruption": 0.1, "steps": 5, "active": True, "max_values": 7}.items():
        other = dataclasses.replace(cohort.terms, **{name: value})
        cohort.refuses(VICTIM, cohort.offer(cohort.members, terms=other), TermsError)
    plain = make_protocol("plain").server(cohort.members, terms=cohort.terms, round_id=cohort.round_id)
    cohort.refuses(VICTIM, plain.open()[VICTIM], TermsError)
    cohort.finish()


def test_a_cohort_smaller_than_the_terms_ask_for_is_not_joined(make_cohort: Make) -> None:
    cohort = make_cohort(min_cohort=4)
    cohort.go(Phase.ADVERTISE)
    cohort.refuses(VICTIM, cohort.offer([7, 8, 20]), TermsError)
    cohort.finish()


def test_a_cohort_larger_than_the_encoding_was_made_for_is_not_joined(make_cohort: Make) -> None:
    cohort = make_cohort(range(6))
    small = make_cohort(range(5), before=cohort)
    small.refuses(2, small.offer(list(range(6))), TermsError)
    small.finish()


def test_a_cohort_that_leaves_too_few_among_colluders_is_not_joined(make_cohort: Make) -> None:
    # Of five members three are sure to be left and one may collude; of three members, two and one.
    cohort = make_cohort(dropout=0.5, corruption=0.34)
    cohort.go(Phase.ADVERTISE)
    cohort.refuses(VICTIM, cohort.offer([7, 8, 20]), TermsError)
    cohort.finish()


def test_an_active_server_does_not_choose_the_cohort(make_cohort: Make) -> None:
    cohort = make_cohort(active=True)
    cohort.go(Phase.ADVERTISE)
    for missing in (3, 41):
        cohort.refuses(VICTIM, cohort.offer([member for member in cohort.members if member != missing]), TermsError)
    cohort.finish()


# The inbox


def _parcels(cohort: Any, message: bytes) -> list[Any]:
    return list(read(message, wire.Inbox).parcels)


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
def test_shares_that_were_tampered_with_are_not_held(make_cohort: Make, forgery: str) -> None:
    cohort = make_cohort()
    outbox = cohort.go(Phase.READY)
    honest = read(outbox[VICTIM], wire.Inbox)
    forged = INBOX_PARCELS[forgery](
        list(honest.parcels), {member: _parcels(cohort, message) for member, message in outbox.items()}
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


def test_shares_of_another_round_are_not_held(make_cohort: Make) -> None:
    earlier = make_cohort()
    old = read(earlier.go(Phase.READY)[VICTIM], wire.Inbox)
    cohort = make_cohort(before=earlier)
    honest = read(cohort.go(Phase.READY)[VICTIM], wire.Inbox)
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
def test_an_impossible_set_of_members_ends_no_set_up(make_cohort: Make, forgery: str) -> None:
    error, members = INBOX_MEMBERS[forgery]
    cohort = make_cohort()
    honest = read(cohort.go(Phase.READY)[VICTIM], wire.Inbox)
    parcels = [parcel for parcel in honest.parcels if parcel.peer in members]
    if error is ShareError:
        del parcels[-1]
    cohort.refuses(VICTIM, wire.encode(wire.Inbox(cohort.round_id, members, parcels)), error)
    cohort.finish()


def test_who_never_advertised_a_key_cannot_have_completed_the_set_up(make_cohort: Make) -> None:
    cohort = make_cohort()
    cohort.go(Phase.ADVERTISE)
    cohort.go(Phase.SHARE, absent=[41])
    honest = read(cohort.go(Phase.READY)[VICTIM], wire.Inbox)
    assert honest.members == [3, 7, 8, 20]
    forged = wire.Inbox(cohort.round_id, [3, 7, 8, 20, 41], [*honest.parcels, wire.Parcel(41, bytes(272))])
    cohort.refuses(VICTIM, wire.encode(forged), CohortError)
    cohort.finish(contributors=[3, 7, 8, 20])


def test_too_few_neighbours_end_no_set_up_though_the_cohort_has_enough_members(make_cohort: Make) -> None:
    cohort = make_cohort(**SPARSE)
    group = {entry.member for entry in read(cohort.go(Phase.SHARE)[5], wire.Keys).keys}
    honest = read(cohort.go(Phase.READY)[5], wire.Inbox)
    gone = sorted(group - {5})[: 36 - cohort.topology.survivors]
    members = [member for member in honest.members if member not in gone]
    parcels = [parcel for parcel in honest.parcels if parcel.peer not in gone]
    cohort.refuses(5, wire.encode(wire.Inbox(cohort.round_id, members, parcels)), TooFewSurvivorsError)
    cohort.finish()


def test_too_few_members_end_no_set_up_though_all_neighbours_are_there(make_cohort: Make) -> None:
    cohort = make_cohort(**SPARSE)
    group = {entry.member for entry in read(cohort.go(Phase.SHARE)[5], wire.Keys).keys}
    honest = read(cohort.go(Phase.READY)[5], wire.Inbox)
    gone = [member for member in cohort.members if member not in group][: 37 - cohort.topology.survivors]
    members = [member for member in honest.members if member not in gone]
    forged = wire.Inbox(cohort.round_id, members, honest.parcels)
    cohort.refuses(5, wire.encode(forged), TooFewSurvivorsError)
    cohort.finish()


# Messages that have no place

STATES = ("offer", "keys", "inbox", "ready", "asked", "contributed", "voted", "opened")


def in_both_modes(*states: str) -> Any:
    """Every state in every mode that has it."""
    found = [(active, state) for active in (False, True) for state in states if active or state != "voted"]
    names = [f"{'active' if active else 'passive'}-{state}" for active, state in found]
    return pytest.mark.parametrize(("active", "state"), found, ids=names)


def _bring(cohort: Any, state: str) -> None:
    """Run honestly until the victim is in a state."""
    match state:
        case "offer":
            cohort.go(Phase.ADVERTISE)
        case "keys":
            cohort.go(Phase.SHARE)
        case "inbox":
            cohort.go(Phase.READY)
        case "ready":
            cohort.go(Phase.COLLECT)
        case "asked":
            cohort.clients[VICTIM].receive(cohort.go(Phase.COLLECT).pop(VICTIM))
        case "contributed":
            cohort.go(Phase.VOTE if cohort.terms.active else Phase.OPEN)
        case "voted":
            cohort.go(Phase.OPEN)
        case "opened":
            cohort.go(Phase.OPEN)
            cohort.answer(VICTIM)


def _one_of_each(cohort: Any) -> dict[type[wire.Message], bytes]:
    """A well-formed message of every kind, of this round."""
    here, key = cohort.round_id, wire.PublicKey(3, bytes(32), bytes(64))
    messages = (
        wire.Offer(here, cohort.terms.digest("masked"), list(cohort.members)),
        wire.Advertise(here, 3, bytes(32), bytes(64)),
        wire.Keys(here, [key]),
        wire.Shares(here, 3, [], b"", []),
        wire.Inbox(here, list(cohort.members), []),
        wire.StepRequest(here, 3, "g", 6, bytes(32)),
        wire.Contribution(here, 3, 0, memoryview(bytes(24))),
        wire.OpenRequest(here, 0, []),
        wire.Vote(here, 3, 0, bytes(64)),
        wire.Ballots(here, 0, []),
        wire.Openings(here, 3, 0, bytes(160)),
        wire.Abort(here, 0, 1, 3),
    )
    return {type(message): wire.encode(message) for message in messages}


@in_both_modes(*STATES)
def test_a_message_out_of_phase_is_refused_by_name(make_cohort: Make, active: bool, state: str) -> None:
    cohort = make_cohort(active=active)
    _bring(cohort, state)
    expected: tuple[type[wire.Message], ...] = {
        "offer": (wire.Offer,),
        "keys": (wire.Keys, wire.Abort),
        "inbox": (wire.Inbox, wire.Abort),
    }.get(state, (wire.StepRequest, wire.OpenRequest, wire.Ballots, wire.Abort))
    for kind, message in _one_of_each(cohort).items():
        if kind not in expected:
            cohort.refuses(VICTIM, message, PhaseError)
    absent = [VICTIM] if state == "asked" else []
    cohort.finish(contributors=[member for member in cohort.members if member not in absent])


@pytest.mark.parametrize("kind", ["OpenRequest", "Ballots"])
@BOTH_MODES
def test_nothing_is_opened_before_the_first_step(make_cohort: Make, active: bool, kind: str) -> None:
    cohort = make_cohort(active=active)
    cohort.go(Phase.COLLECT)
    cohort.refuses(VICTIM, _one_of_each(cohort)[getattr(wire, kind)], StepError)
    cohort.finish()


@pytest.mark.parametrize("state", STATES[1:])
def test_a_message_of_another_round_is_refused_in_every_phase(make_cohort: Make, state: str) -> None:
    cohort = make_cohort(active=True)
    other = make_cohort(before=cohort, active=True)
    _bring(cohort, state)
    for kind, message in _one_of_each(other).items():
        expected = {"keys": ("Keys", "Abort"), "inbox": ("Inbox", "Abort")}.get(
            state, ("StepRequest", "OpenRequest", "Ballots", "Abort")
        )
        cohort.refuses(VICTIM, message, MessageError if kind.__name__ in expected else PhaseError)


@BOTH_MODES
def test_a_closed_client_answers_nothing(make_cohort: Make, active: bool) -> None:
    cohort = make_cohort(active=active)
    cohort.go(Phase.VOTE if active else Phase.OPEN)
    cohort.clients[VICTIM].close()
    for message in (*_one_of_each(cohort).values(), b"", cohort.abort(None)):
        cohort.refuses(VICTIM, message, PhaseError)
    with pytest.raises(PhaseError):
        cohort.clients[VICTIM].contribute(cohort.vector(VICTIM), stream="g")
    with pytest.raises(PhaseError):
        cohort.clients[VICTIM].snapshot(bytes(32))


# Aborts


def test_an_abort_before_any_round_is_out_of_phase(make_cohort: Make) -> None:
    cohort = make_cohort()
    cohort.go(Phase.ADVERTISE)
    cohort.refuses(VICTIM, cohort.abort(None), PhaseError)
    cohort.finish()


@in_both_modes(*STATES[1:])
def test_an_abort_of_the_round_ends_it_in_every_phase(
    make_cohort: Make, list_buffers: Callable[[Any], dict[str, bytearray]], active: bool, state: str
) -> None:
    cohort = make_cohort(active=active)
    _bring(cohort, state)
    with pytest.raises(TooFewSurvivorsError):
        cohort.clients[VICTIM].receive(cohort.abort(None))
    for message in _one_of_each(cohort).values():
        cohort.refuses(VICTIM, message, PhaseError)
    # What it held is gone: see the tests of secrecy, which end rounds in this way too.
    assert not any(any(buffer) for buffer in list_buffers(cohort.clients[VICTIM]).values())


@pytest.mark.parametrize("state", ["keys", "inbox", "ready"])
def test_an_abort_of_a_step_that_nobody_asked_for_is_refused(make_cohort: Make, state: str) -> None:
    cohort = make_cohort()
    _bring(cohort, state)
    for step in (0, 1, 3, 999_999):
        cohort.refuses(VICTIM, cohort.abort(step), StepError)
    cohort.finish()


def test_an_abort_of_an_earlier_step_is_refused(make_cohort: Make) -> None:
    cohort = make_cohort()
    cohort.finish()
    cohort.go(Phase.OPEN)
    cohort.refuses(VICTIM, cohort.abort(0), StepError)
    cohort.refuses(VICTIM, cohort.abort(2), StepError)
    cohort.finish()


@in_both_modes("asked", "contributed", "voted", "opened")
def test_a_step_that_was_given_up_stays_shut_and_the_next_one_is_summed(
    make_cohort: Make, active: bool, state: str
) -> None:
    cohort = make_cohort(active=active)
    _bring(cohort, state)
    with pytest.raises(TooFewSurvivorsError):
        cohort.clients[VICTIM].receive(cohort.abort(0))
    cohort.refuses(VICTIM, cohort.request(0), StepError)
    cohort.refuses(VICTIM, cohort.open_request(0), AlreadyAnsweredError)
    cohort.refuses(VICTIM, cohort.ballots(0, _votes(cohort, (), cohort.members)), AlreadyAnsweredError)
    with pytest.raises(PhaseError):
        cohort.clients[VICTIM].contribute(cohort.vector(VICTIM), stream="g")
    # The others never hear of it: the step ends without the victim's answers.
    cohort.outbox.pop(VICTIM, None)
    contributed = [member for member in cohort.members if member != VICTIM or state != "asked"]
    cohort.go(Phase.READY, absent=[VICTIM])
    assert cohort.server.result().ring.tolist() == cohort.expected(contributed)
    cohort.go(Phase.COLLECT)
    cohort.finish()


@BOTH_MODES
def test_below_the_threshold_every_side_gives_up_by_the_same_name(make_cohort: Make, active: bool) -> None:
    cohort = make_cohort(active=active)
    cohort.go(Phase.COLLECT)
    gone = (20, 41) if active else (7, 20, 41)
    cohort.settle(gone)
    cohort.advance()
    assert cohort.server.phase is Phase.READY
    with pytest.raises(TooFewSurvivorsError):
        cohort.server.result()
    for member in cohort.members:
        if member not in gone:
            with pytest.raises(TooFewSurvivorsError):
                cohort.clients[member].receive(cohort.outbox[member])
            cohort.refuses(member, cohort.open_request(0, gone[:1]), AlreadyAnsweredError)
    cohort.outbox = {}
    cohort.go(Phase.COLLECT)
    cohort.finish()


@pytest.mark.parametrize("phase", [Phase.ADVERTISE, Phase.SHARE])
def test_a_set_up_with_too_few_ends_on_every_side(
    make_cohort: Make, list_buffers: Callable[[Any], dict[str, bytearray]], phase: Phase
) -> None:
    cohort = make_cohort()
    cohort.go(phase)
    cohort.settle([7, 20, 41])
    cohort.advance()
    assert cohort.server.phase is Phase.CLOSED
    with pytest.raises(TooFewSurvivorsError):
        cohort.server.result()
    with pytest.raises(PhaseError):
        cohort.server.receive(3, cohort.transcript[-1].message)
    for member in (3, VICTIM):
        with pytest.raises(TooFewSurvivorsError):
            cohort.clients[member].receive(cohort.outbox[member])
        cohort.refuses(member, cohort.request(0), PhaseError)
        assert not any(any(buffer) for buffer in list_buffers(cohort.clients[member]).values())


# What equivocation gains, and what stops it


class TwoFacedServer(MaskedServer):
    """Tells half of the survivors that the victim is gone, and the other half that everybody is there."""

    deceived: frozenset[int] = frozenset()

    def _name_the_dead(self) -> dict[int, bytes]:
        step = self._step.step
        outbox = super()._name_the_dead()
        lie = wire.encode(wire.OpenRequest(self._round_id, step, [VICTIM]))
        return {member: lie if member in self.deceived else message for member, message in outbox.items()}


def _combined(shares: dict[int, bytes]) -> int:
    """The secret under Shamir shares by evaluation point: Lagrange's formula at zero, written out."""
    points = {point: int.from_bytes(share, "big") for point, share in shares.items()}
    secret = 0
    for here, share in points.items():
        weight = 1
        for other in points:
            if other != here:
                weight = weight * other * pow(other - here, -1, PRIME)
        secret += share * weight
    return secret % PRIME


def _mask(key: bytes, values: int) -> np.ndarray:
    """AES-256 in counter mode over zeros from block 2 on, in one go."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(15) + b"\2")).encryptor()
    return np.frombuffer(encryptor.update(bytes(4 * values)), dtype="<u4")


def _unmasked_victim(cohort: Any, openings: dict[int, wire.Openings], deceived: frozenset[int]) -> list[int]:
    """What the server computes from what it saw: the victim's vector in the ring, if it holds enough shares."""
    places = {member: place for place, member in enumerate(cohort.members, start=1)}
    at = 32 * (places[VICTIM] - 1)
    held = {member: opening.shares[at : at + 32] for member, opening in openings.items()}
    pair_secret = _combined({places[member]: share for member, share in held.items() if member in deceived})
    own_secret = _combined({places[member]: share for member, share in held.items() if member not in deceived})
    context = request_context(0, "g", cohort.values, context_digest(b""))
    shares, contributed = (
        next(
            read(sent.message, kind)
            for sent in cohort.transcript
            if sent.sender == VICTIM and isinstance(read(sent.message, wire.Message), kind)
        )
        for kind in (wire.Shares, wire.Contribution)
    )
    seeds = open_backup(shares.backups[0], pair_secret, cohort.session(), VICTIM, 0)
    vector = np.frombuffer(contributed.ring, dtype="<u4").copy()
    vector -= _mask(self_mask_key(self_secret(own_secret), context), cohort.values)
    for peer, seed in zip((member for member in cohort.members if member != VICTIM), seeds, strict=True):
        if peer > VICTIM:
            vector -= _mask(pair_mask_key(seed, context), cohort.values)
        else:
            vector += _mask(pair_mask_key(seed, context), cohort.values)
    return vector.tolist()


def _deceive(cohort: Any, deceived: frozenset[int]) -> None:
    server = TwoFacedServer(cohort.members, terms=cohort.terms, round_id=cohort.round_id, roster=cohort.roster)
    server.deceived = deceived
    cohort.server = server


SPLIT = (3, 7, 8, 20, 41, 50)
DECEIVED = frozenset({3, 20, 41})


def test_in_passive_mode_a_server_that_equivocates_opens_a_single_vector_as_the_threat_model_says(
    make_cohort: Make,
) -> None:
    cohort = make_cohort(SPLIT, dropout=0.5, corruption=1 / 6, values=500)
    assert "can open a single vector" in cohort.protocol.threat_model.active_server
    # Two disjoint sets of holders, each enough to open a secret: the condition for the attack, without any colluder.
    assert 2 * cohort.topology.threshold <= len(SPLIT)
    _deceive(cohort, DECEIVED)
    cohort.go(Phase.OPEN)
    openings = {member: read(cohort.answer(member), wire.Openings) for member in SPLIT}
    assert _unmasked_victim(cohort, openings, DECEIVED) == cohort.expected([VICTIM])


def test_active_mode_refuses_terms_under_which_two_sets_of_survivors_could_be_agreed_on(make_cohort: Make) -> None:
    cohort = make_cohort(SPLIT, dropout=0.5, corruption=1 / 6)
    active = dataclasses.replace(cohort.terms, active=True)
    client = MaskedClient(VICTIM, terms=active, credentials=cohort.credentials(VICTIM))
    with pytest.raises(TermsError, match="two sets of survivors"):
        client.receive(cohort.offer(SPLIT, terms=active))
    with pytest.raises(TermsError, match="two sets of survivors"):
        MaskedServer(SPLIT, terms=active, round_id=cohort.round_id, roster=cohort.roster)


def test_active_mode_stops_exactly_that_attack(make_cohort: Make) -> None:
    cohort = make_cohort(SPLIT, active=True, dropout=1 / 6, corruption=1 / 3)
    _deceive(cohort, DECEIVED)
    cohort.go(Phase.VOTE)
    votes = {member: read(cohort.clients[member].receive(cohort.outbox[member]), wire.Vote) for member in SPLIT}
    ballots = {member: (member, vote.signature) for member, vote in votes.items()}
    honest = [member for member in SPLIT if member not in DECEIVED]
    for member in SPLIT:
        survivors = [other for other in SPLIT if other != VICTIM] if member in DECEIVED else list(SPLIT)
        own_side = sorted(DECEIVED) if member in DECEIVED else honest
        for voters in (own_side, survivors):
            forged = cohort.ballots(0, [ballots[other] for other in voters])
            cohort.refuses(member, forged, EquivocationError)


def test_active_mode_stops_it_too_if_as_many_as_the_terms_allow_sign_whatever_the_server_wants(
    make_cohort: Make,
) -> None:
    cohort = make_cohort(SPLIT, active=True, dropout=1 / 6, corruption=1 / 3)
    colluders = (41, 50)
    assert len(colluders) == cohort.topology.corrupt
    cohort.go(Phase.VOTE)
    sides = {(): (7, 8), (VICTIM,): (3, 20)}
    for dead, side in sides.items():
        for member in side:
            assert cohort.clients[member].receive(cohort.open_request(0, dead)) is not None
    for dead, side in sides.items():
        signed = _votes(cohort, dead, (*side, *colluders))
        for member in side:
            cohort.refuses(member, cohort.ballots(0, sorted(signed)), EquivocationError)


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
