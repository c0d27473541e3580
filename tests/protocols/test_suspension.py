"""Clients whose process ends after each message: all are sealed and resumed between any two messages of a round."""

from __future__ import annotations

import numpy as np
import pytest

from protocols import (
    AlreadyAnsweredError,
    Credentials,
    Dropouts,
    Envelope,
    FixedPoint,
    Identity,
    MessageError,
    Network,
    Phase,
    PhaseError,
    Roster,
    RosterError,
    RoundLog,
    Simulation,
    SumClient,
    Terms,
    make_protocol,
    wire,
)

KEY = bytes(range(32))
STREAM = {"update": FixedPoint(clip=2.0, clients=4, max_weight=9)}
CASES = [("plain", False), ("masked", False), ("masked", True), ("bfv", False), ("ckks", False)]
VECTORS = {member: np.linspace(-1, member / 4, 5) for member in range(4)}
WEIGHTS = {member: member + 1 for member in range(4)}


class Suspending(Dropouts):
    """Takes every client apart and puts it together again, whenever messages are on their way."""

    def __init__(self, name: str, terms: Terms, gone: tuple[int, int] = (-1, -1)) -> None:
        super().__init__(lambda phase, step, member: phase is Phase.COLLECT and (step, member) == gone)
        self.protocol, self.terms = make_protocol(name), terms
        self.simulation: Simulation | None = None
        self.times = 0

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        assert self.simulation is not None
        for member, client in self.simulation.clients.items():
            try:
                sealed = self.protocol.suspend_client(client, KEY)
            except PhaseError:
                continue  # nothing has been offered to it yet
            credentials = self.simulation._credentials.get(member)
            self.simulation.clients[member] = self.protocol.resume_client(
                sealed, KEY, terms=self.terms, credentials=credentials
            )
            self.times += 1
        return super().carry(envelopes, phase=phase)


def cohort(name: str, active: bool, gone: tuple[int, int] = (-1, -1)) -> tuple[Simulation, Suspending]:
    terms = Terms(streams=STREAM, steps=3, active=active, dropout=0.25, corruption=0.25)
    network = Suspending(name, terms, gone)
    simulation = Simulation(make_protocol(name), range(4), terms=terms, network=network)
    network.simulation = simulation
    simulation.open()
    return simulation, network


@pytest.mark.parametrize(("name", "active"), CASES)
def test_sums_are_the_same_when_every_client_is_suspended_between_all_messages(name: str, active: bool) -> None:
    simulation, network = cohort(name, active, gone=(1, 2))
    plain = Simulation(make_protocol("plain"), range(4), terms=Terms(streams=STREAM, steps=3, dropout=0.25))
    plain.open()
    for step in range(3):
        there = {member: vector + step for member, vector in VECTORS.items() if (step, member) != (1, 2)}
        expected = plain.sum(there, stream="update", weights=WEIGHTS)
        found = simulation.sum(
            {member: vector + step for member, vector in VECTORS.items()}, stream="update", weights=WEIGHTS
        )
        assert np.array_equal(found.ring, expected.ring)
        assert found.contributors == expected.contributors
    assert network.times > 4 * 6
    assert not simulation.rejections


def sealed(simulation: Simulation, name: str) -> bytes:
    return make_protocol(name).suspend_client(simulation.clients[0], KEY)


@pytest.mark.parametrize(("name", "active"), CASES)
def test_a_suspended_client_is_closed_and_its_state_needs_the_key_and_the_terms(name: str, active: bool) -> None:
    simulation, network = cohort(name, active)
    protocol, credentials = make_protocol(name), simulation._credentials.get(0)
    state = sealed(simulation, name)
    with pytest.raises(PhaseError):
        simulation.clients[0].contribute(VECTORS[0], stream="update", weight=1)
    with pytest.raises(MessageError, match="does not decrypt"):
        protocol.resume_client(state, bytes(32), terms=network.terms, credentials=credentials)
    other = Terms(streams=STREAM, steps=4, active=active, dropout=0.25, corruption=0.25)
    with pytest.raises(MessageError, match="does not decrypt"):
        protocol.resume_client(state, KEY, terms=other, credentials=credentials)
    with pytest.raises(MessageError, match="32 are needed"):
        protocol.suspend_client(simulation.clients[1], b"short")
    with pytest.raises(MessageError, match="does not decrypt"):
        protocol.restore_client(state, KEY, terms=network.terms, credentials=credentials)


@pytest.mark.parametrize("name", ["masked", "bfv"])
def test_another_roster_is_refused(name: str) -> None:
    simulation, network = cohort(name, False)
    state, mine = sealed(simulation, name), simulation._credentials[0]
    keys = {0: mine.identity.public_key, 1: Identity.generate().public_key}
    others = Credentials(identity=mine.identity, roster=Roster(keys), rounds=RoundLog())
    with pytest.raises(RosterError, match="another roster"):
        make_protocol(name).resume_client(state, KEY, terms=network.terms, credentials=others)


class _Recorder(Network):
    def __init__(self) -> None:
        self.requests: dict[int, bytes] = {}

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        if phase is Phase.OPEN:
            self.requests |= {one.recipient: one.message for one in envelopes if one.recipient >= 0}
        return envelopes


def test_a_client_that_has_opened_a_step_remembers_it_and_gives_no_second_share() -> None:
    terms, network = Terms(streams=STREAM, steps=3, dropout=0.25), _Recorder()
    simulation = Simulation(make_protocol("masked"), range(4), terms=terms, network=network)
    simulation.open()
    simulation.sum(VECTORS, stream="update", weights=WEIGHTS)
    protocol = make_protocol("masked")
    state = protocol.suspend_client(simulation.clients[0], KEY)
    client: SumClient = protocol.resume_client(state, KEY, terms=terms, credentials=simulation._credentials[0])
    asked = wire.decode(network.requests[0], wire.OpenRequest, limit=1000)
    with pytest.raises(AlreadyAnsweredError):
        client.receive(wire.encode(wire.OpenRequest(asked.round_id, asked.step, [3])))


@pytest.mark.parametrize("name", ["plain", "masked", "bfv"])
def test_there_is_nothing_to_suspend_outside_a_round(name: str) -> None:
    simulation, network = cohort(name, False)
    protocol = make_protocol(name)
    fresh = protocol.client(0, terms=network.terms, credentials=simulation._credentials.get(0))
    with pytest.raises(PhaseError, match="within a round"):
        protocol.suspend_client(fresh, KEY)


def test_clients_of_an_authority_are_not_suspended() -> None:
    terms = Terms(streams=STREAM, steps=1)
    simulation = Simulation(make_protocol("bfv-authority"), range(4), terms=terms)
    simulation.open()
    with pytest.raises(PhaseError, match="keep its process alive"):
        make_protocol("bfv-authority").suspend_client(simulation.clients[0], KEY)
