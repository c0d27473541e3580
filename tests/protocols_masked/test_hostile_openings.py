"""A server that asks for what it must not have: both kinds of shares, a step twice, one ahead, or too few survivors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from protocols import (
    AlreadyAnsweredError,
    CohortError,
    ContributionError,
    Phase,
    PhaseError,
    StepError,
    TooFewSurvivorsError,
    wire,
)

Make = Callable[..., Any]
Read = Callable[..., Any]

VICTIM = 8
STRANGER = 9
BOTH_MODES = pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])


@pytest.mark.parametrize("first", [(), (20,), (3, 41)])
@pytest.mark.parametrize("second", [(), (20,), (41,), (3, 41)])
def test_no_two_requests_get_both_kinds_of_shares(
    make_cohort: Make, first: tuple, second: tuple, read_message: Read
) -> None:
    cohort = make_cohort()
    cohort.go(Phase.OPEN)
    answer = cohort.clients[VICTIM].receive(cohort.open_request(0, first))
    opened = read_message(answer, wire.Openings)
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


def test_too_many_dead_neighbours_open_nothing_though_the_cohort_has_enough_members_left(
    make_cohort: Make, read_message: Read, sparse: dict[str, Any]
) -> None:
    cohort = make_cohort(**sparse)
    assert not cohort.topology.complete
    group = {entry.member for entry in read_message(cohort.go(Phase.SHARE)[5], wire.Keys).keys}
    cohort.go(Phase.OPEN)
    dead = sorted(group - {5})[: 36 - cohort.topology.survivors]
    assert len(group) - len(dead) < cohort.topology.threshold
    cohort.refuses(5, cohort.open_request(0, dead), TooFewSurvivorsError)
    cohort.finish()


def test_too_many_dead_strangers_open_nothing_though_all_neighbours_are_left(
    make_cohort: Make, read_message: Read, sparse: dict[str, Any]
) -> None:
    cohort = make_cohort(**sparse)
    group = {entry.member for entry in read_message(cohort.go(Phase.SHARE)[5], wire.Keys).keys}
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


def test_ballots_of_a_step_count_no_more_once_the_next_one_was_asked_for(make_cohort: Make, read_message: Read) -> None:
    cohort = make_cohort(active=True)
    ballots = cohort.go(Phase.OPEN)[VICTIM]
    cohort.clients[VICTIM].receive(cohort.request(1))
    cohort.refuses(VICTIM, ballots, StepError)
    cohort.clients[VICTIM].contribute(cohort.vector(VICTIM), stream="g")
    cohort.refuses(VICTIM, ballots, StepError)
    replayed = [(vote.member, vote.signature) for vote in read_message(ballots, wire.Ballots).votes]
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
