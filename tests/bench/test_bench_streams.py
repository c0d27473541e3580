"""The benchmark of streams: that it runs, on vectors too short to be worth timing."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from codream_secure.bench.streams import bench_streams
from codream_secure.errors import ConfigError


def test_sums_and_echo_are_both_measured() -> None:
    pytest.importorskip("grpc")
    command = [sys.executable, "-m", "codream_secure.bench.streams", "--clients", "3", "--values", "50", "--steps", "5"]
    measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert (measured["clients"], measured["values"], measured["steps"]) == (3, 50, 5)
    assert len(measured["ratio_by_block"]) == 5
    for name in (
        "steps_per_s",
        "echo_steps_per_s",
        "ratio",
        "ratio_same_exchanges",
        "server_peak_rss_bytes",
        "members_peak_rss_bytes",
    ):
        assert measured[name] > 0
        assert math.isfinite(measured[name])


def test_it_needs_no_torch() -> None:
    program = "import sys, codream_secure.bench.streams; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" not in loaded


@pytest.mark.parametrize("options", [{"steps": 7}, {"steps": 0}, {"clients": 1}, {"processes": 4}, {"values": 0}])
def test_numbers_that_make_no_sense_are_named(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(options.values())))):
        bench_streams(**({"clients": 3} | options))  # type: ignore[arg-type]
