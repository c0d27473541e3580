"""A picture of who holds how much of which class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from codream_secure.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEGEND_LIMIT = 20  # with more classes than this, neighbouring colours cannot be told apart in a legend


def plot_partition(table: torch.Tensor, *, class_names: Sequence[str] | None = None) -> Figure:
    """Stacked horizontal bars: one per client, from the top, one segment per class.

    The figure stands alone: no pyplot state is touched, so nothing needs closing and threads do not mix.
    Up to 20 classes have a legend; more share a continuous colour scale.

    Args:
        table: Integer tensor (clients, classes) of sample counts, as ``Partition.class_table`` gives it.
        class_names: One name per class; default: the numbers.

    Raises:
        DataError: The table is not such a tensor, holds a negative count, or the names do not match it.
    """
    if table.ndim != 2 or 0 in table.shape or table.is_floating_point() or int(table.min()) < 0:
        raise DataError(
            f"table must hold counts in shape (clients, classes), got {table.dtype} of {tuple(table.shape)}"
        )
    clients, classes = table.shape
    names = [str(label) for label in range(classes)] if class_names is None else list(class_names)
    if len(names) != classes:
        raise DataError(f"class_names has {len(names)} entries, but table has {classes} classes")

    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    row_height = 0.3 if clients <= 30 else 0.16
    legend = classes <= _LEGEND_LIMIT
    height = max(2.5, 1.0 + row_height * clients, 0.7 + 0.18 * classes if legend else 0.0)  # inches
    figure = Figure(figsize=(8.0, height), layout="constrained")
    axes = figure.add_subplot()
    palette = colormaps["tab10" if classes <= 10 else "tab20" if legend else "turbo"]
    rows = range(clients)
    counts = table.cpu().numpy()
    edges = np.concatenate([np.zeros((clients, 1)), counts.cumsum(axis=1)], axis=1)
    for label in range(classes):
        # One collection per class draws 100 x 100 bars in a fraction of the time that separate ones would take.
        bars = [_bar(row, edges[row, label], edges[row, label + 1]) for row in rows if counts[row, label]]
        colour = palette(label) if legend else palette(label / (classes - 1))
        axes.add_collection(PolyCollection(bars, facecolor=colour, edgecolor="none", label=names[label]))
    axes.set_xlim(0, max(1.0, 1.02 * edges.max()))
    axes.set_yticks(rows, [str(row) for row in rows], fontsize=9 if clients <= 30 else 6)
    axes.set_ylim(clients - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("samples")
    axes.set_ylabel("client")
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(title="class", loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8)
    else:
        figure.colorbar(ScalarMappable(Normalize(0, classes - 1), palette), ax=axes, label="class")
    return figure


def _bar(row: int, start: float, end: float) -> list[tuple[float, float]]:
    return [(start, row - 0.4), (end, row - 0.4), (end, row + 0.4), (start, row + 0.4)]
