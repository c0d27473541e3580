"""A server and its clients as processes on this machine, and the same training in one process to compare them with."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from codream_secure.deployment.identity import save_identity
from codream_secure.deployment.membership import next_roster
from codream_secure.deployment.public_half import make_public_half
from codream_secure.deployment.roster import write_roster_file
from codream_secure.deployment.streams.certificates import make_certificates
from codream_secure.deployment.training import TrainingTerms, load_training
from codream_secure.runs import run
from protocols import Identity
from protocols.keys import Secret

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATIENCE_S = 240.0

TERMS: dict[str, Any] = {
    "data": {"clients": 3, "samples_per_client": 30, "validation_samples": 0},
    "model": {"clients": ["small_cnn", "lenet5", "mlp"], "server": "mlp"},
    "local": {"warmup_epochs": 2, "epochs": 1},
    "dreaming": {"images": 16, "steps": 6, "labels": "probabilities", "label_midway": True},
    "distillation": {"epochs": 1, "cutmix": 1, "buffer": 64},
    "protocol": {"protection": "masked", "dropout": 0.34, "corruption": 0.25},
    "run": {"rounds": 2},
    "images": {"classes": 10, "channels": 1, "height": 8, "width": 8, "mean": [0.3053], "std": [0.3760]},
}


class Party:
    """A process, and what it says."""

    def __init__(self, name: str, folder: Path, arguments: list[str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.report = folder / f"{name}.report.json"
        """What it opened and loaded, once it has ended by itself."""
        command = [sys.executable, str(HERE / "watched_program.py"), str(self.report), "deploy", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, stdin=subprocess.DEVNULL
            )

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(PATIENCE_S), f"{self.name} says nothing: {self.log.read_text()}"
        text = self.process.stdout.readline()
        assert text, f"{self.name} ended: {self.log.read_text()}"
        found: dict[str, Any] = json.loads(text)
        return found

    def ends(self) -> int:
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} goes on and on: {self.log.read_text()}")

    def ends_well(self) -> None:
        assert self.ends() == 0, f"{self.name}: {self.log.read_text()}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.go_on()
        self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Cohort:
    """Keys, certificates and terms in a folder, and the processes that use them."""

    def __init__(self, folder: Path, **changes: dict[str, Any]) -> None:
        self.folder = folder
        self.terms = {name: {**TERMS.get(name, {}), **changes.get(name, {})} for name in TERMS | changes}
        (folder / "training.toml").write_text(tomli_w.dumps(self.terms))
        self.training: TrainingTerms = load_training(folder / "training.toml")
        self.clients = range(self.training.config.data.clients)
        (folder / "passphrase").touch(mode=0o600)
        (folder / "passphrase").write_text("a passphrase for tests\n")
        publics = []
        for number in self.clients:
            identity = Identity.generate()
            save_identity(identity, folder / f"{number}.key", passphrase=Secret(b"a passphrase for tests"))
            publics.append(make_public_half(identity, f"member{number}", member=number))
        write_roster_file(next_roster(None, publics), folder / "roster.toml")
        make_certificates(folder / "tls", ["client"])
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.parties: list[Party] = []

    def server(self, *options: str) -> Party:
        return self._start(
            "server",
            [
                *("server", str(self.folder / "training.toml"), "--json", "--verbose", "--listen", self.address),
                *("--state", str(self.folder / "server"), "--join", "60", *options),
            ],
        )

    def client(self, number: int, *options: str, data: str = "digits") -> Party:
        return self._start(
            f"client{number}",
            [
                *("client", str(self.folder / "training.toml"), "--json", "--verbose", "--server", self.address),
                *("--member", str(number), "--key", str(self.folder / f"{number}.key")),
                *("--passphrase-file", str(self.folder / "passphrase"), "--data", data),
                *(("--part", str(number)) if data == "digits" else ()),
                *("--state", str(self.folder / f"client{number}"), *options),
            ],
        )

    def everybody(self) -> tuple[Party, list[Party]]:
        server = self.server()
        return server, [self.client(number) for number in self.clients]

    def _start(self, name: str, arguments: list[str]) -> Party:
        both = ("--roster", str(self.folder / "roster.toml"), "--tls", str(self.folder / "tls"))
        self.parties.append(Party(name, self.folder, [*arguments, *both]))
        return self.parties[-1]

    def state(self, party: str, number: int) -> dict[str, Any]:
        """What a party keeps of the state after a round."""
        path = self.folder / party / f"round_{number:06d}.pt"
        state: dict[str, Any] = torch.load(path, weights_only=True)["method"]
        return state

    def kept(self, number: int) -> dict[str, int]:
        """The sums of a round that the server has opened, and when it wrote each of them."""
        paths = (self.folder / "server" / "journal" / f"{number:06d}").glob("*.npz")
        return {path.name: path.stat().st_mtime_ns for path in paths}

    def sums(self, number: int) -> int:
        """How many they are."""
        return len(self.kept(number))

    def in_one_process(self) -> dict[str, Any]:
        """The state that the same training ends with in one process."""
        out = self.folder / "in_one_process"
        run(self.training.config, out=out)
        state: dict[str, Any] = torch.load(out / "checkpoint.pt", weights_only=True)["method"]
        return state

    def until(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            ended = [party for party in self.parties if party.process.poll()]
            logs = "\n".join(f"{party.name}: {party.log.read_text()[-2000:]}" for party in ended)
            assert time.monotonic() < end, f"in vain: {what}\n{logs}"
            time.sleep(0.01)

    def close(self) -> None:
        for party in self.parties:
            party.close()


@pytest.fixture
def make_cohort(tmp_path: Path) -> Iterator[Callable[..., Cohort]]:
    pytest.importorskip("grpc")
    made: list[Cohort] = []

    def make(**changes: dict[str, Any]) -> Cohort:
        folder = tmp_path / str(len(made))
        folder.mkdir(mode=0o700)
        made.append(Cohort(folder, **changes))
        return made[-1]

    yield make
    for cohort in made:
        cohort.close()
        assert all(party.process.returncode is not None for party in cohort.parties)
