"""A cohort in one process, over networks that lose, delay, reorder, repeat and damage messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
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
    MessageError,
    Network,
    OpeningError,
    Phase,
    PhaseError,
    ProtocolError,
    Roster,
    RosterError,
    RoundLog,
    SenderError,
    ShareError,
    Simulation,
    StepError,
    SumResult,
    Terms,
    TooFewSurvivorsError,
    available_protocols,
    make_protocol,
    wire,
)
from protocols.driver import Envelope

Vectors = dict[int, np.ndarray]
Start = Callable[..., Simulation]

VECTORS: Vectors = {member: np.array([0.5, -0.25, 0.125]) * (member + 1) / 5 for member in range(5)}


def total(vectors: Vectors) -> list[int]:
    """The sum in units of 2^-28, to which a bound of 1 is scaled for five clients."""
    return [round(sum(round(float(v[at]) * 2**28) for v in vectors.values())) % 2**32 for at in range(3)]


def cases() -> list[Any]:
    """Every protocol with and without ``active``; where a key holder opens sums it makes no difference, so one will do.

    The others with it are among the slow tests.
    """
    protocols = {name: make_protocol(name) for name in available_protocols()}
    alike = [name for name, one in protocols.items() if one.has_authority or one.opened_by == "clients"][1:]
    return [
        pytest.param((name, active), marks=[pytest.mark.slow] if active and name in alike else [])
        for name in protocols
        for active in (False, True)
    ]


@pytest.fixture(params=cases(), ids=str)
def start(request: pytest.FixtureRequest) -> Start:
    """Five clients with an open round; one may be missing."""
    name, active = request.param

    def make(network: Network | None = None, *, opened: bool = True, **changes: Any) -> Simulation:
        arguments = {"streams": {"gradients": FixedPoint(clip=1.0, clients=5)}, "steps": 20, "active": active}
        cohort = Simulation(make_protocol(name), range(5), terms=Terms(**(arguments | changes)), network=network)
        if opened:
            cohort.open()
        return cohort

    return make


class Wild(Network):
    """Loses, repeats, damages and reorders messages, and delivers some in a later phase; all from a seed."""

    def __init__(self, seed: int, *, rate: float) -> None:
        self._generator = np.random.default_rng(seed)
        self._rate = rate
        self._late: list[Envelope] = []

    def _happens(self) -> bool:
        return bool(self._generator.random() < self._rate)

    def _damaged(self, message: bytes) -> bytes:
        at = int(self._generator.integers(len(message)))
        if self._happens():
            return message[:at]
        return message[:at] + bytes([message[at] ^ int(self._generator.integers(1, 256))]) + message[at + 1 :]

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        arriving, self._late = self._late, []
        for envelope in envelopes:
            if self._happens():
                continue
            if self._happens():
                self._late.append(envelope)
                continue
            if self._happens():
                arriving.append(envelope)
            if self._happens():
                arriving.append(envelope._replace(message=self._damaged(envelope.message)))
            arriving.append(envelope)
        # Late messages go wherever their recipient is: to the server in its turn, to members in theirs.
        to_server = any(envelope.recipient == SERVER for envelope in envelopes)
        self._late += [e for e in arriving if (e.recipient == SERVER) != to_server]
        arriving = [e for e in arriving if (e.recipient == SERVER) == to_server]
        return [arriving[int(at)] for at in self._generator.permutation(len(arriving))]


def attempt(call: Callable[[], Any]) -> Any:
    """What a call returns, or the deliberate error that it raises."""
    try:
        return call()
    except ProtocolError as error:
        return error


@pytest.mark.parametrize("rate", [0.01, pytest.param(0.03, marks=pytest.mark.slow), 0.05])
def test_a_wild_network_ends_every_step_with_the_right_sum_or_a_named_error(start: Start, rate: float) -> None:
    """Twelve rounds of six steps over other seeds; what goes wrong is recorded and never raised as anything else."""
    outcomes: list[Any] = []
    for seed in range(12):
        cohort = start(Wild(seed, rate=rate), opened=False, dropout=0.5, corruption=0.1)
        if failure := attempt(cohort.open):
            outcomes.append(failure)
            continue
        for step in range(6):
            vectors = {member: vector * (step + 1) / 6 for member, vector in VECTORS.items()}
            outcome = attempt(lambda: cohort.sum(vectors, stream="gradients"))  # noqa: B023
            outcomes.append(outcome)
            if isinstance(outcome, SumResult):
                assert outcome.ring.tolist() == total({member: vectors[member] for member in outcome.contributors})
                assert len(outcome.contributors) >= 3
        assert all(isinstance(rejection.error, ProtocolError) for rejection in cohort.rejections)
        assert all(type(rejection.error) is not ProtocolError for rejection in cohort.rejections)
    # A key authority may not hear of a sum, or not be heard.
    named = {SumResult, TooFewSurvivorsError, *([OpeningError] if cohort.authority is not None else [])}
    assert {type(outcome) for outcome in outcomes} <= named
    sums = sum(isinstance(outcome, SumResult) for outcome in outcomes)
    assert sums >= 10
    assert rate < 0.05 or sums < len(outcomes)


class Held(Network):
    """What members send in one phase arrives in the next one as well as, or instead of, in its own."""

    def __init__(self, phase: Phase, members: set[int]) -> None:
        self.phase, self.members, self.held = phase, members, list[Envelope]()

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        if not any(envelope.recipient == SERVER for envelope in envelopes):
            return envelopes
        arriving, self.held = [*self.held, *envelopes], []
        if phase is self.phase:
            self.held = [envelope for envelope in arriving if envelope.sender in self.members]
            arriving = [envelope for envelope in arriving if envelope.sender not in self.members]
        return arriving


def test_a_vector_that_comes_too_late_is_refused_and_its_sender_is_back_for_the_next_step(start: Start) -> None:
    network = Held(Phase.COLLECT, {2})
    cohort = start(network)
    left = {member: vector for member, vector in VECTORS.items() if member != 2}
    result = cohort.sum(VECTORS, stream="gradients")
    assert result.ring.tolist() == total(left)
    network.members = set()
    result = cohort.sum(VECTORS, stream="gradients")
    assert result.ring.tolist() == total(VECTORS)
    (late,) = [r for r in cohort.rejections if r.envelope.sender == 2 and r.envelope.recipient == SERVER]
    assert isinstance(late.error, StepError | PhaseError | MessageError)


class Reversed(Network):
    """Everything arrives in the opposite order."""

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        return envelopes[::-1]


def test_the_order_of_arrival_changes_nothing(start: Start) -> None:
    cohort = start(Reversed())
    result = cohort.sum(VECTORS, stream="gradients")
    assert result.ring.tolist() == total(VECTORS)
    assert result.contributors == (0, 1, 2, 3, 4)
    assert cohort.rejections == []


class Damaging(Network):
    """One byte of one member's contribution changes on the way."""

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        if phase is not Phase.COLLECT:
            return envelopes
        return [
            envelope._replace(message=envelope.message[:-18] + b"\0\0" + envelope.message[-16:])
            if envelope.sender == 1
            else envelope
            for envelope in envelopes
        ]


def test_a_damaged_vector_is_a_lost_one(start: Start) -> None:
    """Unless its two bytes were zero already, which the vector makes impossible without masks.

    With masks they are zero with probability 2^-16; the checksum then matches, and nothing was damaged.
    """
    cohort = start(Damaging())
    result = cohort.sum(VECTORS, stream="gradients")
    left = {member: VECTORS[member] for member in result.contributors}
    assert result.ring.tolist() == total(left)
    assert len(cohort.rejections) == 5 - len(left) <= 1
    for rejection in cohort.rejections:
        assert rejection.envelope.sender == 1
        assert isinstance(rejection.error, MessageError)
        assert "checksum" in str(rejection.error)


class Posing(Network):
    """One member's messages are also delivered in its neighbour's name, before the neighbour's own."""

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        forged = [e._replace(sender=3) for e in envelopes if e.sender == 2]
        return [*forged, *envelopes]


def test_a_message_in_anothers_name_is_refused_and_the_others_own_is_taken(start: Start) -> None:
    cohort = start(Posing())
    assert cohort.sum(VECTORS, stream="gradients").ring.tolist() == total(VECTORS)
    assert cohort.rejections
    assert {type(r.error) for r in cohort.rejections} == {SenderError}
    assert {r.envelope.sender for r in cohort.rejections} == {3}


def test_dropouts_are_told_the_phase_the_step_and_the_member(start: Start) -> None:
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


def test_members_without_a_vector_do_not_contribute(start: Start) -> None:
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


def test_the_steps_that_are_left_are_counted(start: Start) -> None:
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


def test_a_new_round_ends_the_one_before_it(start: Start) -> None:
    cohort = start()
    before = cohort.server
    cohort.open()
    assert before is not None
    assert before.phase is Phase.CLOSED
    assert cohort.sum(VECTORS, stream="gradients").ring.tolist() == total(VECTORS)


def test_a_vector_of_a_stranger_is_refused_before_anybody_is_asked(start: Start) -> None:
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


def test_what_vectors_answer_reaches_both_sides(start: Start) -> None:
    cohort = start()
    for context in (b"", b"dreams", bytes(10_000)):
        assert cohort.sum(VECTORS, stream="gradients", context=context).ring.tolist() == total(VECTORS)


def test_a_sum_that_failed_while_it_was_opened_can_be_repeated_over_the_same_members(start: Start) -> None:
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


# Clients that lie in well-formed messages: what a server finds out, and what becomes of the sum


class Lying(Network):
    """Some members' messages of one kind have other fields than they were sent with."""

    def __init__(self, kind: type[wire.Message], members: set[int], change: Callable[[Any], dict[str, Any]]) -> None:
        self.kind, self.members, self.change = kind, members, change

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        return [self._changed(envelope) for envelope in envelopes]

    def _changed(self, envelope: Envelope) -> Envelope:
        message = wire.decode(envelope.message, wire.Message, limit=len(envelope.message))
        if not isinstance(message, self.kind) or envelope.sender not in self.members:
            return envelope
        return envelope._replace(message=wire.encode(msgspec.structs.replace(message, **self.change(message))))


@pytest.fixture(params=[False, True], ids=["passive", "active"])
def masked(request: pytest.FixtureRequest) -> Start:
    """Five clients under masks; one may be missing, and one more with ``dropout=0.5``."""

    def make(network: Network, **changes: Any) -> Simulation:
        streams = {"gradients": FixedPoint(clip=1.0, clients=5)}
        terms = Terms(streams=streams, steps=3, active=request.param, **({"corruption": 0.0} | changes))
        cohort = Simulation(make_protocol("masked"), range(5), terms=terms, network=network)
        cohort.open()
        return cohort

    return make


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda shares: {"parcels": shares.parcels[:-1]}, CohortError, "exactly its neighbours"),
        (lambda shares: {"parcels": shares.parcels[::-1]}, CohortError, "exactly its neighbours"),
        (
            lambda shares: {"parcels": [wire.Parcel(p.peer, p.ciphertext + b"\0") for p in shares.parcels]},
            MessageError,
            "another number of steps",
        ),
        (lambda shares: {"commitments": shares.commitments[:-1]}, MessageError, "committed to another number of steps"),
        (lambda shares: {"backups": shares.backups[:-1]}, MessageError, "backups of another shape"),
        (lambda shares: {"backups": [b"", *shares.backups[1:]]}, MessageError, "backups of another shape"),
    ],
)
def test_shares_of_another_shape_are_refused_and_their_maker_is_out_of_the_round(
    masked: Start, change: Callable[[Any], dict[str, Any]], error: type[ProtocolError], text: str
) -> None:
    cohort = masked(Lying(wire.Shares, {2}, change))
    (rejection,) = cohort.rejections
    assert type(rejection.error) is error
    assert text in str(rejection.error)
    assert rejection.envelope.sender == 2
    result = cohort.sum(VECTORS, stream="gradients")
    assert result.contributors == (0, 1, 3, 4)
    assert result.ring.tolist() == total({member: VECTORS[member] for member in result.contributors})


def test_shares_that_do_not_decrypt_put_those_who_got_them_out_of_the_round(masked: Start) -> None:
    """Only they can tell: their machines refuse the inbox, and too few are left."""

    def garbled(shares: Any) -> dict[str, Any]:
        return {"parcels": [wire.Parcel(p.peer, bytes(len(p.ciphertext))) for p in shares.parcels]}

    cohort = masked(Lying(wire.Shares, {2}, garbled))
    assert {rejection.envelope.recipient for rejection in cohort.rejections} == {0, 1, 3, 4}
    assert {type(rejection.error) for rejection in cohort.rejections} == {ShareError}
    with pytest.raises(TooFewSurvivorsError):
        cohort.sum(VECTORS, stream="gradients")


def garbled(openings: Any) -> dict[str, Any]:
    """Every share of an answer is another one."""
    return {"shares": bytes(byte ^ 1 for byte in openings.shares)}


def no_elements(openings: Any) -> dict[str, Any]:
    """Every share of an answer lies beyond the field."""
    return {"shares": b"\xff" * len(openings.shares)}


@pytest.mark.parametrize("change", [garbled, no_elements])
@pytest.mark.parametrize("liar", range(5))
def test_one_wrong_answer_among_more_than_enough_does_not_change_the_sum(
    masked: Start, change: Callable[[Any], dict[str, Any]], liar: int
) -> None:
    """Three are needed of five answers, and then of four, which open a dropout's backup as well."""
    cohort = masked(Lying(wire.Openings, {liar}, change), dropout=0.5)
    for vectors in (VECTORS, {member: VECTORS[member] for member in range(5) if member != (liar + 1) % 5}):
        result = cohort.sum(vectors, stream="gradients")
        assert result.ring.tolist() == total(vectors)
    assert cohort.rejections == []


@pytest.mark.parametrize("change", [garbled, no_elements])
@pytest.mark.parametrize("liars", [{0}, {1, 2}])
def test_wrong_answers_that_cannot_be_told_apart_end_the_step_by_name(
    masked: Start, change: Callable[[Any], dict[str, Any]], liars: set[int]
) -> None:
    """One among just enough, or two among one more: a named error, of which the next step is free."""
    network = Lying(wire.Openings, liars, change)
    cohort = masked(network)
    everybody = tuple(range(5)) if len(liars) == 2 else (0, 1, 2, 3)
    with pytest.raises(ShareError, match=r"member \d's (self-mask|backup)") as caught:
        cohort.sum({member: VECTORS[member] for member in everybody}, stream="gradients")
    assert caught.value.asked_to_open == everybody
    assert {type(rejection.error) for rejection in cohort.rejections} == {TooFewSurvivorsError}
    network.members = set()
    assert cohort.sum(VECTORS, stream="gradients").ring.tolist() == total(VECTORS)


def test_a_wrong_answer_about_a_member_that_vanished_ends_the_step_by_name(masked: Start) -> None:
    """Its share stands last in every answer, and nobody's is to spare."""

    def last_garbled(openings: Any) -> dict[str, Any]:
        return {"shares": openings.shares[:-32] + bytes(byte ^ 1 for byte in openings.shares[-32:])}

    cohort = masked(Lying(wire.Openings, {1}, last_garbled))
    with pytest.raises(ShareError, match="member 4's backup does not fit") as caught:
        cohort.sum({member: VECTORS[member] for member in range(4)}, stream="gradients")
    assert caught.value.asked_to_open == (0, 1, 2, 3)


def test_an_answer_of_another_length_is_none(masked: Start) -> None:
    cohort = masked(Lying(wire.Openings, {4}, lambda openings: {"shares": openings.shares[:-32]}))
    assert cohort.sum(VECTORS, stream="gradients").ring.tolist() == total(VECTORS)
    (rejection,) = cohort.rejections
    assert isinstance(rejection.error, MessageError)
    assert "another number of shares" in str(rejection.error)


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
