"""The example as a deployment: SuperLink, four SuperNodes and their apps as processes of their own, on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flower_quickstart"
ROUNDS = 2


def federated_averaging() -> dict[str, np.ndarray]:
    """What FedAvg in clear gives, by the example's own training."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        from quickstart import task
    finally:
        sys.path.remove(str(EXAMPLE))
    arrays = task.initial()
    for _ in range(ROUNDS):
        parts = [task.load(part, 4) for part in range(4)]
        moved = [task.train(arrays, *part, learning_rate=0.5)[0] for part in parts]
        weights = [len(labels) for _, labels in parts]
        assert len(set(weights)) == 4
        arrays = {
            name: np.average([one[name].astype(np.float64) for one in moved], axis=0, weights=weights).astype(
                array.dtype
            )
            for name, array in arrays.items()
        }
    return arrays


def still_running(home: Path) -> list[str]:
    """Commands of processes that were started for this deployment."""
    marker, found = f"FLWR_HOME={home}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
    return [command for command in found if command]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked for in /proc")
def test_a_deployment_ends_where_federated_averaging_ends_and_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLE.parents[1]), *sys.path])}
    command = [sys.executable, str(EXAMPLE / "run_local.py"), str(folder), str(ROUNDS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    logs = "\n".join(log.read_text(errors="replace")[-2000:] for log in folder.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert still_running(folder / "flwr") == []
    with np.load(folder / "final.npz") as found:
        expected = federated_averaging()
        assert set(found) == set(expected)
        for name, array in expected.items():
            # Both rounds' rounding to float32; the fixed point of 64 bits is finer by far.
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-6)
            assert np.abs(array).max() > 0.01
    for number in range(4):
        log, state = sorted((folder / f"state-{number}").iterdir())
        assert log.name == "rounds.log"
        assert state.match("run-*.state")
        # What was answered is remembered; there is no machine any more.
        assert msgspec.msgpack.decode(state.read_bytes())[:2] == [None, None]
