"""What one row shows: whether its interval leaves chance out, and nothing beyond that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

Row = Mapping[str, Any]

# In the order in which a page lists them and a summary prefers them.
METRICS = ("AUC", "TPR@1%FPR", "TPR@0.1%FPR", "TNR@1%FNR", "advantage", "PSNR, dB")
_SMALLER_LEAKS = re.compile(r"error|variation|divergence|distance|\bKL\b|\bMSE\b", re.IGNORECASE)
_LARGER_LEAKS = re.compile(r"advantage|PSNR|SSIM|accuracy|agreement|correlation|above \d", re.IGNORECASE)
_RATE = re.compile(r"(?:TPR@([\d.]+)%FPR|TNR@([\d.]+)%FNR)")
_RANK = re.compile(r"rank 1 of (\d+)")


class Finding(Enum):
    """How a row stands to chance, or to the control where chance is not known."""

    ABOVE = "above chance"
    """The whole interval is on the adversary's side."""
    BELOW = "below chance"
    """An area under the curve wholly below one half: the score points the wrong way, and reversed it would tell."""
    INDISTINCT = "not distinguishable from chance at this power and n"
    """The interval holds chance, or the figure is worse than the control."""
    UNJUDGED = "not judged: no interval, or nothing to compare with"
    """There is a figure, but no test of it."""
    UNRESOLVED = "not resolvable"
    """Too few samples for a figure."""
    UNSEEN = "not in view"
    """The adversary does not hold what the probe needs."""


def chance(row: Row) -> float | None:
    """What a guess reaches: exactly where the metric says so, otherwise the row's control.

    The advantage of a guess lies above 0, for its threshold is the best one in hindsight: a control of 0 is none.

    >>> chance({"metric": "AUC", "control": None}), chance({"metric": "TPR@1%FPR", "control": None})
    (0.5, 0.01)
    >>> chance({"metric": "rank 1 of 100", "control": None}), chance({"metric": "PSNR, dB", "control": 11.5})
    (0.01, 11.5)
    """
    metric: str = row["metric"]
    if metric == "AUC":
        return 0.5
    rate, rank = _RATE.fullmatch(metric), _RANK.match(metric)
    if rate:
        return float(rate[1] or rate[2]) / 100
    if rank:
        return 1 / int(rank[1])
    control: float | None = row["control"]
    return None if metric == "advantage" and not control else control


def finding(row: Row) -> Finding:
    """Where the row's interval lies; see :class:`Finding`."""
    if row["value"] is None:
        return Finding.UNSEEN if re.search(r"\bview\b", row["note"], re.IGNORECASE) else Finding.UNRESOLVED
    guess, side = chance(row), _leaking_side(row["metric"])
    bound = row["low"] if side > 0 else row["high"]
    if guess is None or bound is None or not side:
        return Finding.UNJUDGED
    if side * (bound - guess) > 0:
        return Finding.ABOVE
    reversed_score = row["metric"] == "AUC" and row["high"] is not None and row["high"] < guess
    return Finding.BELOW if reversed_score else Finding.INDISTINCT


def metric_order(metric: str) -> tuple[int, str]:
    """A key that sorts metrics as :data:`METRICS` lists them, others after these by name."""
    return (METRICS.index(metric) if metric in METRICS else len(METRICS), metric)


def _leaking_side(metric: str) -> int:
    """1 where larger values leak more, -1 where smaller ones do, 0 where that is not known."""
    if metric == "AUC" or _RATE.fullmatch(metric) or _RANK.match(metric) or _LARGER_LEAKS.search(metric):
        return 1
    return -1 if _SMALLER_LEAKS.search(metric) else 0
