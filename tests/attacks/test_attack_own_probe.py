"""The documentation's probe and federation of one's own, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own_probe.md"


def test_the_documented_probe_runs_and_finds_members(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    scope: dict[str, object] = {}
    exec(compile(program, str(PAGE), "exec"), scope)
    found = scope["found"]
    assert isinstance(found, dict)
    (lira, *_) = [row for row in found["rows"] if row["metric"] == "AUC" and row["probe"].endswith("LiRA")]
    assert lira["low"] > 0.5
    assert lira["protection"] == "masked"
    assert "correlation with the mean" in capsys.readouterr().out


def test_the_documented_probe_takes_thirty_lines_or_fewer() -> None:
    (probe,) = re.findall(r"(class Correlation.*?)\n\n\n", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(probe.splitlines()) <= 30
