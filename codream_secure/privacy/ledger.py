"""One account of everything that a run releases, and a budget that is checked before each release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from codream_secure.errors import BudgetExceededError, PrivacyError
from codream_secure.privacy import checks
from codream_secure.privacy.accountant import check_claims, choose, spent
from codream_secure.privacy.events import Release, release_from_json
from codream_secure.privacy.statement import Accountant, Adjacency, Adversary, PrivacyStatement, PrivacyUnit

FORMAT = 1


@dataclass(frozen=True)
class Budget:
    """The most that a run may spend.

    Args:
        epsilon: above 0, finite. Where there is no limit, give a ledger None for its budget.
        delta: in (0, 1), below 1/n for n units.

    Raises:
        PrivacyError: an argument is out of range.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", checks.positive("epsilon", self.epsilon))
        object.__setattr__(self, "delta", checks.probability("delta", self.delta))


class PrivacyLedger:
    """Every release of a run, for one unit, one adjacency and one adversary.

    Record a release *before* it is made: the ledger refuses what would exceed the budget, and then holds what it held.

    Args:
        budget: None for no limit; what was spent is still accounted for.
        unit: whose presence is hidden.
        adjacency: which data sets are neighbours.
        adversary: against whom the statements hold.
        units: n, how many there are, if that is known. A delta of 1/n or more is refused: it would allow to publish
            one of them in clear.

        colluders: how many clients may work with the adversary; for the statements.

    Raises:
        PrivacyError: an argument is out of range.
    """

    def __init__(
        self,
        budget: Budget | None,
        unit: PrivacyUnit,
        *,
        adjacency: Adjacency,
        adversary: Adversary,
        units: int | None = None,
        colluders: int = 0,
    ) -> None:
        self.budget = budget
        self.unit = checks.member("unit", unit, PrivacyUnit)
        self.adjacency = checks.member("adjacency", adjacency, Adjacency)
        self.adversary = checks.member("adversary", adversary, Adversary)
        self.units = None if units is None else checks.whole("units", units)
        self.colluders = colluders
        self._events: tuple[Release, ...] = ()
        if budget is not None:
            check_delta(budget.delta, units=self.units)

    @property
    def events(self) -> tuple[Release, ...]:
        """All releases; equal ones are one event with their counts added up."""
        return self._events

    def record(self, event: Release) -> None:
        """Account for a release that is about to be made.

        Raises:
            BudgetExceededError: it would exceed the budget. Nothing is recorded; do not make the release.
            PrivacyError: no accountant covers it beside the earlier ones, or it makes a claim that does not hold.
        """
        if not isinstance(event, Release):
            raise PrivacyError(f"event is {type(event).__name__}: give one of the releases of codream_secure.privacy")
        events = _with(self._events, event)
        self._check(events, event.name)
        self._events = events

    def allows(self, events: Iterable[Release]) -> bool:
        """Whether the budget has room for all of these together; nothing is recorded.

        Raises:
            PrivacyError: no accountant covers them beside the earlier ones, or one makes a claim that does not hold.
        """
        together = self._events
        for event in events:
            together = _with(together, event)
        self._check_claims(together)
        return self._fits(together)

    def statement(self, *, delta: float | None = None) -> PrivacyStatement:
        """What has been spent so far.

        Args:
            delta: None for the budget's.

        Raises:
            PrivacyError: there is neither a delta nor a budget, or delta is out of range.
        """
        if delta is None:
            if self.budget is None:
                raise PrivacyError("delta is missing: without a budget, say at which delta epsilon is wanted")
            delta = self.budget.delta
        check_delta(delta, units=self.units)
        return self._spent(self._events, delta)

    def remaining(self, event: Release) -> int | None:
        """How many times this release, with the count it has, could still be recorded; None for without end.

        Raises:
            PrivacyError: no accountant covers it beside the earlier ones, or it makes a claim that does not hold.
        """
        self._check_claims(_with(self._events, event))
        if self.budget is None:
            return None
        if event.counter is None:
            return None if self._fits(_with(self._events, event)) else 0
        single = int(getattr(event, event.counter))
        alike = next((found for found in map(event.merged, self._events) if found is not None), event)
        most = 1 + (checks.MAX_COUNT - int(getattr(alike, event.counter))) // single
        fits, exceeds = 0, 1
        while exceeds <= most and self._fits(_with(self._events, event.times(exceeds))):
            fits, exceeds = exceeds, 2 * exceeds
        exceeds = min(exceeds, most + 1)
        while exceeds - fits > 1:
            middle = (fits + exceeds) // 2
            if self._fits(_with(self._events, event.times(middle))):
                fits = middle
            else:
                exceeds = middle
        return fits

    def state_dict(self) -> dict[str, Any]:
        """Plain values for JSON or a checkpoint."""
        return {"format": FORMAT, **self._conditions(), "events": [event.to_json() for event in self._events]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave; on an error the ledger is as it was.

        Raises:
            PrivacyError: the state is damaged, of another format, kept under other conditions, or over the budget.
        """
        conditions = self._conditions()
        found = checks.fields("a ledger's state", state, ("format", *conditions, "events"))
        if isinstance(found["format"], bool) or found["format"] != FORMAT:
            raise PrivacyError(f"format is {found['format']!r}: this version reads format {FORMAT}")
        for name, expected in conditions.items():
            if found[name] != expected:
                raise PrivacyError(
                    f"{name} is {found[name]!r} in the ledger's state, but {expected!r} here: "
                    "go on under the conditions that the run was begun with"
                )
        if not isinstance(found["events"], list):
            raise PrivacyError(f"events is {type(found['events']).__name__}: a list of releases is needed")
        events: tuple[Release, ...] = ()
        for content in found["events"]:
            events = _with(events, release_from_json(content))
        self._check(events, "the ledger's state")
        self._events = events

    def covers(self, state: Mapping[str, Any]) -> bool:
        """Whether every release of an earlier state of this ledger is in it, at least as often.

        Raises:
            PrivacyError: the state is damaged or was kept under other conditions.
        """
        earlier = PrivacyLedger(
            self.budget,
            self.unit,
            adjacency=self.adjacency,
            adversary=self.adversary,
            units=self.units,
            colluders=self.colluders,
        )
        earlier.load_state_dict(state)
        return all(any(_as_often(found, event) for found in self._events) for event in earlier.events)

    def _conditions(self) -> dict[str, Any]:
        budget = self.budget
        return {
            "unit": self.unit.value,
            "adjacency": self.adjacency.value,
            "adversary": self.adversary.value,
            "units": self.units,
            "colluders": self.colluders,
            "budget": None if budget is None else {"epsilon": budget.epsilon, "delta": budget.delta},
        }

    def _check(self, events: tuple[Release, ...], name: str) -> None:
        self._check_claims(events)
        if self.budget is None or not events:
            return
        found = self._spent(events, self.budget.delta)
        if found.epsilon > self.budget.epsilon:
            without = " (it has no noise)" if found.accountant is Accountant.NONE else ""
            raise BudgetExceededError(
                f"release {name!r} exceeds the budget of epsilon {self.budget.epsilon:g}{without}: it is not recorded "
                f"and must not be made. With it: {found} Without it: {self.statement()}"
            )

    def _check_claims(self, events: tuple[Release, ...]) -> None:
        check_claims(events, unit=self.unit, adversary=self.adversary)
        choose(events)

    def _fits(self, events: tuple[Release, ...]) -> bool:
        return self.budget is None or self._spent(events, self.budget.delta).epsilon <= self.budget.epsilon

    def _spent(self, events: tuple[Release, ...], delta: float) -> PrivacyStatement:
        return spent(
            events,
            delta=delta,
            unit=self.unit,
            adjacency=self.adjacency,
            adversary=self.adversary,
            colluders=self.colluders,
        )


def check_delta(delta: float, *, units: int | None) -> None:
    """Refuse a delta that means nothing.

    Raises:
        PrivacyError: it does not lie in (0, 1), or not below 1/n for ``units`` = n.
    """
    checks.probability("delta", delta)
    if units is not None and delta * units >= 1:
        raise PrivacyError(
            f"delta is {delta:g} with {units} units: it must be below 1/{units}, or publishing one unit in clear would "
            "count as private"
        )


def _with(events: tuple[Release, ...], event: Release) -> tuple[Release, ...]:
    """The events and one more: added to its like, if there is one, so that step by step is the same as all at once."""
    for index, earlier in enumerate(events):
        merged = earlier.merged(event)
        if merged is not None:
            return (*events[:index], merged, *events[index + 1 :])
    return (*events, event)


def _as_often(event: Release, other: Release) -> bool:
    """Whether both describe the same release, and the first at least as many of it."""
    if event.merged(other) is None:
        return False
    return event.counter is None or bool(getattr(event, event.counter) >= getattr(other, event.counter))
