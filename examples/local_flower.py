"""A Flower deployment on this machine: a SuperLink and SuperNodes, each a process, on loopback.

Lines to the SuperLink are TLS, and it takes only SuperNodes whose keys were registered with it. No network is needed,
and Flower's reports and update checks are off. Whatever was started is ended again, also on Ctrl-C or a kill.
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
from types import FrameType, TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from codream_secure.deployment.files import PRIVATE_FILE, PUBLIC_FILE, make_private_folder, write_new
from codream_secure.deployment.streams.certificates import make_certificates

_START_S, _COMMAND_S, _GRACE_S, _LOOK_S = 120, 240, 20, 0.2
_STOPS = (signal.SIGINT, signal.SIGTERM)


class LocalFlowerError(Exception):
    """Flower did not do what it was asked to; what it says is in the message."""


class LocalFlower:
    """A SuperLink, to which SuperNodes are added; use it as a context manager.

    Args:
        folder: exists, and is without ``flwr``, ``flower-tls`` and ``flower-keys``: Flower's own files, certificates,
            and the SuperNodes' keys. Logs are beside them, one for each process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._home, self._tls, self._keys = folder / "flwr", folder / "flower-tls", folder / "flower-keys"
        self._home.mkdir()
        self._environment = {
            **os.environ,
            "FLWR_HOME": str(self._home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            # SuperLink and SuperNodes start further processes by name.
            "PATH": str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", ""),
            "OMP_NUM_THREADS": "1",
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._handlers: dict[signal.Signals, Any] = {}
        self.address = f"127.0.0.1:{free_port()}"
        make_private_folder(self._keys)
        # An authority of Flower's own: who is who in the sums' streams is none of its business.
        make_certificates(self._tls, [])
        authority = self._tls / "ca.pem"
        (self._home / "config.toml").write_text(
            '[superlink]\ndefault = "here"\n\n[superlink.here]\n'
            f"address = {json.dumps(self.address)}\nroot-certificates = {json.dumps(str(authority))}\n"
        )

    def __enter__(self) -> Self:
        # A kill is to clean up as Ctrl-C does.
        self._handlers = {number: signal.getsignal(number) for number in _STOPS}
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            port = self.address.rpartition(":")[2]
            command = ["flower-superlink", "--host", "127.0.0.1", "--port", port, "--enable-supernode-auth"]
            command += ["--ssl-ca-certfile", str(self._tls / "ca.pem")]
            command += ["--ssl-certfile", str(self._tls / "server.pem"), "--ssl-keyfile", str(self._tls / "server.key")]
            # Without the switch the SuperLink would call `uv sync` for the app's dependencies: that takes a network.
            self._start("superlink", [*command, "--disable-runtime-dependency-installation"])
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def add_node(self, config: dict[str, object], **environment: str) -> None:
        """Make a key, register it with the SuperLink, and start a SuperNode that proves to hold it.

        Args:
            config: what it knows of its own: integers and texts.
            environment: what its processes find there besides.

        Raises:
            LocalFlowerError: the SuperLink does not take the key.
        """
        name = f"supernode-{len(self._processes) - 1}"
        key = self._make_key(name)
        self._flwr("supernode", "register", str(key.with_suffix(".pub")), "here", "--name", name)
        command = ["flower-supernode", "--superlink", self.address, "--root-certificates", str(self._tls / "ca.pem")]
        command += ["--auth-supernode-private-key", str(key), "--host", "127.0.0.1", "--port", str(free_port())]
        self._start(name, [*command, "--node-config", _settings(config)], **environment)

    def run(self, app: Path, settings: dict[str, object], *, patience_s: float) -> int:
        """Hand an app to the SuperLink and wait until its run is over; ``serverapp.log`` then has what the app said.

        Args:
            app: its folder.
            settings: of the run.
            patience_s: to wait at most.

        Returns:
            The exit status: 0 if the run completed.

        Raises:
            LocalFlowerError: the SuperLink does not take the app, or a SuperLink or SuperNode has ended.
        """
        run = str(self._flwr("run", str(app), "here", "--run-config", _settings(settings))["run-id"])
        begun = time.monotonic()
        while time.monotonic() - begun < patience_s:
            self._check()
            status = self._flwr("list", "here", "--run-id", run)["runs"][0]["status"]
            if status.startswith("finished"):
                print(f"{status} after {time.monotonic() - begun:.0f} s", flush=True)
                self._keep_log(run)
                return 0 if status == "finished:completed" else 1
            time.sleep(3)
        print(f"the run is not over after {patience_s:g} s", file=sys.stderr)
        return 1

    def _keep_log(self, run: str) -> None:
        """What the ServerApp has said lies with the SuperLink, and goes with it."""
        with (self._folder / "serverapp.log").open("wb") as log:
            subprocess.run(
                ["flwr", "log", run, "here", "--show"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=_COMMAND_S,
                check=False,
            )

    def _make_key(self, name: str) -> Path:
        key, path = ec.generate_private_key(ec.SECP384R1()), self._keys / name
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        write_new(path, private, mode=PRIVATE_FILE)
        write_new(path.with_suffix(".pub"), public + b"\n", mode=PUBLIC_FILE)
        return path

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        """What a command of Flower's answers."""
        done = subprocess.run(
            ["flwr", *arguments, "--format", "json"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
        with contextlib.suppress(json.JSONDecodeError):
            answer: dict[str, Any] = json.loads(done.stdout)
            if done.returncode == 0 and answer.get("success"):
                return answer
        raise LocalFlowerError(f"flwr {arguments[0]} failed with code {done.returncode}: {done.stdout}{done.stderr}")

    def _start(self, name: str, command: list[str], **environment: str) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self._environment, **environment},
                start_new_session=True,
                cwd=self._folder,
            )
        self._processes[name] = process

    def _wait(self) -> None:
        host, _, port = self.address.rpartition(":")
        begun = time.monotonic()
        while time.monotonic() - begun < _START_S:
            self._check()
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
                return
            except OSError:
                time.sleep(0.5)
        raise LocalFlowerError(f"the SuperLink did not start within {_START_S} s: see {self._folder / 'superlink.log'}")

    def _check(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = self._folder / f"{name}.log"
                raise LocalFlowerError(f"{name} ended with code {process.returncode}: see {log}")

    def _end(self) -> None:
        """End every process: asked to first, then made to. Nobody's impatience is to leave one behind."""
        for number in _STOPS:
            signal.signal(number, signal.SIG_IGN)
        try:
            # SuperNodes first: they take leave of the SuperLink.
            for process in reversed(self._processes.values()):
                process.send_signal(signal.SIGTERM)
            end = time.monotonic() + _GRACE_S
            for process in self._processes.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=max(0.0, end - time.monotonic()))
                # Processes that a SuperNode started are of the same group.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            # The SuperLink's are not. They end when they find it gone, a moment later; who does not is made to.
            while (left := self._left()) and time.monotonic() < end:
                time.sleep(_LOOK_S)
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def _left(self) -> list[int]:
        """Processes of this deployment that are running; known by their environment, on Linux only."""
        marker, found = f"FLWR_HOME={self._home}".encode(), []
        for process in Path("/proc").glob("[0-9]*"):
            # It may end meanwhile, or be somebody else's.
            with contextlib.suppress(OSError):
                if marker in (process / "environ").read_bytes().split(b"\0") and int(process.name) != os.getpid():
                    found.append(int(process.name))
        return found


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _settings(values: dict[str, object]) -> str:
    """As Flower's command line takes them: whole numbers as they are, all else in quotation marks."""
    return " ".join(f"{key}={value}" if isinstance(value, int) else f'{key}="{value}"' for key, value in values.items())
