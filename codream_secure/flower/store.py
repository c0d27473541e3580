"""What a node keeps between two messages: Flower starts a new process for each.

A folder that nobody else can read has the log of rounds, which outlives runs, and for each run one state. A sealed
machine in it is written over *before* it is used and put back, changed, before the answer leaves: two answers from
one state could open a vector (see :meth:`protocols.machines.SumProtocol.suspend_client`). The file is never away:
what was answered and spent is in it, and a node that is killed must not forget that. Flower's ``context.state``
would not do: it is handed back after the reply, so that the next message may find the state before.

Leave the folder out of backups.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from codream_secure.errors import ConfigError
from codream_secure.files import PRIVATE, write_bytes
from protocols import FileRoundLog


class Store:
    """A node's folder.

    Args:
        folder: made, with mode 0700, if it is not there.

    Raises:
        ConfigError: others than its owner may enter it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_mode & 0o077 or status.st_uid != os.geteuid():
            raise ConfigError(
                f"{str(folder)!r} has mode {status.st_mode & 0o777:o} or another owner: secrets are kept there, so "
                "make it your own and chmod 700"
            )
        self.folder = folder

    @contextmanager
    def log(self) -> Iterator[FileRoundLog]:
        """The node's memory of rounds, locked while it is open."""
        with closing(FileRoundLog(self.folder / "rounds.log")) as log:
            yield log

    def get(self, run: int) -> bytes | None:
        """A run's state; None if there is none. It stays: put another over it before a machine in it is used."""
        try:
            return self._path(run).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, run: int, state: bytes) -> None:
        """Keep a run's state in place of the one before, whole or not at all."""
        write_bytes(self._path(run), state, mode=PRIVATE)

    def _path(self, run: int) -> Path:
        return self.folder / f"run-{run}.state"
