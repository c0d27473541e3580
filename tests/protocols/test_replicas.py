"""Where clients open sums: who has which, who is held to what the others know, and what a missing sum is called."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from protocols import (
    SERVER,
    FixedPoint,
    Network,
    OpeningError,
    Phase,
    ReplicaError,
    Simulation,
    Terms,
    available_protocols,
    make_protocol,
)
from protocols.driver import Envelope

VECTORS = {member: np.array([0.5, -0.25, 0.125]) * (member + 1) / 5 for member in range(5)}
OPENED_BY_CLIENTS = [name for name in available_protocols() if make_protocol(name).opened_by == "clients"]


class Losing(Network):
    """Whatever a test says is lost."""

    def __init__(self) -> None:
        self.loses: Callable[[Phase, int], bool] = lambda phase, recipient: False

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        return [envelope for envelope in envelopes if not self.loses(phase, envelope.recipient)]


@pytest.fixture(params=OPENED_BY_CLIENTS)
def cohort(request: pytest.FixtureRequest) -> Simulation:
    """Five clients with an open round, over a network that loses what a test says."""
    terms = Terms(streams={"gradients": FixedPoint(clip=1.0, clients=5)}, steps=20)
    cohort = Simulation(make_protocol(request.param), range(5), terms=terms, network=Losing())
    cohort.open()
    return cohort


def ring(members: list[int]) -> list[int]:
    """The sum in units of 2^-28."""
    return [round(sum(round(float(VECTORS[m][at]) * 2**28) for m in members)) % 2**32 for at in range(3)]


def lose(cohort: Simulation, loses: Callable[[Phase, int], bool]) -> None:
    assert isinstance(cohort.network, Losing)
    cohort.network.loses = loses


def totals(phase: Phase, recipient: int) -> bool:
    """Sums travel once the server waits for nothing any more."""
    return phase is Phase.READY and recipient != SERVER


def test_a_sum_that_reaches_nobody_is_said_to(cohort: Simulation) -> None:
    lose(cohort, totals)
    with pytest.raises(OpeningError, match="the sum reached no client"):
        cohort.sum(VECTORS, stream="gradients")
    assert cohort.results() == {}
    lose(cohort, lambda phase, recipient: False)
    assert cohort.sum(VECTORS, stream="gradients").ring.tolist() == ring([0, 1, 2, 3, 4])
    # Nor is the sum before it given instead.
    lose(cohort, totals)
    with pytest.raises(OpeningError):
        cohort.sum(VECTORS, stream="gradients")


def test_an_error_of_an_earlier_step_is_not_raised_again(cohort: Simulation) -> None:
    states = dict.fromkeys(range(5), b"dreams") | {4: b"other dreams"}
    with pytest.raises(ReplicaError):
        cohort.sum(VECTORS, stream="gradients", held=states)
    assert {type(rejection.error) for rejection in cohort.rejections} == {ReplicaError}
    lose(cohort, totals)
    with pytest.raises(OpeningError, match="the sum reached no client"):
        cohort.sum(VECTORS, stream="gradients", held=dict.fromkeys(range(5), b"dreams"))


def test_a_client_that_missed_a_step_does_not_give_the_sum_before_it(cohort: Simulation) -> None:
    """Neither request nor sum reached it, so that to its own knowledge the older one is the latest."""
    everybody = cohort.sum(VECTORS, stream="gradients")
    assert everybody.step == 0
    lose(cohort, lambda phase, recipient: recipient == 4)
    result = cohort.sum(VECTORS, stream="gradients")
    assert result.step == 1
    assert result.contributors == (0, 1, 2, 3)
    assert result.ring.tolist() == ring([0, 1, 2, 3])
    assert sorted(cohort.results()) == [0, 1, 2, 3]
    assert cohort.clients[4].result().step == 0
    lose(cohort, lambda phase, recipient: False)
    assert cohort.sum(VECTORS, stream="gradients").step == 2
    assert {found.step for found in cohort.results().values()} == {2}
    assert sorted(cohort.results()) == [0, 1, 2, 3, 4]
    # A new round counts from the beginning.
    cohort.open()
    assert cohort.sum(VECTORS, stream="gradients").step == 0
    assert len(cohort.results()) == 5


def test_a_client_that_does_not_contribute_is_held_to_what_the_others_know(cohort: Simulation) -> None:
    vectors = {member: VECTORS[member] for member in range(4)}
    same = dict.fromkeys(range(5), b"dreams")
    assert len(cohort.results()) == 0
    assert cohort.sum(vectors, stream="gradients", held=same).contributors == (0, 1, 2, 3)
    assert len(cohort.results()) == 5
    result = cohort.sum(vectors, stream="gradients", held=same | {4: b"other dreams"})
    assert result.ring.tolist() == ring([0, 1, 2, 3])
    assert sorted(cohort.results()) == [0, 1, 2, 3]
    (rejection,) = cohort.rejections
    assert rejection.envelope.recipient == 4
    assert isinstance(rejection.error, ReplicaError)
