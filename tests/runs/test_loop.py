"""Run directories: what is in them, and that a run killed at any moment ends as if it had not been."""

from __future__ import annotations

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from codream_secure.config import Config, load_config, make_config
from codream_secure.errors import CheckpointError, ConfigError
from codream_secure.federation import Federation
from codream_secure.methods import METHODS
from codream_secure.runs import run
from codream_secure.runs.summary import select_row, to_target

QUICK = (
    "run.rounds=2",
    "local.warmup_epochs=1",
    "local.epochs=1",
    "dreaming.images=8",
    "dreaming.steps=2",
    "distillation.epochs=1",
    "data.validation_samples=20",
    "data.samples_per_client=10",
)


def quick(*overrides: str) -> Config:
    return make_config({}, [*QUICK, *overrides])


def without_seconds(path: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_a_run_directory_holds_everything(tmp_path: Path) -> None:
    config = quick("run.tensorboard=true")
    result = run(config, out=tmp_path)
    assert load_config(tmp_path / "config.toml") == config
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == result.rows
    assert [row["round"] for row in rows] == [0, 1, 2]
    with (tmp_path / "metrics.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [float(row["test_accuracy"]) for row in table] == [row["test_accuracy"] for row in rows]
    assert json.loads((tmp_path / "summary.json").read_text()) == result.summary
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert sum(map(sum, json.loads((tmp_path / "partition.json").read_text()))) == 40
    assert Image.open(tmp_path / "dreams" / "round_0002.png").size[0] > 8 * 8
    assert list((tmp_path / "tensorboard").iterdir())
    assert not list(tmp_path.glob(".*")), "temporary files are left over"


@pytest.mark.parametrize("method", sorted(METHODS))
def test_equal_runs_are_equal_to_the_bit_and_seeds_matter(method: str) -> None:
    first, second, other = (run(quick(f"method={method}", f"run.seed={seed}")).summary for seed in (0, 0, 1))
    assert first["weights_sha256"] == second["weights_sha256"]
    assert first["weights_sha256"] != other["weights_sha256"]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_resuming_after_any_round_ends_bit_identical(method: str, tmp_path: Path) -> None:
    whole = run(quick(f"method={method}", "model.server=mlp"), out=tmp_path / "whole")
    for rounds_done in (0, 1):

        class Stop(Exception):
            pass

        def stop_after(row: dict[str, object], limit: int = rounds_done) -> None:
            if row["round"] == limit + 1:
                raise Stop

        part = tmp_path / f"part{rounds_done}"
        with pytest.raises(Stop):
            run(quick(f"method={method}", "model.server=mlp"), out=part, on_round=stop_after)
        resumed = run(quick(f"method={method}", "model.server=mlp"), out=part, resume=True)
        assert resumed.summary["weights_sha256"] == whole.summary["weights_sha256"]
        assert resumed.summary["bytes_by_phase"] == whole.summary["bytes_by_phase"]
        assert without_seconds(part / "metrics.jsonl") == without_seconds(tmp_path / "whole" / "metrics.jsonl")


@pytest.mark.slow
def test_a_process_killed_at_random_moments_ends_bit_identical(tmp_path: Path) -> None:
    """SIGKILL, as often as it takes, at random moments: the end is that of an uninterrupted run."""
    overrides = [*QUICK, "run.rounds=6", "dreaming.steps=20"]
    config = tmp_path / "config.toml"
    config.write_text(make_config({}, overrides).to_toml())
    whole = run(load_config(config), out=tmp_path / "whole")
    part = tmp_path / "part"
    command = [sys.executable, "-m", "codream_secure", "train", str(config), "--out", str(part), "--resume"]
    dice, kills = random.Random(0), 0
    for _ in range(60):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        checkpoint = part / "checkpoint.pt"
        deadline = time.monotonic() + 60
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and time.monotonic() < deadline:
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
                break
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.2))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        if process.wait() == 0:
            break
    assert process.returncode == 0
    assert kills >= 3
    assert json.loads((part / "summary.json").read_text())["weights_sha256"] == (whole.summary["weights_sha256"])
    assert without_seconds(part / "metrics.jsonl") == without_seconds(tmp_path / "whole" / "metrics.jsonl")


def test_a_finished_run_is_not_overwritten_without_being_asked(tmp_path: Path) -> None:
    run(quick(), out=tmp_path)
    with pytest.raises(ConfigError, match="already holds a run"):
        run(quick(), out=tmp_path)


@pytest.mark.parametrize("resume", [False, True])
def test_two_runs_do_not_share_a_directory(resume: bool, tmp_path: Path) -> None:
    found: list[str] = []

    def beside(_: object) -> None:
        with pytest.raises(ConfigError, match="another run") as caught:
            run(quick(), out=tmp_path, resume=resume)
        found.append(str(caught.value))

    # While the warm-up is trained there is no checkpoint that could be seen; later there is one.
    run(quick("run.rounds=1"), out=tmp_path, observe=lambda phase, *_: found or beside(phase))
    assert found
    assert run(quick("run.rounds=1"), out=tmp_path, resume=True).rows


def test_a_run_that_another_one_was_faster_than_does_not_go_on_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Federation.create

    def after_another(*arguments: Any, **settings: Any) -> Federation:
        monkeypatch.setattr(Federation, "create", create)
        run(quick("run.rounds=0"), out=tmp_path)
        return create(*arguments, **settings)

    monkeypatch.setattr(Federation, "create", after_another)
    with pytest.raises(ConfigError, match="already holds a run"):
        run(quick("run.rounds=0"), out=tmp_path)


def test_checkpoints_of_other_configurations_are_refused_with_the_difference(tmp_path: Path) -> None:
    run(quick(), out=tmp_path)
    with pytest.raises(CheckpointError, match="steps = 2; steps = 3"):
        run(quick("dreaming.steps=3"), out=tmp_path, resume=True)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_damaged_checkpoints_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        run(quick(), out=tmp_path, resume=True)


def test_checkpoints_execute_nothing(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "owned"),)

    torch.save({"format": 1, "config": Hostile()}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        run(quick(), out=tmp_path, resume=True)
    assert not (tmp_path / "owned").exists()


def test_a_method_with_an_obstacle_says_so() -> None:
    with pytest.raises(ConfigError, match="needs one architecture"):
        run(quick("method=fedavg", 'model.clients=["mlp", "lenet5", "mlp", "mlp"]'))


def test_the_reported_round_is_the_final_one_or_chosen_on_validation() -> None:
    rows = [
        {"round": 0, "validation_accuracy": 0.5, "test_accuracy": 0.9},
        {"round": 1, "validation_accuracy": 0.7, "test_accuracy": 0.6},
        {"round": 2, "validation_accuracy": 0.7, "test_accuracy": 0.8},
        {"round": 3, "validation_accuracy": 0.6, "test_accuracy": 0.7},
    ]
    assert select_row(rows, "final")["round"] == 3
    assert select_row(rows, "validation")["round"] == 1


def test_cost_to_a_target_is_that_of_the_first_round_that_reaches_it() -> None:
    rows = [
        {"round": n, "validation_accuracy": v, "bytes_up": 10 * n, "bytes_down": n, "seconds": n / 2}
        for n, v in enumerate((0.1, 0.6, 0.5, 0.7))
    ]
    assert to_target(rows, 0.55) == {"target": 0.55, "round": 1, "bytes_up": 10, "bytes_down": 1, "seconds": 0.5}
    assert to_target(rows, 0.9)["round"] is None


def test_a_nan_in_training_stops_the_run_with_its_name() -> None:
    with pytest.raises(ValueError, match="lower the learning rate"):
        run(quick("local.lr=1e30", "local.warmup_epochs=5"))


def test_a_round_that_was_announced_is_already_safe(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(row: dict[str, object]) -> None:
        if row["round"] == 1:
            raise Stop

    with pytest.raises(Stop):
        run(quick(), out=tmp_path, on_round=stop)
    announced: list[object] = []
    run(quick(), out=tmp_path, resume=True, on_round=lambda row: announced.append(row["round"]))
    assert announced == [2]
    assert (tmp_path / "dreams" / "round_0001.png").exists()


def test_figures_that_are_not_numbers_are_left_out_of_the_metrics(tmp_path: Path) -> None:
    run(quick("local.epochs=0", "distillation.epochs=0"), out=tmp_path)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "distillation_loss" not in text


def test_models_with_dropout_are_reproducible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dropping.py").write_text(
        "from torch import nn\n"
        "def build(*, channels, image_size, num_classes):\n"
        "    return nn.Sequential(nn.Dropout(0.5), nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),\n"
        "        nn.Flatten(), nn.Linear(4 * (image_size[0] - 2) * (image_size[1] - 2), num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = {run(quick("model.clients=dropping:build")).summary["weights_sha256"] for _ in range(2)}
    assert len(found) == 1
