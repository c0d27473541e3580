"""What a sum costs: bytes and CPU seconds, by party and phase."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from protocols.parties import SERVER


@dataclass
class Cost:
    """What one party spent in one phase.

    Attributes:
        sent: bytes.
        received: bytes.
        cpu_seconds: of the thread that ran its machine.
    """

    sent: int = 0
    received: int = 0
    cpu_seconds: float = 0.0


class Costs:
    """Counts as the bytes go by. Phases are ``"setup"`` and ``"step"``."""

    def __init__(self) -> None:
        self.by_party: dict[tuple[int, str], Cost] = defaultdict(Cost)

    def moved(self, sender: int, recipient: int, phase: str, count: int) -> None:
        """A message of ``count`` bytes was handed over."""
        self.by_party[sender, phase].sent += count
        self.by_party[recipient, phase].received += count

    @contextmanager
    def timed(self, party: int, phase: str) -> Iterator[None]:
        """The block's CPU time is this party's."""
        started = time.thread_time()
        try:
            yield
        finally:
            self.by_party[party, phase].cpu_seconds += time.thread_time() - started

    def of(self, party: int, phase: str) -> Cost:
        """One entry; zeros where there is none."""
        return self.by_party.get((party, phase), Cost())

    def mean_client(self, phase: str) -> Cost:
        """The mean over the members that appear in a phase (bytes rounded down); zeros where there are none."""
        found = [cost for (party, at), cost in self.by_party.items() if party > SERVER and at == phase]
        if not found:
            return Cost()
        return Cost(
            sent=sum(cost.sent for cost in found) // len(found),
            received=sum(cost.received for cost in found) // len(found),
            cpu_seconds=sum(cost.cpu_seconds for cost in found) / len(found),
        )
