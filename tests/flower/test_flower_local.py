"""The launcher of the examples: who may join the SuperLink, and that nothing outlives an interruption."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

pytest.importorskip("flwr", reason="flwr is not installed")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PATIENCE_S = 240.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked for in /proc"),
]


def environment() -> dict[str, str]:
    """For processes that import the package from this tree."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES.parent), *sys.path])}


def commands_of(home: Path) -> list[str]:
    """What is running of the deployment whose Flower folder this is."""
    marker, found = f"FLWR_HOME={home}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
    return found


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """CoDream's example in ``tmp_path / "run"``, whose output is a pipe."""
    command = [sys.executable, str(EXAMPLES / "flower_codream" / "run_local.py"), str(tmp_path / "run")]
    # Whoever runs the tests may have interrupts ignored, which processes inherit.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        yield process
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_deployment_leaves_nothing_running(
    launched: subprocess.Popen[str], tmp_path: Path, how: signal.Signals
) -> None:
    home = tmp_path / "run" / "flwr"
    end = time.monotonic() + PATIENCE_S
    # The server's program is of another session than the SuperLink that starts it: the hardest to end.
    while not any("flwr-serverapp" in command for command in commands_of(home)):
        assert launched.poll() is None, "the example has ended"
        assert time.monotonic() < end, commands_of(home)
        time.sleep(0.1)
    launched.send_signal(how)
    time.sleep(0.2)
    launched.send_signal(how)
    assert launched.wait(PATIENCE_S) == 130
    # A process that was killed takes a moment to be gone.
    end = time.monotonic() + PATIENCE_S
    while left := commands_of(home):
        assert time.monotonic() < end, left
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("stranger", "refusal"),
    [
        ("a key that nobody registered", "[/v1/fleet/activate-node][ApiError:2004]"),
        ("no key", "[/v1/fleet/register-node][ApiError:2001]"),
        ("no TLS", ""),
    ],
)
def test_a_stranger_is_not_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stranger: str, refusal: str) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from local_flower import LocalFlower, free_port

    key = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    (tmp_path / "stranger").write_bytes(key)
    programs = Path(sys.executable).parent
    own = {
        **environment(),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(tmp_path / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    with LocalFlower(tmp_path) as flower:
        command = ["flower-supernode", "--superlink", flower.address, "--port", str(free_port()), "--max-retries", "1"]
        command += ["--insecure"] if stranger == "no TLS" else ["--root-certificates", f"{tmp_path}/flower-tls/ca.pem"]
        if stranger == "a key that nobody registered":
            command += ["--auth-supernode-private-key", str(tmp_path / "stranger")]
        command[0] = str(programs / command[0])
        # Into a file: its own children may hold a pipe open after it has ended.
        with (tmp_path / "stranger.log").open("wb") as log_file:
            process = subprocess.Popen(command, env=own, stdout=log_file, stderr=log_file, start_new_session=True)
        try:
            code = process.wait(PATIENCE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert code == 1, (tmp_path / "stranger.log").read_text()
    log = (tmp_path / "superlink.log").read_text()
    assert refusal in log
    assert "Activated" not in log
    if not refusal:
        assert "/v1/fleet" not in log
    assert commands_of(tmp_path / "flwr") == []
