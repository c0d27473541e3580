"""A server whose messages come out of phase, and one that gives a step or the round up: what is over stays shut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocols import AlreadyAnsweredError, MessageError, Phase, PhaseError, StepError, TooFewSurvivorsError, wire

Make = Callable[..., Any]

VICTIM = 8
BOTH_MODES = pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])

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
    cohort.refuses(
        VICTIM, cohort.ballots(0, [cohort.vote(member, ()) for member in cohort.members]), AlreadyAnsweredError
    )
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
