"""The picture of a partition."""

from __future__ import annotations

import io
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from codream_secure.data import plot_partition
from codream_secure.errors import DataError


def segments(figure: Figure) -> list[PolyCollection]:
    """The bars of each class, in the order of classes."""
    return [artist for artist in figure.axes[0].collections if isinstance(artist, PolyCollection)]


@pytest.mark.parametrize(("clients", "classes"), [(1, 1), (2, 10), (2, 20), (30, 20), (100, 40)])
def test_bars_show_the_table_and_fit_the_page(clients: int, classes: int) -> None:
    table = torch.from_numpy(np.random.default_rng(0).integers(0, 50, size=(clients, classes)))
    figure = plot_partition(table)
    axes = figure.axes[0]
    drawn = np.zeros((clients, classes))
    for label, bars in enumerate(segments(figure)):
        for path in bars.get_paths():
            (left, top), (right, bottom) = np.min(path.vertices, axis=0), np.max(path.vertices, axis=0)
            row = round((top + bottom) / 2)
            drawn[row, label] = right - left
            assert left == table[row, :label].sum()
            assert bottom - top == pytest.approx(0.8)
    assert np.array_equal(drawn, table)
    low, high = axes.get_xlim()
    assert low == 0
    assert high >= table.sum(1).max()
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    boxes = [label.get_window_extent(renderer) for label in axes.get_yticklabels()]
    assert len(boxes) == clients
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))
    assert all(box.x0 >= 0 for box in boxes)
    legend = axes.get_legend()
    assert (legend is not None) == (classes <= 20)
    if legend is not None:
        box = legend.get_window_extent(renderer)
        assert box.x1 <= figure.bbox.x1
        assert box.y0 >= 0
    else:
        assert len(figure.axes) == 2  # the colour bar
    figure.savefig(target := io.BytesIO(), format="svg")
    assert b"</svg>" in target.getvalue()


def test_names_and_distinct_colours() -> None:
    figure = plot_partition(torch.tensor([[1, 2], [3, 0]]), class_names=("cat", "dog"))
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["cat", "dog"]
    wide = segments(plot_partition(torch.ones(2, 20, dtype=torch.int64)))
    assert len({np.asarray(bars.get_facecolor()).tobytes() for bars in wide}) == 20


def test_pyplot_is_left_alone() -> None:
    before = "matplotlib.pyplot" in sys.modules
    plot_partition(torch.ones(3, 3, dtype=torch.int64))
    assert ("matplotlib.pyplot" in sys.modules) == before


@pytest.mark.parametrize(
    "table", [torch.ones(3), torch.ones(2, 2), torch.tensor([[1, -1]]), torch.zeros(0, 3, dtype=torch.int64)]
)
def test_other_tables_are_refused(table: torch.Tensor) -> None:
    with pytest.raises(DataError, match="table must hold counts"):
        plot_partition(table)


def test_names_must_match() -> None:
    with pytest.raises(DataError, match="class_names has 1 entries, but table has 2"):
        plot_partition(torch.ones(2, 2, dtype=torch.int64), class_names=("one",))
