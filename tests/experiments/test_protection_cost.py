"""What masking adds, on sizes that take seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codream_secure.config import load_config
from experiments.protection_cost import DIGITS, main, measure_rounds, measure_step

SMALL = ("run.rounds=1", "dreaming.images=8", "dreaming.steps=2", "distillation.epochs=1", "local.epochs=1")


def test_rounds_under_both_protections_learn_the_same_and_masking_costs_more() -> None:
    found = measure_rounds(load_config(DIGITS, SMALL), repeats=1)
    assert found["identical"]
    assert 0 < found["plain_cpu_s"] < found["masked_cpu_s"]
    assert found["added"] == pytest.approx((found["masked_cpu_s"] - found["plain_cpu_s"]) / found["round_s"])


def test_a_step_is_summed_to_the_same_bits() -> None:
    found = measure_step(clients=3, images=4, architecture="small_cnn", repeats=2)
    assert found["identical"]
    assert found["setup_cpu_s"] > 0
    assert 0 < found["plain_cpu_s"] < found["masked_cpu_s"]


@pytest.mark.slow
def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cost.json"
    main(out=out, repeats=1, rounds=1, clients=2, images=2)
    found = json.loads(out.read_text())
    assert f"{100 * found['resnet18']['added']:.2f} % more" in capsys.readouterr().out
    assert found["environment"]["torch_threads"] == 1
