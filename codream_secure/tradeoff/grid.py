"""Which settings a trade-off looks at: every budget under every protection, and what they have to be measured by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from codream_secure.config import Config, make_config
from codream_secure.errors import ConfigError
from codream_secure.methods import find_method
from protocols import UnknownProtocolError, make_protocol

NO_NOISE = "infinite"
"""The budget, as a text for JSON, of runs without noise, for which nothing is claimed."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One setting, to be run on every seed.

    Attributes:
        budget: the epsilon that a run may spend, infinity for no noise; None for isolated training.
        protection: of the sums; None for isolated training, which takes none.
        control: dreams stay random, and all of the budget goes to their labels.
        method: which is run.
        config: of the first seed; None where the configuration refuses the combination.
        obstacle: why it does.
    """

    budget: float | None
    protection: str | None
    control: bool
    method: str
    config: Config | None
    obstacle: str | None

    @property
    def name(self) -> str:
        """Unique among the cells of one trade-off."""
        if self.budget is None:
            return self.method
        return f"{self._budget}, {self._kind}"

    @property
    def place(self) -> PurePath:
        """Where its runs are, within the directory of the trade-off."""
        if self.budget is None:
            return PurePath(self.method)
        return PurePath(self._budget.replace(" ", "_"), self._kind)

    @property
    def target(self) -> float | str | None:
        """The budget for JSON, which has no number for infinity."""
        return NO_NOISE if self.budget == math.inf else self.budget

    @property
    def _budget(self) -> str:
        assert self.budget is not None
        return budget_name(self.budget)

    @property
    def _kind(self) -> str:
        return "control" if self.control else str(self.protection)


def budget_name(budget: float) -> str:
    """A budget in words, with all its digits.

    >>> budget_name(3.0), budget_name(0.25), budget_name(math.inf)
    ('budget 3', 'budget 0.25', 'no noise')
    """
    return "no noise" if math.isinf(budget) else f"budget {repr(budget).removesuffix('.0')}"


def parse_budgets(text: str) -> tuple[float, ...]:
    """Comma-separated epsilons above 0; ``inf`` is no noise.

    >>> parse_budgets("1, 0.5,inf")
    (1.0, 0.5, inf)

    Raises:
        ConfigError: one is no such number, or is named twice.
    """
    budgets: list[float] = []
    for part in map(str.strip, text.split(",")):
        try:
            budget = float(part)
        except ValueError:
            budget = math.nan
        # A number too large for a float is a slip, and no wish for a run without noise.
        if not budget > 0 or (math.isinf(budget) and part.lower() != "inf"):
            raise ConfigError(f"epsilons is {text!r}: {part!r} is neither a number above 0 nor 'inf' (no noise)")
        if budget in budgets:
            raise ConfigError(f"epsilons is {text!r}: {part!r} is there twice; name each budget once")
        budgets.append(budget)
    return tuple(budgets)


def parse_protections(text: str) -> tuple[str, ...]:
    """Comma-separated names of protections.

    Raises:
        ConfigError: one is unknown, or is named twice.
    """
    names = tuple(map(str.strip, text.split(",")))
    for name in names:
        try:
            make_protocol(name)
        except UnknownProtocolError as error:
            raise ConfigError(f"protections is {text!r}: {error}") from None
        if names.count(name) > 1:
            raise ConfigError(f"protections is {text!r}: {name!r} is there twice; name each protection once")
    return names


def plan_cells(
    config: Config, *, budgets: Sequence[float], protections: Sequence[str], control: bool = True
) -> list[Cell]:
    """Isolated training, then all budgets, as they are given, under all protections.

    A control follows each budget: dreaming without steps, under the first protection, for its noise obeys the same law
    under all. It shows what the noise on dream updates is worth. Noise in local training leaves dreams for free, so
    for ``dp.unit = "example"`` there is one control, at the largest budget that is finite.

    Args:
        config: what all cells have in common. Its budget, protection and seed are replaced.
        budgets: epsilons; infinity for no noise, with everything else equal.
        protections: of the sums.
        control: with controls, where the method is codream and dreams at all.

    Raises:
        ConfigError: the configuration leaves open whose presence the budgets protect, or fixes the noise.
    """
    finite = [budget for budget in budgets if math.isfinite(budget)]
    _check_claim(config, finite)
    cells = [] if config.method == "isolated" else [_isolated(config, finite)]
    controlled = _controlled(config, budgets, finite) if control else frozenset()
    for budget in budgets:
        for protection in protections:
            cells.append(_cell(config, budget, protection))
        if budget in controlled:
            cells.append(_cell(config, budget, protections[0], control=True))
    return cells


def _check_claim(config: Config, finite: Sequence[float]) -> None:
    if not finite:
        return
    if not config.dp.on:
        raise ConfigError(
            f"epsilons names {', '.join(f'{budget:g}' for budget in finite)}, but dp.unit is 'none': say whose "
            "presence a budget protects, 'client', 'example' or 'local', and dp.delta; or ask for 'inf' alone"
        )
    if config.dp.noise_multiplier is not None:
        raise ConfigError(
            f"dp.noise_multiplier is {config.dp.noise_multiplier:g}: here the noise is solved from each budget; leave "
            "it out"
        )


def _controlled(config: Config, budgets: Sequence[float], finite: Sequence[float]) -> frozenset[float]:
    if config.method != "codream" or not config.dreaming.steps:
        return frozenset()
    if config.dp.unit == "example":
        return frozenset({max(finite)} if finite else budgets)
    return frozenset(budgets)


def _isolated(config: Config, finite: Sequence[float]) -> Cell:
    """Isolated training. Where privacy is claimed it is claimed here too, and costs nothing: there are no sums.

    Only validation accuracies are released, if the configuration releases them at all, and within the least budget.
    """
    dp = {"epsilon": min(finite)} if finite else None
    made, obstacle = _made(config, dp, {"method": "isolated"})
    return Cell(budget=None, protection=None, control=False, method="isolated", config=made, obstacle=obstacle)


def _cell(config: Config, budget: float, protection: str, *, control: bool = False) -> Cell:
    changes: dict[str, Any] = {"protocol": {"protection": protection}}
    if control:
        changes["dreaming"] = {"steps": 0, "label_midway": False}
        if config.dreaming.labels == "classes":  # nobody made random dreams for a class
            changes["dreaming"]["labels"] = "probabilities"
    dp = {"epsilon": budget} if math.isfinite(budget) else None
    made, obstacle = _made(config, dp, changes)
    return Cell(
        budget=budget, protection=protection, control=control, method=config.method, config=made, obstacle=obstacle
    )


def _made(config: Config, dp: dict[str, Any] | None, changes: dict[str, Any]) -> tuple[Config | None, str | None]:
    """The configuration with some values replaced, validated anew, or why there is none; ``dp`` None claims nothing."""
    tree = config.model_dump(exclude_none=True)
    tree["dp"] = tree["dp"] | dp if dp else {}
    for section, values in changes.items():
        tree[section] = tree[section] | values if isinstance(values, dict) else values
    try:
        made = make_config(tree)
    except ConfigError as error:
        return None, str(error)
    obstacle = find_method(made.method).obstacle(made)
    return (made, None) if obstacle is None else (None, f"method {made.method!r} {obstacle}")


def seeds_of(cell: Cell, seeds: Sequence[int]) -> Iterator[Config]:
    """The cell's configuration for each seed; none where it cannot run."""
    if cell.config is None:
        return
    for seed in seeds:
        yield cell.config.model_copy(update={"run": cell.config.run.model_copy(update={"seed": seed})})
