"""A server that uses a round twice, or offers a round under other terms or with another cohort: nobody joins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocols import (
    CohortError,
    FileRoundLog,
    Phase,
    RosterError,
    RoundReuseError,
    StepError,
    TermsError,
    make_protocol,
)
from protocols.masked_client import MaskedClient

Make = Callable[..., Any]

VICTIM = 8
STRANGER = 9
BOTH_MODES = pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])


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
