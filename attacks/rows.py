"""One line of an audit, and one condition on which all its lines depend."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one probe found by one measure.

    Attributes:
        method: "codream", "fedavg", or a name of the caller's own.
        protection: the protocol, or the privacy unit that noise protects ("client-dp"; "client-dp 1" where the caller
            named the budget).
        adversary: "server", "client" or "public".
        active: whether it deviates from the protocol, as by choosing the dreams.
        probe: what was tried.
        metric: what ``value`` is, with its unit.
        value: None where there is nothing to report; ``note`` says why.
        low: of a 95 % interval, where there is one.
        high: likewise.
        control: the same measure where there is nothing to find, such as .5 for an AUC, or held-out images.
        n: how many decisions or images are behind the value.
        seed: of the one federation that was looked at; None where several are pooled.
        assumptions: what the adversary knows and does.
        note: what else a reader must know.
    """

    method: str
    protection: str
    adversary: str
    active: bool
    probe: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    control: float | None = None
    n: int = 0
    seed: int | None = None
    assumptions: str = ""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Check:
    """A condition without which an audit's figures mean nothing.

    Attributes:
        name: what is looked at.
        passed: False makes the whole audit invalid.
        detail: what was found, in figures.
    """

    name: str
    passed: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
