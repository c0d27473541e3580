"""Lower bounds of epsilon that attacks prove, against what the ledger claims and what a perfect attack could prove."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attacks.report.numbers import who
from codream_secure.privacy.statement import PrivacyStatement
from codream_secure.report.figures import STYLE, Picture, svg

Epsilon = Mapping[str, Any]

_PROVED, _REFUTED, _INK, _QUIET = "#0072b2", "#d55e00", "#22262b", "#7a7f87"
_ROOM = 1.12  # of the axis beyond the last mark


def draw_epsilons(parts: Sequence[Epsilon]) -> Picture | None:
    """A bar from 0 to each lower bound, a ring at its ceiling, a line at the ledger's epsilon; None without any."""
    if not parts:
        return None
    claims = [_claimed(part) for part in parts]
    finite = [claim for claim in claims if claim is not None and math.isfinite(claim)]
    end = _ROOM * max([*(part["ceiling"] for part in parts), *(part["lower"] for part in parts), *finite, 1.0])
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(5.2, 1.1 + 0.62 * len(parts)), layout="constrained")
        axes = figure.add_subplot()
        for place, (part, claim) in enumerate(zip(parts, claims, strict=True)):
            _draw_bound(axes, part, claim, place=place, end=end)
        axes.set_xlim(0, end)
        axes.set_ylim(len(parts) - 0.45, -0.75)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("epsilon, by the unit, delta and adversary stated below")
        _add_legend(figure, axes, parts)
        return Picture(source=svg(figure), alt=_describe(parts, claims))


def _draw_bound(axes: Axes, part: Epsilon, claim: float | None, *, place: int, end: float) -> None:
    colour = _REFUTED if part["violated"] else _PROVED
    hatch = "////" if part["violated"] else None
    axes.plot([0, part["ceiling"]], [place, place], color="#c8cdd3", linewidth=1.2, zorder=1)
    axes.barh(place, part["lower"], height=0.34, color=colour, edgecolor="#ffffff", hatch=hatch, linewidth=0, zorder=2)
    axes.plot(part["ceiling"], place, marker="o", markerfacecolor="#ffffff", color=_QUIET, markersize=6, zorder=3)
    if claim is not None and math.isfinite(claim):
        axes.plot([claim, claim], [place - 0.27, place + 0.27], color=_INK, linewidth=2.2, zorder=4)
    elif claim is not None:
        axes.annotate(
            "ledger: infinite",
            (end, place),
            xytext=(-2, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8,
            color=_INK,
            bbox={"facecolor": "#ffffff", "edgecolor": "none", "pad": 1},
        )
    refuted = ": above the ledger" if part["violated"] else ""
    # Names stand above their bars: beside them they would leave narrow screens no bar.
    label = f"{who(part)}, {part['adversary']}: {part['probe']} (n = {part['n']}){refuted}"
    axes.text(0, place - 0.3, label, fontsize=8.5, va="bottom", color=colour if part["violated"] else _INK)


def _add_legend(figure: Figure, axes: Axes, parts: Sequence[Epsilon]) -> None:
    level = {part["confidence"] for part in parts}
    shown = f", {100 * level.pop():g} % confidence" if len(level) == 1 else ""
    handles = [
        axes.barh([math.nan], [0], color=_PROVED, label=f"proved by attack{shown}"),
        *axes.plot([], [], color=_INK, linewidth=2.2, label="ledger's epsilon"),
        *axes.plot([], [], "o", color=_QUIET, markerfacecolor="#ffffff", label="most a perfect attack could prove"),
    ]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=2, frameon=False, handlelength=1.4, columnspacing=1.4
    )


def _claimed(part: Epsilon) -> float | None:
    return None if part["ledger"] is None else PrivacyStatement.from_json(part["ledger"]).epsilon


def _describe(parts: Sequence[Epsilon], claims: Sequence[float | None]) -> str:
    def said(part: Epsilon, claim: float | None) -> str:
        ledger = "no ledger" if claim is None else f"ledger {claim:.4g}"
        return f"{who(part)}, {part['probe']}: at least {part['lower']:.2f}, ceiling {part['ceiling']:.2f}, {ledger}"

    return f"Lower bounds of epsilon. {'; '.join(map(said, parts, claims))}."
