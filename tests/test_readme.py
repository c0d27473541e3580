"""The README's Python runs as it stands there."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codream_secure.config import make_config
from codream_secure.streams import make_terms

ROOT = Path(__file__).resolve().parents[1]

MODEL = """
from torch import nn


def build(*, channels, image_size, num_classes):
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * image_size[0] * image_size[1], num_classes),
    )
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_with_own_data_and_model_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = (block for block in blocks("python") if "codream_secure" in block)
    generator = np.random.default_rng(0)
    labels = np.arange(240) % 3
    images = generator.integers(0, 100, (240, 12, 12), dtype=np.uint8) + (50 * labels[:, None, None]).astype(np.uint8)
    np.savez(
        tmp_path / "my_images.npz", x_train=images[:200], y_train=labels[:200], x_test=images[200:], y_test=labels[200:]
    )
    (tmp_path / "my_models.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    exec(compile(example, "README.md", "exec"), {})
    summary = json.loads((tmp_path / "runs" / "mine" / "summary.json").read_text())
    assert capsys.readouterr().out.startswith(f"{summary['test_accuracy']} ")
    # Three classes that differ in brightness are learnt, not guessed.
    assert summary["test_accuracy"] > 0.6


def test_the_example_of_a_cohort_runs_and_sums(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = (block for block in blocks("python") if "Simulation" in block)
    scope: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), scope)
    mean = np.mean([np.clip(vector, -4, 4) for vector in scope["vectors"].values()], axis=0)
    printed = np.array([float(figure) for figure in capsys.readouterr().out.strip("[]\n ").split()])
    np.testing.assert_allclose(printed, mean[:3], atol=1e-6)


def test_the_example_configuration_of_protection_is_one() -> None:
    (example,) = (block for block in blocks("toml") if "protection" in block)
    config = make_config(tomllib.loads(example))
    assert config.protocol.protection == "masked"
    assert make_terms(config).topology(config.data.clients).survivors == 3


def test_commands_of_the_readme_name_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"(experiments/configs/[\w.]+\.toml|docs/images/[\w.]+)", text):
        assert (ROOT / path).exists(), path


def test_no_figure_is_missing_and_no_placeholder_left() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "@@" not in text
    for name in re.findall(r"<!-- table: ([\w.-]+) -->", text):
        assert (ROOT / "experiments" / "results" / f"{name}.json").exists(), name


def test_committed_results_name_no_place_on_a_machine() -> None:
    for path in (ROOT / "experiments" / "results").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert "root = " not in text, path.name
        assert "/home/" not in text, path.name
