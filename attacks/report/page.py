"""From an audit to one self-contained HTML page: strings and pictures for the template, and the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import codream_secure.report as run_reports
from attacks.report.epsilon_figure import draw_epsilons
from attacks.report.findings import Finding, chance, finding
from attacks.report.matrix import Block, Line, Row, Victim, arrange
from attacks.report.numbers import adversary, duration, figure, interval, is_rate, who
from attacks.report.roc_figure import draw_rocs
from attacks.report.schema import check_audit
from attacks.report.strips import dream_pictures, strips
from attacks.report.summary import epsilon_sentence, summarise, verdict
from codream_secure.report import format as fmt
from codream_secure.runs import files

_MARKS = {Finding.ABOVE: "\N{BLACK UP-POINTING TRIANGLE}", Finding.BELOW: "\N{BLACK DOWN-POINTING TRIANGLE}"}
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
        "notices": [f"A claim is refuted: {_refuted(part)}" for part in audit["epsilons"] if part["violated"]],
        "summary": summarise(audit)[1:],  # the verdict is the first, and stands above
        "blocks": [_block(block) for block in arrange(audit["rows"])],
        "marks": {kind.name: mark for kind, mark in _MARKS.items()},
        "rocs": draw_rocs(audit["rocs"]),
        "strips": strips(audit["pictures"]),
        "dream_pictures": dream_pictures(audit["dreams"]),
        "epsilons": draw_epsilons(audit["epsilons"]),
        "bounds": [epsilon_sentence(part) for part in audit["epsilons"]],
        "threats": _threats(audit["threats"]),
        "assumptions": _assumptions(audit["rows"]),
        "checks": audit["checks"],
        "victims": [_victim(part) for part in audit["victims"]],
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


def _refuted(part: Mapping[str, Any]) -> str:
    claimed = part["ledger"]["epsilon"]
    return (
        f"{who(part)}, {part['adversary']}. {part['probe']} shows that epsilon is at least {part['lower']:.2f} "
        f"({100 * part['confidence']:g} % confidence, n = {part['n']}), where the ledger claims {claimed:.4g}, "
        "by its statement below."
    )


def _block(block: Block) -> dict[str, Any]:
    methods = dict.fromkeys(method for method, _ in block.victims)
    return {
        "title": block.title,
        "methods": [(name, sum(method == name for method, _ in block.victims)) for name in methods],
        "protections": [protection for _, protection in block.victims],
        "probes": [
            {"name": probe, "lines": [_line(line, block.victims) for line in block.lines if line.probe == probe]}
            for probe in dict.fromkeys(line.probe for line in block.lines)
        ],
    }


def _line(line: Line, victims: Sequence[Victim]) -> dict[str, Any]:
    guesses = {guess for rows in line.cells.values() for row in rows if (guess := chance(row)) is not None}
    common = guesses.pop() if len(guesses) == 1 else None
    return {
        "metric": line.metric,
        "chance": "" if common is None else f"{_guess_name(line.metric)} {figure(line.metric, common)}",
        "cells": [[_cell(row, common=common) for row in line.cells.get(victim, ())] for victim in victims],
    }


def _cell(row: Row, *, common: float | None) -> dict[str, str]:
    kind = finding(row)
    if row["value"] is None:
        return {"kind": kind.name, "value": fmt.NOTHING, "small": kind.value, "note": row["note"], "seed": _seed(row)}
    guess = chance(row)
    own = "" if guess is None or common is not None else f"{_guess_name(row['metric'])} {figure(row['metric'], guess)}"
    return {
        "kind": kind.name,
        "value": figure(row["metric"], row["value"]),
        "small": "; ".join(part for part in (interval(row), own) if part),
        "note": row["note"],
        "seed": _seed(row),
    }


def _guess_name(metric: str) -> str:
    return "chance" if metric == "AUC" or is_rate(metric) else "control"


def _seed(row: Row) -> str:
    return "all seeds" if row["seed"] is None else f"seed {row['seed']}"


def _threats(threats: Mapping[str, Mapping[str, str]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Protections whose models are the same, and the model."""
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, model in threats.items():
        said = tuple((label, model[party]) for party, label in _PARTIES.items() if model[party])
        alike.setdefault(said, []).append(name)
    return [(", ".join(names), list(said)) for said, names in alike.items()]


def _assumptions(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Each adversary and probe, and what is assumed of it; more than one line where protections differ in that."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        if row["assumptions"]:
            found.setdefault(f"{adversary(row)}: {row['probe']}", {}).setdefault(row["assumptions"])
    return [(name, list(lines)) for name, lines in found.items()]


def _victim(part: Mapping[str, Any]) -> dict[str, Any]:
    def shown(spread: Sequence[float]) -> str:
        return fmt.percent_spread({"mean": spread[0], "std": spread[1]})

    return {**part, "train": shown(part["train_accuracy"]), "test": shown(part["test_accuracy"])}


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
