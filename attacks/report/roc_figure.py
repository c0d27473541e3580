"""ROC curves on logarithmic axes, where the few points that an attacker is sure of can be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from attacks.report.matrix import victims_of
from attacks.report.numbers import adversary, who
from codream_secure.report.figures import STYLE, Picture, svg

Roc = Mapping[str, Any]

# Okabe and Ito's colours, told apart by colour-blind readers as well, without the yellow that paper swallows.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#b8860b", "#22262b", "#7b3294")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (7, 2, 1.2, 2)))
_QUIET = "#7a7f87"
_POINTS = 300  # of a curve, more than its pixels


def styles(parts: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Colour by protection and dashes by method, the same in every figure of a page."""
    found = victims_of(parts)
    protections = list(dict.fromkeys(protection for _, protection in found))
    methods = list(dict.fromkeys(method for method, _ in found))
    return {
        (method, protection): {
            "color": PALETTE[protections.index(protection) % len(PALETTE)],
            "linestyle": _DASHES[methods.index(method) % len(_DASHES)],
        }
        for method, protection in found
    }


def draw_rocs(rocs: Sequence[Roc]) -> list[Picture]:
    """One figure for each adversary and probe, a curve for each victim; all with the same axes.

    False-positive rates below one in the number of non-members cannot be measured, so curves begin there.
    """
    if not rocs:
        return []
    look = styles(rocs)
    floor = min(_resolution(roc) for roc in rocs)
    groups: dict[tuple[str, bool, str], list[Roc]] = {}
    for roc in rocs:
        groups.setdefault((roc["adversary"], roc["active"], roc["probe"]), []).append(roc)
    return [_draw(group, look, floor=floor) for group in groups.values()]


def _draw(group: Sequence[Roc], look: Mapping[tuple[str, str], Mapping[str, Any]], *, floor: float) -> Picture:
    with mpl.rc_context({**STYLE, "axes.grid.axis": "both"}):
        rows = -(-len({who(roc) for roc in group}) // 2)
        figure = Figure(figsize=(3.9, 3.5 + 0.19 * rows), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([floor, 1], [floor, 1], color=_QUIET, linestyle=":", linewidth=1.1, zorder=1, label="_chance")
        drawn: set[str] = set()
        for roc in group:
            name = who(roc)
            fpr, tpr = _visible(roc, floor)
            axes.plot(
                fpr,
                tpr,
                **look[roc["method"], roc["protection"]],
                linewidth=1.6,
                label="_" if name in drawn else name,
                zorder=3,
            )
            drawn.add(name)
        _set_axes(axes, floor)
        figure.legend(loc="outside upper left", ncols=2, frameon=False, handlelength=2.4, columnspacing=1.2, fontsize=8)
        first = group[0]
        caption = f"{first['probe']}, {adversary(first)}"
        return Picture(source=svg(figure), alt=_describe(group, caption), caption=caption)


def _resolution(roc: Roc) -> float:
    return 1 / float(roc["nonmembers"])


def _visible(roc: Roc, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """The part of a curve that samples resolve, from its first such point; both rates at least ``floor``."""
    fpr, tpr = np.asarray(roc["fpr"], dtype=np.float64), np.asarray(roc["tpr"], dtype=np.float64)
    least = _resolution(roc)
    start = tpr[fpr <= least].max(initial=0.0)
    kept = fpr > least
    along, up = np.concatenate([[least], fpr[kept]]), np.concatenate([[start], tpr[kept]])
    if len(along) > _POINTS:
        spaced = np.geomspace(least, 1, _POINTS)
        up, along = up[np.searchsorted(along, spaced, side="right") - 1], spaced
    # A rate of 0 has no place on a logarithmic axis: the curve runs along its foot.
    return along, np.maximum(up, floor)


def _set_axes(axes: Axes, floor: float) -> None:
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        getattr(axes, f"set_{name}scale")("log")
        getattr(axes, f"set_{name}lim")(floor, 1)
        axis.set_major_locator(LogLocator(numticks=6))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.set_box_aspect(1)
    axes.set_xlabel("false positives (non-members taken for members)")
    axes.set_ylabel("true positives (members found)")


def _describe(group: Sequence[Roc], caption: str) -> str:
    def at(roc: Roc, rate: float) -> str:
        if rate < _resolution(roc):
            return "not resolvable"
        fpr, tpr = np.asarray(roc["fpr"]), np.asarray(roc["tpr"])
        return f"{100 * tpr[fpr <= rate].max(initial=0.0):.1f} %"

    curves = "; ".join(f"{who(roc)}: {at(roc, 0.01)} at 1 %, {at(roc, 0.1)} at 10 %" for roc in group)
    return f"ROC on logarithmic axes, {caption}. True positives at false-positive rates: {curves}."
