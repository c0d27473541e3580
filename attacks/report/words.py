"""What each adversary finds out, in words that need no statistics: figures only where they carry a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from attacks.report.findings import Finding, Row, finding
from attacks.report.glance import Cell, Glance, Kind, ProbeLine, at_a_glance, is_canary
from attacks.report.matrix import means_of_seeds
from attacks.report.numbers import figure, measured

PAIRS = (
    "\N{LEFT DOUBLE QUOTATION MARK}75 in 100\N{RIGHT DOUBLE QUOTATION MARK} means: shown one image that was trained on "
    "and one that was not, the adversary picks the right one 75 times in 100, where a coin picks 50."
)
_PROTECTIONS = {
    "plain": "the server sees each client's numbers in clear",
    "masked": "the server sees sums over clients only",
    "bfv": "sums are encrypted, and clients open them",
    "ckks": "sums are encrypted, and clients open them",
    "bfv-authority": "sums are encrypted, and the server gets them from an authority",
    "ckks-authority": "sums are encrypted, and the server gets them from an authority",
    "client-dp": "noise is added, which is meant to hide whether one client took part",
    "example-dp": "noise is added, which is meant to hide whether one image was there",
}
_ADVERSARIES = {
    "passive server": "follows the protocol, and looks at what it gets",
    "active server": "deviates, as by choosing what clients are asked",
    "passive client": "clients who follow the protocol, and pool what they get",
    "public": "gets what is published in the end, and nothing else",
}
_VERBS = {
    Kind.MEMBERS: "Tells which images were trained on",
    Kind.IMAGES: "Brings private images back, at least in part",
    Kind.LABELS: "Learns which labels a client holds, better than by a guess",
    Kind.OTHER: "Finds out more than a guess does",
}


@dataclass(frozen=True, kw_only=True)
class Told:
    """Sentences on one method in the hands of one adversary."""

    adversary: str
    method: str
    sentences: tuple[str, ...]


class _Case(Enum):
    """How much all probes of one kind show under one protection."""

    TOLD = "a main figure is above chance"
    TRACE = "another figure is off chance"
    NOTHING = "no figure is"
    UNJUDGED = "there are figures, and nothing to compare them with"
    UNRESOLVED = "too few samples, or no answer"
    UNSEEN = "nothing is in view"


_Cells = Mapping[str, Sequence[tuple[ProbeLine, Cell]]]  # protection to probes of one kind and method


def plain_words(rows: Sequence[Row]) -> list[Told]:
    """A few short sentences for each adversary and method, passive before active.

    Args:
        rows: all of an audit, single seeds included: a trace in one of them is told.
    """
    glance = at_a_glance(rows)
    found = []
    for part in glance.parts:
        for method in dict.fromkeys(method for method, _ in glance.victims):
            kinds = {kind: _cells(part.lines, kind, method) for kind in Kind}
            sentences = _sentences({kind: cells for kind, cells in kinds.items() if cells})
            if sentences:
                found.append(Told(adversary=part.title, method=method, sentences=tuple(sentences)))
    return found


def in_pairs(rows: Sequence[Row]) -> bool:
    """Whether any sentence counts pairs, so that :data:`PAIRS` has to be said."""
    return any(row["metric"] == "AUC" and finding(row) is Finding.ABOVE for row in rows)


def protections_in_words(glance: Glance) -> list[tuple[str, str]]:
    """What the names of protections mean, as far as they are this toolkit's; those that mean the same together."""
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys(protection for _, protection in glance.victims):
        meaning = _PROTECTIONS.get(name.split(" ")[0])
        if meaning:
            alike.setdefault(meaning, []).append(name)
    return [(listed(names), meaning) for meaning, names in alike.items()]


def adversary_in_words(title: str) -> str:
    """What an adversary does, or nothing for one that is not this toolkit's.

    >>> adversary_in_words("public"), adversary_in_words("passive neighbour")
    ('gets what is published in the end, and nothing else', '')
    """
    return _ADVERSARIES.get(title, "")


def listed(names: Sequence[str]) -> str:
    """Names with an and.

    >>> listed(["plain"]), listed(["plain", "bfv", "ckks"])
    ('plain', 'plain, bfv and ckks')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def in_hundred(area: float) -> str:
    """An area under the curve as pairs told right. What is not one half or one is never rounded to it.

    >>> in_hundred(0.753), in_hundred(0.9987), in_hundred(0.5013), in_hundred(1.0)
    ('75 in 100', 'over 99 in 100', 'just over 50 in 100', '100 in 100')
    """
    shown = round(100 * area)
    if shown == 100 and area < 1:
        return "over 99 in 100"
    return f"{'just over ' if shown == 50 and area > 0.5 else ''}{shown} in 100"


def _cells(lines: Iterable[ProbeLine], kind: Kind, method: str) -> _Cells:
    found: dict[str, list[tuple[ProbeLine, Cell]]] = {}
    for line in lines:
        for (name, protection), cell in line.cells.items():
            if (name, line.kind) == (method, kind):
                found.setdefault(protection, []).append((line, cell))
    return found


def _sentences(kinds: Mapping[Kind, _Cells]) -> list[str]:
    cases = {
        kind: {protection: _case([cell for _, cell in found]) for protection, found in cells.items()}
        for kind, cells in kinds.items()
    }

    def under(kind: Kind, case: _Case) -> list[str]:
        return [protection for protection, found in cases[kind].items() if found is case]

    found = []
    for kind, cells in kinds.items():
        told, trace = ({name: cells[name] for name in under(kind, case)} for case in (_Case.TOLD, _Case.TRACE))
        found += _of_told(kind, told) + _of_trace(kind, trace)
        if kind is Kind.MEMBERS:
            found += _of_canaries(cells)
    for case, start in (
        (_Case.NOTHING, "Not told from chance at this power and n"),
        (_Case.UNJUDGED, "Measured, but with nothing to compare with, or no interval"),
        (_Case.UNRESOLVED, "Could not be measured"),
    ):
        parts = [f"{kind.value}, under {listed(names)}" for kind in kinds if (names := under(kind, case))]
        if parts:
            found.append(f"{start}: {'; '.join(parts)}.")
    return found + _of_unseen(cases)


def _case(cells: Sequence[Cell]) -> _Case:
    main = {finding(row) for cell in cells for row in cell.main}
    every = {finding(row) for cell in cells for row in (*cell.headline, *cell.rest)}
    if Finding.ABOVE in main:
        return _Case.TOLD
    if every & {Finding.ABOVE, Finding.BELOW}:
        return _Case.TRACE
    return next(
        case
        for kind, case in (
            (Finding.INDISTINCT, _Case.NOTHING),
            (Finding.UNJUDGED, _Case.UNJUDGED),
            (Finding.UNRESOLVED, _Case.UNRESOLVED),
            (Finding.UNSEEN, _Case.UNSEEN),
        )
        if kind in every
    )


def _of_told(kind: Kind, cells: _Cells) -> list[str]:
    """By which probes; for members also how often, by the strongest probe under each protection."""
    if not cells:
        return []
    best = {name: _best([row for _, cell in found for row in cell.main]) for name, found in cells.items()}
    telling = {
        line.probe: None
        for name, found in cells.items()
        for line, cell in found
        if (best[name] in cell.main if kind is Kind.MEMBERS else _above(cell.main))
    }
    where = f": {_figures(best)}" if kind is Kind.MEMBERS else f", under {listed(list(cells))}"
    return [f"{_VERBS[kind]}{where} ({'; '.join(telling)})."]


def _of_trace(kind: Kind, cells: _Cells) -> list[str]:
    """Figures off chance beside main ones that are not; their number says how much luck there may be in it."""
    if not cells:
        return []
    rows = [row for found in cells.values() for _, cell in found for row in (*cell.headline, *cell.rest)]
    kinds = [finding(row) for row in rows]
    off = sum(found in (Finding.ABOVE, Finding.BELOW) for found in kinds)
    judged = off + kinds.count(Finding.INDISTINCT)
    return [
        f"Under {listed(list(cells))} no main figure tells {kind.value}, but {off} of {judged} figures lie off chance: "
        "a trace, or luck."
    ]


def _of_canaries(cells: _Cells) -> list[str]:
    """Wrong labels are the worst case, so they are told apart from all the others."""
    rows = {
        name: [row for _, cell in found for row in (*cell.headline, *cell.rest) if is_canary(row)]
        for name, found in cells.items()
    }
    above = {name: _best(means) for name, found in rows.items() if _above(means := means_of_seeds(found))}
    # Where a single seed tells them, there is no such sentence: it is a trace.
    other = [
        name
        for name, found in rows.items()
        if not _above(found) and any(finding(row) in (Finding.INDISTINCT, Finding.BELOW) for row in found)
    ]
    parts = [_figures(above)] if above else []
    parts += [f"not told from chance at this power and n under {listed(other)}"] if other else []
    return [f"Images with wrong labels, the worst case: {'; '.join(parts)}."] if parts else []


def _of_unseen(cases: Mapping[Kind, Mapping[str, _Case]]) -> list[str]:
    """What this adversary does not hold; a protection under which it holds nothing is named once."""
    by_protection: dict[str, list[_Case]] = {}
    for found in cases.values():
        for protection, case in found.items():
            by_protection.setdefault(protection, []).append(case)
    nothing = [name for name, found in by_protection.items() if set(found) == {_Case.UNSEEN}]
    parts = [f"what its probes need, under {listed(nothing)}"] if nothing else []
    for kind, found in cases.items():
        some = [name for name, case in found.items() if case is _Case.UNSEEN and name not in nothing]
        parts += [f"{kind.value}, under {listed(some)}"] if some else []
    return [f"Not in its view, so not measured: {'; '.join(parts)}."] if parts else []


def _figures(best: Mapping[str, Row]) -> str:
    """Figures by protection; protections with equal ones stand together."""
    alike: dict[str, list[str]] = {}
    for name, row in best.items():
        alike.setdefault(_figure(row), []).append(name)
    return ", ".join(f"{shown} under {listed(names)}" for shown, names in alike.items())


def _figure(row: Row) -> str:
    metric, value = row["metric"], row["value"]
    return in_hundred(value) if metric == "AUC" else measured(metric, figure(metric, value))


def _best(rows: Iterable[Row]) -> Row:
    """The largest of those above chance."""
    return max((row for row in rows if finding(row) is Finding.ABOVE), key=lambda row: row["value"])


def _above(rows: Iterable[Row]) -> bool:
    return any(finding(row) is Finding.ABOVE for row in rows)
