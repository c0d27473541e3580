"""Comparisons: the figures over methods and seeds, and that finished runs are not run again."""

from __future__ import annotations

import json
import statistics
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codream_secure.config import Config, load_config, make_config
from codream_secure.errors import ConfigError
from codream_secure.runs import RunResult
from codream_secure.runs import compare as module
from codream_secure.runs.compare import compare, spread

SMALL = (
    "run.rounds=1",
    "local.warmup_epochs=1",
    "local.epochs=1",
    "dreaming.images=8",
    "dreaming.steps=1",
    "distillation.epochs=1",
    "data.validation_samples=20",
    "data.samples_per_client=10",
)


def small(*overrides: str) -> Config:
    return make_config({}, [*SMALL, *overrides])


class Trace:
    """Notes every round that is really computed, and can stop the work before one of them."""

    def __init__(self, stop_before: int | None = None) -> None:
        self.runs: list[tuple[str, int, int, int]] = []
        self.rounds: list[tuple[str, int, int]] = []
        self.stop_before = stop_before

    def on_run(self, method: str, seed: int, done: int, total: int) -> None:
        self.runs.append((method, seed, done, total))

    def observe(self, phase: str, done: int, total: int) -> None:
        if phase == "round":
            if len(self.rounds) == self.stop_before:
                raise KeyboardInterrupt
            self.rounds.append((*self.runs[-1][:2], done))


def summary(test: float, validation: float | None, **more: float) -> dict[str, Any]:
    return {
        "test_accuracy": test,
        "validation_accuracy": validation,
        "bytes_up": 10.0,
        "bytes_down": 20.0,
        "seconds": 3.0,
        "protocol_cpu": {"client": 0.25, "server": 0.5},
        **more,
    }


@pytest.fixture
def fake_runs(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], RunResult]:
    """Runs whose figures are given, by method and seed; what compare makes of them is real."""
    found: dict[tuple[str, int], RunResult] = {}
    monkeypatch.setattr(module, "run", lambda config, **options: found[config.method, config.run.seed])
    return found


def result(config: Config, validations: list[float], test: float) -> RunResult:
    """A run that reaches these validation accuracies round by round, at 100 bytes up, 10 down and 2 s each."""
    rows = [
        {"round": n, "validation_accuracy": v, "bytes_up": 100.0 * n, "bytes_down": 10.0 * n, "seconds": 2.0 * n}
        for n, v in enumerate(validations)
    ]
    return RunResult(config=config, rows=rows, summary=summary(test, validations[-1]))


@given(st.lists(st.none() | st.floats(0, 1)))
def test_spread_is_mean_and_sample_deviation_of_what_is_known(values: list[float | None]) -> None:
    found = spread(values)
    known = [value for value in values if value is not None]
    assert found["values"] == values
    assert found["mean"] == (pytest.approx(sum(known) / len(known)) if known else None)
    if len(known) < 2:
        assert found["std"] is None
    else:
        assert found["std"] == pytest.approx(
            statistics.pvariance(known) ** 0.5 * (len(known) / (len(known) - 1)) ** 0.5
        )


def test_the_gap_closed_is_from_isolated_to_centralised(fake_runs: dict[tuple[str, int], RunResult]) -> None:
    config = small()
    tests = {"isolated": (0.5, 0.6), "centralised": (0.9, 1.0), "codream": (0.8, 0.84), "fedavg": (0.4, 0.5)}
    for name, values in tests.items():
        for seed, value in enumerate(values):
            fake_runs[name, seed] = result(config, [0.1, value - 0.1], value)
    found = compare(config, methods=list(tests), seeds=2)
    closed = {entry["method"]: entry["gap_closed"] for entry in found["methods"]}
    assert closed == {
        "isolated": pytest.approx(0),
        "centralised": pytest.approx(1),
        "codream": pytest.approx((0.82 - 0.55) / 0.4),
        "fedavg": pytest.approx((0.45 - 0.55) / 0.4),
    }
    # The target lies at 85 % of the gap in validation accuracy, never in test accuracy.
    assert found["target"] == pytest.approx(0.45 + 0.85 * 0.4)


@pytest.mark.parametrize(
    "accuracies",
    [{"isolated": 0.5, "codream": 0.7}, {"codream": 0.7, "centralised": 0.9}, {"isolated": 0.9, "centralised": 0.9}],
    ids=["no centralised", "no isolated", "no gap"],
)
def test_without_a_gap_nothing_is_closed(
    accuracies: dict[str, float], fake_runs: dict[tuple[str, int], RunResult]
) -> None:
    config = small()
    for name, value in accuracies.items():
        fake_runs[name, 0] = result(config, [value], value)
    found = compare(config, methods=list(accuracies))
    assert found["target"] is None
    assert [(entry["gap_closed"], entry["to_target"]) for entry in found["methods"]] == [(None, None)] * len(accuracies)


def test_costs_to_the_target_are_over_the_seeds_that_reached_it(fake_runs: dict[tuple[str, int], RunResult]) -> None:
    config = small("run.target_accuracy=0.7", "run.seed=4")
    for seed, validations in ((4, [0.1, 0.7, 0.6]), (5, [0.1, 0.2, 0.6]), (6, [0.1, 0.3, 0.9])):
        fake_runs["codream", seed] = result(config, validations, 0.5)
        fake_runs["isolated", seed] = result(config, [0.1, 0.2], 0.5)
    found = compare(config, methods=["codream", "isolated"], seeds=3)
    assert found["target"] == 0.7
    reached, never = (entry["to_target"] for entry in found["methods"])
    assert (reached["reached"], reached["runs"]) == (2, 3)
    assert reached["round"]["values"] == [1, 2]
    assert reached["bytes_up"] == {"mean": 150, "std": pytest.approx(5000**0.5), "values": [100, 200]}
    assert reached["bytes_down"]["mean"] == 15
    assert reached["seconds"]["mean"] == 3
    assert (never["reached"], never["runs"], never["seconds"]["mean"]) == (0, 3, None)


def test_without_validation_images_there_is_no_target(tmp_path: Path) -> None:
    found = compare(small("data.validation_samples=0"), methods=["isolated", "centralised"], out=tmp_path)
    assert found["target"] is None
    assert all(entry["validation_accuracy"]["mean"] is None for entry in found["methods"])
    assert found["methods"][1]["test_accuracy"]["mean"] is not None


@pytest.mark.parametrize("seeds", [0, -1])
def test_seeds_have_to_be_positive(seeds: int) -> None:
    with pytest.raises(ValueError, match=f"seeds is {seeds}"):
        compare(small(), seeds=seeds)


def test_unknown_methods_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="codraem"):
        compare(small(), methods=["isolated", "codraem"], out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_file_is_the_returned_value_and_each_run_has_its_directory(tmp_path: Path) -> None:
    config, trace = small("run.seed=3"), Trace()
    methods = ("isolated", "codream", "fedavg", "centralised")
    found = compare(config, seeds=2, out=tmp_path, observe=trace.observe, on_run=trace.on_run)
    assert json.loads((tmp_path / "comparison.json").read_text()) == found
    assert trace.runs == [(name, seed, 4 * (seed - 3) + n, 8) for seed in (3, 4) for n, name in enumerate(methods)]
    assert found["seeds"] == [3, 4]
    assert found["selected_by"] == "final"
    assert make_config(tomllib.loads(found["config"])) == config
    for entry in found["methods"]:
        assert entry["obstacle"] is None
        summaries = []
        for seed in (3, 4):
            folder = tmp_path / entry["method"] / f"seed_{seed}"
            summaries.append(json.loads((folder / "summary.json").read_text()))
            one = load_config(folder / "config.toml")
            assert (one.method, one.run.seed, one.data) == (entry["method"], seed, config.data)
        for key in ("test_accuracy", "validation_accuracy", "bytes_up", "bytes_down", "seconds"):
            assert entry[key]["values"] == [one[key] for one in summaries]
    partitions = [(tmp_path / name / "seed_4" / "partition.json").read_text() for name in methods]
    assert len(set(partitions)) == 1, "a seed decides the partition, for all methods"


def test_an_obstacle_is_listed_and_not_run(tmp_path: Path) -> None:
    trace = Trace()
    config = small('model.clients=["mlp", "lenet5", "mlp", "mlp"]')
    found = compare(config, methods=["fedavg", "isolated"], out=tmp_path, on_run=trace.on_run)
    fedavg, isolated = found["methods"]
    assert (fedavg["method"], fedavg["obstacle"]) == ("fedavg", "needs one architecture, the clients have 2")
    assert isolated["test_accuracy"]["mean"] is not None
    assert trace.runs == [("isolated", 0, 0, 1)]
    assert not (tmp_path / "fedavg").exists()


def test_finished_runs_are_not_run_again_and_count_as_before(tmp_path: Path) -> None:
    first = compare(small(), methods=["isolated", "codream"], out=tmp_path)
    trace = Trace()
    second = compare(
        small(), methods=["isolated", "codream", "fedavg"], out=tmp_path, observe=trace.observe, on_run=trace.on_run
    )
    assert trace.rounds == [("fedavg", 0, 0), ("fedavg", 0, 1)]
    assert second["methods"][:2] == first["methods"]


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[dict[str, Any], Trace]:
    """The comparison that the next test breaks off, and its rounds; only read."""
    whole = Trace()
    found = compare(small(), methods=["isolated", "fedavg"], seeds=2, observe=whole.observe, on_run=whole.on_run)
    return found, whole


@pytest.mark.parametrize("stop_before", [0, 1, 2, 5, 7])
def test_an_interrupted_comparison_goes_on_where_it_stopped(
    stop_before: int, tmp_path: Path, uninterrupted: tuple[dict[str, Any], Trace]
) -> None:
    methods = ["isolated", "fedavg"]
    expected, whole = uninterrupted
    begun, rest = Trace(stop_before), Trace()
    with pytest.raises(KeyboardInterrupt):
        compare(small(), methods=methods, seeds=2, out=tmp_path, observe=begun.observe, on_run=begun.on_run)
    assert not (tmp_path / "comparison.json").exists()
    found = compare(small(), methods=methods, seeds=2, out=tmp_path, observe=rest.observe, on_run=rest.on_run)
    assert begun.rounds + rest.rounds == whole.rounds
    for one, other in zip(found["methods"], expected["methods"], strict=True):
        for key in ("test_accuracy", "validation_accuracy", "bytes_up", "bytes_down"):
            assert one[key] == other[key]
