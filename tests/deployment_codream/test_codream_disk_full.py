"""A disk that takes no more, as the kernel says it: a party stops with one message, and what it had is whole."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codream_secure.deployment.journal import Journal
from codream_secure.deployment.states import States
from codream_secure.deployment.storage import StoredRoundLog
from codream_secure.deployment.training import make_training
from codream_secure.errors import StorageError
from protocols import FileRoundLog, SumResult

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


def stopped(party: Any) -> None:
    """It ended with one message. What comes behind is the watching program's report, which does not fit either."""
    assert party.ends() == 2
    text = party.log.read_text().partition("Exception ignored in atexit callback")[0]
    [said] = [line for line in text.splitlines() if line.startswith("error: ") or "Traceback" in line]
    assert "cannot be written: File too large" in said


def whole(cohort: Any, party: str) -> int:
    """The round that a party has got to, its folder being whole."""
    folder = cohort.folder / party
    assert not [path.name for path in folder.rglob(".*")]
    numbers = sorted(int(path.stem.removeprefix("round_")) for path in folder.glob("round_*.pt"))
    for number in numbers:
        assert cohort.state(party, number)
    return numbers[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="another process's limits can be set on Linux only")
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
    stopped(server)
    finished = whole(cohort, "server")
    # Now client 2: its states are longer, its other files are not.
    limit = (cohort.folder / "client2" / f"round_{whole(cohort, 'client2'):06d}.pt").stat().st_size - 1
    resource.prlimit(clients[2].process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    again = cohort.server()
    again.line()
    assert again.line()["round"] == finished + 1
    stopped(clients[2])
    assert whole(cohort, "client2") <= finished + 1
    cohort.client(2)
    while again.line()["contributors"] != [0, 1, 2]:
        pass
