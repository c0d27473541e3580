"""Which victims may be compared: the same adversary, doing the same, against equally long training on equal data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attacks.report.matrix import Block, Row
from attacks.report.numbers import figure, interval

BASELINE = "fedavg"
_MATCHED = ("clients", "rounds", "images")
_ACCURACY_APART = 0.02  # a share of 1; more than this, and the better trained victim may leak more for that alone


def compare(blocks: Sequence[Block], victims: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each adversary and method beside FedAvg, protection by protection; then what is not compared.

    Only the area under the curve is compared, the largest of each, and active adversaries only with active ones.
    """
    known = {(victim["method"], victim["protection"]): victim for victim in victims}
    found: dict[str, list[str]] = {}
    refused: dict[str, list[str]] = {}
    for block in blocks:
        for method, protection in block.whole.victims:
            if method == BASELINE:
                continue
            here, there = (strongest(block, name, protection) for name in (method, BASELINE))
            if here is None or there is None:
                continue
            pair = f"{block.title[:1].upper()}{block.title[1:]}, {method}"
            obstacle, caveat = _mismatch(known.get((method, protection)), known.get((BASELINE, protection)))
            if obstacle:
                refused.setdefault(obstacle, []).append(f"{pair} under {protection}")
            else:
                figures = f"under {protection} {_best(here)} against {_best(there)}, {_apart(here, there)}{caveat}"
                found.setdefault(pair, []).append(figures)
    compared = [f"{pair}: {'; '.join(figures)}." for pair, figures in found.items()]
    return compared + [f"Not compared, {why}: {'; '.join(pairs)}." for why, pairs in refused.items()]


def strongest(block: Block, method: str, protection: str, *, metric: str = "AUC") -> Row | None:
    """The row with the largest value of a metric, None where it has none."""
    rows = [
        row
        for line in block.whole.lines
        if line.metric == metric
        for row in line.cells.get((method, protection), ())
        if row["value"] is not None
    ]
    return max(rows, key=lambda row: row["value"], default=None)


def _best(row: Row) -> str:
    return f"AUC {figure('AUC', row['value'])} ({interval(row) or 'no interval'}; {row['probe']})"


def _apart(here: Row, there: Row) -> str:
    if None in (here["low"], here["high"], there["low"], there["high"]):
        return "which without intervals says little"
    if here["low"] > there["high"] or there["low"] > here["high"]:
        return "intervals apart"
    return "intervals overlap"


def _mismatch(here: Mapping[str, Any] | None, there: Mapping[str, Any] | None) -> tuple[str, str]:
    """What forbids a comparison, and what has to be said of one that is allowed."""
    if here is None or there is None:
        return "for the training of one is not known", ""
    differing = [f"{name} ({here[name]} and {there[name]})" for name in _MATCHED if here[name] != there[name]]
    if differing:
        return f"for they differ in {' and '.join(differing)}", ""
    reached = [victim["test_accuracy"][0] for victim in (here, there)]
    if abs(reached[0] - reached[1]) > _ACCURACY_APART:
        shown = " and ".join(f"{100 * value:.1f} %" for value in reached)
        return "", f" (but test accuracies of {shown}, which alone can make a difference)"
    return "", ""
