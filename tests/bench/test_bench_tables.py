"""The benchmark of secure sums as tables: nothing is cut, and ratios are ratios."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from codream_secure.bench.others import FLOWER
from codream_secure.bench.row import Row
from codream_secure.bench.table import protocol_tables
from codream_secure.bench.tenseal_default import DEFAULT


def _row(protocol: str, **fields: Any) -> Row:
    """A row whose figures are as long as they get."""
    figures: dict[str, Any] = {
        "clients": 1000,
        "values": 786_432,
        "dropout": 0.125,
        "vanished": 125,
        "degree": None,
        "steps": 3,
        "steps_per_setup": 30,
        "setup_cpu_s": 0.06,
        "setup_bytes": 123_456_789,
        "client_cpu_s": 0.0517,
        "floor_cpu_s": None,
        "floor_ratio": None,
        "server_cpu_s": 0.928,
        "unmask_cpu_s": 0.844,
        "contribute_cpu_s": 0.05,
        "authority_cpu_s": None,
        "download_bytes_per_value": 0.01,
        "upload_bytes_per_value": 4.004,
        "max_abs_error": 9.3e-7,
    }
    return Row(protocol=protocol, **figures | fields)


@pytest.fixture
def tables() -> str:
    """What is printed of long rows on a terminal of 80 columns."""
    masked = _row("masked", degree=999, floor_cpu_s=0.04, floor_ratio=1.2925)
    theirs = _row(
        FLOWER,
        degree=20,
        floor_cpu_s=0.001,
        floor_ratio=517.0,
        steps_per_setup=1,
        setup_cpu_s=1.074,
        client_cpu_s=0.517,
        server_cpu_s=9000.0,
        unmask_cpu_s=8440.0,
        upload_bytes_per_value=8.008,
    )
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        for table in protocol_tables([_row("plain"), masked, theirs]):
            console.print(table)
    return capture.get()


def test_tables_fit_into_80_columns_without_cutting_a_figure(tables: str) -> None:
    assert all(len(line) <= 80 for line in tables.splitlines())
    assert "…" not in tables
    for text in ("60 ms", "51.7 ms", "1.29x", "517x", "9000 s", "123456789", "9.3e-07", "8.008"):
        assert text in tables


def test_the_last_table_divides_flowers_cost_by_ours(tables: str) -> None:
    # With set-up: (0.517 + 1.074) / (0.0517 + 0.06 / 30).
    last = tables.strip().splitlines()[-1]
    assert last.split() == ["1000", "125", "20,", "999", "10.0x", "29.6x", "10000x", "2.0x"]


def test_tables_of_encrypted_sums_divide_the_usual_cost_by_ours() -> None:
    ours = _row("ckks-authority", contribute_cpu_s=0.2, upload_bytes_per_value=6.0, authority_cpu_s=0.3)
    usual = _row(DEFAULT, contribute_cpu_s=0.7, upload_bytes_per_value=57.0)
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        for table in protocol_tables([_row("plain"), ours, usual]):
            console.print(table)
    printed = capture.get()
    assert all(len(line) <= 80 for line in printed.splitlines())
    assert "…" not in printed
    line = next(line for line in reversed(printed.splitlines()) if line.strip().startswith("ckks-authority"))
    assert line.split() == ["ckks-authority", "1000", "125", "200", "ms", "3.5x", "6.00", "9.5x", "0.01", "300", "ms"]
