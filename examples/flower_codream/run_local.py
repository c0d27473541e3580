"""Run the app as a deployment on this machine: a SuperLink and four SuperNodes, each a process, on loopback.

No network is needed, and Flower's reports and update checks are off. Usage: ``python run_local.py FOLDER``
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

from codream_secure.deployment.demo import prepare

HERE = Path(__file__).resolve().parent
PATIENCE_S = 1200


def main(folder: Path) -> int:
    """Run it; every party's state is in the folder, logs beside them. The exit status."""
    folder = folder.resolve()
    clients = prepare(folder).config.data.clients
    environment = _environment(folder)
    link, listen, *ports = _free_ports(clients + 2)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        # Without the switch the SuperLink would call `uv sync` for the app's dependencies, which needs a network.
        command = ["flower-superlink", "--insecure", "--port", str(link), "--disable-runtime-dependency-installation"]
        processes.append(_start(command, folder / "superlink.log", environment))
        for number, port in enumerate(ports):
            command = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{link}", "--port", str(port)]
            command += ["--node-config", _node_config(folder, number, listen)]
            processes.append(_start(command, folder / f"supernode-{number}.log", environment))
        return _run(folder, link, listen, environment)
    finally:
        _stop(processes)


def _environment(folder: Path) -> dict[str, str]:
    home = folder / "flwr"
    home.mkdir()
    binaries = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # SuperLink and SuperNodes start further processes by name.
        "PATH": binaries + os.pathsep + os.environ.get("PATH", ""),
        "OMP_NUM_THREADS": "1",
    }


def _node_config(folder: Path, number: int, listen: int) -> str:
    """What a SuperNode knows of its own: who it is, where its images are, and where it connects to."""
    files = {
        "terms": folder / "training.toml",
        "key": folder / f"member{number}.key",
        "passphrase-file": folder / "passphrase",
        "roster": folder / "roster.toml",
        "tls": folder / "tls",
        "tls-name": f"member{number}",
        "data": f"npz:{folder / f'member{number}.npz'}",
        "state": folder / f"client{number}",
        "server": f"127.0.0.1:{listen}",
    }
    return " ".join([f"member={number}", *(f'{key}="{value}"' for key, value in files.items())])


def _run(folder: Path, link: int, listen: int, environment: dict[str, str]) -> int:
    """Hand the app to the SuperLink and wait until the run is over."""
    config = f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{link}"\ninsecure = true\n'
    (folder / "flwr" / "config.toml").write_text(config)
    _wait_for(link)
    files = {
        "terms": folder / "training.toml",
        "roster": folder / "roster.toml",
        "tls": folder / "tls",
        "listen": f"127.0.0.1:{listen}",
        "state": folder / "server",
    }
    settings = " ".join(f'{key}="{value}"' for key, value in files.items())
    command = ["flwr", "run", str(HERE), "here", "--format", "json", "--run-config", settings]
    started = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    if started.returncode or not json.loads(started.stdout).get("success"):
        print(started.stdout + started.stderr, file=sys.stderr)
        return 1
    run = json.loads(started.stdout)["run-id"]
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE_S:
        command = ["flwr", "list", "here", "--run-id", run, "--format", "json"]
        listed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
        status = "" if listed.returncode else json.loads(listed.stdout)["runs"][0]["status"]
        if status.startswith("finished"):
            print(f"{status} after {time.monotonic() - begun:.0f} s")
            print((folder / "server" / "metrics.jsonl").read_text(), end="")
            return 0 if status == "finished:completed" else 1
        time.sleep(3)
    print(f"the run is not over after {PATIENCE_S} s", file=sys.stderr)
    return 1


def _start(command: list[str], log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as stream:
        return subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment, start_new_session=True, cwd=log.parent
        )


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """End SuperNodes and SuperLink, each with whatever it has started."""
    for process in reversed(processes):
        process.send_signal(signal.SIGTERM)
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        # Processes that they started are of the same group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for(port: int) -> None:
    begun = time.monotonic()
    while time.monotonic() - begun < 120:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("the SuperLink did not start: see superlink.log")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
