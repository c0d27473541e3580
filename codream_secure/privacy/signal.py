"""Whether anything is left beside the noise: worth knowing before a budget is spent.

K clients whose contributions have norm C and agree add up, over T steps, to a vector of norm T K C. The noise of those
steps in d coordinates has norm z C sqrt(T d). The ratio is ``s = mu K / sqrt(d)`` with ``mu = sqrt(T) / z``. In runs on
8x8 digits, noise destroyed what the clients had gained at s <= 0.2, and most of it survived at s >= 1. Clients agree
less than fully, so s is an upper bound on what to hope for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from codream_secure.errors import PrivacyError
from codream_secure.privacy import checks
from codream_secure.privacy.events import MAX_CLIENTS
from codream_secure.privacy.statement import PrivacyUnit

DROWNED = 0.2
CLEAR = 1.0


@dataclass(frozen=True, kw_only=True)
class Signal:
    """How the clients' signal compares with the noise.

    Args:
        value: s > 0.
        clients: K.
        dimension: d, coordinates released in a step.
        clients_for_one: how many clients would give s = 1, to the nearest whole number.
        dimension_for_one: how many coordinates would, with the clients there are; 0 if not even one.
    """

    value: float
    clients: int
    dimension: int
    clients_for_one: int
    dimension_for_one: int

    @property
    def verdict(self) -> str:
        """What to expect, in plain words."""
        if self.value <= DROWNED:
            return "noise will drown it"
        return "most survives" if self.value >= CLEAR else "part of it survives"

    @property
    def ways_out(self) -> tuple[str, ...]:
        """What would help; empty where nothing is needed."""
        if self.value >= CLEAR:
            return ()
        fewer = (
            f"at most {self.dimension_for_one} rather than {self.dimension}"
            if self.dimension_for_one
            else f"{self.dimension} now, though these clients cannot carry even one"
        )
        return (
            f"release fewer coordinates ({fewer}): generator latents, low-frequency DCT coefficients or a public "
            "random subspace in place of pixels",
            "release fewer dreams",
            f"bring more clients (about {self.clients_for_one} rather than {self.clients})",
            "protect examples rather than clients: the noise then goes into local training, and none into the dreams",
        )

    def __str__(self) -> str:
        start = (
            f"Signal s = {self.value:.2g} for {self.clients} clients and {self.dimension} coordinates: {self.verdict}."
        )
        return f"{start} Ways out: {'; '.join(self.ways_out)}." if self.ways_out else start


def signal(mu: float, *, clients: int, dimension: int, unit: PrivacyUnit = PrivacyUnit.CLIENT) -> Signal:
    """The signal beside the noise of a whole run.

    Args:
        mu: sqrt(T) / z, with z against the norm C of one contribution whatever the adjacency; with sampling, times q.
        clients: K, how many contribute.
        dimension: d, coordinates released in a step: all dreams of a step, channels, height and width.
        unit: client, or local, where every client adds the noise and K clients' noise adds up: s = mu sqrt(K / d).

    Raises:
        PrivacyError: an argument is out of range, or the unit is an example: then there is no noise on dreams.
    """
    mu = checks.positive("mu", mu)
    checks.whole("clients", clients, MAX_CLIENTS)
    checks.whole("dimension", dimension)
    if unit is PrivacyUnit.EXAMPLE:
        raise PrivacyError(
            "unit is example: the noise is in the gradients of local training and none on the dreams, so there is no "
            "signal of clients to compare with it; leave out clients and dimension"
        )
    if unit is PrivacyUnit.LOCAL:
        value = mu * math.sqrt(clients / dimension)
        needed, carried = dimension / mu**2, clients * mu**2
    else:
        value = mu * clients / math.sqrt(dimension)
        needed, carried = math.sqrt(dimension) / mu, (clients * mu) ** 2
    return Signal(
        value=value,
        clients=clients,
        dimension=dimension,
        clients_for_one=max(1, round(needed)),
        dimension_for_one=math.floor(carried),
    )
