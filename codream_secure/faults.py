"""Clients that vanish in the middle of a round: a network for simulations, with dropouts that can be repeated.

Every draw depends on the run's seed and on its place alone, so runs under different protections lose the same clients'
vectors at the same sums, and a resumed run loses those that it would have lost. Sums in clear have no set-up and no
opening in which anybody could be lost. These seeds serve simulation only.
"""

from __future__ import annotations

from dataclasses import dataclass

from codream_secure.seeding import derive_seed
from protocols import SERVER, Envelope, Network, Phase


@dataclass(frozen=True, kw_only=True)
class FaultRates:
    """Probabilities in [0, 1) that a client's message is lost.

    Attributes:
        setup: in each phase of a set-up; the client is then out for the round.
        contribute: when it hands over its vector; it is back for the next sum.
        open: when it helps to open the sum, its vector being in it.
    """

    setup: float = 0.0
    contribute: float = 0.0
    open: float = 0.0

    def of(self, phase: Phase) -> float:
        """The rate of one phase."""
        if phase in (Phase.ADVERTISE, Phase.SHARE):
            return self.setup
        return self.contribute if phase is Phase.COLLECT else self.open


class FaultyNetwork(Network):
    """Loses clients' messages at the given rates.

    Args:
        seed: the run's.
        rates: how often.

    Attributes:
        place: where the run is, such as ``(round, sum, attempt)``; to be set before each sum or set-up.
    """

    def __init__(self, seed: int, rates: FaultRates) -> None:
        self._seed = seed
        self._rates = rates
        self.place: tuple[int, ...] = ()

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        rate = self._rates.of(phase)
        # A key authority is no client: it is there, like the server.
        return [
            one
            for one in envelopes
            if one.recipient != SERVER or one.sender < 0 or self._draw(phase, one.sender) >= rate
        ]

    def _draw(self, phase: Phase, client: int) -> float:
        """Uniform in [0, 1)."""
        return derive_seed(self._seed, "faults", phase.name, client, *self.place) / 2**63
