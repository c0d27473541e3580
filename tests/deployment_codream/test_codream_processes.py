"""Processes that end with whoever started them, and the demonstration that starts five."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codream_secure.deployment.processes import Supervisor

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATIENCE_S = 240.0


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    pytest.importorskip("grpc")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(HERE / "sleeping_parent.py"), str(tmp_path / "demo")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def is_running(pid: int) -> bool:
    """Not ended, nor waiting for a parent to notice that it has."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_no_process_outlives_its_supervisor(parent: subprocess.Popen[str], how: signal.Signals) -> None:
    assert parent.stdout is not None
    said = json.loads(parent.stdout.readline())
    assert is_running(said["server"])
    parent.send_signal(how)
    parent.wait(PATIENCE_S)
    end = time.monotonic() + PATIENCE_S
    while is_running(said["server"]):
        assert time.monotonic() < end, "the server goes on without its parent"
        time.sleep(0.05)


def test_whoever_leaves_the_block_ends_its_processes(tmp_path: Path) -> None:
    """However it is left: what an interrupt does to a server, which takes long to start, is among the slow tests."""
    with contextlib.suppress(KeyboardInterrupt), Supervisor(tmp_path, {}) as supervisor:
        processes = [supervisor.start(name, ["keys", "--help"]) for name in ("one", "another")]
        raise KeyboardInterrupt
    assert [process.returncode for process in processes] == [-signal.SIGTERM] * 2
    assert all(process.stdout is not None and process.stdout.closed for process in processes)


@pytest.mark.slow
def test_the_demonstration_trains_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("grpc")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "codream_secure", "deploy", "demo"]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert found.returncode == 0, found.stderr
    assert "member 3" in found.stdout
    assert "Test accuracy" in found.stdout
    # torch has a folder of its own there.
    assert not list(tmp_path.glob("codream*"))
