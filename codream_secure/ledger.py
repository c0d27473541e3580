"""What a run's communication costs: bytes up and down, CPU seconds of the protection, and values that were clipped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

_TABLES = ("up", "down", "cpu", "clipped", "encoded")


class Ledger:
    """Counts by client and phase, as bytes and values go by; the server's own CPU seconds stand under ``SERVER``.

    Bytes of sums are those of the messages that are handed over; of broadcasts, those of the arrays. CPU seconds are
    those of the protection alone: encoding, masking, framing and their reverse, not the training.
    """

    def __init__(self) -> None:
        self._counts: dict[str, dict[tuple[int, str], float]] = {name: defaultdict(int) for name in _TABLES}
        self.retries = 0
        """Sums that were asked for again because too few clients were left."""

    def add_up(self, client: int, phase: str, count: int) -> None:
        """Count ``count`` bytes that ``client`` sent in ``phase``."""
        self._counts["up"][client, phase] += count

    def add_down(self, client: int, phase: str, count: int) -> None:
        """Count ``count`` bytes that ``client`` received in ``phase``."""
        self._counts["down"][client, phase] += count

    def add_cpu(self, party: int, phase: str, seconds: float) -> None:
        """Count CPU seconds of a client, of the server or of a key authority in ``phase``."""
        self._counts["cpu"][party, phase] += seconds

    def add_encoded(self, client: int, phase: str, *, values: int, clipped: int) -> None:
        """Count values that ``client`` encoded in ``phase``, and how many of them were clipped."""
        self._counts["encoded"][client, phase] += values
        self._counts["clipped"][client, phase] += clipped

    def by_phase(self, client: int) -> dict[str, tuple[int, int]]:
        """Phase to (bytes up, bytes down) for one client."""
        up, down = self._counts["up"], self._counts["down"]
        phases = sorted({phase for owner, phase in (*up, *down) if owner == client})
        return {phase: (int(up.get((client, phase), 0)), int(down.get((client, phase), 0))) for phase in phases}

    def client_total(self, client: int) -> tuple[int, int]:
        """Bytes (up, down) of one client over all phases."""
        table = self.by_phase(client).values()
        return sum(up for up, _ in table), sum(down for _, down in table)

    def cpu_by_phase(self, party: int) -> dict[str, float]:
        """Phase to CPU seconds for one client, the server or a key authority."""
        return {phase: seconds for (owner, phase), seconds in self._counts["cpu"].items() if owner == party}

    def clipped_fraction(self) -> float:
        """Share of all encoded values that were clipped, in [0, 1]; an instrument: no party of a deployment sees it."""
        encoded = sum(self._counts["encoded"].values())
        return sum(self._counts["clipped"].values()) / encoded if encoded else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Plain lists, for a checkpoint."""
        tables = {
            name: [[client, phase, count] for (client, phase), count in sorted(counts.items())]
            for name, counts in self._counts.items()
        }
        return {**tables, "retries": self.retries}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        for name, counts in self._counts.items():
            counts.clear()
            counts.update({(client, phase): count for client, phase, count in state[name]})
        self.retries = state["retries"]
