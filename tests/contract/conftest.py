"""Every registered protocol behind the same few fixtures: one that is registered tomorrow is held to all of this.

Each test runs once per protocol and per value of ``terms.active``. Where keys are others' than the server's that makes
no difference, so there one protocol is held to it always, and the others among the slow tests. Nothing here knows a
protocol by name.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest

from protocols import (
    AUTHORITY,
    Credentials,
    FixedPoint,
    Identity,
    Network,
    Phase,
    PhaseError,
    Roster,
    RoundLog,
    Simulation,
    SumAuthority,
    SumClient,
    SumProtocol,
    SumResult,
    SumServer,
    Terms,
    available_protocols,
    make_protocol,
)

Vectors = Mapping[int, np.ndarray]
Weights = Mapping[int, int]


def encrypted(name: str) -> bool:
    """Whether a key holder opens the sums: to those machines ``terms.active`` is nothing but another set of terms."""
    protocol = make_protocol(name)
    return protocol.has_authority or protocol.opened_by == "clients"


def cases() -> list[Any]:
    """Every protocol with and without ``active``; of those to which it is all the same, only one is not slow."""
    alike = [name for name in available_protocols() if encrypted(name)][1:]
    return [
        pytest.param((name, active), marks=[pytest.mark.slow] if active and name in alike else [])
        for name, active in itertools.product(available_protocols(), (False, True))
    ]


@pytest.fixture(params=cases(), ids=lambda case: f"{case[0]}-{'active' if case[1] else 'passive'}")
def case(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """A protocol's name, and whether its clients guard against an active server."""
    name, active = request.param
    return name, active


@pytest.fixture
def protocol(case: tuple[str, bool]) -> SumProtocol:
    return make_protocol(case[0])


@pytest.fixture
def make_terms(case: tuple[str, bool]) -> Callable[..., Terms]:
    """Terms for a cohort of some size, with one stream unless others are named."""

    def make(size: int, *, steps: int = 8, **changes: Any) -> Terms:
        changes.setdefault("streams", {"gradients": FixedPoint(clip=1.0, clients=size)})
        return Terms(steps=steps, active=case[1], **changes)

    return make


@pytest.fixture
def simulate(protocol: SumProtocol, make_terms: Callable[..., Terms]) -> Callable[..., Simulation]:
    """A cohort with an open round."""

    def make(members: Sequence[int], *, network: Network | None = None, **terms: Any) -> Simulation:
        simulation = Simulation(protocol, members, terms=make_terms(len(members), **terms), network=network)
        simulation.open()
        return simulation

    return make


@dataclass
class ByHand:
    """A cohort whose bytes the test carries itself."""

    protocol: SumProtocol
    terms: Terms
    members: list[int]
    credentials: dict[int, Credentials | None]
    roster: Roster | None
    server: SumServer
    clients: dict[int, SumClient]
    round_id: bytes = field(default_factory=bytes)
    authority: SumAuthority | None = None

    def party(self, number: int) -> SumClient | SumAuthority:
        """A member's machine, or the key authority's."""
        if number != AUTHORITY:
            return self.clients[number]
        assert self.authority is not None
        return self.authority

    def result(self) -> SumResult:
        """The latest sum, from whoever opens sums: the server, or all clients that have it, alike."""
        if self.protocol.opened_by == "server":
            return self.server.result()
        with pytest.raises(PhaseError) if self.server.failure is None else contextlib.nullcontext():
            self.server.result()
        found = []
        for client in self.clients.values():
            with contextlib.suppress(PhaseError):
                found.append(client.result())
        if not found:
            raise PhaseError("no client has a sum")
        assert all(other.ring.tolist() == found[0].ring.tolist() for other in found)
        return found[0]

    def settle(self, outbox: dict[int, bytes], *, silent: Sequence[int] = ()) -> None:
        """Carry messages back and forth until the server is READY or CLOSED; the silent ones get and send none."""
        while True:
            answers = {
                member: self.party(member).receive(message)
                for member, message in outbox.items()
                if member not in silent
            }
            if self.server.phase in (Phase.READY, Phase.CLOSED):
                return
            for member, answer in answers.items():
                if answer is not None:
                    self.server.receive(member, answer)
            outbox = self.server.advance()

    def ask(self, stream: str, values: int, *, absent: Sequence[int] = ()) -> None:
        """Begin a step: everybody gets the request but the absent."""
        for member, message in self.server.request(stream, values).items():
            if member not in absent:
                self.clients[member].receive(message)

    def answer(self, vectors: Vectors, *, stream: str = "gradients", weights: Weights | None = None) -> SumResult:
        """Finish the step with these vectors."""
        for member, vector in vectors.items():
            weight = weights[member] if weights is not None else None
            self.server.receive(member, self.clients[member].contribute(vector, stream=stream, weight=weight))
        absent = [member for member in self.members if member not in vectors]
        self.settle(self.server.advance(), silent=() if self.protocol.opened_by == "clients" else absent)
        return self.result()

    def step(
        self,
        vectors: Vectors,
        *,
        stream: str = "gradients",
        weights: Weights | None = None,
        absent: Sequence[int] = (),
    ) -> SumResult:
        """One whole step."""
        self.ask(stream, len(next(iter(vectors.values()))), absent=absent)
        return self.answer(vectors, stream=stream, weights=weights)


@pytest.fixture
def by_hand(protocol: SumProtocol, make_terms: Callable[..., Terms]) -> Callable[..., ByHand]:
    """A cohort to be driven by hand; its set-up is finished unless ``opened=False``."""

    def make(
        members: Sequence[int],
        *,
        opened: bool = True,
        log: Callable[[int], RoundLog] = lambda member: RoundLog(),
        **changes: Any,
    ) -> ByHand:
        terms = make_terms(len(members), **changes)
        roster, credentials = None, dict[int, Credentials | None](dict.fromkeys(members))
        if protocol.needs_credentials:
            identities = {member: Identity.generate() for member in members}
            keys = {member: identity.public_key for member, identity in identities.items()}
            if protocol.has_authority:
                identities[AUTHORITY] = Identity.generate()
            roster = Roster(keys, authority=identities[AUTHORITY].public_key if protocol.has_authority else None)
            credentials = {
                member: Credentials(identity=identity, roster=roster, rounds=log(member))
                for member, identity in identities.items()
            }
        round_id = os.urandom(16)
        clients = {member: protocol.client(member, terms=terms, credentials=credentials[member]) for member in members}
        server = protocol.server(members, terms=terms, round_id=round_id, roster=roster)
        authority = (
            protocol.authority(terms=terms, credentials=credentials[AUTHORITY]) if protocol.has_authority else None
        )
        cohort = ByHand(protocol, terms, list(members), credentials, roster, server, clients, round_id, authority)
        if opened:
            cohort.settle(server.open())
        return cohort

    return make


def exponent(encoding: FixedPoint) -> int:
    """The largest e with clients * max_weight * ceil(clip 2^e) < 2^(ring_bits - 1) that value_bits allow, by trial."""
    count, bits = encoding.clients * (encoding.max_weight or 1), encoding.ring_bits
    return _tried(count, Fraction(encoding.clip), 1 << (bits - 1), 1 << ((encoding.value_bits or bits) - 1))


@cache
def _tried(count: int, clip: Fraction, limit: int, level: int) -> int:
    # Four hundred trials, and a thousand sums with the same few encodings.
    largest = {e: math.ceil(clip * Fraction(2) ** e) for e in range(-150, 250)}
    return max(e for e, value in largest.items() if count * value < limit and value < level)


@pytest.fixture
def exact_sum() -> Callable[..., tuple[list[int], list[float]]]:
    """The fixed-point sum in Python's integers and fractions: ring elements, and their values."""

    def add(vectors: Vectors, encoding: FixedPoint, *, weights: Weights | None = None) -> tuple[list[int], list[float]]:
        clip, scale = Fraction(encoding.clip), Fraction(2) ** exponent(encoding)
        totals = [0] * len(next(iter(vectors.values())))
        for member, vector in vectors.items():
            for place, value in enumerate(vector.tolist()):
                clipped = min(max(Fraction(value), -clip), clip)
                totals[place] += (weights[member] if weights else 1) * round(clipped * scale)
        elements = [*totals, sum(weights[member] for member in vectors)] if weights else totals
        return [element % (1 << encoding.ring_bits) for element in elements], [float(n / scale) for n in totals]

    return add


@pytest.fixture
def drawn() -> Callable[..., dict[int, np.ndarray]]:
    """Vectors of a cohort from a seed; some values lie beyond the bound of 1."""

    def draw(members: Sequence[int], length: int, *, seed: int = 0) -> dict[int, np.ndarray]:
        generator = np.random.default_rng(seed)
        return {member: generator.normal(size=length).astype(np.float32) for member in members}

    return draw
