"""A benchmark's result as tables for people."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group
from rich.table import Table

from codream_secure.bench.dreaming import DreamingBenchmark


def dreaming_tables(found: DreamingBenchmark) -> Group:
    """Two tables with a row per model: how fast, and how close to the published formulation."""
    size = "x".join(map(str, (found.images, *found.shape)))
    speed = _table(
        f"One dream step of {size} on {found.device}, {found.threads} threads, torch {found.torch}",
        ("model", "published", "ours float32", "", "ours bfloat16", ""),
    )
    agreement = _table(
        f"Against the published: first gradient (relative error), and pixels after {found.steps} Adam steps of "
        f"{found.learning_rate:g} on {found.compared_dreams} dreams (largest / root mean square difference)",
        ("model", "float32", "bfloat16", "dreams float32", "published, start 1 ulp off"),
    )
    for row in found.rows:
        speed.add_row(
            row.model,
            f"{row.published_ms:.1f} ms",
            f"{row.ours_ms:.1f} ms",
            f"{row.ratio:.2f}x",
            _or_dash(row.bf16_ms, "{:.1f} ms".format),
            _or_dash(row.bf16_ratio, "{:.2f}x".format),
        )
        agreement.add_row(
            row.model,
            f"{row.gradient_error:.1e}",
            _or_dash(row.gradient_error_bf16, "{:.1e}".format),
            f"{row.dreams_difference:.1e} / {row.dreams_difference_rms:.1e}",
            f"{row.rounding_difference:.1e} / {row.rounding_difference_rms:.1e}",
        )
    speed.caption = f"bfloat16: {found.bfloat16 or 'not native on this device, so not measured'}"
    return Group(speed, agreement)


def _table(title: str, headings: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    return table


def _or_dash(value: float | None, form: Callable[[float], str]) -> str:
    return "-" if value is None else form(value)
