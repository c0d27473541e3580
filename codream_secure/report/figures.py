"""Charts and pictures as data URIs, so that one file holds them all."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from PIL import Image

from codream_secure.data import plot_partition
from codream_secure.report import format as fmt

METHOD_COLOURS = {"isolated": "#7a7f87", "codream": "#0072b2", "fedavg": "#d55e00", "centralised": "#009e73"}
_OTHER_COLOURS = ("#cc79a7", "#b8860b", "#56b4e9", "#7b3294")

# Text stays text and takes the fonts of whoever reads; a fixed salt gives equal files for equal runs.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "codream-secure",
    "font.family": "sans-serif",
    "font.sans-serif": ["Segoe UI", "Helvetica Neue", "Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "text.color": "#22262b",
    "axes.labelcolor": "#3c424a",
    "axes.edgecolor": "#9aa1aa",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e7e9ec",
    "grid.linewidth": 0.8,
    "xtick.color": "#9aa1aa",
    "ytick.color": "#9aa1aa",
    "xtick.labelcolor": "#3c424a",
    "ytick.labelcolor": "#3c424a",
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_FEW_POINTS = 12  # up to this many, each is marked
_MANY_SEGMENTS = 600  # bars beyond this many are smaller as pixels than as vectors
_PICTURE_BYTES = 150_000
_PICTURE_WIDTH = 1000  # pixels


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of the page: a ``data:`` URI, what it shows in words, and the line below it."""

    source: str
    alt: str
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart, with an optional band from ``low`` to ``high``; all of one length."""

    label: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dashed: bool = False
    faint: bool = False


def method_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each method: the known ones keep theirs in every report."""
    others = [name for name in names if name not in METHOD_COLOURS]
    return METHOD_COLOURS | {name: _OTHER_COLOURS[i % len(_OTHER_COLOURS)] for i, name in enumerate(others)}


def draw_chart(
    lines: Sequence[Line], *, x: str, y: str, alt: str, sizes: bool = False, level: tuple[float, str] | None = None
) -> Picture:
    """Lines over a common axis, with a legend above them.

    Args:
        lines: what to draw; points whose x is not positive are dropped from a logarithmic axis.
        x, y: axis labels, with units.
        alt: the chart in words.
        sizes: x is bytes, on a logarithmic axis; otherwise it is linear.
        level: a dotted horizontal line and its label.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.3), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            kept = [i for i, value in enumerate(line.x) if value > 0 or not sizes]
            along = [line.x[i] for i in kept]
            axes.plot(
                along,
                [line.y[i] for i in kept],
                color=line.colour,
                label=line.label,
                linestyle="--" if line.dashed else "-",
                linewidth=0.8 if line.faint else None,
                alpha=0.55 if line.faint else None,
                marker="o" if len(kept) <= _FEW_POINTS and not line.faint else None,
                markersize=4,
                zorder=2 if line.faint else 3,
            )
            if line.low:
                low, high = [line.low[i] for i in kept], [line.high[i] for i in kept]
                axes.fill_between(along, low, high, color=line.colour, alpha=0.15, linewidth=0)
        if level:
            axes.axhline(level[0], color="#3c424a", linestyle=":", linewidth=1, label=level[1], zorder=1)
        if sizes:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(numticks=7))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick_size(value)))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=x == "round"))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        _add_legend(figure, [line.label for line in lines] + ([level[1]] if level else []))
        return Picture(source=svg(figure), alt=alt)


def _add_legend(figure: Figure, labels: Sequence[str]) -> None:
    shown = [label for label in labels if not label.startswith("_")]
    if len(shown) < 2:
        return  # the axes say it already
    # About 5 points a letter and 33 an entry: the reader's own font is unknown here.
    fits = sum(33 + 5 * len(label) for label in shown) <= 72 * figure.get_figwidth()
    columns = len(shown) if fits else 3
    figure.legend(loc="outside upper left", ncols=columns, frameon=False, handlelength=1.6, columnspacing=1.4)


def draw_partition(table: Sequence[Sequence[int]], *, caption: str) -> Picture:
    """Who holds how many images of which class; ``table`` is clients by classes."""
    counts = torch.tensor(table, dtype=torch.int64)
    clients, classes = counts.shape
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = plot_partition(counts)
        source = svg(figure) if counts.numel() <= _MANY_SEGMENTS else _png(figure)
    held = [int(total) for total in counts.sum(dim=1)]
    alt = (
        f"Bars of the images of each class at each of {fmt.plural(clients, 'client')}: {classes} classes, "
        f"{min(held)} to {max(held)} images per client"
    )
    return Picture(source=source, alt=alt, caption=caption)


def embed_dreams(path: Path, number: int) -> Picture:
    """A grid of dreams, made smaller where noise-like colours would make the page heavy."""
    content, kind = path.read_bytes(), "png"
    if len(content) > _PICTURE_BYTES:
        stream = io.BytesIO()
        with Image.open(path) as image:
            picture = image.convert("RGB")
        if picture.width > _PICTURE_WIDTH:
            height = math.ceil(picture.height * _PICTURE_WIDTH / picture.width)
            picture = picture.resize((_PICTURE_WIDTH, height), Image.Resampling.LANCZOS)
        picture.save(stream, format="JPEG", quality=80)
        content, kind = stream.getvalue(), "jpeg"
    alt = f"Grid of the first dreams after round {number}"
    return Picture(source=_data_uri(content, f"image/{kind}"), alt=alt, caption=f"Round {number}")


def _tick_size(value: float) -> str:
    """A power of ten of bytes: 10 B, 1 kB."""
    return fmt.size(value).replace(".00", "").replace(".0", "")


def svg(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata=_METADATA, transparent=True)
    return _data_uri(stream.getvalue(), "image/svg+xml")


def _png(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=160, metadata={"Software": None})
    return _data_uri(stream.getvalue(), "image/png")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
