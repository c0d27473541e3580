"""A lower bound on epsilon that an attack has proved, never without the most it could have proved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from attacks.estimates import checked_confidence

MOST = 100.0
"""No bound above this is looked for; e^100 is beyond what any sample can show."""


@dataclass(frozen=True, kw_only=True)
class EpsilonBound:
    """What an attack shows about epsilon, whatever the mechanism's authors claim.

    A small ``lower`` says that this attack, with this n, found no more. It is no upper bound and no promise.

    Attributes:
        lower: the true epsilon is at least this, but for a chance of 1 - ``confidence``; 0 or more.
        ceiling: what an attack without a single error would have proved with the same n and method.
        confidence: of ``lower``, one-sided.
        method: how it was found.
        n: trials or canaries that it rests on.
        detail: counts and settings, as plain values.
    """

    lower: float
    ceiling: float
    confidence: float
    method: str
    n: int
    detail: dict[str, float | int] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"epsilon >= {self.lower:.2f} (confidence {self.confidence:g}, n = {self.n}, {self.method}; "
            f"a perfect attack would have proved {self.ceiling:.2f})"
        )


def largest_rejected(rejected: Callable[[float], bool], *, most: float = MOST) -> float:
    """The largest x in [0, most], to 1e-9, with all of [0, x] rejected; 0 where nothing is.

    Args:
        rejected: whether a hypothesis with parameter x contradicts the data. Where it is not monotone, what is found
            is still an x that is rejected.
        most: end of the search.
    """
    if not rejected(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < most and rejected(high):
        low, high = high, 2 * high
    high = min(high, most)
    while high - low > 1e-9:
        middle = (low + high) / 2
        if rejected(middle):
            low = middle
        else:
            high = middle
    return low


def checked_claim(delta: float, confidence: float) -> tuple[float, float]:
    """Refuse a delta outside [0, 1), or a confidence outside (0, 1).

    Raises:
        ValueError: one is outside.
    """
    if not 0 <= delta < 1:
        raise ValueError(f"delta is {delta}: give a probability, 0 or more and below 1")
    return float(delta), checked_confidence(confidence)
