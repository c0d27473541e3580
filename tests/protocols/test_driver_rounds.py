"""A cohort's rounds and steps: who contributes, what is counted, what can be repeated, what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from protocols import (
    SERVER,
    CohortError,
    ContributionError,
    Cost,
    Credentials,
    Dropouts,
    FixedPoint,
    Identity,
    Network,
    Phase,
    PhaseError,
    ProtocolError,
    Roster,
    RosterError,
    RoundLog,
    Simulation,
    StepError,
    Terms,
    TooFewSurvivorsError,
    make_protocol,
)
from protocols.driver import Envelope

Vectors = dict[int, np.ndarray]
Start = Callable[..., Simulation]
Total = Callable[[Vectors], list[int]]

VECTORS: Vectors = {member: np.array([0.5, -0.25, 0.125]) * (member + 1) / 5 for member in range(5)}


def test_dropouts_are_told_the_phase_the_step_and_the_member(start: Start, total: Total) -> None:
    asked: list[tuple[Phase, int, int]] = []

    def vanishes(phase: Phase, step: int, member: int) -> bool:
        asked.append((phase, step, member))
        return phase is Phase.COLLECT and member == step

    cohort = start(Dropouts(vanishes))
    for step in range(3):
        result = cohort.sum(VECTORS, stream="gradients")
        assert set(result.contributors) == set(range(5)) - {step}
        assert result.ring.tolist() == total({m: VECTORS[m] for m in result.contributors})
    collected = [(step, member) for phase, step, member in asked if phase is Phase.COLLECT]
    assert collected == [(step, member) for step in range(3) for member in range(5)]
    assert all((phase in (Phase.ADVERTISE, Phase.SHARE)) == (step == -1) for phase, step, member in asked)


def test_members_without_a_vector_do_not_contribute(start: Start, total: Total) -> None:
    cohort = start()
    vectors = {member: VECTORS[member] for member in (0, 2, 3, 4)}
    result = cohort.sum(vectors, stream="gradients")
    assert result.contributors == (0, 2, 3, 4)
    assert result.ring.tolist() == total(vectors)
    with pytest.raises(TooFewSurvivorsError):
        cohort.sum({}, stream="gradients")
    assert cohort.sum(VECTORS, stream="gradients").ring.tolist() == total(VECTORS)


def test_a_member_that_never_got_the_request_is_recorded(start: Start) -> None:
    class Unheard(Network):
        def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
            return [e for e in envelopes if not (phase is Phase.COLLECT and e.recipient == 4)]

    cohort = start(Unheard())
    result = cohort.sum(VECTORS, stream="gradients")
    assert result.contributors == (0, 1, 2, 3)
    (rejection,) = cohort.rejections
    assert rejection.envelope == Envelope(4, SERVER, b"")
    assert isinstance(rejection.error, PhaseError)


def test_the_steps_that_are_left_are_counted(start: Start, total: Total) -> None:
    cohort = start(steps=3, opened=False)
    assert cohort.steps_left == 0
    cohort.open()
    for left in (2, 1):
        cohort.sum(VECTORS, stream="gradients")
        assert cohort.steps_left == left
    with pytest.raises(ContributionError):
        cohort.sum({0: np.array([np.nan])}, stream="gradients")
    assert cohort.steps_left == 0
    with pytest.raises(StepError, match="all 3 steps"):
        cohort.sum(VECTORS, stream="gradients")
    cohort.open()
    assert cohort.steps_left == 3
    assert cohort.sum(VECTORS, stream="gradients").ring.tolist() == total(VECTORS)
    cohort.close()
    assert cohort.steps_left == 0


def test_there_is_no_sum_without_a_round(start: Start) -> None:
    cohort = start(opened=False)
    with pytest.raises(PhaseError, match="call open"):
        cohort.sum(VECTORS, stream="gradients")
    cohort.open()
    clients, server = dict(cohort.clients), cohort.server
    cohort.close()
    with pytest.raises(PhaseError, match="call open"):
        cohort.sum(VECTORS, stream="gradients")
    assert cohort.clients == {}
    assert cohort.server is None
    assert server is not None
    assert server.phase is Phase.CLOSED
    for client in clients.values():
        with pytest.raises(PhaseError):
            client.contribute(VECTORS[0], stream="gradients")


def test_a_new_round_ends_the_one_before_it(start: Start, total: Total) -> None:
    cohort = start()
    before = cohort.server
    cohort.open()
    assert before is not None
    assert before.phase is Phase.CLOSED
    assert cohort.sum(VECTORS, stream="gradients").ring.tolist() == total(VECTORS)


def test_a_vector_of_a_stranger_is_refused_before_anybody_is_asked(start: Start, total: Total) -> None:
    cohort = start()
    with pytest.raises(CohortError, match=r"vectors of \[7, 9\], who are no members"):
        cohort.sum(VECTORS | {9: VECTORS[0], 7: VECTORS[0]}, stream="gradients")
    assert cohort.steps_left == 20
    assert cohort.sum(VECTORS, stream="gradients").ring.tolist() == total(VECTORS)


def test_a_weight_that_is_missing_ends_the_step(start: Start) -> None:
    cohort = start(streams={"gradients": FixedPoint(clip=1.0, clients=5, max_weight=9)})
    with pytest.raises(ContributionError, match="client 3: the weight is not an integer"):
        cohort.sum(VECTORS, stream="gradients", weights={0: 1, 1: 1, 2: 1, 4: 1})
    assert cohort.sum(VECTORS, stream="gradients", weights=dict.fromkeys(range(5), 2)).weight == 10


def test_what_vectors_answer_reaches_both_sides(start: Start, total: Total) -> None:
    cohort = start()
    for context in (b"", b"dreams", bytes(10_000)):
        assert cohort.sum(VECTORS, stream="gradients", context=context).ring.tolist() == total(VECTORS)


def test_a_sum_that_failed_while_it_was_opened_can_be_repeated_over_the_same_members(
    start: Start, total: Total
) -> None:
    """Where there is such a phase: the error names them, and the repetition is over them or not at all."""
    lost = {3, 4}
    network = Dropouts(lambda phase, step, member: phase is Phase.OPEN and step == 0 and member in lost)
    cohort = start(network)
    try:
        cohort.sum({m: v for m, v in VECTORS.items() if m != 0}, stream="gradients")
    except TooFewSurvivorsError as error:
        chosen = error.asked_to_open
        assert chosen == (1, 2, 3, 4)
    else:
        assert not any(r.error for r in cohort.rejections)
        chosen = (1, 2, 3, 4)
    result = cohort.sum(VECTORS, stream="gradients", exactly=chosen)
    assert result.contributors == chosen
    assert result.ring.tolist() == total({member: VECTORS[member] for member in chosen})
    with pytest.raises(TooFewSurvivorsError) as caught:
        cohort.sum({m: VECTORS[m] for m in (0, 1, 2, 3)}, stream="gradients", exactly=chosen)
    assert caught.value.asked_to_open is None


def test_a_repetition_over_members_that_are_out_of_the_round_ends_it(start: Start) -> None:
    cohort = start(Dropouts(lambda phase, step, member: phase is Phase.ADVERTISE and member == 4))
    everybody = len(cohort.sum(VECTORS, stream="gradients").contributors) == 5
    chosen = (1, 2, 3, 9 if everybody else 4)
    with pytest.raises(TooFewSurvivorsError) as caught:
        cohort.sum(VECTORS, stream="gradients", exactly=chosen)
    assert caught.value.asked_to_open == chosen
    assert cohort.server is None
    with pytest.raises(PhaseError):
        cohort.sum(VECTORS, stream="gradients")


def test_every_byte_that_was_delivered_is_counted(start: Start) -> None:
    class Scales(Network):
        def __init__(self) -> None:
            self.weighed: dict[tuple[int, str], Cost] = {}

        def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
            in_setup = phase in (Phase.NEW, Phase.ADVERTISE, Phase.SHARE) or self.opening
            name = "setup" if in_setup else "step"
            for envelope in envelopes:
                self.weighed.setdefault((envelope.sender, name), Cost()).sent += len(envelope.message)
                self.weighed.setdefault((envelope.recipient, name), Cost()).received += len(envelope.message)
            return envelopes

    network = Scales()
    network.opening = True  # type: ignore[attr-defined]
    cohort = start(network)
    network.opening = False  # type: ignore[attr-defined]
    for _ in range(2):
        cohort.sum(VECTORS, stream="gradients")
    for (party, name), cost in network.weighed.items():
        found = cohort.costs.of(party, name)
        assert (found.sent, found.received) == (cost.sent, cost.received), (party, name)
    assert cohort.costs.of(SERVER, "step").sent > 0
    assert cohort.costs.mean_client("step").sent >= 2 * 12


def test_a_damaged_message_costs_what_arrived_of_it(start: Start) -> None:
    class Longer(Network):
        def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
            if phase is not Phase.COLLECT:
                return envelopes
            return [e._replace(message=e.message + bytes(1000)) if e.sender == 0 else e for e in envelopes]

    cohort = start(Longer())
    plain = start()
    for simulation in (cohort, plain):
        simulation.sum(VECTORS, stream="gradients")
    assert 0 not in cohort.sum(VECTORS, stream="gradients").contributors
    sent = cohort.costs.of(0, "step").sent
    assert sent > 2000
    assert plain.costs.of(0, "step").sent < sent - 1000


@pytest.mark.parametrize("members", [[1, 0], [0, 0], [-1, 0]])
def test_members_that_cannot_be_are_refused(members: list[int]) -> None:
    terms = Terms(streams={"gradients": FixedPoint(clip=1.0, clients=5)}, steps=1)
    with pytest.raises(ProtocolError):
        Simulation(make_protocol("plain"), members, terms=terms)


def test_everybody_in_a_cohort_has_to_be_on_the_roster_under_its_own_key() -> None:
    terms = Terms(streams={"gradients": FixedPoint(clip=1.0, clients=5)}, steps=1)
    mine, other = Identity.generate(), Identity.generate()
    roster = Roster({0: mine.public_key, 1: other.public_key})
    protocol = make_protocol("masked")
    with pytest.raises(RosterError, match="member 2 of the cohort is not on the roster"):
        protocol.server([0, 1, 2], terms=terms, round_id=bytes(16), roster=roster)
    for member in (1, 2):
        credentials = Credentials(identity=mine, roster=roster, rounds=RoundLog())
        with pytest.raises(RosterError, match=f"member {member} is not on its own roster"):
            protocol.client(member, terms=terms, credentials=credentials)
    with pytest.raises(RosterError, match="credentials is None"):
        protocol.client(0, terms=terms)
    with pytest.raises(RosterError, match="roster is None"):
        protocol.server([0, 1], terms=terms, round_id=bytes(16))
