"""An audit in the terminal: one figure a probe and plain words; with details every probe and metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from attacks.report.comparison import BASELINE, Comparison, Pair, compare
from attacks.report.findings import Finding, chance, finding
from attacks.report.glance import Cell, Glance, ProbeLine, at_a_glance, named
from attacks.report.matrix import Grid, Line, Row, Victim, arrange, means_of_seeds
from attacks.report.numbers import figure, guess, interval
from attacks.report.summary import bounds, caution, epsilon_sentence, reading, refutations, verdict
from attacks.report.words import PAIRS, adversary_in_words, in_pairs, plain_words, protections_in_words

# What fits a terminal; the page has the rest.
_LEFT_OUT = ("advantage", "TPR@0.1%FPR", "TNR@1%FNR")
_LABEL_WIDTH = 20
_PROBE_WIDTH = 24
_MARKS = {Finding.ABOVE: "*", Finding.BELOW: "!"}
_HINT = "+"
_REASONS = {Finding.UNSEEN: "not in view", Finding.UNRESOLVED: "not\nresolvable"}  # no wider than figures
_LEGEND = (
    "* the 95 % interval lies above chance, or beats the control; ! it lies below. Unmarked: not told from chance at "
    "this power and n, or nothing to compare with."
)
_GLANCE_LEGEND = (
    f"{_LEGEND} {_HINT}2 of 9: the figure shown is not above chance, but of 9 other figures of the same probe 2 are "
    "above or below it. Averages over all images hide those most exposed. Empty: not tried."
)


def print_audit(audit: Mapping[str, Any], console: Console | None = None, *, details: bool = False) -> None:
    """Print verdict, one figure a probe, plain words and failed checks, as wide as the console.

    Args:
        audit: the contents of ``audit.json``, checked.
        console: standard output where None.
        details: print every probe, check and bound before that.
    """
    console = console or Console()
    console.print(audit_tables(audit, width=console.width, details=details))


def audit_tables(audit: Mapping[str, Any], *, width: int = 80, details: bool = False) -> Group:
    """What :func:`print_audit` prints.

    Args:
        audit: the contents of ``audit.json``, checked.
        width: in columns; tables that would be wider are cut into several, of some victims each.
        details: every probe, check and bound as well.
    """
    valid, sentence = verdict(audit)
    failed = [check for check in audit["checks"] if not check["passed"]]
    parts: list[RenderableType] = [_verdict(valid, sentence)]
    parts += [Text(f"{refuted}\n", style="bold red") for refuted in refutations(audit)]
    if details:
        parts += _details(audit, width=width)
    if audit["rows"]:
        parts += _glance(at_a_glance(audit["rows"]), width=width)
    parts += _words(audit, width=width)
    if failed and not details:
        parts.append(checks_table(failed, title="Failed checks"))
    # A verdict that has scrolled away is one that nobody reads.
    return Group(*parts, _verdict(valid, ""))


def checks_table(checks: Sequence[Mapping[str, Any]], *, title: str = "Checks") -> Table:
    """One row a check."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
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


def _details(audit: Mapping[str, Any], *, width: int) -> list[RenderableType]:
    """Every probe and metric that fits a terminal, every check, every bound."""
    shown = [row for row in audit["rows"] if row["metric"] not in _LEFT_OUT]
    parts: list[RenderableType] = []
    for block in arrange(means_of_seeds(shown)):
        parts.append(_title(_capital(block.title)))
        for grid in block.grids:
            parts += _cut(grid.victims, partial(_table, grid), width=width)
    if shown:
        parts += [Text(_LEGEND), Text()]
    if audit["checks"]:
        parts.append(checks_table(audit["checks"]))
    if audit["epsilons"]:
        parts += [_title("Epsilon"), *_listed(map(epsilon_sentence, audit["epsilons"]))]
    return parts


def _glance(glance: Glance, *, width: int) -> list[RenderableType]:
    """One table where it fits; otherwise one a method, without the probes that were not tried on it."""
    parts: list[RenderableType] = [_title("At a glance")]
    methods = dict.fromkeys(method for method, _ in glance.victims)
    groups = [glance.victims]
    if not _fits(_glance_table(glance, glance.victims), width):
        groups = [tuple(victim for victim in glance.victims if victim[0] == method) for method in methods]
    for victims in groups:
        parts += _cut(victims, partial(_glance_table, glance), width=width)
    parts += [Text(_GLANCE_LEGEND), Text()]
    meanings = [f"{names}: {meaning}" for names, meaning in protections_in_words(glance)]
    return [*parts, Text(f"{'; '.join(meanings)}.\n")] if meanings else parts


def _words(audit: Mapping[str, Any], *, width: int) -> list[RenderableType]:
    parts: list[RenderableType] = [_title("In plain words"), *map(Text, caution(audit))]
    if in_pairs(audit["rows"]):
        parts += [Text(PAIRS), Text()]
    title = ""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for told in plain_words(audit["rows"]):
        if told.adversary != title:
            title, does = told.adversary, adversary_in_words(told.adversary)
            head = _title(_capital(title)) + Text(f": {does}" if does else "", style="not bold dim")
            parts += [grid, head] if grid.row_count else [head]
            grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_row(Text(f"  {told.method}"), Text("\n".join(told.sentences)))
    if grid.row_count:
        parts += [grid, Text()]
    compared = compare(arrange(means_of_seeds(audit["rows"])), audit["victims"])
    if compared.pairs or compared.remarks:
        parts += [
            _title(f"Beside {BASELINE}: the largest AUC against each, worst cases included"),
            *_beside(compared, width=width),
        ]
    return [*parts, _title("How to read this"), *_listed([*bounds(audit), *reading(audit)])]


def _beside(compared: Comparison, *, width: int) -> list[RenderableType]:
    """A line a pair, or two where the width asks for it; then what has to be said of them."""
    tables = [_pairs(compared.pairs, between=between) for between in (" ", "\n")]
    shown: list[RenderableType] = [tables[0] if _fits(tables[0], width) else tables[1], Text()]
    return [*(shown if compared.pairs else []), *_listed(compared.remarks)]


def _pairs(pairs: Sequence[Pair], *, between: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in ("adversary", "protection", "method", BASELINE, "intervals"):
        table.add_column(name, no_wrap=name in ("method", BASELINE), overflow="fold")

    def shown(row: Row) -> str:
        return f"{figure('AUC', row['value'])}{between}({interval(row).replace(' to ', '..') or 'no interval'})"

    for pair in pairs:
        cells = (pair.adversary, pair.protection, f"{pair.method} {shown(pair.here)}", shown(pair.there), pair.apart)
        table.add_row(*map(Text, cells))
    return table


def _listed(sentences: Iterable[str]) -> list[RenderableType]:
    grid = Table.grid(padding=(0, 1, 0, 0))
    for sentence in sentences:
        grid.add_row(Text("-"), Text(sentence))
    return [grid, Text()] if grid.row_count else []


def _title(text: str) -> Text:
    return Text(text, style="bold")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cut(victims: Sequence[Victim], build: Callable[[Sequence[Victim]], Table], *, width: int) -> list[RenderableType]:
    """As few tables as fit the width, each with about as many victims, and with a line below it."""
    for size in range(len(victims), 0, -1):
        count = -(-len(victims) // size)
        even = -(-len(victims) // count)
        tables = [build(victims[start : start + even]) for start in range(0, len(victims), even)]
        if size == 1 or all(_fits(table, width) for table in tables):
            return [part for table in tables for part in (table, Text())]
    return []


def _fits(table: Table, width: int) -> bool:
    console = Console(width=10_000)
    return Measurement.get(console, console.options, table).maximum <= width


def _columns(label: str, victims: Sequence[Victim], *, label_width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column(label, max_width=label_width, overflow="fold")
    for method, protection in victims:
        table.add_column(Text(f"{method}\n{protection}"), justify="right", no_wrap=True)
    return table


def _table(grid: Grid, victims: Sequence[Victim]) -> Table:
    table = _columns("probe\nmetric", victims, label_width=_LABEL_WIDTH)
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


def _glance_table(glance: Glance, victims: Sequence[Victim]) -> Table:
    table = _columns("probe\nfigure", victims, label_width=_PROBE_WIDTH)
    for part in glance.of(victims).parts:
        table.add_row(Text(_capital(part.title), style="bold"))
        for line in part.lines:
            reached = "" if line.guess is None else f"; {guess(line.metric, line.guess)}"
            label = Text(f"{line.probe}\n") + Text(f"{named(line.score, line.metric)}{reached}", style="dim")
            table.add_row(label, *(_summed_up(line, line.cells.get(victim)) for victim in victims))
    return table


def _summed_up(line: ProbeLine, cell: Cell | None) -> Text:
    """The headline, seeds below each other, and how many other figures say more than it does."""
    if cell is None:
        return Text()
    shown = Text("\n").join(_headline(line, row) for row in cell.headline)
    hint = f"\n{_HINT}{cell.above + cell.below} of {cell.judged} " if cell.understated else ""
    return shown + Text(hint, style="bold")


def _headline(line: ProbeLine, row: Row) -> Text:
    kind = finding(row)
    if row["value"] is None:
        return Text(_REASONS[kind], style="dim")
    reached = chance(row) if line.guess is None else None
    own = "" if reached is None else guess(row["metric"], reached)
    between = interval(row).replace(" to ", "..")
    found = Text(
        f"{figure(row['metric'], row['value'])}{_MARKS.get(kind, ' ')}", style="bold" if kind in _MARKS else ""
    )
    return found + Text("".join(f"\n{small} " for small in (between, own, line.own(row)) if small), style="dim")
