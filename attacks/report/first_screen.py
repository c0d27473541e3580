"""What an audit's page shows first: refuted claims, one figure a probe, plain words, and how to read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from attacks.report.comparison import BASELINE, Pair, compare
from attacks.report.findings import Finding, Row, chance, finding
from attacks.report.glance import Cell, Glance, ProbeLine, at_a_glance, named
from attacks.report.matrix import Victim, arrange, means_of_seeds
from attacks.report.numbers import figure, guess, interval
from attacks.report.summary import bounds, caution, reading, refutations
from attacks.report.words import PAIRS, adversary_in_words, in_pairs, plain_words, protections_in_words

MARKS = {Finding.ABOVE: "\N{BLACK UP-POINTING TRIANGLE}", Finding.BELOW: "\N{BLACK DOWN-POINTING TRIANGLE}"}
# Hollow: not the figure that is shown, but another of the same probe.
HINTS = {"above": "\N{WHITE UP-POINTING TRIANGLE}", "below": "\N{WHITE DOWN-POINTING TRIANGLE}"}


def first_screen(audit: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the context of ``audit.html.j2`` that stands before its tables in full."""
    rows = audit["rows"]
    glance = at_a_glance(rows)
    compared = compare(arrange(means_of_seeds(rows)), audit["victims"])
    return {
        "caution": caution(audit),
        "refuted": refutations(audit),
        "glance": _glance(glance) if rows else None,
        "protections": protections_in_words(glance),
        "words": _words(rows),
        "pairs_explained": PAIRS if in_pairs(rows) else "",
        "baseline": BASELINE,
        "compared": [_pair(pair) for pair in compared.pairs],
        "remarks": compared.remarks,
        "reading": [*bounds(audit), *reading(audit)],
    }


def heads(victims: Sequence[Victim]) -> dict[str, Any]:
    """Methods, each over as many columns as it has protections."""
    methods = [method for method, _ in victims]
    return {
        "methods": [(name, methods.count(name)) for name in dict.fromkeys(methods)],
        "protections": [protection for _, protection in victims],
    }


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def seed_of(row: Row) -> str:
    return "all seeds" if row["seed"] is None else f"seed {row['seed']}"


def _glance(glance: Glance) -> dict[str, Any]:
    return {
        **heads(glance.victims),
        "parts": [
            {"title": capital(part.title), "lines": [_probe(line, glance.victims) for line in part.lines]}
            for part in glance.parts
        ],
    }


def _probe(line: ProbeLine, victims: Sequence[Victim]) -> dict[str, Any]:
    return {
        "name": line.probe,
        "metric": named(line.score, line.metric),
        "guess": "" if line.guess is None else guess(line.metric, line.guess),
        "cells": list(_side_by_side(line, victims)),
    }


def _side_by_side(line: ProbeLine, victims: Sequence[Victim]) -> Iterator[dict[str, Any]]:
    """Cells of a line; where nothing was tried they are one that says so, for empty ones look like good signs."""
    for (tried, _), run in groupby(victims, key=lambda victim: (victim in line.cells, victim[0])):
        if tried:
            yield from (_summed_up(line, line.cells[victim]) for victim in run)
        else:
            yield {"untried": len(list(run))}


def _summed_up(line: ProbeLine, cell: Cell) -> dict[str, Any]:
    """The headline, one entry for each seed that has no mean, and a sign of what it does not show."""
    entries = [_entry(line, row) for row in cell.headline]
    kinds = {entry["kind"] for entry in entries}
    counts = ((HINTS["above"], cell.above), (HINTS["below"], cell.below))
    hint = ", ".join(f"{mark} {count}" for mark, count in counts if count) if cell.understated else ""
    return {
        "untried": 0,
        "entries": entries,
        "kind": next(iter(kinds)) if len(kinds) == 1 else "",
        "hint": f"{hint} of {cell.judged}" if hint else "",
    }


def _entry(line: ProbeLine, row: Row) -> dict[str, Any]:
    """A headline; what it is and what it is compared with only where that is not common to the line."""
    shown = {"kind": finding(row).name, "seed": seed_of(row), "note": row["note"], "lines": [finding(row).value]}
    if row["value"] is None:
        return shown | {"value": ""}
    value = chance(row)
    own = "" if value is None or line.guess is not None else guess(row["metric"], value)
    lines = [part for part in (interval(row), own, line.own(row)) if part]
    return shown | {"value": figure(row["metric"], row["value"]), "lines": lines}


def _words(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Sentences by adversary, and then by method."""
    found: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for told in plain_words(rows):
        found.setdefault(told.adversary, []).append((told.method, told.sentences))
    return [
        {"adversary": capital(name), "does": adversary_in_words(name), "methods": methods}
        for name, methods in found.items()
    ]


def _pair(pair: Pair) -> dict[str, Any]:
    def shown(row: Row) -> dict[str, str]:
        return {"value": figure("AUC", row["value"]), "small": interval(row) or "no interval", "probe": row["probe"]}

    return {
        "adversary": capital(pair.adversary),
        "method": pair.method,
        "protection": pair.protection,
        "sides": [shown(pair.here), shown(pair.there)],
        "apart": pair.apart,
    }
