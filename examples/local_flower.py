"""A Flower deployment on this machine: a SuperLink and SuperNodes, each a process, on loopback.

No network is needed, and Flower's reports and update checks are off. Whatever was started is ended again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_START_S, _COMMAND_S = 120, 240


class LocalFlower:
    """A SuperLink, to which SuperNodes are added; use it as a context manager.

    Args:
        folder: for logs and Flower's own files; there, and without a folder ``flwr``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "flwr").mkdir()
        self._environment = {
            **os.environ,
            "FLWR_HOME": str(folder / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            # SuperLink and SuperNodes start further processes by name.
            "PATH": str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", ""),
            "OMP_NUM_THREADS": "1",
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self._link = free_port()

    def __enter__(self) -> Self:
        # Without the switch the SuperLink would call `uv sync` for the app's dependencies, which needs a network.
        self._start(
            "superlink",
            ["flower-superlink", "--insecure", "--port", str(self._link), "--disable-runtime-dependency-installation"],
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            # Processes that they started are of the same group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def add_node(self, config: dict[str, object], **environment: str) -> None:
        """Start a SuperNode.

        Args:
            config: what it knows of its own: integers and texts.
            environment: what its processes find there besides.
        """
        number = len(self._processes) - 1
        command = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{self._link}"]
        command += ["--port", str(free_port()), "--node-config", _settings(config)]
        self._start(f"supernode-{number}", command, **environment)

    def run(self, app: Path, settings: dict[str, object], *, patience_s: float) -> int:
        """Hand an app to the SuperLink and wait until its run is over.

        Args:
            app: its folder.
            settings: of the run.
            patience_s: to wait at most.

        Returns:
            The exit status: 0 if the run completed.
        """
        config = (
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{self._link}"\ninsecure = true\n'
        )
        (self._folder / "flwr" / "config.toml").write_text(config)
        self._wait()
        started = self._flwr("run", str(app), "here", "--run-config", _settings(settings))
        if started.returncode or not json.loads(started.stdout).get("success"):
            print(started.stdout + started.stderr, file=sys.stderr)
            return 1
        run, begun = str(json.loads(started.stdout)["run-id"]), time.monotonic()
        while time.monotonic() - begun < patience_s:
            listed = self._flwr("list", "here", "--run-id", run)
            status = "" if listed.returncode else json.loads(listed.stdout)["runs"][0]["status"]
            if status.startswith("finished"):
                print(f"{status} after {time.monotonic() - begun:.0f} s")
                return 0 if status == "finished:completed" else 1
            time.sleep(3)
        print(f"the run is not over after {patience_s:g} s", file=sys.stderr)
        return 1

    def _flwr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["flwr", *arguments, "--format", "json"],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )

    def _start(self, name: str, command: list[str], **environment: str) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self._environment, **environment},
                start_new_session=True,
                cwd=self._folder,
            )
        self._processes.append(process)

    def _wait(self) -> None:
        begun = time.monotonic()
        while time.monotonic() - begun < _START_S:
            try:
                socket.create_connection(("127.0.0.1", self._link), timeout=1).close()
                return
            except OSError:
                time.sleep(0.5)
        raise SystemExit("the SuperLink did not start: see superlink.log")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _settings(values: dict[str, object]) -> str:
    """As Flower's command line takes them: whole numbers as they are, all else in quotation marks."""
    return " ".join(f"{key}={value}" if isinstance(value, int) else f'{key}="{value}"' for key, value in values.items())
