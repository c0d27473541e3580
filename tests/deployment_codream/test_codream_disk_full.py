"""A disk that takes no more, as the kernel says it: a party stops with one message, and what it had is whole."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codream_secure.deployment.consents import Consents
from codream_secure.deployment.journal import Journal
from codream_secure.deployment.states import States
from codream_secure.deployment.storage import StoredRoundLog
from codream_secure.deployment.training import make_training
from codream_secure.errors import StorageError
from protocols import AlreadyAnsweredError, FileRoundLog, SumResult

PATIENCE_S = 240.0
WAITS = ("--join", "15", "--reconnect", "2")
"""Enough for whoever is there; who has stopped is waited for as long as that."""
IMAGES = {"classes": 3, "channels": 1, "height": 8, "width": 8, "mean": [0.5], "std": [0.25]}


@contextlib.contextmanager
def full_above(size: int) -> Iterator[None]:
    """No file of this process may be longer than so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_state_that_does_not_fit_leaves_the_last_one(tmp_path: Path) -> None:
    states = States(tmp_path / "state", make_training({"data": {"clients": 3}, "images": IMAGES}), party="the server")
    states.save(1, {"method": {"weights": torch.ones(2000)}})
    before = files(states.folder)
    with full_above(4096), pytest.raises(StorageError, match=r"state '.*' cannot be written: File too large.*whole"):
        states.save(2, {"method": {"weights": torch.zeros(2000)}})
    assert files(states.folder) == before
    assert states.latest == 1
    assert torch.equal(states.load(1)["method"]["weights"], torch.ones(2000))
    # With room again it goes on.
    states.save(2, {"method": {"weights": torch.zeros(2000)}})
    assert states.latest == 2


def test_a_sum_that_does_not_fit_is_not_kept_in_part(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    sums = [
        SumResult(total=np.full(2000, value), weight=None, contributors=(0, 1), ring=np.zeros(0, dtype=np.uint32))
        for value in (1.0, 2.0)
    ]
    journal.keep(1, 0, sums[0], stream="dreams")
    before = files(tmp_path)
    with full_above(4096), pytest.raises(StorageError, match="make room"):
        journal.keep(1, 1, sums[1], stream="dreams")
    with full_above(1), pytest.raises(StorageError, match="make room"):
        journal.bind(1, 1, (0, 1))
    assert files(tmp_path) == before
    kept = journal.find(1, 0, stream="dreams", values=2000)
    assert kept is not None
    assert np.array_equal(kept.total, sums[0].total)
    assert journal.find(1, 1, stream="dreams", values=2000) is None


def test_a_consent_that_does_not_fit_is_not_given(tmp_path: Path) -> None:
    consents, question, other = Consents(tmp_path / "consents"), bytes(32), bytes([1]) * 32
    consents.agree(1, [question], survivors=(0, 1))
    before = files(tmp_path)
    with full_above(1), pytest.raises(StorageError, match=r"consents' cannot be written: File too large.*make room"):
        consents.agree(1, [other], survivors=(0, 2))
    assert files(tmp_path) == before
    # What was not agreed to is open still; what was is not.
    consents.agree(1, [other], survivors=(1, 2))
    with pytest.raises(AlreadyAnsweredError):
        Consents(tmp_path / "consents").agree(1, [question], survivors=(0, 2))


def test_a_claim_that_does_not_fit_does_not_count(tmp_path: Path) -> None:
    path, first, second = tmp_path / "rounds.log", bytes(16), bytes([1]) * 16
    log = StoredRoundLog(path)
    log.claim(first)
    log.claim_step(first, 0)
    before = path.read_bytes()
    # In the middle of a line.
    with full_above(len(before) + 10):
        with pytest.raises(StorageError, match="make room"):
            log.claim(second)
        with pytest.raises(StorageError, match="make room"):
            log.claim_step(first, 1)
    log.close()
    assert path.read_bytes() == before
    again = FileRoundLog(path)
    again.claim(second)
    again.claim_step(first, 1)
    again.close()


def stopped(party: Any, reason: str, *, said_before: int = 0) -> None:
    """It ended with one message. What comes behind is the watching program's report, which may not fit either."""
    assert party.ends() == 2
    text = party.log.read_text()[said_before:].partition("Exception ignored in atexit callback")[0]
    [said] = [line for line in text.splitlines() if line.startswith("error: ") or "Traceback" in line]
    assert f"cannot be written: {reason}" in said
    assert "make room, then start the same command again" in said


def whole(cohort: Any, party: str) -> int:
    """The round that a party has got to, its folder being whole."""
    folder = cohort.folder / party
    assert not [path.name for path in folder.rglob(".*")]
    numbers = sorted(int(path.stem.removeprefix("round_")) for path in folder.glob("round_*.pt"))
    for number in numbers:
        assert cohort.state(party, number)
    return numbers[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="another process's limits can be set on Linux only")
@pytest.mark.slow
def test_parties_stop_with_one_message_and_go_on_when_there_is_room(make_cohort: Callable[..., Any]) -> None:
    # More rounds than there is time for: the limits come in the middle, however slow this machine is.
    cohort = make_cohort(
        model={"clients": ["mlp"]},
        dreaming={"images": 4, "steps": 2, "label_midway": False},
        local={"warmup_epochs": 1},
        run={"rounds": 2000},
    )
    server, clients = cohort.everybody()
    server.line()
    assert server.line()["round"] == 1
    # Every sum is longer than this, and every state.
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1500, 1500))
    stopped(server, "File too large")
    finished = whole(cohort, "server")
    # Now client 2: its states are longer, its other files are not.
    limit = (cohort.folder / "client2" / f"round_{whole(cohort, 'client2'):06d}.pt").stat().st_size - 1
    resource.prlimit(clients[2].process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    again = cohort.server(*WAITS)
    again.line()
    assert again.line()["round"] == finished + 1
    stopped(clients[2], "File too large")
    assert whole(cohort, "client2") <= finished + 1
    cohort.client(2)
    while again.line()["contributors"] != [0, 1, 2]:
        pass


class SmallDisk:
    """A file system of a few megabytes, mounted on a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self._filler = folder / "filler"
        options = ("-t", "tmpfs", "-o", "size=4m,mode=700", "codream-test")
        mount = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
        if mount.returncode:
            pytest.skip(f"nothing can be mounted here: {mount.stderr.strip()}")

    def fill_until(self, ended: Callable[[], object]) -> None:
        """Take all room, and what becomes free, too, until this is so."""
        end = time.monotonic() + PATIENCE_S
        with self._filler.open("wb", buffering=0) as filler:
            while not ended():
                assert time.monotonic() < end, "a program goes on without room"
                with contextlib.suppress(OSError):
                    while filler.write(bytes(4096)):
                        pass
                time.sleep(0.005)

    def empty(self) -> None:
        self._filler.unlink()


@pytest.fixture
def mount_disk() -> Iterator[Callable[[Path], SmallDisk]]:
    if sys.platform != "linux" or os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a file system, and only on Linux is it done like this")
    mounted: list[Path] = []

    def mount(folder: Path) -> SmallDisk:
        disk = SmallDisk(folder)
        mounted.append(folder)
        return disk

    yield mount
    for folder in mounted:
        # Whoever has a file open there, at the end of a test that failed, is on his way out.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_file_system_without_room_stops_a_party_and_with_room_it_goes_on(
    mount_disk: Callable[[Path], SmallDisk], make_cohort: Callable[..., Any]
) -> None:
    cohort = make_cohort(
        model={"clients": ["mlp"]},
        dreaming={"images": 4, "steps": 2, "label_midway": False},
        local={"warmup_epochs": 1},
        run={"rounds": 2000},
    )
    disks = {party: mount_disk(cohort.folder / party) for party in ("server", "client2")}
    server, clients = cohort.everybody()
    server.line()
    assert server.line()["round"] == 1
    disks["server"].fill_until(lambda: server.process.poll() is not None)
    stopped(server, "No space left on device")
    finished = whole(cohort, "server")
    assert finished >= 1
    # Without room the same command ends in the same way, and what was there still is.
    said = len(server.log.read_text())
    again = cohort.server()
    disks["server"].fill_until(lambda: again.process.poll() is not None)
    stopped(again, "No space left on device", said_before=said)
    assert whole(cohort, "server") == finished
    disks["server"].empty()
    server = cohort.server(*WAITS)
    server.line()
    assert server.line()["round"] == finished + 1
    # Now client 2: the others go on without it.
    disks["client2"].fill_until(lambda: clients[2].process.poll() is not None)
    stopped(clients[2], "No space left on device")
    assert whole(cohort, "client2") >= finished
    while server.line()["contributors"] != [0, 1]:
        pass
    disks["client2"].empty()
    cohort.client(2)
    while server.line()["contributors"] != [0, 1, 2]:
        pass
