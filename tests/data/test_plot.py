"""The picture of a partition."""

from __future__ import annotations

import io
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle

from codream_secure.data import plot_partition
from codream_secure.errors import DataError


@pytest.mark.parametrize(("clients", "classes"), [(1, 1), (2, 10), (30, 20), (100, 100)])
def test_bars_show_the_table_and_fit_the_page(clients: int, classes: int) -> None:
    table = torch.from_numpy(np.random.default_rng(0).integers(0, 50, size=(clients, classes)))
    figure = plot_partition(table)
    axes = figure.axes[0]
    bars = [bar for bar in axes.patches if isinstance(bar, Rectangle)]
    widths = np.array([bar.get_width() for bar in bars]).reshape(classes, clients).T
    starts = np.array([bar.get_x() for bar in bars]).reshape(classes, clients).T
    assert np.array_equal(widths, table)
    assert np.array_equal(starts[:, 1:], table.cumsum(1)[:, :-1])
    assert np.array_equal(starts[:, 0], np.zeros(clients))
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
    wide = plot_partition(torch.ones(2, 20, dtype=torch.int64)).axes[0].patches
    assert len({bar.get_facecolor() for bar in wide}) == 20


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
