"""What every protocol has to do when members vanish: sum the survivors, or give up without a trace."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from protocols import (
    AUTHORITY,
    SERVER,
    Dropouts,
    FixedPoint,
    Phase,
    PhaseError,
    ProtocolError,
    Simulation,
    SumProtocol,
    TooFewSurvivorsError,
)
from protocols.driver import Envelope

Simulate = Callable[..., Simulation]
ExactSum = Callable[..., tuple[list[int], list[float]]]
Drawn = Callable[..., dict[int, np.ndarray]]

PHASES = [Phase.ADVERTISE, Phase.SHARE, Phase.COLLECT, Phase.VOTE, Phase.OPEN]
SET_UP = {Phase.ADVERTISE, Phase.SHARE}
BEFORE_THE_VECTOR = {*SET_UP, Phase.COLLECT}


class Lossy(Dropouts):
    """Loses what some members send in some phases, and remembers what else went by."""

    def __init__(self) -> None:
        super().__init__(lambda phase, step, member: member in self.lost.get(phase, ()))
        self.lost: dict[Phase, set[int]] = {}
        self.carried: list[tuple[Phase, Envelope]] = []

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        arriving = super().carry(envelopes, phase=phase)
        self.carried += [(phase, envelope) for envelope in arriving]
        return arriving

    @property
    def seen(self) -> set[Phase]:
        """Phases in which members spoke: not every protocol has them all."""
        return {phase for phase, envelope in self.carried if envelope.recipient == SERVER and envelope.sender >= 0}


def help_to_open(network: Lossy) -> list[Envelope]:
    """What members sent to open a sum."""
    return [e for phase, e in network.carried if phase is Phase.OPEN and e.recipient == SERVER]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("size", [4, 10])
def test_the_survivors_sum_is_exact_whichever_phase_members_vanish_in(
    simulate: Simulate, exact_sum: ExactSum, drawn: Drawn, phase: Phase, size: int
) -> None:
    """As many vanish as the terms allow: 30 percent. Who vanishes after its vector has arrived is in the sum."""
    network, encoding = Lossy(), FixedPoint(clip=1.0, clients=size)
    gone = set(range(size - size * 3 // 10, size))
    if phase in SET_UP:
        network.lost[phase] = gone
    cohort = simulate(range(size), network=network)
    network.lost[phase] = gone
    vectors = drawn(range(size), 7)
    result = cohort.sum(vectors, stream="gradients")
    out = gone if phase in network.seen & BEFORE_THE_VECTOR else set()
    assert result.contributors == tuple(member for member in range(size) if member not in out)
    left = {member: vectors[member] for member in result.contributors}
    assert result.ring.tolist() == exact_sum(left, encoding)[0]
    # Whoever vanished from the step is back for the next one; whoever vanished from the set-up is not.
    network.lost.clear()
    vectors = drawn(range(size), 7, seed=1)
    result = cohort.sum(vectors, stream="gradients")
    out = gone if phase in network.seen & SET_UP else set()
    assert result.contributors == tuple(member for member in range(size) if member not in out)
    assert result.ring.tolist() == exact_sum({m: vectors[m] for m in result.contributors}, encoding)[0]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
@pytest.mark.parametrize(
    "size",
    [2, 3, 10, 20, *(pytest.param(size, marks=pytest.mark.slow) for size in (50, 100, 200))],
)
def test_dropouts_add_up_over_the_phases_of_a_round(
    simulate: Simulate, exact_sum: ExactSum, drawn: Drawn, size: int, share: float
) -> None:
    """The allowed share vanishes spread over all phases, other members at each step.

    A tenth may be corrupt, so that the neighbour graph of large cohorts is sparse where a protocol has one.
    """
    generator, network = np.random.default_rng(size), Lossy()
    budget = int(share * size + 1e-9)
    order = [int(member) for member in generator.permutation(size)]
    early, order = order[: budget // 3], order[budget // 3 :]
    network.lost = {Phase.ADVERTISE: set(early[::2]), Phase.SHARE: set(early[1::2])}
    cohort = simulate(range(size), network=network, dropout=share, corruption=0.1, steps=4)
    out = {member for phase in network.seen & SET_UP for member in network.lost[phase]}
    for step in range(3 if size < 100 else 1):
        generator.shuffle(order)
        late = order[: budget - len(early)]
        network.lost = dict(
            zip((Phase.COLLECT, Phase.VOTE, Phase.OPEN), (set(late[at::3]) for at in range(3)), strict=True)
        )
        vectors = drawn(range(size), 4, seed=step)
        result = cohort.sum(vectors, stream="gradients")
        expected = set(range(size)) - out - network.lost[Phase.COLLECT]
        assert result.contributors == tuple(sorted(expected))
        left = {member: vectors[member] for member in expected}
        assert result.ring.tolist() == exact_sum(left, FixedPoint(clip=1.0, clients=size))[0]


@pytest.mark.parametrize("phase", [Phase.COLLECT, Phase.VOTE, Phase.OPEN])
@pytest.mark.parametrize("size", [2, 4, 10])
def test_below_the_threshold_everybody_ends_with_the_same_error_and_the_next_step_works(
    simulate: Simulate, exact_sum: ExactSum, drawn: Drawn, phase: Phase, size: int
) -> None:
    network = Lossy()
    cohort = simulate(range(size), network=network)
    cohort.sum(drawn(range(size), 3), stream="gradients")
    if phase not in network.seen:
        phase = Phase.COLLECT
    network.lost[phase] = set(range(size * 3 // 10 + 1))
    network.carried.clear()
    with pytest.raises(TooFewSurvivorsError, match="members are left"):
        cohort.sum(drawn(range(size), 3), stream="gradients")
    assert cohort.server is not None
    with pytest.raises(TooFewSurvivorsError):
        cohort.server.result()
    told = {r.envelope.recipient for r in cohort.rejections if isinstance(r.error, TooFewSurvivorsError)}
    assert told == set(range(size))
    assert len(cohort.rejections) == size
    if phase is not Phase.OPEN:
        assert help_to_open(network) == []
    for client in cohort.clients.values():
        with pytest.raises(PhaseError):
            client.contribute(np.zeros(3), stream="gradients")
    network.lost.clear()
    vectors = drawn(range(size), 3, seed=1)
    result = cohort.sum(vectors, stream="gradients")
    assert result.ring.tolist() == exact_sum(vectors, FixedPoint(clip=1.0, clients=size))[0]


@pytest.mark.parametrize("phase", [Phase.ADVERTISE, Phase.SHARE])
def test_a_set_up_below_the_threshold_ends_the_round_for_everybody(
    simulate: Simulate, exact_sum: ExactSum, drawn: Drawn, protocol: SumProtocol, phase: Phase
) -> None:
    """Protocols whose members say nothing during the set-up lose nothing there, and go on."""
    network = Lossy()
    cohort = simulate(range(10), network=network)
    if phase not in network.seen:
        assert not network.seen & SET_UP or protocol.has_authority
        return
    network.lost[phase] = {0, 3, 6, 9}
    with pytest.raises(TooFewSurvivorsError, match="6 members are left, where 7 are needed"):
        cohort.open()
    assert cohort.server is not None
    assert cohort.server.phase is Phase.CLOSED
    told = {r.envelope.recipient for r in cohort.rejections if isinstance(r.error, TooFewSurvivorsError)}
    assert told == {*range(10), *([AUTHORITY] if protocol.has_authority else [])}
    for client in cohort.clients.values():
        with pytest.raises(PhaseError):
            client.contribute(np.zeros(3), stream="gradients")
    network.lost.clear()
    cohort.open()
    vectors = drawn(range(10), 3)
    result = cohort.sum(vectors, stream="gradients")
    assert result.ring.tolist() == exact_sum(vectors, FixedPoint(clip=1.0, clients=10))[0]


@pytest.mark.parametrize("phase", [Phase.COLLECT, Phase.VOTE, Phase.OPEN])
def test_a_step_that_was_given_up_opens_nothing_afterwards(simulate: Simulate, drawn: Drawn, phase: Phase) -> None:
    """The messages of a step that reached too few are played to the clients again: none is answered."""
    network = Lossy()
    cohort = simulate(range(4), network=network)
    cohort.sum(drawn(range(4), 3), stream="gradients")
    network.carried.clear()
    network.lost[phase if phase in network.seen else Phase.COLLECT] = {0, 1}
    with pytest.raises(TooFewSurvivorsError):
        cohort.sum(drawn(range(4), 3), stream="gradients")
    replayed = [envelope for _, envelope in network.carried if envelope.recipient != SERVER]
    assert {envelope.recipient for envelope in replayed} == {0, 1, 2, 3}
    for envelope in replayed:
        with pytest.raises(ProtocolError):
            cohort.clients[envelope.recipient].receive(envelope.message)
