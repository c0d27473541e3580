"""What a node keeps between messages: private, whole, and no machine after the run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("flwr", reason="flwr is not installed")

from flower_harness import RUN, OneProcess, initial, protection, run
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import FedAvg

from codream_secure.errors import ConfigError
from codream_secure.flower import Member, ProtectedGrid
from codream_secure.flower.store import Store

MakeGrid = Callable[..., OneProcess]


def test_what_is_kept_is_private_and_sealed_and_no_machine_after_the_run(
    make_grid: MakeGrid, members: list[Member]
) -> None:
    sums = protection()
    grid = make_grid(sums)
    kept: list[bytes] = []

    def look(exchange: int, number: int) -> bool:
        state = members[0].folder / f"run-{RUN}.state"
        if state.exists():
            assert state.stat().st_mode & 0o077 == 0
            kept.append(state.read_bytes())
        return False

    grid.vanishes = look
    run(grid, sums, members, rounds=1)
    assert len(set(kept)) == 5
    assert not any(members[0].identity.private_bytes() in state for state in kept)
    assert members[0].folder.stat().st_mode & 0o777 == 0o700
    # What is left says what was answered, and holds no machine.
    assert sorted(os.listdir(members[0].folder)) == ["rounds.log", f"run-{RUN}.state"]
    left = msgspec.msgpack.decode((members[0].folder / f"run-{RUN}.state").read_bytes())
    assert left[:2] == [None, None]


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        Store(tmp_path)


def test_a_state_that_cannot_be_written_over_is_not_lost(
    make_grid: MakeGrid, members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = protection(active=True)
    grid = make_grid(sums)
    protected = ProtectedGrid(grid, sums, roster=members[0].roster)
    messages = FedAvg(fraction_evaluate=0.0).configure_train(1, initial(), ConfigRecord(), protected)
    list(protected.send_and_receive(messages))
    path = members[0].folder / f"run-{RUN}.state"
    before = path.read_bytes()
    with monkeypatch.context() as full:
        full.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        protected.close()
    assert any("No space left" in error for error in grid.errors)
    assert path.read_bytes() == before


def test_a_damaged_state_refuses_until_somebody_looks(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection()
    grid = make_grid(sums)
    path = Store(members[0].folder).folder / f"run-{RUN}.state"
    path.write_bytes(b"\xff")
    run(grid, sums, members, rounds=2)
    assert sum("is damaged" in error for error in grid.errors) > 1
    assert path.read_bytes() == b"\xff"
