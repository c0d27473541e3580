"""Rows side by side: a block for each adversary, a line for each probe and metric, a column for each victim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attacks.report.findings import metric_order
from attacks.report.numbers import adversary

Row = Mapping[str, Any]
Victim = tuple[str, str]  # method and protection


@dataclass(frozen=True, kw_only=True)
class Line:
    """One probe and one metric: the rows of each victim, several where several seeds were measured."""

    probe: str
    metric: str
    cells: Mapping[Victim, tuple[Row, ...]]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Lines of the same victims, which make one table without empty columns; those of one probe stand together."""

    victims: tuple[Victim, ...]
    lines: tuple[Line, ...]

    @property
    def probes(self) -> dict[str, list[Line]]:
        """Each probe and its lines."""
        found: dict[str, list[Line]] = {}
        for line in self.lines:
            found.setdefault(line.probe, []).append(line)
        return found


@dataclass(frozen=True, kw_only=True)
class Block:
    """All that one adversary, passive or active, was measured at. What differs in that is never put side by side."""

    adversary: str
    active: bool
    whole: Grid

    @property
    def title(self) -> str:
        return adversary({"adversary": self.adversary, "active": self.active})

    @property
    def grids(self) -> list[Grid]:
        """The whole, cut by which victims a probe was tried on, in order of first appearance."""
        groups: dict[frozenset[Victim], list[Line]] = {}
        for lines in self.whole.probes.values():
            groups.setdefault(frozenset().union(*(line.cells for line in lines)), []).extend(lines)
        return [
            Grid(victims=tuple(victim for victim in self.whole.victims if victim in tried), lines=tuple(lines))
            for tried, lines in groups.items()
        ]


def means_of_seeds(rows: Sequence[Row]) -> list[Row]:
    """The rows without those of single seeds that have a mean over all: what words are about."""

    def place(row: Row) -> tuple[Any, ...]:
        return tuple(row[key] for key in ("method", "protection", "adversary", "active", "probe", "metric"))

    pooled = {place(row) for row in rows if row["seed"] is None}
    return [row for row in rows if row["seed"] is None or place(row) not in pooled]


def arrange(rows: Sequence[Row]) -> list[Block]:
    """Blocks in the order of first appearance, each adversary passive before active; victims by method."""
    order = list(dict.fromkeys(row["adversary"] for row in rows))
    keys = sorted({(row["adversary"], row["active"]) for row in rows}, key=lambda key: (order.index(key[0]), key[1]))
    return [
        Block(
            adversary=name,
            active=active,
            whole=_grid([row for row in rows if (row["adversary"], row["active"]) == (name, active)]),
        )
        for name, active in keys
    ]


def victims_of(parts: Sequence[Mapping[str, Any]]) -> tuple[Victim, ...]:
    """Methods in order of first appearance, each with its protections in theirs."""
    methods = list(dict.fromkeys(part["method"] for part in parts))
    found = dict.fromkeys((part["method"], part["protection"]) for part in parts)
    return tuple(sorted(found, key=lambda victim: methods.index(victim[0])))


def _grid(rows: Sequence[Row]) -> Grid:
    probes = list(dict.fromkeys(row["probe"] for row in rows))
    lines: dict[tuple[str, str], dict[Victim, list[Row]]] = {}
    for row in rows:
        cells = lines.setdefault((row["probe"], row["metric"]), {})
        cells.setdefault((row["method"], row["protection"]), []).append(row)
    ordered = sorted(lines, key=lambda line: (probes.index(line[0]), metric_order(line[1])))
    return Grid(
        victims=victims_of(rows),
        lines=tuple(
            Line(
                probe=probe,
                metric=metric,
                cells={victim: tuple(found) for victim, found in lines[probe, metric].items()},
            )
            for probe, metric in ordered
        ),
    )
