"""One self-contained HTML page about a trade-off."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codream_secure import files
from codream_secure.config import Config, make_config
from codream_secure.errors import ConfigError
from codream_secure.report import format as fmt
from codream_secure.report.page import MEANING, selection, setup_facts
from codream_secure.report.render import render
from codream_secure.report.tradeoff_curves import plot_tradeoff, series_colours
from codream_secure.runs.compare import spread
from codream_secure.tradeoff.grid import NO_NOISE
from codream_secure.tradeoff.notes import budget_meaning, notes, statements

Row = Mapping[str, Any]


def build_tradeoff_report(directory: Path) -> Path:
    """Write ``tradeoff.html``: one file that needs no network and no script.

    Args:
        directory: of a finished trade-off, with its ``tradeoff.json``.

    Returns:
        The path of the report, in that directory; an earlier one is replaced.

    Raises:
        ConfigError: there is no ``tradeoff.json``, or it is damaged.
    """
    path = Path(directory) / "tradeoff.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        context = tradeoff_page(found)
    except OSError as error:
        raise ConfigError(f"trade-off {str(path)!r} cannot be read: {error}") from None
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{str(path)!r} is no trade-off ({error!r}): run the trade-off again") from None
    report = path.with_suffix(".html")
    files.write_text(report, render("tradeoff.html.j2", context))
    return report


def tradeoff_page(found: Mapping[str, Any]) -> dict[str, Any]:
    """The context of ``tradeoff.html.j2``, from the contents of ``tradeoff.json``."""
    config, rows = make_config(tomllib.loads(found["config"])), found["rows"]
    meaning = budget_meaning(found)
    return {
        "title": f"{config.method} on {config.data.source}: what privacy costs",
        "setup": [("Seeds", ", ".join(map(str, found["seeds"]))), *_facts(config, found)],
        "notices": [f"{row['name']} ended early, {reason}" for row in rows for reason in row["stopped"]],
        "meaning": meaning,
        "groups": _groups(rows),
        "students": any(row["server_test_accuracy"] for row in rows),
        "statements": statements(rows),
        "notes": [selection(config), *notes(found), MEANING],
        "charts": plot_tradeoff(rows, budget=_axis(found)),
        "config": config.to_toml(),
        "environment": _environment(found["environment"]),
        "colours": series_colours(rows),
        # Sections of other reports.
        "curves": None,
        "partition": None,
        "phases": None,
        "clients": None,
        "dreams": None,
    }


def _facts(config: Config, found: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [fact for fact in setup_facts(config) if fact[0] != "Protection of sums"]
    if found["unit"] is not None:
        facts += [
            ("Unit of privacy", f"{found['unit']}, {found['adjacency'].replace('_', ' or ')}"),
            ("Delta", f"{found['delta']:g}"),
        ]
    return facts


def _axis(found: Mapping[str, Any]) -> str:
    if found["unit"] is None:
        return "no budget: nothing is claimed"
    return f"budget: most that a run may spend, epsilon at delta = {found['delta']:g}, unit {found['unit']}"


def _groups(rows: Sequence[Row]) -> list[list[dict[str, Any]]]:
    """The rows of the table, those of one budget together."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["epsilon"], []).append(_shown(row))
    return list(groups.values())


def _shown(row: Row) -> dict[str, Any]:
    isolated = row["epsilon"] is None
    kind = "isolated" if isolated else "control" if row["control"] else row["protection"]
    shown: dict[str, Any] = {
        "budget": fmt.NOTHING if isolated else "no noise" if row["epsilon"] == NO_NOISE else f"{row['epsilon']:g}",
        "kind": kind,
        "about": {
            "isolated": "each client alone",
            "control": f"random dreams, {row['protection']}",
        }.get(kind, ""),
        "obstacle": row["obstacle"],
        "pareto": row["pareto"],
    }
    if row["obstacle"] is not None:
        return shown
    signal, both = row["signal"], zip(row["bytes_up"]["values"], row["bytes_down"]["values"], strict=True)
    return shown | {
        "test": fmt.percent_spread(row["test_accuracy"]),
        "server": fmt.percent_spread(row["server_test_accuracy"]) if row["server_test_accuracy"] else fmt.NOTHING,
        "signal": f"{signal['value']:.2g}" if signal else fmt.NOTHING,
        "verdict": signal["verdict"] if signal else "",
        "bytes": fmt.size_spread(spread([up + down for up, down in both])),
        "seconds": fmt.number_spread(row["seconds"]),
        "sums": f"{row['protocol_cpu_client']['mean']:.2g}",
    }


def _environment(found: Mapping[str, Any]) -> dict[str, Any]:
    facts = [
        ("Commit", found["commit"] or "unknown"),
        ("Python", found["python"]),
        *((name, version) for name, version in found["packages"].items() if version),
        ("Platform", found["platform"]),
        ("Processor", f"{found['processor']}, {fmt.plural(found['cores'], 'core')}"),
        ("Device", f"{found['device']}, {fmt.plural(found['torch_threads'], 'torch thread')}"),
    ]
    return {"facts": facts, "differ": 0, "runs": 1}
