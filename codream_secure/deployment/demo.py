"""A deployment on one machine, from keys to accuracies: a process for the server and for every client, folders apart.

Nothing here is a short cut: members have identities on a roster, lines are TLS with certificates on both sides, every
client reads its own file of images, and the server reads none.
"""

from __future__ import annotations

import json
import secrets
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from codream_secure.data import load_source
from codream_secure.deployment.identity import save_identity
from codream_secure.deployment.membership import next_roster
from codream_secure.deployment.processes import Supervisor
from codream_secure.deployment.public_half import make_public_half
from codream_secure.deployment.roster import write_roster_file
from codream_secure.deployment.streams.certificates import make_certificates
from codream_secure.deployment.training import TrainingTerms, load_training
from codream_secure.errors import CodreamError
from codream_secure.federation import divided
from protocols import Identity
from protocols.keys import Secret

_START_S = 120.0
_LOOK_S = 0.2


class DemoError(CodreamError):
    """A process of the demonstration ended before its time, or left nothing."""


def run_demo(folder: Path | None = None, *, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Run it, and leave no process behind, whatever happens.

    Args:
        folder: where keys, images and states are kept; None keeps nothing.
        say: told what is going on.

    Returns:
        A row for every round: its number, the accuracy that the server learns, and each client's own.

    Raises:
        DemoError: a process ended with an error.
        ConfigError: grpcio is missing, or the folder is not usable.
    """
    # A kill is to clean up as Ctrl-C does.
    before = signal.signal(signal.SIGTERM, _interrupt)
    made = Path(tempfile.mkdtemp(prefix="codream-deploy-")) if folder is None else folder
    try:
        training = prepare(made)
        rows = _run(made, training, say)
    finally:
        signal.signal(signal.SIGTERM, before)
        if folder is None:
            shutil.rmtree(made, ignore_errors=True)
    return rows


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def prepare(folder: Path, terms: Path | None = None) -> TrainingTerms:
    """Terms, identities, a roster, certificates and a file of images for every client, in a folder.

    Identities are made under one passphrase here, in ``passphrase``: their owners would each choose their own.

    Args:
        folder: made, if it is not there.
        terms: a file of terms of training on a named data set; None for the demonstration's.

    Raises:
        ConfigError: the folder is not usable.
        IdentityError: it holds a deployment already.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    preset = terms or resources.files("codream_secure.deployment") / "demo.toml"
    (folder / "training.toml").write_text(preset.read_text(encoding="utf-8"), encoding="utf-8")
    training = load_training(folder / "training.toml")
    passphrase = secrets.token_urlsafe(24)
    path = folder / "passphrase"
    path.touch(mode=0o600)
    path.write_text(passphrase + "\n")
    publics = []
    for number in range(training.config.data.clients):
        identity = Identity.generate()
        save_identity(identity, folder / f"member{number}.key", passphrase=Secret(passphrase.encode()))
        publics.append(make_public_half(identity, f"member{number}", member=number))
    write_roster_file(next_roster(None, publics), folder / "roster.toml")
    make_certificates(folder / "tls", [f"member{number}" for number in range(len(publics))])
    _write_images(folder, training)
    return training


def server_command(folder: Path, *, listen: str) -> list[str]:
    """The server of a folder that :func:`prepare` filled."""
    return [
        *("deploy", "server", str(folder / "training.toml"), "--listen", listen, "--json"),
        *("--roster", str(folder / "roster.toml"), "--tls", str(folder / "tls"), "--state", str(folder / "server")),
    ]


def client_command(folder: Path, number: int, *, server: str) -> list[str]:
    """A client of such a folder."""
    return [
        *("deploy", "client", str(folder / "training.toml"), "--server", server, "--member", str(number), "--json"),
        *("--key", str(folder / f"member{number}.key"), "--passphrase-file", str(folder / "passphrase")),
        *("--roster", str(folder / "roster.toml"), "--tls", str(folder / "tls"), "--tls-name", f"member{number}"),
        *("--data", f"npz:{folder / f'member{number}.npz'}", "--state", str(folder / f"client{number}")),
    ]


def _write_images(folder: Path, training: TrainingTerms) -> None:
    """One file for each client: its part of the training images, and its own part of the test images."""
    source = load_source(training.config.data.source)
    parts = divided(source, training.config).clients
    tests = np.array_split(np.arange(len(source.test)), len(parts))
    for number, (train, test) in enumerate(zip(parts, tests, strict=True)):
        seen, held = source.train.subset(train), source.test.subset(test.tolist())
        np.savez(
            folder / f"member{number}.npz",
            x_train=seen.images.numpy(),
            y_train=seen.labels.numpy(),
            x_test=held.images.numpy(),
            y_test=held.labels.numpy(),
        )


def _run(folder: Path, training: TrainingTerms, say: Callable[[str], None]) -> list[dict[str, Any]]:
    clients = range(training.config.data.clients)
    with Supervisor(folder, {"OMP_NUM_THREADS": "1"}) as supervisor:
        server = supervisor.start("server", server_command(folder, listen="127.0.0.1:0"))
        address = _first_line(supervisor, server)["listening"]
        for number in clients:
            supervisor.start(f"member{number}", client_command(folder, number, server=address))
        say(f"a server at {address} and {len(clients)} clients, each a process with its own images")
        while any(process.poll() is None for process in supervisor.processes.values()):
            _check(supervisor)
            time.sleep(_LOOK_S)
        _check(supervisor)
    return accuracies(folder, len(clients))


def accuracies(folder: Path, clients: int) -> list[dict[str, Any]]:
    """What a deployment in a folder that :func:`prepare` filled has written, as :func:`run_demo` returns it.

    Raises:
        DemoError: a party has written nothing.
    """
    rows = _rows(folder / "server")
    own = [
        {row["round"]: row.get("test_accuracy") for row in _rows(folder / f"client{number}")}
        for number in range(clients)
    ]
    return [
        {
            "round": row["round"],
            "test_accuracy": row.get("test_accuracy"),
            "client_test_accuracy": [accuracy.get(row["round"]) for accuracy in own],
        }
        for row in rows
    ]


def _rows(state: Path) -> list[dict[str, Any]]:
    try:
        lines = (state / "metrics.jsonl").read_text().splitlines()
    except OSError as error:
        raise DemoError(f"no rounds in {str(state)!r} ({error.strerror}): the deployment did not finish one") from None
    return [json.loads(line) for line in lines]


def _first_line(supervisor: Supervisor, process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(_START_S):
            raise DemoError(f"the server said nothing for {_START_S:g} s: {supervisor.log_of('server')}")
    line = process.stdout.readline()
    if not line:
        process.wait()
        raise DemoError(f"the server ended: {supervisor.log_of('server')}")
    found: dict[str, Any] = json.loads(line)
    return found


def _check(supervisor: Supervisor) -> None:
    for name, process in supervisor.processes.items():
        if process.poll():
            raise DemoError(f"{name} ended with code {process.returncode}: {supervisor.log_of(name)}")
