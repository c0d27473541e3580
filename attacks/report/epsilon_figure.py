"""Lower bounds of epsilon that attacks prove, against what the ledger claims and what a perfect attack could prove."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attacks.report.numbers import who
from codream_secure.privacy.statement import PrivacyStatement
from codream_secure.report.figures import STYLE, Picture, svg

Epsilon = Mapping[str, Any]

_PROVED, _REFUTED, _REFUTED_TEXT, _INK, _QUIET = "#0072b2", "#d55e00", "#a34700", "#22262b", "#7a7f87"
_LETTERS = 72  # of a name on a line
_LINE = 0.26  # of a name, in the unit of the axis
_ROOM = 1.12  # of the axis beyond the last mark


def draw_epsilons(parts: Sequence[Epsilon]) -> Picture | None:
    """A bar from 0 to each lower bound, a ring at its ceiling, a line at the ledger's epsilon; None without any."""
    if not parts:
        return None
    claims = [_claimed(part) for part in parts]
    finite = [claim for claim in claims if claim is not None and math.isfinite(claim)]
    end = _ROOM * max([*(part["ceiling"] for part in parts), *(part["lower"] for part in parts), *finite, 1.0])
    labels = [textwrap.wrap(_label(part, claim), _LETTERS) for part, claim in zip(parts, claims, strict=True)]
    # Names stand above their bars, for beside them they would leave narrow screens no bar: 0.75 is
    # for a bar.
    places = list(itertools.accumulate(0.75 + _LINE * len(label) for label in labels))
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(4.4, 1.35 + 0.6 * (places[-1] + 0.3)), layout="constrained")
        axes = figure.add_subplot()
        for place, part, claim, label in zip(places, parts, claims, labels, strict=True):
            _draw_bound(axes, part, claim, place=place)
            colour = _REFUTED_TEXT if part["violated"] else _INK
            name = axes.text(0, place - 0.27, "\n".join(label), fontsize=8.5, va="bottom", color=colour)
            name.set_in_layout(False)  # a long one must not make the axes narrow
        axes.set_xlim(0, end)
        axes.set_ylim(places[-1] + 0.4, 0.1)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("epsilon, by the unit, delta and adversary stated below")
        _add_legend(figure, axes, parts)
        return Picture(source=svg(figure), alt=_describe(parts, claims))


def _draw_bound(axes: Axes, part: Epsilon, claim: float | None, *, place: float) -> None:
    colour, hatch = (_REFUTED, "////") if part["violated"] else (_PROVED, None)
    axes.plot([0, part["ceiling"]], [place, place], color="#c8cdd3", linewidth=1.2, zorder=1)
    axes.barh(place, part["lower"], height=0.3, color=colour, edgecolor="#ffffff", hatch=hatch, linewidth=0, zorder=2)
    axes.plot(part["ceiling"], place, marker="o", markerfacecolor="#ffffff", color=_QUIET, markersize=6, zorder=3)
    if claim is not None and math.isfinite(claim):
        axes.plot([claim, claim], [place - 0.21, place + 0.21], color=_INK, linewidth=2.2, zorder=4)


def _label(part: Epsilon, claim: float | None) -> str:
    label = f"{who(part)}, {part['adversary']}: {part['probe']} (n = {part['n']})"
    if part["violated"]:
        return f"{label}, above the ledger"
    if claim is None:
        return f"{label}, no ledger"
    return label if math.isfinite(claim) else f"{label}, ledger: infinite"


def _add_legend(figure: Figure, axes: Axes, parts: Sequence[Epsilon]) -> None:
    level = {part["confidence"] for part in parts}
    shown = f", {100 * level.pop():g} % confidence" if len(level) == 1 else ""
    handles = [
        axes.barh([math.nan], [0], color=_PROVED, label=f"proved by attack{shown}"),
        *axes.plot([], [], color=_INK, linewidth=2.2, label="ledger's epsilon"),
        *axes.plot([], [], "o", color=_QUIET, markerfacecolor="#ffffff", label="most a perfect attack could prove"),
    ]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=1, frameon=False, handlelength=1.4, columnspacing=1.4
    )


def _claimed(part: Epsilon) -> float | None:
    return None if part["ledger"] is None else PrivacyStatement.from_json(part["ledger"]).epsilon


def _describe(parts: Sequence[Epsilon], claims: Sequence[float | None]) -> str:
    def said(part: Epsilon, claim: float | None) -> str:
        ledger = "no ledger" if claim is None else f"ledger {claim:.4g}"
        bound = f"at least {part['lower']:.2f}, ceiling {part['ceiling']:.2f}"
        return f"{who(part)}, {part['probe']}: {bound}, {ledger}{', refuted' if part['violated'] else ''}"

    return f"Lower bounds of epsilon. {'; '.join(map(said, parts, claims))}."
