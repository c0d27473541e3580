"""An audit in the terminal: probes down, victims across, in as many tables as its width needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from attacks.report.findings import Finding, finding
from attacks.report.matrix import Block, Line, Row, Victim, arrange
from attacks.report.numbers import figure, interval
from attacks.report.summary import epsilon_sentence, summarise, verdict

# What fits a terminal; the page has the rest.
_LEFT_OUT = ("advantage", "TPR@0.1%FPR", "TNR@1%FNR")
_LABEL_WIDTH = 24
_MARKS = {Finding.ABOVE: "*", Finding.BELOW: "!"}
_LEGEND = "* the 95 % interval lies above chance (or beats the control), ! below; unmarked: not told from chance"


def print_audit(audit: Mapping[str, Any], console: Console | None = None) -> None:
    """Print verdict, tables, checks, bounds and summary, as wide as the console.

    Args:
        audit: the contents of ``audit.json``, checked.
        console: standard output where None.
    """
    console = console or Console()
    console.print(audit_tables(audit, width=console.width))


def audit_tables(
    audit: Mapping[str, Any], *, width: int = 80, left_out: Sequence[str] = _LEFT_OUT, summary: bool = True
) -> Group:
    """What :func:`print_audit` prints.

    Args:
        audit: the contents of ``audit.json``, checked.
        width: in columns; tables that would be wider are cut into several, of some victims each.
        left_out: metrics that are not shown.
        summary: end with the summary's sentences.
    """
    valid, sentence = verdict(audit)
    shown = [row for row in audit["rows"] if row["metric"] not in left_out]
    parts: list[RenderableType] = [_verdict(valid, sentence)]
    for block in arrange(shown):
        parts += _tables(block, width=width)
    if shown:
        parts += [Text(_LEGEND), Text()]
    if audit["checks"]:
        parts.append(checks_table(audit["checks"]))
    if audit["epsilons"]:
        parts += [Text("Epsilon", style="bold"), *_listed(map(epsilon_sentence, audit["epsilons"]))]
    if summary:
        said = [epsilon_sentence(part) for part in audit["epsilons"]]
        parts += [Text("Summary", style="bold")]
        parts += _listed(line for line in summarise(audit)[1:] if line not in said)
    # A verdict that has scrolled away is one that nobody reads.
    return Group(*parts, _verdict(valid, ""))


def checks_table(checks: Sequence[Mapping[str, Any]]) -> Table:
    """One row a check."""
    table = Table(title="Checks", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("check", max_width=28, overflow="fold")
    table.add_column("result", no_wrap=True)
    table.add_column("detail", overflow="fold")
    for check in checks:
        passed = Text("passed") if check["passed"] else Text("FAILED", style="bold red")
        table.add_row(Text(check["name"]), passed, Text(check["detail"]))
    return table


def _verdict(valid: bool, sentence: str) -> Text:
    word = Text("VALID", style="bold") if valid else Text("NOT VALID", style="bold red")
    return word + Text(f": {sentence}\n" if sentence else "", style="not bold default")


def _listed(sentences: Any) -> list[RenderableType]:
    grid = Table.grid(padding=(0, 1, 0, 0))
    for sentence in sentences:
        grid.add_row(Text("-"), Text(sentence))
    return [grid, Text()]


def _tables(block: Block, *, width: int) -> list[Table]:
    """As few tables as fit the width, each with at least one victim."""
    measure = Console(width=10_000)
    found, victims = [], block.victims
    while victims:
        count = len(victims)
        while count > 1 and _width(measure, _table(block, victims[:count])) > width:
            count -= 1
        found.append(_table(block, victims[:count]))
        victims = victims[count:]
    return found


def _width(console: Console, table: Table) -> int:
    return Measurement.get(console, console.options, table).maximum


def _table(block: Block, victims: Sequence[Victim]) -> Table:
    table = Table(
        title=block.title.capitalize(),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("probe\nmetric", max_width=_LABEL_WIDTH, overflow="fold")
    for method, protection in victims:
        table.add_column(Text(f"{method}\n{protection}"), justify="right", no_wrap=True)
    before = ""
    for line in block.lines:
        if not any(victim in line.cells for victim in victims):
            continue
        if line.probe != before:
            table.add_row(Text(line.probe, style="bold"))
            before = line.probe
        table.add_row(Text(f"  {line.metric}"), *(_cell(line, victim) for victim in victims))
    return table


def _cell(line: Line, victim: Victim) -> Text:
    rows = line.cells.get(victim, ())
    return Text("\n".join(map(_entry, rows)) if rows else "-")


def _entry(row: Row) -> str:
    kind = finding(row)
    if row["value"] is None:
        return f"-\n{kind.value}"
    between = interval(row)
    return f"{figure(row['metric'], row['value'])}{_MARKS.get(kind, ' ')}" + (f"\n{between} " if between else "")
