"""Results as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table


def accuracy(spread: Mapping[str, Any]) -> str:
    """Mean and standard deviation in per cent, such as ``92.3 ± 1.1``."""
    if spread["mean"] is None:
        return "-"
    deviation = "" if spread["std"] is None else f" ± {100 * spread['std']:.1f}"
    return f"{100 * spread['mean']:.1f}{deviation}"


def size(count: float | None) -> str:
    """Bytes in decimal units, three figures: ``12.3 MB``."""
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if count < 999.5 else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def comparison_table(comparison: Mapping[str, Any]) -> Table:
    """One row per method: accuracy, gap closed, bytes per client, seconds, cost to the target."""
    seeds = len(comparison["seeds"])
    selected = {"final": "final round", "validation": "round chosen on validation data"}[comparison["selected_by"]]
    target = comparison["target"]
    over = "1 seed" if seeds == 1 else f"{seeds} seeds, mean ± std"
    table = Table(title=f"Test accuracy in %, mean over clients, {selected}; {over}", title_justify="left")
    for heading in ("method", "test accuracy", "gap closed", "up / client", "down / client", "seconds"):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    if target is not None:
        table.add_column(f"to {100 * target:.1f} % val.", justify="right", no_wrap=True)
    for entry in comparison["methods"]:
        if entry["obstacle"]:
            table.add_row(entry["method"], f"[dim]{entry['obstacle']}[/dim]")
            continue
        gap = entry["gap_closed"]
        row = [
            entry["method"],
            accuracy(entry["test_accuracy"]),
            "-" if gap is None else f"{100 * gap:.0f} %",
            size(entry["bytes_up"]["mean"]),
            size(entry["bytes_down"]["mean"]),
            f"{entry['seconds']['mean']:.1f}",
        ]
        if target is not None:
            row.append(_to_target(entry["to_target"]))
        table.add_row(*row)
    return table


def _to_target(found: Mapping[str, Any]) -> str:
    if not found["reached"]:
        return "not reached"
    both = found["bytes_up"]["mean"] + found["bytes_down"]["mean"]
    partly = "" if found["reached"] == found["runs"] else f" ({found['reached']}/{found['runs']})"
    return f"{size(both)}, {found['seconds']['mean']:.1f} s{partly}"


def plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A left-aligned table of strings."""
    table = Table(*headings)
    for row in rows:
        table.add_row(*row)
    return table
