"""The trade-off from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TINY = """
[data]
clients = 3
samples_per_client = 10
validation_samples = 20
[local]
warmup_epochs = 1
epochs = 1
[dreaming]
images = 8
steps = 2
labels = "probabilities"
[distillation]
epochs = 1
[dp]
unit = "client"
epsilon = 2
delta = 1e-3
[run]
rounds = 1
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def test_the_table_has_every_setting_and_every_statement(
    command: Callable[..., Any], tiny: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    wanted = ("--epsilons", "2,inf", "--protections", "plain,ckks", "--seeds", 2, "--out", out)
    done = command("tradeoff", tiny, *wanted)
    assert done.code == 0
    found = json.loads((out / "tradeoff.json").read_text())
    lines = done.out.splitlines()
    assert lines[0].startswith("Budget: the largest epsilon that a run may spend, at delta = 0.001 for the unit client")
    for row in found["rows"]:
        if row["obstacle"]:
            assert f"{row['name']} cannot run: {row['obstacle']}" in lines
            continue
        spread = row["test_accuracy"]
        figures = f"{100 * spread['mean']:.1f} ± {100 * spread['std']:.1f}"
        marked = [line for line in lines if figures in line]
        assert any(line.rstrip().endswith("*") == row["pareto"] for line in marked), row["name"]
        if row["text"]:
            assert any(row["name"] in line and line.endswith(row["text"]) for line in lines)
    assert [row["name"] for row in found["rows"] if row["obstacle"]] == ["budget 2, ckks"]
    assert f"report: {out / 'tradeoff.html'}" in lines
    assert "<html" in (out / "tradeoff.html").read_text()


def test_as_json_it_is_the_file_and_finished_runs_stay(command: Callable[..., Any], tiny: Path, tmp_path: Path) -> None:
    wanted = ("--epsilons", "2", "--protections", "masked", "--seeds", 1, "--no-control", "--out", tmp_path, "--json")
    first = command("tradeoff", tiny, *wanted)
    assert first.code == 0
    found = json.loads(first.out)
    assert found == json.loads((tmp_path / "tradeoff.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["isolated", "budget 2, masked"]
    checkpoint = tmp_path / "budget_2" / "masked" / "seed_0" / "checkpoint.pt"
    written = checkpoint.stat().st_mtime_ns
    assert json.loads(command("tradeoff", tiny, *wanted).out) == found
    assert checkpoint.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epsilons", "1,0"), "epsilons is '1,0'"),
        (("--epsilons", "1,1"), "epsilons is '1,1'"),
        (("--protections", "mask"), "protections is 'mask'"),
        (("--set", 'dp={unit="none"}'), "dp.unit is 'none'"),
        (("--epsilons", "1", "--protections", "ckks"), "none of these epsilons"),
    ],
)
def test_wrong_usage_is_named(
    arguments: tuple[str, ...], message: str, command: Callable[..., Any], tiny: Path, tmp_path: Path
) -> None:
    done = command("tradeoff", tiny, *arguments, "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not (tmp_path / "out").exists()
