"""People with identities; and deployments on this machine: an aggregator here, members as processes, a wire to cut."""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from codream_secure.deployment.public_half import PublicHalf, make_public_half
from codream_secure.deployment.streams import Aggregator, Deadlines, Limits
from codream_secure.deployment.streams.certificates import load, make_certificates
from protocols import Identity, Roster, Simulation, SumResult, make_protocol

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATIENCE_S = 60.0
DAY = datetime.date(2030, 1, 31)
# For what only some modules here need, and what needs grpc.
sys.path.insert(0, str(HERE))


def _program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


member_process = _program("member_process")


class Wire:
    """A TCP relay on loopback. It knows no more than a network does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._closed = False
        self.connections = 0
        self.upward: list[bytes] = []
        """What the latest connection carried to the server."""
        self.cut_after: int | None = None
        """Cut once, when the latest connection has carried so many bytes to the server."""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._sockets += [near, far]
                self.connections += 1
                self.upward = []
            for source, target, up in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._relay, args=(source, target, up), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                if up:
                    self.upward.append(content)
                    if self.cut_after is not None and sum(map(len, self.upward)) >= self.cut_after:
                        self.cut_after = None
                        self.cut()
                        return
                target.sendall(content)
        self._shut(source, target)

    @staticmethod
    def _shut(*sockets: socket.socket) -> None:
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def cut(self) -> None:
        """Close every connection; new ones are let through."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        self._shut(*sockets)

    def close(self) -> None:
        self._shut(self._listener)
        self.cut()


class Deployment:
    """Identities, certificates, members' processes and their logs, in one folder."""

    def __init__(self, folder: Path, members: int, *, active: bool = False) -> None:
        self.folder = folder
        self.members = range(members)
        self.active = active
        self.identities = {member: Identity.generate() for member in self.members}
        self.roster = Roster({member: identity.public_key for member, identity in self.identities.items()})
        self.terms = member_process.make_terms(members, active=active)
        make_certificates(folder, ["member"])
        for member, identity in self.identities.items():
            (folder / f"{member}.identity").write_bytes(identity.private_bytes())
        keys = {member: identity.public_key.hex() for member, identity in self.identities.items()}
        (folder / "roster.json").write_text(json.dumps(keys))
        self.processes: list[subprocess.Popen[str]] = []
        self.wires: list[Wire] = []
        self._aggregators: list[Aggregator] = []

    def aggregator(self, *, limits: Limits | None = None, **deadlines: float) -> Aggregator:
        made = Aggregator(
            "127.0.0.1:0",
            protocol=make_protocol("masked"),
            terms=self.terms,
            roster=self.roster,
            tls=load(self.folder, "server"),
            limits=limits,
            deadlines=Deadlines(**deadlines),
        )
        self._aggregators.append(made)
        return made

    def wire(self, port: int) -> Wire:
        self.wires.append(Wire(port))
        return self.wires[-1]

    def start(self, program: str, **settings: Any) -> subprocess.Popen[str]:
        """A program beside this file, with its settings."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        settings = {"folder": str(self.folder), **settings}
        command = [sys.executable, str(HERE / program), json.dumps(settings)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.processes.append(process)
        return process

    def start_member(self, number: int, port: int, **settings: Any) -> subprocess.Popen[str]:
        address = f"127.0.0.1:{port}"
        return self.start("member_process.py", number=number, address=address, active=self.active, **settings)

    def start_members(self, port: int, **settings: Any) -> list[subprocess.Popen[str]]:
        return [self.start_member(number, port, **settings) for number in self.members]

    def events(self, number: int) -> list[dict[str, Any]]:
        path = self.folder / f"{number}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def asked(self, number: int) -> list[int]:
        """The steps that a member computed a vector for."""
        return [event["asked"] for event in self.events(number) if "asked" in event]

    def shown(self, number: int) -> list[int]:
        """The steps that a member was shown."""
        return [event["shown"] for event in self.events(number) if "shown" in event]

    def in_one_process(self, step: int, values: int, members: Iterable[int], stream: str = "gradients") -> SumResult:
        """The same vectors' sum by the simulation."""
        cohort = Simulation(make_protocol("plain"), self.members, terms=self.terms)
        cohort.open()
        vectors = {member: member_process.vector(member, step, values) for member in members}
        weights = {member: member + 1 for member in members} if stream == "weighted" else None
        return cohort.sum(vectors, stream=stream, weights=weights)

    def close(self) -> None:
        for aggregator in self._aggregators:
            aggregator.close()
        for wire in self.wires:
            wire.close()
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(PATIENCE_S)
            if process.stdout is not None:
                process.stdout.close()


class Make:
    """Makes deployments, and leaves no process behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.made: list[Deployment] = []

    def __call__(self, members: int, *, active: bool = False) -> Deployment:
        folder = self._folder / str(len(self.made))
        folder.mkdir()
        self.made.append(Deployment(folder, members, active=active))
        return self.made[-1]


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Make]:
    pytest.importorskip("grpc")
    make = Make(tmp_path)
    yield make
    for deployment in make.made:
        deployment.close()
        assert all(process.returncode is not None for process in deployment.processes)


def step(aggregator: Aggregator, number: int, values: int = 1000, *, stream: str = "gradients") -> SumResult:
    """Show the step's number, and sum what the members make of it."""
    aggregator.broadcast([np.array([number])])
    return aggregator.sum(stream, values)


def same(found: SumResult, expected: SumResult) -> bool:
    return (
        np.array_equal(found.ring, expected.ring)
        and np.array_equal(found.total, expected.total)
        and found.weight == expected.weight
        and found.contributors == expected.contributors
    )


def until(condition: Any, what: str) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.02)


def read_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    """A line of a process's output, as JSON."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(PATIENCE_S), "no line came"
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


class Tools:
    """What tests do with a deployment."""

    step = staticmethod(step)
    same = staticmethod(same)
    until = staticmethod(until)
    read_line = staticmethod(read_line)


@pytest.fixture
def scene(deploy: Make) -> tuple[Deployment, Aggregator]:
    """A deployment, and its aggregator, which takes little and waits for nobody."""
    from stranger import LIMITS

    deployment = deploy(3)
    return deployment, deployment.aggregator(limits=LIMITS)


@pytest.fixture(scope="session")
def tools() -> type[Tools]:
    return Tools


@pytest.fixture
def introduce() -> Callable[..., PublicHalf]:
    """The public half of somebody new, or of an identity that is there."""

    def make(name: str, *, member: int | None = None, identity: Identity | None = None) -> PublicHalf:
        return make_public_half(identity or Identity.generate(), name, member=member, created=DAY)

    return make
