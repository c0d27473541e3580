"""A number that an attack gave, with the interval that its sample size allows, or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One measured figure.

    An interval holds for this attack, this power and this n. A figure near chance says that this attack saw nothing
    with them, and no more.

    Attributes:
        value: the figure; None where the sample cannot resolve it.
        low: lower end of the 95 % interval; None with ``value``, or where no interval is known.
        high: its upper end; None with ``low``.
        n: how many scores it rests on, members and non-members together.
        note: where ``value`` is None, why; otherwise what a reader must know beside the interval.

    Raises:
        ValueError: a part is NaN, an interval has one end only or is the wrong way round, or a reason is missing.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            part = getattr(self, name)
            if part is not None and math.isnan(part):
                raise ValueError(f"{name} is NaN: give None and say why in note")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"low is {self.low} and high is {self.high}: give both ends of an interval, or neither")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}: they are the wrong way round")
        if self.value is None and (self.low is not None or not self.note):
            raise ValueError("value is None: leave out the interval, and say why in note")

    def __str__(self) -> str:
        if self.value is None:
            return f"not resolvable ({self.note})"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def unresolvable(n: int, note: str) -> Estimate:
    """No figure, and why."""
    return Estimate(value=None, low=None, high=None, n=n, note=note)


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a probability (Clopper and Pearson 1934).

    Args:
        successes: 0 to ``trials``, of independent trials.
        trials: 1 or more.
        confidence: in (0, 1); each end is exceeded with probability at most (1 - confidence) / 2.

    Returns:
        Both ends, in [0, 1].

    Raises:
        ValueError: an argument is out of range.

    >>> low, high = clopper_pearson(0, 100)
    >>> low, round(high, 4)
    (0.0, 0.0362)
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"successes is {successes} of {trials} trials: give 0 to trials, of 1 trial or more")
    tail = (1 - checked_confidence(confidence)) / 2
    low = 0.0 if successes == 0 else float(stats.beta.ppf(tail, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(stats.beta.isf(tail, successes + 1, trials - successes))
    return low, high


def checked_confidence(confidence: float) -> float:
    """Refuse a confidence outside (0, 1).

    Raises:
        ValueError: it is outside.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: give a probability above 0 and below 1, such as 0.95")
    return float(confidence)
