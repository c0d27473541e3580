"""From an audit to one self-contained HTML page: strings and pictures for the template, and the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import codream_secure.report as run_reports
from attacks.report.epsilon_figure import draw_epsilons
from attacks.report.findings import chance, finding
from attacks.report.first_screen import HINTS, MARKS, capital, first_screen, heads, seed_of
from attacks.report.matrix import Block, Grid, Line, Row, Victim, arrange, victims_of
from attacks.report.numbers import adversary, duration, figure, guess, interval
from attacks.report.roc_figure import draw_rocs
from attacks.report.schema import check_audit
from attacks.report.strips import dream_pictures, strips
from attacks.report.summary import epsilon_sentence, verdict
from codream_secure import files
from codream_secure.report import format as fmt

_PARTIES = {
    "passive_server": "Passive server",
    "active_server": "Active server",
    "clients": "Clients",
    "collusion": "Collusion",
    "dropouts": "Dropouts",
    "outsider": "Outsider",
    "assumes": "Assumes",
}
# The page around this one is that of a run's report, whose sections an audit does not have.
_OTHER_SECTIONS: dict[str, Any] = dict.fromkeys(("curves", "partition", "phases", "clients", "dreams", "notes"))


def write_report(audit: Mapping[str, Any], path: Path) -> None:
    """Write the page: one file that needs no network and no script. An earlier one is replaced whole.

    Args:
        audit: the contents of ``audit.json``.
        path: of the HTML file; its directory is made.

    Raises:
        ConfigError: the contents are damaged, see :func:`attacks.report.check_audit`.
    """
    files.write_text(Path(path), _render(audit_page(check_audit(audit))))


def audit_page(audit: Mapping[str, Any]) -> dict[str, Any]:
    """The context of ``audit.html.j2``, from the checked contents of ``audit.json``."""
    valid, sentence = verdict(audit)
    return _OTHER_SECTIONS | {
        "title": audit["title"],
        "valid": valid,
        "verdict": sentence,
        "setup": _facts(audit),
        "notices": [],  # those of an audit stand above its facts
        **first_screen(audit),
        "blocks": [_block(block) for block in arrange(audit["rows"])],
        "marks": {kind.name: mark for kind, mark in MARKS.items()},
        "hints": HINTS,
        "rocs": draw_rocs(audit["rocs"]),
        "strips": strips(audit["pictures"]),
        "dream_pictures": dream_pictures(audit["dreams"]),
        "epsilons": draw_epsilons(audit["epsilons"]),
        "bounds": [epsilon_sentence(part) for part in audit["epsilons"]],
        "threats": _threats(audit["threats"]),
        "assumptions": _assumptions(audit["rows"]),
        "checks": audit["checks"],
        "victims": _victims(audit["victims"]),
        "rows": [_raw(row) for row in audit["rows"]],
        "command": audit["command"],
        "config": audit["config"],
        "environment": _environment(audit),
        "colours": {},
    }


def _render(context: Mapping[str, Any]) -> str:
    """The text of the page. All values are escaped, and one that is missing is an error."""
    folders = [Path(__file__).parent, Path(run_reports.__file__).parent]
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("audit.html.j2").render(context)


def _facts(audit: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [
        ("Adversaries", ", ".join(audit["adversaries"]) or fmt.NOTHING),
        ("Adversaries act", "passively and actively" if audit["active"] else "passively"),
        ("Seeds" if len(audit["seeds"]) != 1 else "Seed", ", ".join(map(str, audit["seeds"])) or fmt.NOTHING),
        ("Commit", audit["commit"] or "unknown"),
        ("Time", duration(audit["seconds"])),
    ]
    device = audit["environment"].get("device")
    return facts + ([("Device", str(device))] if device else [])


def _block(block: Block) -> dict[str, Any]:
    return {"title": capital(block.title), "grids": [_grid(grid) for grid in block.grids]}


def _grid(grid: Grid) -> dict[str, Any]:
    return {
        **heads(grid.victims),
        "probes": [
            {"name": probe, "lines": [_line(line, grid.victims) for line in lines]}
            for probe, lines in grid.probes.items()
        ],
    }


def _line(line: Line, victims: Sequence[Victim]) -> dict[str, Any]:
    values = {value for rows in line.cells.values() for row in rows if (value := chance(row)) is not None}
    common = next(iter(values)) if len(values) == 1 else None
    return {
        "metric": line.metric,
        "guess": guess(line.metric, common) if common is not None else "" if values else "no control",
        "cells": [[_cell(row, common=common) for row in line.cells.get(victim, ())] for victim in victims],
    }


def _cell(row: Row, *, common: float | None) -> dict[str, str]:
    """One figure; what a guess reaches stands in it only where it is not ``common`` to the line."""
    kind, shown = finding(row), {"seed": seed_of(row), "note": row["note"]}
    if row["value"] is None:
        return shown | {"kind": kind.name, "value": fmt.NOTHING, "small": kind.value}
    value = chance(row)
    own = "" if value is None or common is not None else guess(row["metric"], value)
    small = "; ".join(part for part in (interval(row), own) if part)
    return shown | {"kind": kind.name, "value": figure(row["metric"], row["value"]), "small": small}


def _threats(threats: Mapping[str, Mapping[str, str]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Protections whose models are the same, and the model."""
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, model in threats.items():
        said = tuple((label, model[party]) for party, label in _PARTIES.items() if model.get(party))
        alike.setdefault(said, []).append(name)
    return [(", ".join(names), list(said)) for said, names in alike.items()]


def _assumptions(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Each adversary and probe, and what is assumed of it; more than one line where protections differ in that."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        if row["assumptions"]:
            found.setdefault(f"{adversary(row)}: {row['probe']}", {}).setdefault(row["assumptions"])
    return [(name, list(lines)) for name, lines in found.items()]


def _victims(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    def shown(spread: Sequence[float]) -> str:
        return fmt.percent_spread({"mean": spread[0], "std": spread[1]})

    order = victims_of(parts)
    return [
        {**part, "train": shown(part["train_accuracy"]), "test": shown(part["test_accuracy"])}
        for part in sorted(parts, key=lambda part: order.index((part["method"], part["protection"])))
    ]


def _raw(row: Row) -> list[str]:
    numbers = [row[name] for name in ("value", "low", "high", "control")]
    return [
        row["method"],
        row["protection"],
        adversary(row),
        row["probe"],
        row["metric"],
        *("null" if number is None else f"{number:.5g}" for number in numbers),
        str(row["n"]),
        "all" if row["seed"] is None else str(row["seed"]),
        finding(row).value,
        row["note"],
    ]


def _environment(audit: Mapping[str, Any]) -> dict[str, Any] | None:
    """Facts on the machine and its packages, as far as they are known."""
    known = audit["environment"]
    facts = [
        (name.replace("_", " ").capitalize(), str(value))
        for name, value in known.items()
        if name not in ("packages", "commit") and value is not None
    ]
    packages = known.get("packages")
    if isinstance(packages, Mapping):
        facts += [(name, str(version)) for name, version in packages.items() if version]
    return {"facts": facts, "differ": 0, "runs": 1} if facts else None
