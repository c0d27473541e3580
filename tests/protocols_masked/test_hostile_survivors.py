"""A server that equivocates on the survivors: what it gains in passive mode, and what stops it in active mode."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocols import CohortError, EquivocationError, Phase, PhaseError, StepError, TermsError, wire
from protocols.keys import context_digest, request_context
from protocols.masked_client import MaskedClient
from protocols.masked_server import MaskedServer
from protocols.masks import pair_mask_key, self_mask_key
from protocols.openings import open_backup, self_secret
from protocols.shares import PRIME

Make = Callable[..., Any]
Read = Callable[..., Any]

VICTIM = 8
STRANGER = 9


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


def test_different_survivors_shown_to_different_clients_open_nothing(make_cohort: Make, read_message: Read) -> None:
    cohort = make_cohort(active=True)
    cohort.go(Phase.VOTE)
    shown: dict[int, tuple[int, ...]] = {3: (20,), 7: (20,), 41: (20,), VICTIM: (), 20: ()}
    votes = {}
    for member, dead in shown.items():
        vote = read_message(cohort.clients[member].receive(cohort.open_request(0, dead)), wire.Vote)
        votes[member] = (member, vote.signature)
    for member, dead in shown.items():
        voters = sorted(other for other in shown if other not in dead)
        agreeing = [votes[other] for other in voters if shown[other] == dead]
        cohort.refuses(member, cohort.ballots(0, agreeing), EquivocationError)
        cohort.refuses(member, cohort.ballots(0, [votes[other] for other in voters]), EquivocationError)


def test_different_set_ups_shown_to_different_clients_open_nothing(make_cohort: Make, read_message: Read) -> None:
    cohort = make_cohort(active=True)
    inboxes = cohort.go(Phase.READY)
    honest = read_message(inboxes[VICTIM], wire.Inbox)
    # The victim is told that member 41 never completed the set-up; everybody else knows that it did.
    shorter = wire.Inbox(cohort.round_id, [3, 7, 8, 20], [entry for entry in honest.parcels if entry.peer != 41])
    inboxes[VICTIM] = wire.encode(shorter)
    cohort.go(Phase.VOTE)
    votes = []
    for member in cohort.members:
        vote = read_message(cohort.clients[member].receive(cohort.open_request(0)), wire.Vote)
        votes.append((member, vote.signature))
    for member in cohort.members:
        cohort.refuses(member, cohort.ballots(0, votes), CohortError if member == VICTIM else EquivocationError)
    known = [vote for vote in votes if vote[0] != 41]
    assert len(known) >= cohort.topology.survivors
    cohort.refuses(VICTIM, cohort.ballots(0, known), EquivocationError)


def test_different_questions_asked_of_different_clients_open_nothing(make_cohort: Make, read_message: Read) -> None:
    cohort = make_cohort(active=True)
    outbox = cohort.go(Phase.COLLECT)
    victim = cohort.clients[VICTIM]
    outbox.pop(VICTIM)
    victim.receive(cohort.request(0, values=5))
    victim.contribute(cohort.vector(VICTIM)[:5], stream="g")
    cohort.settle(())
    votes = []
    for member in cohort.members:
        vote = read_message(cohort.clients[member].receive(cohort.open_request(0)), wire.Vote)
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


def _unmasked_victim(
    cohort: Any, openings: dict[int, wire.Openings], deceived: frozenset[int], read_message: Read
) -> list[int]:
    """What the server computes from what it saw: the victim's vector in the ring, if it holds enough shares."""
    places = {member: place for place, member in enumerate(cohort.members, start=1)}
    at = 32 * (places[VICTIM] - 1)
    held = {member: opening.shares[at : at + 32] for member, opening in openings.items()}
    pair_secret = _combined({places[member]: share for member, share in held.items() if member in deceived})
    own_secret = _combined({places[member]: share for member, share in held.items() if member not in deceived})
    context = request_context(0, "g", cohort.values, context_digest(b""))
    shares, contributed = (
        next(
            read_message(sent.message, kind)
            for sent in cohort.transcript
            if sent.sender == VICTIM and isinstance(read_message(sent.message, wire.Message), kind)
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
    make_cohort: Make, read_message: Read
) -> None:
    cohort = make_cohort(SPLIT, dropout=0.5, corruption=1 / 6, values=500)
    assert "can open a single vector" in cohort.protocol.threat_model.active_server
    # Two disjoint sets of holders, each enough to open a secret: the condition for the attack, without any colluder.
    assert 2 * cohort.topology.threshold <= len(SPLIT)
    _deceive(cohort, DECEIVED)
    cohort.go(Phase.OPEN)
    openings = {member: read_message(cohort.answer(member), wire.Openings) for member in SPLIT}
    assert _unmasked_victim(cohort, openings, DECEIVED, read_message) == cohort.expected([VICTIM])


def test_active_mode_refuses_terms_under_which_two_sets_of_survivors_could_be_agreed_on(make_cohort: Make) -> None:
    cohort = make_cohort(SPLIT, dropout=0.5, corruption=1 / 6)
    active = dataclasses.replace(cohort.terms, active=True)
    client = MaskedClient(VICTIM, terms=active, credentials=cohort.credentials(VICTIM))
    with pytest.raises(TermsError, match="two sets of survivors"):
        client.receive(cohort.offer(SPLIT, terms=active))
    with pytest.raises(TermsError, match="two sets of survivors"):
        MaskedServer(SPLIT, terms=active, round_id=cohort.round_id, roster=cohort.roster)


def test_active_mode_stops_exactly_that_attack(make_cohort: Make, read_message: Read) -> None:
    cohort = make_cohort(SPLIT, active=True, dropout=1 / 6, corruption=1 / 3)
    _deceive(cohort, DECEIVED)
    cohort.go(Phase.VOTE)
    votes = {member: read_message(cohort.clients[member].receive(cohort.outbox[member]), wire.Vote) for member in SPLIT}
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
