"""Five clients of every protocol in one process, and the sum that they have to find; people with identities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from protocols import FixedPoint, Identity, Network, Roster, Simulation, Terms, available_protocols, make_protocol

Vectors = dict[int, np.ndarray]
Start = Callable[..., Simulation]


def total_of(vectors: Vectors) -> list[int]:
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


@pytest.fixture(scope="session")
def total() -> Callable[[Vectors], list[int]]:
    return total_of


@pytest.fixture
def people() -> dict[int, Identity]:
    return {member: Identity.generate() for member in (0, 3, 8)}


@pytest.fixture
def roster(people: dict[int, Identity]) -> Roster:
    return Roster({member: identity.public_key for member, identity in people.items()})
