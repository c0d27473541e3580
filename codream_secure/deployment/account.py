"""What has left a party under a claim of privacy, kept in its folder and written before anything leaves.

Server and clients each keep an account of their own. The server's counts every sum that it is about to ask for, so
that training ends before the budget does. A client does not take the server's word for it: it counts every vector that
its machine is about to mask, whatever the question is called and however often it comes, and gives none that its budget
does not cover. With an honest server no client gets there before the server does.

Noise is fresh for every vector that is masked, so one that is asked for again counts again. An account is never taken
back, whatever round its party goes back to. It must be as old as the folder's other files: who restores a folder from a
copy restores a budget that is spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codream_secure.deployment.storage import writing
from codream_secure.deployment.training import TrainingTerms
from codream_secure.files import PRIVATE, write_json
from codream_secure.runs.privacy import keep_account

ACCOUNT = "privacy.json"


class Account:
    """One party's. Where nothing is claimed it counts nothing.

    Args:
        training: the terms.
        folder: the party's own, which exists.

    Attributes:
        releases: how values leave clients, with the ledger.
    """

    def __init__(self, training: TrainingTerms, folder: Path) -> None:
        self.releases = training.make_releases()
        self._delta = training.config.dp.delta
        self._path = folder / ACCOUNT

    def open(self, saved: Mapping[str, Any] | None) -> None:
        """Go on from what the folder says.

        Args:
            saved: the account as it was when the party's state was kept; None before the first.

        Raises:
            CheckpointError: it is missing, damaged, or lacks what was counted when the state was kept.
            PrivacyError: it was kept under other conditions.
            StorageError: it cannot be written.
        """
        with writing(self._path.parent):
            keep_account(self.releases, self._path, saved=saved)
        if self.releases.ledger is not None:
            self.releases.journal = self._write

    def open_again(self) -> None:
        """Go on from a folder that has an account already.

        Raises:
            CheckpointError: it is missing or damaged.
            PrivacyError: it was kept under other conditions.
        """
        ledger = self.releases.ledger
        self.open(None if ledger is None else ledger.state_dict())

    def _write(self, state: dict[str, Any]) -> None:
        with writing(self._path.parent):
            write_json(self._path, state, mode=PRIVATE)

    def spend(self, stream: str, values: int) -> None:
        """A sum of vectors of so many values is about to be asked for, or a vector for it to be masked.

        Raises:
            BudgetExceededError: the budget does not cover it: it must not be.
            StorageError: it cannot be written that it is.
        """
        self.releases.before_sum(stream, values=values)

    def covers(self, sums: Mapping[str, int]) -> bool:
        """Whether the budget has room for so many more sums, stream by stream."""
        return self.releases.fits(dict(sums))

    def state(self) -> dict[str, Any] | None:
        """To be kept with the party's state; None where nothing is claimed."""
        ledger = self.releases.ledger
        return None if ledger is None else ledger.state_dict()

    def __str__(self) -> str:
        ledger = self.releases.ledger
        return "nothing is claimed" if ledger is None else str(ledger.statement(delta=self._delta))
