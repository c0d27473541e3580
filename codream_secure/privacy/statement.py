"""A privacy loss with everything that gives it meaning: of whom, between which data sets, against whom, for what.

An epsilon alone says nothing. This package prints and saves one only as part of a :class:`PrivacyStatement`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from codream_secure.errors import PrivacyError
from codream_secure.privacy import checks

_INFINITE = "infinite"


class PrivacyUnit(Enum):
    """Whose presence is hidden."""

    CLIENT = "client"
    """All that one client contributes."""
    EXAMPLE = "example"
    """One record of one client."""
    LOCAL = "local"
    """What one client sends, already before anybody adds it to anything."""


class Adjacency(Enum):
    """Which two data sets must be hard to tell apart."""

    ADD_REMOVE = "add_remove"
    """One unit is there or not; absent, its contribution is the zero vector."""
    REPLACE_ONE = "replace_one"
    """One unit's data are exchanged for others."""

    @property
    def factor(self) -> int:
        """How far a sum moves between neighbours, in multiples of the largest norm C of one unit's contribution."""
        return 1 if self is Adjacency.ADD_REMOVE else 2


class Adversary(Enum):
    """Against whom the statement holds."""

    SERVER = "server that sees every message and who takes part"
    SUM_SERVER = "server that sees the sums with their noise and who takes part"
    SUM_CLIENT = "client that opens the sums, knows its own share of their noise and who takes part"
    RECIPIENT = "recipient of the results that does not see who takes part"

    @property
    def sees_cohort(self) -> bool:
        """Whether it knows which clients were sampled, so that sampling them hides nothing."""
        return self is not Adversary.RECIPIENT

    @property
    def sees_messages(self) -> bool:
        """Whether it sees what each client sends, so that the noise of the others hides nothing."""
        return self is Adversary.SERVER


class Accountant(Enum):
    """How an epsilon was computed."""

    CLOSED_FORM = "closed form"
    """Exact for Gaussians without sampling; see :mod:`codream_secure.privacy.gaussian`."""
    PLD = "PLD"
    """Privacy loss distributions, an upper bound by dp-accounting; see :mod:`codream_secure.privacy.loss`."""
    RDP = "RDP"
    """Rényi divergences, an upper bound; see :mod:`codream_secure.privacy.renyi`."""
    NONE = "none needed"
    """Nothing private was released, or something private without noise."""


_NEIGHBOURS = {
    (PrivacyUnit.CLIENT, Adjacency.ADD_REMOVE): "one client added or removed; absent, it contributes zero",
    (PrivacyUnit.CLIENT, Adjacency.REPLACE_ONE): "one client's data replaced",
    (PrivacyUnit.EXAMPLE, Adjacency.ADD_REMOVE): "one example added or removed",
    (PrivacyUnit.EXAMPLE, Adjacency.REPLACE_ONE): "one example replaced",
    (PrivacyUnit.LOCAL, Adjacency.ADD_REMOVE): "what one client sends, there or not",
    (PrivacyUnit.LOCAL, Adjacency.REPLACE_ONE): "what one client sends, replaced",
}


@dataclass(frozen=True, kw_only=True)
class PrivacyStatement:
    """What was spent; its text is one sentence that leaves nothing out.

    Args:
        unit: whose presence is hidden.
        adjacency: which data sets are neighbours.
        epsilon: in [0, infinity].
        delta: in (0, 1).
        adversary: against whom it holds.
        accountant: how epsilon was computed.
        releases: names of all releases that it covers, each once.
        colluders: how many clients may work with the adversary, telling their noise or leaving it out.

    Raises:
        PrivacyError: an argument is out of range.
    """

    unit: PrivacyUnit
    adjacency: Adjacency
    epsilon: float
    delta: float
    adversary: Adversary
    accountant: Accountant
    releases: tuple[str, ...]
    colluders: int = 0

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            object.__setattr__(self, name, checks.member(name, getattr(self, name), kind))
        if self.epsilon != math.inf:
            object.__setattr__(self, "epsilon", checks.real("epsilon", self.epsilon))
        if self.epsilon < 0:
            raise PrivacyError(f"epsilon is {self.epsilon}: it cannot be below 0")
        object.__setattr__(self, "delta", checks.probability("delta", self.delta))
        if self.colluders:
            checks.whole("colluders", self.colluders)
        if isinstance(self.releases, str):
            raise PrivacyError(f"releases is the text {self.releases!r}: give a sequence of names")
        object.__setattr__(self, "releases", tuple(checks.text("releases", name) for name in self.releases))
        if len(set(self.releases)) < len(self.releases):
            raise PrivacyError(f"releases is {self.releases}: name each release once")

    def __str__(self) -> str:
        if math.isinf(self.epsilon):
            loss = f"No guarantee, epsilon is infinite (delta = {self.delta:g})"
        else:
            loss = f"epsilon = {self.epsilon:.4g} at delta = {self.delta:g}"
        covered = ", ".join(self.releases) or "nothing, for nothing was released"
        with_them = f", with up to {self.colluders} of the other clients" if self.colluders else ""
        return (
            f"{loss} for the unit {self.unit.value} under {self.adjacency.value} "
            f"({_NEIGHBOURS[self.unit, self.adjacency]}), against a {self.adversary.value}{with_them}; "
            f"it covers {covered} (accountant: {self.accountant.value})."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; an infinite epsilon, which JSON has no number for, is the text "infinite"."""
        return {
            **{name: getattr(self, name).value for name in _CHOICES},
            "epsilon": _INFINITE if math.isinf(self.epsilon) else self.epsilon,
            "delta": self.delta,
            "releases": list(self.releases),
            "colluders": self.colluders,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PrivacyStatement:
        """The reverse of :meth:`to_json`.

        Raises:
            PrivacyError: a field is missing, unknown or out of range.
        """
        if isinstance(content, Mapping) and "colluders" not in content:  # there were none before they could be named
            content = {**content, "colluders": 0}
        found = dict(checks.fields("a privacy statement", content, (field.name for field in fields(cls))))
        if found["epsilon"] == _INFINITE:
            found["epsilon"] = math.inf
        elif isinstance(found["epsilon"], float) and math.isinf(found["epsilon"]):
            raise PrivacyError(f'epsilon is {found["epsilon"]}: an infinite one is written "{_INFINITE}"')
        if not isinstance(found["releases"], list):
            raise PrivacyError(f"releases is {found['releases']!r}: a list of names is needed")
        return cls(**found)


_CHOICES: dict[str, type[Enum]] = {
    "unit": PrivacyUnit,
    "adjacency": Adjacency,
    "adversary": Adversary,
    "accountant": Accountant,
}
