"""Committed results as Markdown, so that no figure in the documentation is typed by hand.

python -m experiments.tables                      prints every table of experiments/results
python -m experiments.tables --write README.md    puts them between the file's ``<!-- table: NAME -->`` markers
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from codream_secure.bench.others import FLOWER
from codream_secure.bench.row import UNENCRYPTED
from codream_secure.bench.tenseal_default import DEFAULT
from codream_secure.cli.app import guarded
from codream_secure.cli.tables import accuracy, method_cells, size
from codream_secure.errors import ConfigError
from codream_secure.files import write_text
from codream_secure.privacy import PrivacyStatement

RESULTS = Path(__file__).parent / "results"
_OPENED = "<!-- table: "
_MARKED = re.compile(rf"({_OPENED}(?P<name>[\w.-]+) -->\n)(?:(?!{_OPENED}).)*?(<!-- end -->)", re.DOTALL)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns after the first are right-aligned."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def comparison_markdown(comparison: Mapping[str, Any]) -> str:
    """One row per method of a ``comparison.json``."""
    rows = []
    for entry in comparison["methods"]:
        if entry["obstacle"]:
            rows.append([entry["method"], entry["obstacle"], "", "", "", ""])
            continue
        rows.append([entry["method"], *method_cells(entry)])
    return markdown(("method", "test accuracy, %", "gap closed", "up / client", "down / client", "seconds"), rows)


def variants_markdown(table: Mapping[str, Any]) -> str:
    """One row per variant of a ``variants.json``."""
    if any(entry.get("privacy") for entry in table["variants"]):
        return private_variants_markdown(table)
    rows = []
    for entry in table["variants"]:
        row = [
            entry["name"],
            accuracy(entry["validation_accuracy"]),
            accuracy(entry["test_accuracy"]),
            size(entry["bytes_up"]["mean"] + entry["bytes_down"]["mean"]),
            f"{entry['seconds']['mean']:.1f}",
        ]
        rows.append([*row, to_reference(entry["to_reference"] or [])])
    headings = ("variant", "validation accuracy, %", "test accuracy, %", "bytes / client", "seconds", "to reference")
    if not any(row[-1] for row in rows):
        return markdown(headings[:-1], [row[:-1] for row in rows])
    return markdown(headings, rows)


def private_variants_markdown(table: Mapping[str, Any]) -> str:
    """Likewise, where privacy is claimed: what was spent on whom, and what was left beside the noise."""
    rows = []
    for entry in table["variants"]:
        claim = entry["privacy"]
        signal = claim["signal"] if claim else None
        rows.append(
            [
                entry["name"],
                _spent(PrivacyStatement.from_json(claim["statement"])) if claim else "no claim",
                f"{signal['value']:.2g}" if signal else "",
                accuracy(entry["test_accuracy"]),
                *(accuracy(entry[key]) if key in entry else "" for key in _OTHER_MODELS),
                size(entry["bytes_up"]["mean"] + entry["bytes_down"]["mean"]),
            ]
        )
    headings = ["variant", "spent", "s", "test accuracy, %", *_OTHER_MODELS.values(), "bytes / client"]
    empty = {place for place in range(len(headings)) if not any(row[place] for row in rows)}
    return markdown(
        [heading for place, heading in enumerate(headings) if place not in empty],
        [[cell for place, cell in enumerate(row) if place not in empty] for row in rows],
    )


_OTHER_MODELS = {"server_test_accuracy": "server's student, %", "dreamer_test_accuracy": "dreamers, %"}


def _spent(statement: PrivacyStatement) -> str:
    """A statement as a cell; adversary, adjacency and accountant are all rows' and stand beside the table."""
    return f"ε = {statement.epsilon:.3g} at δ = {statement.delta:g}, per {statement.unit.value}"


def audit_markdown(audit: Mapping[str, Any]) -> str:
    """One row per probe and adversary of an ``audit.json``, one column per method and protection.

    Of membership the AUC by LiRA, of the rest its own metric; with the 95 % interval where there is one. Of several
    seeds their mean. Beside it what the same measure gives without an attack, where that is not plain chance.
    """
    columns = list(dict.fromkeys((row["method"], row["protection"]) for row in audit["rows"]))
    cells: dict[tuple[str, str, str], dict[tuple[str, str], str]] = {}
    for row in sorted(audit["rows"], key=lambda row: row.get("seed") is None):
        metric = row["metric"]
        if metric in _LEFT_OUT or "threshold" in row["probe"] or "canaries" in row["probe"]:
            continue
        who = f"{'active' if row['active'] else 'passive'} {row['adversary']}"
        place = (who, row["probe"].removesuffix(", LiRA"), "AUC" if metric == "AUC" else metric)
        cells.setdefault(place, {})[row["method"], row["protection"]] = _figure(row)
    shown = [
        [*place, *(found.get(column, "") for column in columns)]
        for place, found in sorted(cells.items())
        if any(value not in ("", _UNSEEN) for value in found.values())
    ]
    return markdown(["adversary", "probe", "figure", *(f"{method}, {how}" for method, how in columns)], shown)


_LEFT_OUT = ("advantage", "TPR@1%FPR", "TPR@0.1%FPR", "TNR@1%FNR")
_UNSEEN = "not in view"


def _figure(row: Mapping[str, Any], *, places: int = 2) -> str:
    if row["value"] is None:
        return _UNSEEN if "view" in row["note"] else "not resolvable"
    metric = row["metric"]
    digits = ".1e" if "relative error" in metric else ".1f" if "dB" in metric else f".{places}f"
    text = f"{row['value']:{digits}}"
    beside = []
    if row["low"] is not None:
        beside.append(f"{row['low']:{digits}} to {row['high']:{digits}}")
    chance = metric == "AUC" or metric.startswith(("rank 1 of", "TPR@"))
    if row["control"] is not None and (not beside or not chance):
        beside.append(f"control {row['control']:{digits}}")
    return f"{text} ({'; '.join(beside)})" if beside else text


def released_markdown(found: Mapping[str, Any]) -> str:
    """One row per method and released model of a ``published_lira.json``, and how the published order fares."""
    figures = {(row["method"], row["probe"].removesuffix(", LiRA"), row["metric"]): row for row in found["rows"]}
    compared = {tuple(place) for place in found["order"]["models"]}
    rows = []
    for entry in found["released"]:
        place = entry["method"], entry["model"]
        printed = found["published"]["figures"].get(entry["method"], {}) if place in compared else {}
        rows.append(
            [
                f"{place[0]}: {place[1]}",
                *(f"{100 * entry[key][0]:.1f}" for key in ("train_accuracy", "test_accuracy")),
                *(_figure(figures[*place, metric], places=3) for metric in _RELEASED),
                f"{min(entry['targets']):.2f} to {max(entry['targets']):.2f}",
                f"{printed['AUC']:.3f}" if printed else "",
                f"{printed['TPR@0.1%FPR']:.3f}" if printed else "",
            ]
        )
    headings = (
        "method: model that is asked",
        "right on members, %",
        "on test images, %",
        *_RELEASED,
        "AUC, single targets",
        "published AUC",
        "published TPR@0.1%FPR",
    )
    table = markdown(headings, rows)
    return f"{table}\n\n{_order(found['order'])}" if found["order"]["differences"] else table


_RELEASED = ("AUC", "TPR@1%FPR", "TPR@0.1%FPR")


def _order(order: Mapping[str, Any]) -> str:
    """Differences between models of the published order, and how many targets show all of it."""
    parts = [
        f"{each['of']} less {each['over']} {each['value']:+.3f} ({each['low']:+.3f} to {each['high']:+.3f})"
        for each in order["differences"]
    ]
    named = " > ".join(method for method, _ in order["models"])
    return (
        f"AUC, {'; '.join(parts)}. The order {named} holds in {order['falling']} of {order['targets']} single targets."
    )


def bench_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Masked rows of ``bench protocols --json``, with ratios to Flower's row of the same cohort, where there is one."""

    def flower(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
        place = (row["clients"], row["dropout"], row["degree"])
        return next(
            (
                other
                for other in rows
                if other["protocol"] == FLOWER and (other["clients"], other["dropout"], other["degree"]) == place
            ),
            None,
        )

    def milliseconds(seconds: float) -> str:
        return f"{1000 * seconds:.3g} ms"

    def against(row: Mapping[str, Any], key: str) -> str:
        other = flower(row)
        if other is None:
            return "-"
        ratio = other[key] / row[key]
        return f"{ratio:.0f}x" if ratio >= 99.5 else f"{ratio:.3g}x"

    table = [
        [
            f"{row['protocol']}, {row['clients']}",
            f"{100 * row['dropout']:g} %",
            milliseconds(row["setup_cpu_s"]),
            milliseconds(row["client_cpu_s"]),
            f"{row['floor_ratio']:.2f}x",
            against(row, "client_cpu_s"),
            milliseconds(row["unmask_cpu_s"]),
            against(row, "unmask_cpu_s"),
            f"{row['upload_bytes_per_value']:.2f}",
        ]
        for row in rows
        if row["floor_ratio"] is not None and row["protocol"] != FLOWER
    ]
    headings = (
        "protection, clients",
        "vanish",
        "set-up, client",
        "step, client",
        "over floor",
        "Flower / ours",
        "unmasking, server",
        "Flower / ours",
        "bytes a value, up",
    )
    return markdown(headings, table)


def encrypted_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """All rows of ``bench protocols --json`` with encrypted sums among them, and ratios of TenSEAL's usual settings."""
    usual = {(row["clients"], row["dropout"]): row for row in rows if row["protocol"] == DEFAULT}

    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{1000 * value:.3g} ms" if value < 0.9995 else f"{value:.3g} s"

    def ratio(row: Mapping[str, Any], key: str) -> str:
        other = usual.get((row["clients"], row["dropout"]))
        return "-" if other is None or row["protocol"] in UNENCRYPTED else f"{other[key] / row[key]:.2g}x"

    table = [
        [
            f"{row['protocol']}, {row['clients']}",
            f"{100 * row['dropout']:g} %",
            seconds(row["setup_cpu_s"]),
            seconds(row["contribute_cpu_s"]),
            ratio(row, "contribute_cpu_s"),
            seconds(row["client_cpu_s"]),
            seconds(row["server_cpu_s"]),
            seconds(row["authority_cpu_s"]),
            f"{row['upload_bytes_per_value']:.2f}",
            ratio(row, "upload_bytes_per_value"),
            f"{row['download_bytes_per_value']:.2f}",
        ]
        for row in rows
    ]
    headings = (
        "protection, clients",
        "vanish",
        "set-up, client",
        "until sent",
        "usual / ours",
        "step, client",
        "step, server",
        "authority",
        "bytes a value, up",
        "usual / ours",
        "down",
    )
    return markdown(headings, table)


def cost_markdown(found: Mapping[str, Any]) -> str:
    """What masking adds, of a ``protection_cost.json``."""
    digits, resnet = found["digits"], found["resnet18"]
    rows = [
        [
            "digits, 4 small CNNs: a round",
            f"{digits['round_s']:.2f} s",
            f"{1000 * digits['plain_cpu_s']:.1f} ms",
            f"{1000 * digits['masked_cpu_s']:.1f} ms",
            f"{100 * digits['added']:.2f} %",
        ],
        [
            f"{resnet['clients']} ResNet-18: a step of {resnet['images']} dreams of 3x32x32",
            f"{resnet['step_s']:.1f} s",
            f"{1000 * resnet['plain_cpu_s']:.0f} ms",
            f"{1000 * resnet['masked_cpu_s']:.0f} ms",
            f"{100 * resnet['added']:.2f} %",
        ],
    ]
    return markdown(("work", "takes", "its sums, plain", "masked", "added"), rows)


def to_reference(found: Sequence[Mapping[str, Any]]) -> str:
    """Mean bytes and seconds over the seeds that reached the reference's accuracy, and how many did."""
    if not found:
        return ""
    reached = [entry for entry in found if entry["round"] is not None]
    if not reached:
        return f"not reached (0/{len(found)})"
    count = sum(entry["bytes_up"] + entry["bytes_down"] for entry in reached) / len(reached)
    seconds = sum(entry["seconds"] for entry in reached) / len(reached)
    return f"{size(count)}, {seconds:.1f} s ({len(reached)}/{len(found)})"


def render(name: str) -> str:
    """The table of one committed result, by its file name without the ending.

    Raises:
        ConfigError: there is no such result.
    """
    try:
        content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    except OSError:
        known = ", ".join(sorted(path.stem for path in RESULTS.glob("*.json")))
        raise ConfigError(f"there is no result {name!r} in {RESULTS.name}: known are {known or 'none'}") from None
    if isinstance(content, list):
        encrypted = any(row["protocol"] not in (*UNENCRYPTED, FLOWER) for row in content)
        return encrypted_markdown(content) if encrypted else bench_markdown(content)
    known = content.get("environment")
    return _table(content) if known is None else f"{_table(content)}\n\n{provenance(known)}"


def _table(content: Mapping[str, Any]) -> str:
    if "published" in content:
        return released_markdown(content)
    if "rows" in content:
        return audit_markdown(content)
    if "variants" in content:
        return variants_markdown(content)
    return cost_markdown(content) if "resnet18" in content else comparison_markdown(content)


def provenance(environment: Mapping[str, Any]) -> str:
    """Where and at which commit a result was measured; no table is of a commit that it does not name."""
    commit, processor = environment["commit"] or "unknown", environment["processor"] or "an unnamed processor"
    return f"*Measured at commit {commit}, on {environment['cores']} cores of {processor}.*"


def fill(document: str) -> str:
    """The document with every marked table rendered anew.

    Raises:
        ConfigError: a marker names no result, or has no name or no end.
    """
    if document.count(_OPENED) != len(_MARKED.findall(document)):
        raise ConfigError(f"a marker {_OPENED}NAME --> has no name, or no <!-- end --> before the next one")
    return _MARKED.sub(lambda found: f"{found[1]}{render(found['name'])}\n{found[3]}", document)


def main(
    write: Annotated[
        list[Path] | None, typer.Option("--write", help="Fill the markers of this file. Repeatable.")
    ] = None,
) -> None:
    """Print all tables, or write them into documents."""
    for path in write or []:
        write_text(path, fill(path.read_text(encoding="utf-8")))
    if not write:
        paths = sorted(RESULTS.glob("*.json"))
        if not paths:
            raise ConfigError(f"there are no results in {str(RESULTS)!r}")
        for path in paths:
            print(f"## {path.stem}\n\n{render(path.stem)}\n")


def script() -> None:
    """The module as a command."""
    guarded(lambda: typer.run(main))


if __name__ == "__main__":
    script()
