"""Tables stay whole: whatever the width, no figure is cut."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codream_secure.cli.tables import accuracy, comparison_table, flat, method_cells, plain_table, show, size


def spread(mean: float | None, std: float | None = None) -> dict[str, Any]:
    return {"mean": mean, "std": std}


def entry(method: str, **changes: Any) -> dict[str, Any]:
    """A method of a comparison whose figures are as long as they get."""
    found = {
        "method": method,
        "obstacle": None,
        "test_accuracy": spread(0.9234, 0.1111),
        "gap_closed": -1.234,
        "bytes_up": spread(123.4e6),
        "bytes_down": spread(12.34e9),
        "seconds": spread(12345.67),
        "protocol_cpu_client": spread(0.0123),
        "to_target": {
            "reached": 2,
            "runs": 3,
            "bytes_up": spread(100e6),
            "bytes_down": spread(23e6),
            "seconds": spread(9876.5),
        },
    }
    return found | changes


COMPARISON: dict[str, Any] = {
    "seeds": [0, 1, 2],
    "selected_by": "validation",
    "target": 0.8765,
    "methods": [
        entry("codream"),
        entry("centralised", to_target={"reached": 0, "runs": 3}),
        {"method": "fedavg", "obstacle": "needs one [architecture], the clients have 4"},
    ],
}
FIGURES = (
    ("codream", "92.3 ± 11.1", "-123 %", "123 MB", "12.3 GB", "12345.7", "123 MB,"),
    ("9876.5 s (2/3)",),
    ("centralised", "92.3 ± 11.1", "-123 %", "123 MB", "12.3 GB", "12345.7", "not reached"),
    ("fedavg", "cannot run"),
    ("CPU seconds of sums, per client:", "0.012 (codream)", "0.012 (centralised)"),
)


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    assert "…" not in text
    return text.splitlines()


@pytest.mark.parametrize("columns", [20, 60, 80, 200, None])
@pytest.mark.parametrize("terminal", [True, False])
def test_comparisons_are_whole_at_any_width(
    columns: int | None, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("COLUMNS", columns), ("FORCE_COLOR", 1 if terminal else None)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(value))
    show(comparison_table(COMPARISON))
    lines = printed(capsys)
    for figures in FIGURES:
        assert any(all(figure in line for figure in figures) for line in lines), figures
    assert "fedavg: needs one [architecture], the clients have 4" in " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= 80, "figures this long still fit a terminal of 80 columns"


@pytest.mark.parametrize(("columns", "widest"), [("80", 80), (None, 140)])
def test_only_descriptions_are_wrapped(
    columns: str | None, widest: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    name, text = "a_long_name_of_something", "words " * 20 + "/path" * 40
    show(plain_table(("name", "description"), [(name, text), ("npz:[red].npz", "in [brackets]")]))
    lines = printed(capsys)
    assert max(map(len, lines)) <= widest
    assert sum(name in line for line in lines) == 1
    assert any("npz:[red].npz" in line and "in [brackets]" in line for line in lines), "brackets are no markup"
    assert "".join("".join(lines).split()).count("/path") == 40


def test_without_a_target_there_is_no_column_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    show(comparison_table({**COMPARISON, "target": None, "seeds": [0], "selected_by": "final"}))
    text = " ".join(printed(capsys))
    assert "final round; 1 seed" in text
    assert "validation" not in text
    assert "9876.5" not in text


@given(st.floats(0, 999.4e12))
def test_sizes_have_three_figures_and_a_unit(count: float) -> None:
    text, unit = size(count).split()
    factor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert "e" not in text or count < 1
    assert float(text) * factor == pytest.approx(count, rel=0.0051)
    assert float(text) < 1000


def test_cells_say_when_there_is_no_figure() -> None:
    assert size(None) == "-"
    assert accuracy(spread(None)) == "-"
    assert accuracy(spread(0.5)) == "50.0"
    assert method_cells(entry("codream", gap_closed=None))[1] == "-"
    assert method_cells(entry("codream", gap_closed=-0.0001))[1] == "0 %"


def test_nested_values_become_rows() -> None:
    values = {"a": {"b": [1, 2], "c": {"d": 0.123456}}, "e": [], "f": "text"}
    assert flat(values) == [("a.b", "1, 2"), ("a.c.d", "0.1235"), ("e", "-"), ("f", "text")]
