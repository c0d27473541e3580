"""Which victims may be compared: the same adversary, doing the same, against equally long training on equal data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attacks.report.matrix import Block, Row

BASELINE = "fedavg"
_MATCHED = ("clients", "rounds", "images")
_ACCURACY_APART = 0.02  # a share of 1; more than this, and the better trained victim may leak more for that alone


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One method beside FedAvg under the same protection, each by its largest area under the curve.

    Attributes:
        adversary: and what it does.
        method: the one that is not FedAvg.
        protection: of both.
        here: the row of the method.
        there: the row of FedAvg.
        apart: whether intervals overlap, in words.
    """

    adversary: str
    method: str
    protection: str
    here: Row
    there: Row
    apart: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What may stand side by side, and sentences on how far that goes and on what may not."""

    pairs: tuple[Pair, ...]
    remarks: tuple[str, ...]


def compare(blocks: Sequence[Block], victims: Sequence[Mapping[str, Any]]) -> Comparison:
    """Methods beside FedAvg, protection by protection; active adversaries only with active ones.

    A caveat that holds for every pair is said once, without their names.
    """
    known = {(victim["method"], victim["protection"]): victim for victim in victims}
    pairs: list[Pair] = []
    caveats: dict[str, list[str]] = {}
    refused: dict[str, list[str]] = {}
    for block in blocks:
        for method, protection in block.whole.victims:
            if method == BASELINE:
                continue
            here, there = (strongest(block, name, protection) for name in (method, BASELINE))
            if here is None or there is None:
                continue
            name = f"{block.title}, {method} under {protection}"
            obstacle, caveat = _mismatch(known.get((method, protection)), known.get((BASELINE, protection)))
            if obstacle:
                refused.setdefault(obstacle, []).append(name)
                continue
            pair = Pair(
                adversary=block.title,
                method=method,
                protection=protection,
                here=here,
                there=there,
                apart=_apart(here, there),
            )
            pairs.append(pair)
            if caveat:
                caveats.setdefault(caveat, []).append(name)
    remarks = [
        f"{caveat}." if len(names) == len(pairs) else f"{caveat} ({'; '.join(names)})."
        for caveat, names in caveats.items()
    ]
    remarks += [f"Not compared, {why}: {'; '.join(names)}." for why, names in refused.items()]
    return Comparison(pairs=tuple(pairs), remarks=tuple(remarks))


def strongest(block: Block, method: str, protection: str) -> Row | None:
    """The row with the largest area under the curve, None where it has none."""
    rows = [
        row
        for line in block.whole.lines
        if line.metric == "AUC"
        for row in line.cells.get((method, protection), ())
        if row["value"] is not None
    ]
    return max(rows, key=lambda row: row["value"], default=None)


def _apart(here: Row, there: Row) -> str:
    if None in (here["low"], here["high"], there["low"], there["high"]):
        return "without intervals, which says little"
    if here["low"] > there["high"] or there["low"] > here["high"]:
        return "apart"
    return "overlap"


def _mismatch(here: Mapping[str, Any] | None, there: Mapping[str, Any] | None) -> tuple[str, str]:
    """What forbids a comparison, and what has to be said of one that is allowed."""
    if here is None or there is None:
        return "for the training of one is not known", ""
    differing = [f"{name} ({here[name]} and {there[name]})" for name in _MATCHED if here[name] != there[name]]
    if differing:
        return f"for they differ in {' and '.join(differing)}", ""
    reached = [victim["test_accuracy"][0] for victim in (here, there)]
    if abs(reached[0] - reached[1]) > _ACCURACY_APART:
        shown = " and ".join(
            f"{victim['method']} {100 * value:.1f} %" for victim, value in zip((here, there), reached, strict=True)
        )
        return "", f"Test accuracies differ, which alone can make a difference: {shown}"
    return "", ""
