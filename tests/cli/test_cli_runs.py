"""Training and comparing from the command line, on real data and as small as can be."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from codream_secure.config import Config, load_config

PRESET = resources.files("codream_secure") / "presets" / "demo.toml"


def preset() -> Config:
    with resources.as_file(PRESET) as path:
        return load_config(path)


def test_train_prints_its_figures_and_where_they_are(
    command: Callable[..., Any], config: Path, small: list[str], tmp_path: Path
) -> None:
    done = command("train", config, *small, "--out", tmp_path / "run")
    assert done.code == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert f"{100 * summary['test_accuracy']:.1f} % (mean over clients, final round)" in done.out
    assert f"results: {tmp_path / 'run'}" in done.out.replace("\n", "")
    assert done.err == "", "a run this short shows no progress"


def test_train_as_json_is_the_summary(
    command: Callable[..., Any], config: Path, small: list[str], tmp_path: Path
) -> None:
    done = command(
        "train", config, *small, "--set", "run.seed=3", "--set", "method=isolated", "--out", tmp_path, "--json"
    )
    assert done.code == 0
    printed = json.loads(done.out)
    assert printed == json.loads((tmp_path / "summary.json").read_text())
    assert (printed["method"], printed["seed"]) == ("isolated", 3)


def test_train_goes_on_only_when_told_to(
    command: Callable[..., Any], config: Path, small: list[str], tmp_path: Path
) -> None:
    train = ("train", config, *small, "--set", "method=isolated", "--out", tmp_path / "run", "--json")
    first = command(*train)
    again = command(*train)
    assert (again.code, again.out) == (2, "")
    assert "already holds a run" in again.err
    resumed = command(*train, "--resume")
    assert resumed.code == 0
    assert json.loads(resumed.out) == json.loads(first.out)


def test_compare_lists_methods_that_cannot_run_with_the_reason(
    command: Callable[..., Any], small: list[str], tmp_path: Path
) -> None:
    with resources.as_file(PRESET) as path:
        done = command("compare", path, *small, "--out", tmp_path)
    assert done.code == 0
    assert "fedavg: needs one architecture, the clients have 4" in done.out
    rows = {line.split()[0]: line for line in done.out.splitlines() if line.strip()}
    assert "cannot run" in rows["fedavg"]
    found = {entry["method"]: entry for entry in json.loads((tmp_path / "comparison.json").read_text())["methods"]}
    assert list(found) == ["isolated", "codream", "fedavg", "centralised"]
    for name in ("isolated", "codream", "centralised"):
        assert f"{100 * found[name]['test_accuracy']['mean']:.1f} " in rows[name]
    assert f"report: {tmp_path / 'report.html'}" in done.out.replace("\n", "")
    assert (tmp_path / "report.html").stat().st_size > 1000


def test_compare_as_json_is_the_file(
    command: Callable[..., Any], config: Path, small: list[str], tmp_path: Path
) -> None:
    wanted = ("--methods", "isolated, fedavg,isolated", "--seeds", 2, "--set", "run.seed=5")
    done = command("compare", config, *small, *wanted, "--out", tmp_path, "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert found == json.loads((tmp_path / "comparison.json").read_text())
    assert found["seeds"] == [5, 6]
    assert [entry["method"] for entry in found["methods"]] == ["isolated", "fedavg"], "named twice, run once"
    assert all(len(entry["test_accuracy"]["values"]) == 2 for entry in found["methods"])


def test_compare_goes_on_without_repeating_finished_runs(
    command: Callable[..., Any], config: Path, small: list[str], tmp_path: Path
) -> None:
    begun = command("compare", config, *small, "--methods", "isolated", "--out", tmp_path, "--json")
    checkpoint = tmp_path / "isolated" / "seed_0" / "checkpoint.pt"
    written = checkpoint.stat().st_mtime_ns
    done = command("compare", config, *small, "--methods", "isolated,fedavg", "--out", tmp_path, "--json")
    assert done.code == 0
    assert checkpoint.stat().st_mtime_ns == written
    first, second = json.loads(done.out)["methods"]
    assert first == json.loads(begun.out)["methods"][0]
    assert second["test_accuracy"]["mean"] is not None


def test_compare_refuses_to_mix_configurations(
    command: Callable[..., Any], config: Path, small: list[str], tmp_path: Path
) -> None:
    command("compare", config, *small, "--methods", "isolated", "--out", tmp_path)
    mixed = command("compare", config, *small, "--methods", "isolated", "--set", "local.lr=0.01", "--out", tmp_path)
    assert (mixed.code, mixed.out) == (2, "")
    assert "another configuration" in mixed.err


def test_reports_are_written_into_the_directory(
    command: Callable[..., Any], config: Path, small: list[str], tmp_path: Path
) -> None:
    command("train", config, *small, "--set", "method=isolated", "--out", tmp_path / "run")
    done = command("report", tmp_path / "run")
    assert done.code == 0
    assert done.out.replace("\n", "") == f"report: {tmp_path / 'run' / 'report.html'}"
    assert "<html" in (tmp_path / "run" / "report.html").read_text()


def test_the_demo_has_four_architectures_and_fifty_images_each() -> None:
    config = preset()
    assert len({config.model.architecture(client) for client in range(4)}) == config.data.clients == 4
    assert config.data.source == "digits"
    assert config.data.samples_per_client == 50


@pytest.mark.slow
def test_the_demo_beats_isolated_training_and_reports(command: Callable[..., Any], tmp_path: Path) -> None:
    done = command("demo", "--out", tmp_path, "--json")
    assert done.code == 0
    found = {entry["method"]: entry for entry in json.loads(done.out)["methods"]}
    accuracies = {name: found[name]["test_accuracy"]["mean"] for name in ("isolated", "codream", "centralised")}
    assert accuracies["isolated"] < accuracies["codream"] < accuracies["centralised"]
    assert (tmp_path / "report.html").exists()


def test_data_check_shows_a_table_or_json(command: Callable[..., Any]) -> None:
    found = json.loads(command("data", "check", "digits", "--json").out)
    assert (found["train"]["images"], found["test"]["images"], found["num_classes"]) == (1437, 360, 10)
    table = command("data", "check", "digits")
    assert table.code == 0
    rows = dict(line.split(maxsplit=1) for line in table.out.splitlines() if len(line.split(maxsplit=1)) == 2)
    assert rows["train.images"].strip() == "1437"
    assert rows["test.class_counts"].strip() == ", ".join(map(str, found["test"]["class_counts"]))


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("models",), {"mlp", "small_cnn", "shufflenet_v2_x0_5_gn"}),
        (("data", "list"), {"digits", "mnist", "npz:FILE", "images:FOLDER"}),
    ],
)
def test_lists_name_everything_whole(command: Callable[..., Any], arguments: tuple[str, ...], names: set[str]) -> None:
    listed = json.loads(command(*arguments, "--json").out)
    assert names <= {entry["name"] for entry in listed}
    table = command(*arguments).out
    for entry in listed:
        assert any(entry["name"] in line and entry["description"] in line for line in table.splitlines()), entry
