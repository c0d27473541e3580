"""The pages about deployments, walked through on this machine: what they say to save is saved, what they run is run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S, GRACE_S, LOOK_S = 1200, 30, 0.2
MARKER = "CODREAM_WALKED_PAGE"


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of every block, in order."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert text.count("```") == 2 * len(found), "every block is looked at"
    return found


def put_clone(folder: Path) -> None:
    """What ``make`` needs of a clone, with this interpreter as its environment, so that nothing is installed."""
    for name in ("Makefile", "pyproject.toml", "examples"):
        (folder / name).symlink_to(ROOT / name)
    environment = folder / ".venv"
    environment.mkdir()
    (environment / "bin").symlink_to(Path(sys.executable).parent)
    for name in ("lib", "pyvenv.cfg"):
        if (Path(sys.prefix) / name).exists():
            (environment / name).symlink_to(Path(sys.prefix) / name)
    (environment / ".installed-flower").touch()


def running(marker: str) -> list[int]:
    """Processes that a walk has left; known by their environment, on Linux only."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # It may end meanwhile, or be somebody else's. One that nobody has waited for has no environment any more.
        with contextlib.suppress(OSError):
            if f"{MARKER}={marker}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


@contextlib.contextmanager
def shell(script: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A reader's terminal in a folder, ``out`` and ``err`` beside it; all that it has started ends with it."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "CODREAM_KEY_PASSPHRASE"},
        MARKER: str(folder),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    with (folder.parent / "out").open("wb") as out, (folder.parent / "err").open("wb") as err:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        # Asked to first: some of them have processes of their own to end.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        end = time.monotonic() + GRACE_S
        while running(str(folder)) and time.monotonic() < end:
            process.poll()
            time.sleep(LOOK_S)
        for pid in running(str(folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def without_figures(text: str) -> str:
    """Accuracies are those of a machine and its versions."""
    return re.sub(r"\d+\.\d %", "_ %", text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "needs", "port"), [("deployment.md", "grpc", 8443), ("deploying_codream.md", "flwr", 7443)]
)
def test_a_page_can_be_walked_through(page: str, needs: str, port: int, tmp_path: Path) -> None:
    pytest.importorskip(needs)
    if lacking := [tool for tool in ("bash", "make") if not shutil.which(tool)]:
        pytest.skip(f"not on this machine: {lacking}")
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        pytest.skip(f"port {port}, which the page names, is not free: {error}")
    folder = tmp_path / "walk"
    folder.mkdir()
    put_clone(folder)
    script, expected = "", []
    for language, text in blocks(page):
        if language == "sh":
            script += text
        elif language in ("python", "toml"):
            [name] = re.findall(r"\A# (\S+)$", text, re.MULTILINE)
            (folder / name).write_text(text)
        elif language == "text":
            expected.append(text)
    assert script
    assert expected
    with shell(script, folder) as process:
        code = process.wait(PATIENCE_S)
        left = running(str(folder))
    out, err = ((tmp_path / name).read_text() for name in ("out", "err"))
    assert code == 0, out + err
    assert left == [], out + err
    for text in expected:
        assert without_figures(text) in without_figures(out), out + err
    # "wait" forgives what ran behind; who ends with an error says so.
    assert not re.search(r"^(error:|Traceback|\w*Error:)", err, re.MULTILINE), err
