"""The benchmark of dream steps: what it reports, on images too small to be worth timing."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from typer.testing import CliRunner

from codream_secure.bench import hardware
from codream_secure.bench.dreaming import Row, bench_dreaming, image_shape
from codream_secure.cli.app import app
from codream_secure.dreaming import DreamObjective
from codream_secure.errors import ConfigError
from codream_secure.models import build_model

ARGUMENTS = ["bench", "dreaming", "--images", "6", "--shape", "1x8x8", "--repeats", "1", "--threads", "1"]


@pytest.fixture(autouse=True)
def _no_extra_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codream_secure.bench.dreaming._SECONDS", 0.0)


def test_json_has_a_row_per_model_and_nothing_else_on_standard_output() -> None:
    result = CliRunner().invoke(app, [*ARGUMENTS, "--models", "lenet5,small_cnn", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["images"], found["shape"], found["threads"], found["device"]) == (6, [1, 8, 8], 1, "cpu")
    assert [(row["model"], row["feature_matching"]) for row in found["rows"]] == [
        ("lenet5", False),
        ("small_cnn", True),
    ]
    for row in found["rows"]:
        assert row.keys() == {field.name for field in dataclasses.fields(Row)}
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
        assert row["ratio"] == pytest.approx(row["published_ms"] / row["ours_ms"])
        assert row["gradient_error"] < 1e-4
        assert 0 <= row["dreams_difference_rms"] <= row["dreams_difference"]
    assert "small_cnn: 10 Adam steps on 6 dreams" in result.stderr


def test_tables_name_every_model() -> None:
    result = CliRunner().invoke(app, [*ARGUMENTS, "--models", "mlp"])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("mlp") == 2


def test_bfloat16_is_left_out_where_it_would_be_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codream_secure.bench.dreaming.native_bfloat16", lambda device: None)
    (row,) = bench_dreaming(["lenet5"], images=2, shape=(1, 8, 8), turns=1, thread_count=1).rows
    assert row.bf16_ms is row.bf16_ratio is row.gradient_error_bf16 is None


def test_bfloat16_keeps_the_direction_of_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codream_secure.bench.dreaming.native_bfloat16", lambda device: "emulated, for this test")
    (row,) = bench_dreaming(["small_cnn"], images=16, shape=(1, 8, 8), turns=1, thread_count=1).rows
    assert row.gradient_error_bf16 is not None
    assert row.gradient_error < row.gradient_error_bf16 < 0.3


def test_the_dreams_agree_to_what_one_rounding_does_to_them() -> None:
    (row,) = bench_dreaming(["small_cnn"], images=16, shape=(1, 8, 8), turns=1, thread_count=1).rows
    # Ten steps of 0.05 move a pixel by up to 0.5; a wrong gradient would show as a difference of that size.
    assert row.dreams_difference_rms < 0.01


def test_native_bfloat16_is_read_from_the_processor_in_every_version_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": False, "avx512_bf16": True}, raising=False)
    assert hardware.native_bfloat16(cpu) == "avx512_bf16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "other"}, raising=False)
    assert hardware.native_bfloat16(cpu) is None
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert hardware.native_bfloat16(cpu) == "avx512_bf16"


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    with hardware.threads(before + 1) as count:
        assert count == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("text", ["32x32", "3x32x0", "3,32,32", "3x32x32x1", "ax8x8", "-1x8x8"])
def test_a_shape_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="must be channels, height and width"):
        image_shape(text)


def test_unknown_and_absent_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="must be cpu or cuda"):
        hardware.find_device("tpu")
    with pytest.raises(ConfigError, match="no CUDA device"):
        hardware.find_device("cuda")


@pytest.mark.gpu
def test_a_cuda_graph_replays_the_gradient_of_new_dreams() -> None:
    torch.manual_seed(0)
    model = build_model("small_cnn", channels=3, image_size=(16, 16), num_classes=10).cuda()
    first, second = torch.randn(2, 8, 3, 16, 16, device="cuda")
    with DreamObjective(model, first, autocast=torch.bfloat16) as objective:
        replayed = hardware.as_cuda_graph(objective.gradient, first)(second)
        torch.testing.assert_close(replayed, objective.gradient(second), rtol=1e-3, atol=1e-6)


@pytest.mark.gpu
def test_the_benchmark_runs_on_cuda() -> None:
    (row,) = bench_dreaming(["small_cnn"], images=8, shape=(3, 16, 16), turns=2, device=torch.device("cuda")).rows
    assert row.gradient_error < 1e-2
