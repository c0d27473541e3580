"""Ablations: how a variants file is read, and two variants run on two seeds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codream_secure.config import Config
from codream_secure.data import DataSource
from codream_secure.errors import ConfigError
from codream_secure.runs import RunResult, run
from codream_secure.runs.summary import to_target
from experiments import variants as module
from experiments.variants import load_variants, run_variants

BASE = """
[data]
samples_per_client = 10
validation_samples = 20
[local]
warmup_epochs = 1
epochs = 1
[dreaming]
images = 8
steps = 2
[distillation]
epochs = 1
[run]
rounds = 1
"""
TWO = """
base = "base.toml"
overrides = ["run.seed=3", "local.lr=0.02"]
reference = "as it is"
[variants]
"no / dreaming" = ["dreaming.steps=0", "local.lr=0.03"]
"as it is" = []
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a variants file beside its base."""
    (tmp_path / "base.toml").write_text(BASE)

    def written(text: str) -> Path:
        (tmp_path / "variants.toml").write_text(text)
        return tmp_path / "variants.toml"

    return written


def test_variants_are_the_base_the_common_overrides_and_their_own(write: Callable[[str], Path]) -> None:
    found, reference = load_variants(write(TWO))
    assert list(found) == ["no / dreaming", "as it is"]
    assert reference == "as it is"
    assert [config.dreaming.steps for config in found.values()] == [0, 2]
    assert [config.local.lr for config in found.values()] == [0.03, 0.02], "a variant's own overrides come last"
    assert {(config.run.seed, config.data.samples_per_client) for config in found.values()} == {(3, 10)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base = ", "cannot be used"),
        ("[variants]\na = []\n", "base"),
        ('base = "base.toml"\n', "variants"),
        ('base = "base.toml"\n[variants]\n', "variants"),
        ('base = "base.toml"\nvariants = ["a"]\n', "variants"),
        ('base = "base.toml"\n[variants]\na = "run.seed=1"\n', "variants.a"),
        ('base = "base.toml"\nrefrence = "a"\n[variants]\na = []\n', "refrence"),
        ('base = "base.toml"\nreference = "b"\n[variants]\na = []\n', "reference 'b' is none of a"),
        ('base = "base.toml"\n[variants]\n"a b" = []\n"a_b" = []\n', "would share a folder"),
        ('base = "base.toml"\n[variants]\na = []\nb = ["run.seeds=1"]\n', "variant 'b': run.seeds: unknown key"),
        ('base = "other.toml"\n[variants]\na = []\n', "other.toml"),
    ],
)
def test_unusable_files_are_refused_with_the_reason(text: str, message: str, write: Callable[[str], Path]) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as refused:
        load_variants(path)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.toml"):
        load_variants(tmp_path / "nowhere.toml")


def test_two_variants_on_two_seeds(
    write: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, reference = load_variants(write(TWO))
    table = run_variants(found, reference=reference, seeds=2, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "variants.json").read_text()) == table
    for entry, folder in zip(table["variants"], ("no___dreaming", "as_it_is"), strict=True):
        places = [tmp_path / "out" / folder / f"seed_{seed}" for seed in (3, 4)]
        summaries = [json.loads((place / "summary.json").read_text()) for place in places]
        assert (entry["seeds"], entry["rounds"]) == ([3, 4], 1)
        for key in ("test_accuracy", "validation_accuracy", "bytes_up", "bytes_down", "seconds"):
            assert entry[key]["values"] == [summary[key] for summary in summaries]
    assert [entry["name"] for entry in table["variants"]] == ["no / dreaming", "as it is"]
    # What each needs to get where the reference ends, on the same seed.
    ends = table["variants"][1]["validation_accuracy"]["values"]
    for entry, folder in zip(table["variants"], ("no___dreaming", "as_it_is"), strict=True):
        for end, seed, reached in zip(ends, (3, 4), entry["to_reference"], strict=True):
            lines = (tmp_path / "out" / folder / f"seed_{seed}" / "metrics.jsonl").read_text().splitlines()
            assert reached == to_target([json.loads(line) for line in lines], end)

    begun: list[int] = []

    def traced(config: Config, **options: Any) -> RunResult:
        return run(config, **{**options, "observe": lambda phase, done, total: begun.append(done)})

    monkeypatch.setattr(module, "run", traced)
    again = run_variants(found, reference=None, seeds=2, out=tmp_path / "out")
    assert begun == [], "finished runs are not run again"
    kept = [{**entry, "to_reference": None} for entry in table["variants"]]
    assert again["variants"] == kept


def test_a_data_set_may_be_downloaded_if_its_configuration_says_so(
    write: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, dict[str, Any]] = {}
    load = module.load_source

    def noted(source: str, **options: Any) -> DataSource:
        asked[source] = options
        return load(source, **options)

    monkeypatch.setattr(module, "load_source", noted)
    text = TWO.replace("run.seed=3", "data.download=true").replace('"as it is" = []', '"as it is" = ["run.rounds=0"]')
    found, _ = load_variants(write(text))
    run_variants({"as it is": found["as it is"]}, reference=None, seeds=1, out=tmp_path / "out")
    assert asked == {"digits": {"root": None, "download": True}}


def test_the_script_ends_with_a_message_and_not_with_a_traceback(
    write: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", ["variants", str(tmp_path / "nowhere.toml"), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        module.script()
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: variants file")
