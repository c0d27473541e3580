"""Which settings are not beaten: where no other is at least as good in everything and better in something.

Better is a higher test accuracy, a smaller epsilon spent, fewer bytes and fewer seconds. A claim is only as good as the
adversary that it holds against: noise that a trusted server adds is no substitute for the same noise against that very
server, however cheap. So a setting beats another only if its claim holds against everybody against whom the other's
does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from codream_secure.privacy import Adversary, PrivacyStatement

_ALSO_AGAINST = {
    Adversary.RECIPIENT: frozenset({Adversary.RECIPIENT}),
    Adversary.SUM_SERVER: frozenset({Adversary.SUM_SERVER, Adversary.RECIPIENT}),
    Adversary.SUM_CLIENT: frozenset({Adversary.SUM_CLIENT, Adversary.RECIPIENT}),
    Adversary.SERVER: frozenset(Adversary),
}
"""Who sees no more than the key does: in a run without sampling, knowing who takes part tells nothing."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a setting gives and takes.

    Attributes:
        accuracy: on the test set, 0..1; the mean over seeds.
        statement: what was spent; None where nothing is claimed.
        bytes: up and down, of the mean client.
        seconds: of computation.
    """

    accuracy: float
    statement: PrivacyStatement | None
    bytes: float
    seconds: float

    @property
    def spent(self) -> float:
        """The smaller the better; infinite where nothing is claimed."""
        return math.inf if self.statement is None else self.statement.epsilon

    @property
    def _against(self) -> frozenset[Adversary]:
        if self.statement is None or math.isinf(self.statement.epsilon):
            return frozenset()
        # Against anybody: whoever gets nothing learns nothing.
        return _ALSO_AGAINST[self.statement.adversary] if self.statement.releases else frozenset(Adversary)

    def beats(self, other: Point) -> bool:
        """Whether there is no reason to choose the other."""
        if not self._against >= other._against:
            return False
        mine, theirs = self._costs(), other._costs()
        return mine != theirs and all(cost <= limit for cost, limit in zip(mine, theirs, strict=True))

    def _costs(self) -> tuple[float, float, float, float]:
        return -self.accuracy, self.spent, self.bytes, self.seconds


def unbeaten(points: Sequence[Point]) -> list[bool]:
    """For each point, whether no other beats it."""
    return [not any(other.beats(point) for other in points) for point in points]
