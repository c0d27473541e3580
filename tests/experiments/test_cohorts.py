"""Experiments on leakage by cohort size, at a size that only shows that they run and name their rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codream_secure.config import Config
from experiments import audits, cohorts

TINY = (
    "run.rounds=1",
    "local.warmup_epochs=1",
    "local.epochs=1",
    "dreaming.steps=1",
    "dreaming.images=16",
    "distillation.epochs=1",
    "distillation.cutmix=0",
)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    def preset(overrides: list[str]) -> Config:
        return audits.preset([*overrides, *TINY])

    monkeypatch.setattr(cohorts, "preset", preset)


def test_rows_of_every_cohort_stand_in_one_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohorts.main(tmp_path, clients=[2, 3], images=20, trials=6, workers=1)
    found = json.loads((tmp_path / "cohorts.json").read_text())
    rows = [row for row in found["rows"] if row["metric"] == "AUC" and "LiRA" in row["probe"]]
    named = {(row["probe"], row["method"], row["protection"]) for row in rows}
    assert {probe.split(":")[0] for probe, *_ in named} == {"K = 2", "K = 3"}
    assert len(named) == len(rows) == 8  # a probe a method, two protections, two cohorts
    # As many candidates as there are images on either side of membership.
    assert {row["n"] for row in rows if row["probe"].startswith("K = 3")} == {6 * 2 * 3 * 20}
    assert not found["rocs"]
    assert "K = 3: labels of named dreams" in capsys.readouterr().out
