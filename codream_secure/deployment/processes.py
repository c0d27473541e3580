"""Processes that never outlive whoever started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.5
_GRACE_S = 5.0


def die_with(parent: int) -> None:
    """End this process, at once and however that may come about, when its parent ends.

    On Linux the kernel sees to it. Elsewhere a thread looks twice a second who the parent is.

    Args:
        parent: process id of whoever started this one.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before the kernel was told.
    if os.getppid() != parent:
        os._exit(1)
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)


class Supervisor:
    """Starts processes of this program, and ends them all when its block is left.

    Each is the leader of a process group of its own, so a terminal's Ctrl-C reaches the supervisor alone, which then
    ends the others.

    Args:
        logs: folder for what they say on standard error.
        environment: in addition to this process's own.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = {**os.environ, **environment}
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str, arguments: Sequence[str]) -> subprocess.Popen[str]:
        """Start ``codream-secure`` with these arguments; its standard output is a pipe."""
        command = [sys.executable, "-m", "codream_secure.deployment.child", str(os.getpid()), *arguments]
        with (self._logs / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def log_of(self, name: str) -> str:
        """What a process has said on standard error."""
        return (self._logs / f"{name}.log").read_text(errors="replace").strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process: asked to first, then made to."""
        running = [process for process in self.processes.values() if process.poll() is None]
        for process in running:
            _signal(process, signal.SIGTERM)
        end = time.monotonic() + _GRACE_S
        for process in running:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()
        for process in self.processes.values():
            if process.stdout is not None:
                process.stdout.close()


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
