"""An audit in the terminal: probes down, victims across, in as many tables as its width needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from attacks.report.findings import Finding, finding
from attacks.report.matrix import Grid, Line, Row, Victim, arrange, means_of_seeds
from attacks.report.numbers import figure, interval
from attacks.report.summary import epsilon_sentence, sections, verdict

# What fits a terminal; the page has the rest.
_LEFT_OUT = ("advantage", "TPR@0.1%FPR", "TNR@1%FNR")
_LABEL_WIDTH = 20
_MARKS = {Finding.ABOVE: "*", Finding.BELOW: "!"}
_REASONS = {Finding.UNSEEN: "not in view", Finding.UNRESOLVED: "not\nresolvable"}  # no wider than figures
_LEGEND = (
    "* the 95 % interval lies above chance, or beats the control; ! it lies below. Unmarked: not told from chance at "
    "this power and n, or nothing to compare with."
)


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
    for block in arrange(means_of_seeds(shown)):
        parts.append(Text(f"{block.title[:1].upper()}{block.title[1:]}", style="bold"))
        parts += [part for grid in block.grids for table in _tables(grid, width=width) for part in (table, Text())]
    if shown:
        parts += [Text(_LEGEND), Text()]
    if audit["checks"]:
        parts.append(checks_table(audit["checks"]))
    if audit["epsilons"]:
        parts += [Text("Epsilon", style="bold"), *_listed(map(epsilon_sentence, audit["epsilons"]))]
    if summary:
        for section in sections(audit):
            parts += [Text(section.title, style="bold"), *_listed(section.sentences)]
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


def _listed(sentences: Iterable[str]) -> list[RenderableType]:
    grid = Table.grid(padding=(0, 1, 0, 0))
    for sentence in sentences:
        grid.add_row(Text("-"), Text(sentence))
    return [grid, Text()]


def _tables(grid: Grid, *, width: int) -> list[Table]:
    """As few tables as fit the width, each with at least one victim."""
    measure = Console(width=10_000)
    found, victims = [], grid.victims
    while victims:
        count = len(victims)
        while count > 1 and _width(measure, _table(grid, victims[:count])) > width:
            count -= 1
        found.append(_table(grid, victims[:count]))
        victims = victims[count:]
    return found


def _width(console: Console, table: Table) -> int:
    return Measurement.get(console, console.options, table).maximum


def _table(grid: Grid, victims: Sequence[Victim]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("probe\nmetric", max_width=_LABEL_WIDTH, overflow="fold")
    for method, protection in victims:
        table.add_column(Text(f"{method}\n{protection}"), justify="right", no_wrap=True)
    for probe, lines in grid.probes.items():
        table.add_row(Text(probe, style="bold"))
        for line in lines:
            table.add_row(Text(f"  {line.metric}"), *(_cell(line, victim) for victim in victims))
    return table


def _cell(line: Line, victim: Victim) -> Text:
    """A dash and its reason where there is no figure; nothing where nothing was tried."""
    return Text("\n".join(map(_entry, line.cells.get(victim, ()))))


def _entry(row: Row) -> str:
    kind = finding(row)
    if row["value"] is None:
        return f"-\n{_REASONS[kind]}"
    between = interval(row).replace(" to ", "..")
    return f"{figure(row['metric'], row['value'])}{_MARKS.get(kind, ' ')}" + (f"\n{between} " if between else "")
