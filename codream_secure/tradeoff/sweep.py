"""Running a trade-off, and the table that comes of it.

Its directory holds ``budget_B/PROTECTION/seed_N/``, ``no_noise/...`` and ``isolated/seed_N/``, each a run directory,
and ``tradeoff.json``. Interrupted, it goes on where it stopped; finished runs are read and not run again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from codream_secure import files
from codream_secure.config import Config
from codream_secure.data import load_source
from codream_secure.errors import ConfigError, NumericalError, PrivacyError
from codream_secure.federation import Observer, resolve_device
from codream_secure.privacy import PrivacyStatement
from codream_secure.runs import run
from codream_secure.runs.compare import spread
from codream_secure.runs.environment import describe_environment
from codream_secure.tradeoff.grid import Cell, plan_cells, seeds_of
from codream_secure.tradeoff.pareto import Point, unbeaten
from protocols import ProtocolError

Summary = dict[str, Any]

_REFUSALS = (ConfigError, PrivacyError, ProtocolError, NumericalError)
"""What makes a setting impossible and says nothing against the others."""


def sweep(
    config: Config,
    *,
    budgets: Sequence[float],
    protections: Sequence[str],
    seeds: int = 1,
    control: bool = True,
    out: Path | None = None,
    observe: Observer | None = None,
    on_run: Callable[[str, int, int, int], None] | None = None,
) -> dict[str, Any]:
    """Run every setting on every seed and summarise.

    Args:
        config: what all settings have in common; see :func:`codream_secure.tradeoff.plan_cells`.
        budgets: epsilons that runs may spend; infinity for no noise.
        protections: of the sums.
        seeds: how many, from ``config.run.seed`` upwards.
        control: with the control that leaves dreams random.
        out: the directory, or None.
        observe: told (phase, done, total) within each run.
        on_run: told (setting, seed, runs done, runs in all) before each run.

    Returns:
        ``config`` (as TOML), ``environment``, ``unit``, ``delta`` and ``adjacency`` of the budgets (null where nothing
        is claimed), ``selected_by``, ``seeds``, ``epsilons`` (as asked for), ``protections`` and ``rows``: one a
        setting, see :func:`_row`; in addition ``pareto``, whether no other setting beats it. The same is written to
        ``tradeoff.json``.

    Raises:
        ConfigError: the configuration fits no budget, or not one setting can run.
        ValueError: ``seeds`` is not positive.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}: at least one is needed")
    cells = plan_cells(config, budgets=budgets, protections=protections, control=control)
    _check_any(cells, [cell.obstacle for cell in cells])
    environment = describe_environment(resolve_device(config.run.device), threads=config.run.threads)
    numbers = [config.run.seed + offset for offset in range(seeds)]
    found, obstacles = _run_all(config, cells, numbers, out=out, observe=observe, on_run=on_run)
    _check_any(cells, obstacles)
    rows = [_row(cell, obstacle, summaries) for cell, obstacle, summaries in zip(cells, obstacles, found, strict=True)]
    _mark(rows)
    claimed = config.dp.on and any(math.isfinite(budget) for budget in budgets)
    tradeoff = {
        # Where the data lie on this machine is no part of the result.
        "config": config.model_copy(update={"data": config.data.model_copy(update={"root": None})}).to_toml(),
        "environment": environment,
        "unit": config.dp.unit if claimed else None,
        "delta": config.dp.delta if claimed else None,
        "adjacency": config.dp.neighbours if claimed else None,
        "selected_by": config.run.select,
        "seeds": numbers,
        "epsilons": ["infinite" if math.isinf(budget) else budget for budget in budgets],
        "protections": list(protections),
        "rows": rows,
    }
    if out:
        files.write_json(out / "tradeoff.json", tradeoff)
    return tradeoff


def _run_all(
    config: Config,
    cells: Sequence[Cell],
    seeds: Sequence[int],
    *,
    out: Path | None,
    observe: Observer | None,
    on_run: Callable[[str, int, int, int], None] | None,
) -> tuple[list[list[Summary]], list[str | None]]:
    """The summaries of each cell over seeds, and why it has none; whole seeds first."""
    found: list[list[Summary]] = [[] for _ in cells]
    obstacles = [cell.obstacle for cell in cells]
    possible = [index for index, cell in enumerate(cells) if cell.config is not None]
    jobs = list(zip(*(seeds_of(cells[index], seeds) for index in possible), strict=True))
    source = None
    for turn, configs in enumerate(jobs):
        for place, (index, one) in enumerate(zip(possible, configs, strict=True)):
            if obstacles[index] is not None:
                continue
            cell, seed = cells[index], one.run.seed
            if on_run:
                on_run(cell.name, seed, turn * len(possible) + place, len(possible) * len(seeds))
            directory = out / cell.place / f"seed_{seed}" if out else None
            summary = _finished(directory, one)
            if summary is None:
                source = source or load_source(config.data.source, root=config.data.root, download=config.data.download)
                try:
                    summary = run(one, out=directory, resume=True, source=source, observe=observe).summary
                except _REFUSALS as error:
                    found[index].clear()
                    obstacles[index] = str(error) if not turn else f"seed {seed}: {error}"
                    continue
            found[index].append(summary)
    return found, obstacles


def _finished(directory: Path | None, config: Config) -> Summary | None:
    """The summary of a run that is over already; None if there is none, or it is of another configuration."""
    if directory is None:
        return None
    try:
        if (directory / "config.toml").read_text(encoding="utf-8") != config.to_toml():
            return None
        summary: Summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # the run, resumed, writes it or says what is wrong
    return summary


def _check_any(cells: Sequence[Cell], obstacles: Sequence[str | None]) -> None:
    asked = [index for index, cell in enumerate(cells) if cell.budget is not None]
    if asked and all(obstacles[index] is not None for index in asked):
        raise ConfigError(
            "none of these epsilons can run under any of these protections: "
            + "; ".join(dict.fromkeys(f"{cells[index].name}: {obstacles[index]}" for index in asked))
        )


def _row(cell: Cell, obstacle: str | None, summaries: Sequence[Summary]) -> dict[str, Any]:
    """One setting.

    ``name``, ``epsilon`` (the budget: a number, "infinite", or null for isolated training), ``protection``,
    ``control``, ``method``, ``obstacle``; what was spent as ``statement``, the weakest of the seeds', with its
    ``text``, both null where nothing is claimed, and all different texts in ``texts``; ``signal`` of the first seed;
    ``test_accuracy``, ``validation_accuracy``, ``server_test_accuracy`` (null without a student), ``bytes_up``,
    ``bytes_down``, ``seconds`` and ``protocol_cpu_client`` over seeds, as
    :func:`codream_secure.runs.compare.spread` gives them; and ``stopped``, by seed, why runs ended early.
    """
    private = [summary["privacy"] for summary in summaries if summary["privacy"] is not None]
    weakest = max(private, key=lambda one: PrivacyStatement.from_json(one["statement"]).epsilon, default=None)
    row: dict[str, Any] = {
        "name": cell.name,
        "epsilon": cell.target,
        "protection": cell.protection,
        "control": cell.control,
        "method": cell.method,
        "obstacle": obstacle,
        "statement": weakest["statement"] if weakest else None,
        "text": weakest["text"] if weakest else None,
        "texts": list(dict.fromkeys(one["text"] for one in private)),
        "signal": private[0]["signal"] if private else None,
        "stopped": [
            f"seed {summary['seed']}: {summary['privacy']['stopped']}"
            for summary in summaries
            if summary["privacy"] is not None and summary["privacy"]["stopped"]
        ],
    }
    figures = ("test_accuracy", "validation_accuracy", "server_test_accuracy", "bytes_up", "bytes_down", "seconds")
    row |= {key: spread([summary[key] for summary in summaries]) if summaries else None for key in figures}
    row["protocol_cpu_client"] = spread([one["protocol_cpu"]["client"] for one in summaries]) if summaries else None
    if summaries and row["server_test_accuracy"]["mean"] is None:
        row["server_test_accuracy"] = None
    return row


def _mark(rows: Sequence[dict[str, Any]]) -> None:
    ran = [row for row in rows if row["obstacle"] is None]
    points = [
        Point(
            accuracy=row["test_accuracy"]["mean"],
            statement=None if row["statement"] is None else PrivacyStatement.from_json(row["statement"]),
            bytes=row["bytes_up"]["mean"] + row["bytes_down"]["mean"],
            seconds=row["seconds"]["mean"],
        )
        for row in ran
    ]
    for row in rows:
        row["pareto"] = False
    for row, best in zip(ran, unbeaten(points), strict=True):
        row["pareto"] = best
