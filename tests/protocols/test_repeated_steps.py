"""A step that failed while it was being opened is repeated over the same members, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from protocols import (
    CohortError,
    Dropouts,
    FixedPoint,
    Phase,
    Simulation,
    Terms,
    TooFewSurvivorsError,
    available_protocols,
    make_protocol,
)

MEMBERS = range(5)
TERMS = Terms(streams={"g": FixedPoint(clip=1.0, clients=5)}, steps=20, dropout=0.4)
VECTORS = {member: np.full(3, 0.125 * (member + 1), np.float32) for member in MEMBERS}


def cohort(vanishes: Callable[[Phase, int, int], bool], protection: str = "masked") -> Simulation:
    simulation = Simulation(make_protocol(protection), MEMBERS, terms=TERMS, network=Dropouts(vanishes))
    simulation.open()
    return simulation


def test_the_error_names_who_was_asked_to_open_once_shares_may_be_out() -> None:
    gone = {(Phase.COLLECT, 0, 4), (Phase.OPEN, 0, 0), (Phase.OPEN, 0, 1), (Phase.OPEN, 0, 2)}
    simulation = cohort(lambda *place: place in gone)
    with pytest.raises(TooFewSurvivorsError) as caught:
        simulation.sum(VECTORS, stream="g")
    assert caught.value.asked_to_open == (0, 1, 2, 3)


def test_before_shares_are_asked_for_nobody_is_bound() -> None:
    gone = {(Phase.COLLECT, 0, member) for member in (0, 1, 2)}
    simulation = cohort(lambda *place: place in gone)
    with pytest.raises(TooFewSurvivorsError) as caught:
        simulation.sum(VECTORS, stream="g")
    assert caught.value.asked_to_open is None
    assert simulation.sum(VECTORS, stream="g").contributors == tuple(MEMBERS)


@pytest.mark.parametrize("protection", available_protocols())
def test_a_repeated_step_sums_exactly_those_who_were_named(protection: str) -> None:
    simulation = cohort(lambda *place: False, protection)
    result = simulation.sum(VECTORS, stream="g", exactly=(0, 2, 3))
    assert result.contributors == (0, 2, 3)
    np.testing.assert_array_equal(result.total, sum(VECTORS[member] for member in (0, 2, 3)))
    assert simulation.sum(VECTORS, stream="g").contributors == tuple(MEMBERS)


@pytest.mark.parametrize("protection", available_protocols())
def test_a_repeated_step_is_not_opened_over_fewer(protection: str) -> None:
    """Three of five would be enough for any other step."""
    simulation = cohort(lambda *place: place == (Phase.COLLECT, 0, 2), protection)
    with pytest.raises(TooFewSurvivorsError, match="3 members are left, where 4 are needed") as caught:
        simulation.sum(VECTORS, stream="g", exactly=(0, 1, 2, 3))
    assert caught.value.asked_to_open is None
    assert simulation.sum(VECTORS, stream="g", exactly=(0, 1, 2, 3)).contributors == (0, 1, 2, 3)


@pytest.mark.parametrize("protection", available_protocols())
def test_strangers_cannot_be_asked(protection: str) -> None:
    simulation = cohort(lambda *place: False, protection)
    assert simulation.server is not None
    with pytest.raises(CohortError, match="not part of this round"):
        simulation.server.request("g", 3, exactly=(0, 1, 9))
    assert simulation.server.phase is Phase.READY


def test_members_who_are_out_of_the_round_make_it_too_few() -> None:
    simulation = cohort(lambda phase, step, member: (phase, member) == (Phase.SHARE, 4))
    with pytest.raises(TooFewSurvivorsError) as caught:
        simulation.sum(VECTORS, stream="g", exactly=(0, 1, 2, 3, 4))
    assert caught.value.asked_to_open == (0, 1, 2, 3, 4)
    assert simulation.steps_left == 0


def test_what_late_shares_and_another_cohort_would_give_away_is_why() -> None:
    """The attack that the rule is there for: two sums of the same vectors, one member apart, are its vector."""
    simulation = cohort(lambda *place: False)
    first = simulation.sum(VECTORS, stream="g")
    second = simulation.sum(VECTORS, stream="g", exactly=(0, 1, 2, 3))
    np.testing.assert_array_equal(first.total - second.total, VECTORS[4])
