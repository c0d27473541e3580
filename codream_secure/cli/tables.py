"""Results as tables for people: no figure is ever cut, whatever the width of the terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDTH_OF_FILES = 140


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
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def method_cells(entry: Mapping[str, Any]) -> list[str]:
    """A method of a comparison: test accuracy, gap closed, bytes up and down per client, seconds."""
    gap = entry["gap_closed"]
    return [
        accuracy(entry["test_accuracy"]),
        "-" if gap is None else f"{100 * gap:z.0f} %",
        size(entry["bytes_up"]["mean"]),
        size(entry["bytes_down"]["mean"]),
        f"{entry['seconds']['mean']:.1f}",
    ]


def comparison_table(comparison: Mapping[str, Any]) -> Table:
    """One row per method, with the cost to the target. Below: obstacles, and CPU seconds of the sums."""
    seeds = len(comparison["seeds"])
    selected = {"final": "final round", "validation": "round chosen on validation data"}[comparison["selected_by"]]
    target = comparison["target"]
    over = "1 seed" if seeds == 1 else f"{seeds} seeds, mean ± std"
    table = Table(
        title=f"Test accuracy in %, mean over clients, {selected}; {over}",
        title_justify="left",
        caption=Text("\n".join(_below(comparison["methods"]))),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    # Headings of two lines keep the table within 80 columns.
    for heading in ("method", "test\naccuracy", "gap\nclosed", "up /\nclient", "down /\nclient", "seconds"):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    if target is not None:
        table.add_column(f"to {100 * target:.1f} %\nvalidation", justify="right", no_wrap=True)
    for entry in comparison["methods"]:
        if entry["obstacle"]:
            table.add_row(entry["method"], "cannot run")
            continue
        cells = method_cells(entry)
        if target is not None:
            cells.append(_to_target(entry["to_target"]))
        table.add_row(entry["method"], *cells)
    return table


def _below(methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why methods were not run, and what the protection of sums cost those that were."""
    lines = [f"{entry['method']}: {entry['obstacle']}" for entry in methods if entry["obstacle"]]
    costs = [
        f"{entry['protocol_cpu_client']['mean']:.2g} ({entry['method']})" for entry in methods if not entry["obstacle"]
    ]
    return [*lines, *([f"CPU seconds of sums, per client: {', '.join(costs)}"] if costs else [])]


def _to_target(found: Mapping[str, Any]) -> str:
    if not found["reached"]:
        return "not reached"
    both = found["bytes_up"]["mean"] + found["bytes_down"]["mean"]
    partly = "" if found["reached"] == found["runs"] else f" ({found['reached']}/{found['runs']})"
    return f"{size(both)},\n{found['seconds']['mean']:.1f} s{partly}"


def plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A left-aligned table of strings, in which only the last column is wrapped."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in headings[:-1]:
        table.add_column(heading, no_wrap=True)
    table.add_column(headings[-1], overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def show_deployment(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the accuracies of :func:`codream_secure.deployment.demo.run_demo`, and what they are."""
    members = range(len(rows[-1]["client_test_accuracy"])) if rows else ()
    cells = [(str(row["round"]), *map(percent, (row["test_accuracy"], *row["client_test_accuracy"]))) for row in rows]
    show(plain_table(("round", "all", *(f"member {number}" for number in members)), cells))
    print("Test accuracy: of all clients together, as the server learns it from a sum, and each client's own.")


def percent(value: float | None) -> str:
    """A share with one decimal, such as ``92.3 %``."""
    return "not measured" if value is None else f"{100 * value:.1f} %"


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as rows of a dotted name and a text; numbers to four figures."""
    rows = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", _text(value)))
    return rows


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show(table: Table) -> None:
    """Print to standard output: as wide as the terminal, wide in a file or a pipe, and never cutting a figure.

    A table without a column that may be wrapped is printed whole; on a terminal too narrow its lines run over.
    """
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH_OF_FILES
    if all(column.no_wrap for column in table.columns):
        unlimited = console.options.update(max_width=10_000)
        console.width = max(console.width, Measurement.get(console, unlimited, table).maximum)
    console.print(table)
