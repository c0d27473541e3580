"""A benchmark's result as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Group
from rich.table import Table

from codream_secure.bench.dreaming import DreamingBenchmark
from codream_secure.bench.others import FLOWER
from codream_secure.bench.row import UNENCRYPTED, Row
from codream_secure.bench.tenseal_default import DEFAULT


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


def protocol_tables(rows: Sequence[Row]) -> list[Table]:
    """Time, size and accuracy of secure sums, a row each; then TenSEAL's usual settings and Flower's over ours, where
    both were measured.

    All fit into 80 columns.
    """
    time = _narrow_table(
        f"CPU time of one client and of the server, {rows[0].values} values each (median)",
        (
            "protocol",
            "clients",
            "of them\nvanish",
            "set-up",
            "client\n/ step",
            "over\nfloor",
            "server\n/ step",
            "of it\nunmask",
        ),
    )
    size = _narrow_table(
        "Bytes of one client, and the largest error of a value of the sum against float64",
        (
            "protocol",
            "clients",
            "of them\nvanish",
            "neigh-\nbours",
            "set-up\nbytes",
            "up, bytes\n/ value",
            "largest\nerror",
        ),
    )
    for row in rows:
        which = (row.protocol, str(row.clients), str(row.vanished))
        time.add_row(
            *which,
            _seconds(row.setup_cpu_s),
            _seconds(row.client_cpu_s),
            _or_dash(row.floor_ratio, "{:.3g}x".format),
            _seconds(row.server_cpu_s),
            _seconds(row.unmask_cpu_s),
        )
        size.add_row(
            *which,
            _or_dash(row.degree, "{:.0f}".format),
            str(row.setup_bytes),
            f"{row.upload_bytes_per_value:.3f}",
            f"{row.max_abs_error:.1e}",
        )
    planned = max(row.steps_per_setup for row in rows)
    time.caption = f"Set-up: of one client, once for {planned} steps" + (
        "; Flower's is part of every step." if any(row.protocol == FLOWER for row in rows) else "."
    )
    return [time, size, *(table for table in (_encrypted(rows), _flower_ratios(rows)) if table.row_count)]


def _encrypted(rows: Sequence[Row]) -> Table:
    """Encrypted sums, beside TenSEAL's usual settings at the same size and dropout."""
    usual = {(row.clients, row.dropout): row for row in rows if row.protocol == DEFAULT}
    table = _narrow_table(
        f"Encrypted sums: CPU time of a client until its vector is sent, and bytes; {DEFAULT} over ours",
        (
            "protocol",
            "cli-\nents",
            "van-\nish",
            "until\nsent",
            "usual\n/ ours",
            "up, B\n/ value",
            "usual\n/ ours",
            "down, B\n/ value",
            "auth.",
        ),
    )
    for row in rows:
        if row.protocol in (*UNENCRYPTED, FLOWER, DEFAULT):
            continue
        other = usual.get((row.clients, row.dropout))
        table.add_row(
            row.protocol,
            str(row.clients),
            str(row.vanished),
            _seconds(row.contribute_cpu_s),
            "-" if other is None else f"{other.contribute_cpu_s / row.contribute_cpu_s:.1f}x",
            f"{row.upload_bytes_per_value:.2f}",
            "-" if other is None else f"{other.upload_bytes_per_value / row.upload_bytes_per_value:.1f}x",
            _or_dash(row.download_bytes_per_value, "{:.2f}".format),
            _or_dash(row.authority_cpu_s, _seconds),
        )
    return table


def _flower_ratios(rows: Sequence[Row]) -> Table:
    """How many times Flower's cost is that of our masked sum at the same size and dropout."""
    ours = {(row.clients, row.dropout): row for row in rows if row.degree is not None and row.protocol != FLOWER}
    table = _narrow_table(
        "Flower's SecAgg+ over ours: CPU time of a client's step, without and with its share of the set-up, and of "
        "unmasking; bytes that a client sends in a step",
        (
            "clients",
            "of them\nvanish",
            "neighbours\nFlower, ours",
            "client\n/ step",
            "with\nset-up",
            "server\nunmask",
            "up,\nbytes",
        ),
    )
    for flower in rows:
        mine = ours.get((flower.clients, flower.dropout))
        if flower.protocol == FLOWER and mine is not None:
            table.add_row(
                str(flower.clients),
                str(flower.vanished),
                f"{flower.degree}, {mine.degree}",
                f"{flower.client_cpu_s / mine.client_cpu_s:.1f}x",
                f"{_with_setup(flower) / _with_setup(mine):.1f}x",
                f"{flower.unmask_cpu_s / mine.unmask_cpu_s:.0f}x",
                f"{flower.upload_bytes_per_value / mine.upload_bytes_per_value:.1f}x",
            )
    return table


def _with_setup(row: Row) -> float:
    return row.client_cpu_s + row.setup_cpu_s / row.steps_per_setup


def _narrow_table(title: str, headings: tuple[str, ...]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", no_wrap=True)
    return table


def _seconds(value: float) -> str:
    """Three figures, such as ``4.62 ms`` and ``96.1 s``; whole seconds from 1000 on."""
    for factor, unit in ((1e6, "us"), (1e3, "ms"), (1, "s")):
        if value * factor < 999.5:
            return f"{value * factor:.3g} {unit}"
    return f"{value:.0f} s"


def _table(title: str, headings: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    return table


def _or_dash(value: float | None, form: Callable[[float], str]) -> str:
    return "-" if value is None else form(value)
