"""The charts of a trade-off: what each budget costs under each protection, runs without noise standing apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from codream_secure.report import format as fmt
from codream_secure.report.figures import STYLE, Picture, svg
from codream_secure.runs.compare import spread
from codream_secure.tradeoff.grid import NO_NOISE

Row = Mapping[str, Any]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9")
_QUIET, _INK = "#7a7f87", "#22262b"
_APART = 0.45  # of the no-noise place from the largest budget, as a share of the axis
_WIDTH = 0.08  # over which settings of one budget are spread, so that their bars can be told apart


@dataclass(frozen=True, kw_only=True)
class _Series:
    """The settings of one line, by position."""

    label: str
    colour: str
    rows: tuple[Row, ...]
    control: bool = False


@dataclass(frozen=True, kw_only=True)
class _Chart:
    """What one chart shows of a setting: ``figure`` is its mean and deviation over seeds."""

    title: str
    y: str
    figure: Callable[[Row], tuple[float, float]]
    shown: Callable[[float], str]
    logarithmic: bool


def series_colours(rows: Sequence[Row]) -> dict[str, str]:
    """A colour for each protection, and quiet ones for what they are measured by."""
    protections = dict.fromkeys(row["protection"] for row in rows if row["protection"] and not row["control"])
    found = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(protections)}
    return found | {"control": _INK, "isolated": _QUIET}


def plot_tradeoff(rows: Sequence[Row], *, budget: str) -> list[Picture]:
    """Test accuracy, bytes and seconds against the budget; nothing for settings that were not run.

    Args:
        rows: of ``tradeoff.json``.
        budget: the label of the axis: what a budget is and for whom.
    """
    ran = [row for row in rows if row["obstacle"] is None]
    series = _series(ran)
    if not series:
        return []
    isolated = next((row for row in ran if row["epsilon"] is None), None)
    return [_draw(chart, series, isolated=isolated, x=budget) for chart in _CHARTS]


def _series(ran: Sequence[Row]) -> list[_Series]:
    colours = series_colours(ran)
    found = [
        _Series(
            label=name,
            colour=colours[name],
            rows=tuple(row for row in ran if row["protection"] == name and not row["control"]),
        )
        for name in colours
        if name not in ("control", "isolated")
    ]
    control = tuple(row for row in ran if row["control"])
    if control:
        found.append(_Series(label="control, random dreams", colour=_INK, rows=control, control=True))
    return found


def _draw(chart: _Chart, series: Sequence[_Series], *, isolated: Row | None, x: str) -> Picture:
    budgets = sorted({row["epsilon"] for line in series for row in line.rows if row["epsilon"] != NO_NOISE})
    places = _places(budgets)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.5), layout="constrained")
        axes = figure.add_subplot()
        span = max(1.0, *places.values()) - min(places.values())
        for number, line in enumerate(series):
            shift = span * _WIDTH * (number - (len(series) - 1) / 2) / max(1, len(series) - 1)
            _draw_series(axes, line, chart, places, shift)
        if isolated is not None:
            level, deviation = chart.figure(isolated)
            if level > 0 or not chart.logarithmic:
                axes.axhline(level, color=_QUIET, linestyle=":", linewidth=1.4, label="isolated", zorder=1)
                if deviation and not chart.logarithmic:
                    axes.axhspan(level - deviation, level + deviation, color=_QUIET, alpha=0.1, linewidth=0)
        if budgets and any(row["epsilon"] == NO_NOISE for line in series for row in line.rows):
            axes.axvline((places[budgets[-1]] + places[NO_NOISE]) / 2, color="#c8cdd3", linewidth=0.8, zorder=0)
        _set_axes(axes, series, places, chart)
        axes.set_xlabel(x)
        axes.set_ylabel(chart.y)
        _add_legend(figure, axes)
        return Picture(source=svg(figure), alt=_describe(chart, series))


def _draw_series(axes: Axes, line: _Series, chart: _Chart, places: Mapping[float | str, float], shift: float) -> None:
    rows = sorted(line.rows, key=lambda row: places[row["epsilon"]])
    along = [places[row["epsilon"]] + shift for row in rows]
    values = [chart.figure(row) for row in rows]
    noisy = [index for index, row in enumerate(rows) if row["epsilon"] != NO_NOISE]
    style = "--" if line.control else "-"
    axes.plot(
        [along[i] for i in noisy], [values[i][0] for i in noisy], color=line.colour, linestyle=style, linewidth=1.5
    )
    axes.errorbar(
        along,
        [mean for mean, _ in values],
        # On a logarithmic axis no bar may reach zero.
        yerr=[[min(off, 0.9 * mean) for mean, off in values], [off for _, off in values]],
        color=line.colour,
        linestyle="none",
        marker="D" if line.control else "o",
        markersize=4.5,
        markerfacecolor="#ffffff" if line.control else line.colour,
        elinewidth=1,
        capsize=2.5,
        label=line.label,
        zorder=3,
    )
    best = [index for index, row in enumerate(rows) if row["pareto"]]
    axes.scatter(
        [along[i] for i in best],
        [values[i][0] for i in best],
        s=95,
        facecolors="none",
        edgecolors=line.colour,
        linewidths=1.2,
        zorder=4,
    )


def _places(budgets: Sequence[float]) -> dict[float | str, float]:
    """Where a budget stands: at its logarithm, to base 10, and runs without noise to the right of all."""
    places: dict[float | str, float] = {budget: math.log10(budget) for budget in budgets}
    if not budgets:
        return {NO_NOISE: 0.0}
    width = places[budgets[-1]] - places[budgets[0]]
    places[NO_NOISE] = places[budgets[-1]] + _APART * max(width, 0.5)
    return places


def _set_axes(axes: Axes, series: Sequence[_Series], places: Mapping[float | str, float], chart: _Chart) -> None:
    used = {row["epsilon"] for line in series for row in line.rows}
    ticks = [place for budget, place in places.items() if budget in used]
    labels = ["no noise" if budget == NO_NOISE else f"{budget:g}" for budget in places if budget in used]
    margin = 0.12 * (max(ticks) - min(ticks)) or 0.5
    axes.set_xlim(min(ticks) - margin, max(ticks) + margin)
    axes.set_xticks(ticks, labels)
    if not chart.logarithmic:
        axes.yaxis.set_major_locator(MaxNLocator(6))
        return
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high / low < 30:  # fewer than two powers of ten: they alone would leave the axis bare
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        axes.set_ylim(low / 1.3, high * 1.3)
    else:
        axes.yaxis.set_major_locator(LogLocator(numticks=8))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: chart.shown(value)))


def _add_legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    ring = axes.scatter([], [], s=60, facecolors="none", edgecolors=_INK, linewidths=1.2)
    handles, labels = [*handles, ring], [*labels, "Pareto-optimal"]
    figure.legend(
        handles, labels, loc="outside upper left", ncols=3, frameon=False, handlelength=1.6, columnspacing=1.4
    )


def _describe(chart: _Chart, series: Sequence[_Series]) -> str:
    def said(row: Row) -> str:
        place = "without noise" if row["epsilon"] == NO_NOISE else f"at budget {row['epsilon']:g}"
        return f"{chart.shown(chart.figure(row)[0])} {place}"

    lines = [f"{line.label}: {', '.join(map(said, line.rows))}" for line in series]
    return f"{chart.title} against budget, a line for each protection, runs without noise apart. {'. '.join(lines)}."


def _accuracy(row: Row) -> tuple[float, float]:
    return 100 * row["test_accuracy"]["mean"], 100 * (row["test_accuracy"]["std"] or 0.0)


def _bytes(row: Row) -> tuple[float, float]:
    both = zip(row["bytes_up"]["values"], row["bytes_down"]["values"], strict=True)
    found = spread([up + down for up, down in both])
    return found["mean"], found["std"] or 0.0


def _seconds(row: Row) -> tuple[float, float]:
    return row["seconds"]["mean"], row["seconds"]["std"] or 0.0


def _size(value: float) -> str:
    return fmt.size(value).replace(".00", "").replace(".0\N{NO-BREAK SPACE}", "\N{NO-BREAK SPACE}")


_CHARTS = (
    _Chart(title="Test accuracy in %", y="test accuracy (%)", figure=_accuracy, shown=fmt.number, logarithmic=False),
    _Chart(title="Bytes", y="bytes per client, up and down", figure=_bytes, shown=_size, logarithmic=True),
    _Chart(
        title="Seconds of computation",
        y="seconds of computation",
        figure=_seconds,
        shown=lambda value: f"{value:.3g}",
        logarithmic=True,
    ),
)
