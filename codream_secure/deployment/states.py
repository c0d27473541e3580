"""A party's own folder: the terms it was made under, and its state after the latest two rounds.

Two, because a member may have finished a round that the server did not live to finish: it goes back by one round then.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from codream_secure.deployment.files import own_private_folder
from codream_secure.deployment.storage import writing
from codream_secure.deployment.training import TrainingTerms
from codream_secure.errors import CheckpointError, ConfigError
from codream_secure.files import PRIVATE, write_text
from codream_secure.runs.checkpoint import load_checkpoint, save_checkpoint

_KEPT = 2
_NAME = re.compile(r"round_(\d{6})\.pt")


class States:
    """Checkpoints by number of round; 0 is the state after the warm-up.

    Args:
        folder: made, for its owner only, if it is not there. It holds models and dreams in clear.
        training: what the states belong to.
        party: who they belong to, such as "member 3".

    Raises:
        ConfigError: the folder is of another party or other terms.
        IdentityError: the folder cannot be made, belongs to somebody else, or others have a right to it.
        StorageError: it cannot be written to.
    """

    def __init__(self, folder: Path, training: TrainingTerms, *, party: str) -> None:
        self.folder = folder
        self._terms = f"# {party}\n{training.to_toml()}"
        own_private_folder(folder)
        path = folder / "training.toml"
        if not path.exists():
            with writing(folder):
                write_text(path, self._terms, mode=PRIVATE)
        elif path.read_text(encoding="utf-8") != self._terms:
            raise ConfigError(
                f"state {str(folder)!r} belongs to another party or to other terms of training (see {str(path)!r}): "
                "choose another folder, or go on with the terms it was made under"
            )

    @property
    def latest(self) -> int:
        """Of the rounds there is a state of; -1 if there is none."""
        return max(self._numbers(), default=-1)

    @property
    def oldest(self) -> int:
        """Of the rounds there is a state of; -1 if there is none."""
        return min(self._numbers(), default=-1)

    def save(self, number: int, state: dict[str, Any]) -> None:
        """Keep the state after a round, and forget those that nobody will go back to.

        Raises:
            StorageError: it cannot be written; those before it are still there.
        """
        with writing(self.folder):
            save_checkpoint(self._path(number), {"config": self._terms, "round": number, **state}, mode=PRIVATE)
            for old in self._numbers():
                if old <= number - _KEPT or old > number:
                    self._path(old).unlink()

    def load(self, number: int) -> dict[str, Any]:
        """The state after a round.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        if not self._path(number).exists():
            raise CheckpointError(
                f"state {str(self.folder)!r} has no round {number}, only {sorted(self._numbers()) or 'nothing'}: the "
                "parties' folders are not of the same training, or one was restored from too old a copy"
            )
        return load_checkpoint(self._path(number), config=self._terms)

    def _numbers(self) -> list[int]:
        matches = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return [int(match[1]) for match in matches if match]

    def _path(self, number: int) -> Path:
        return self.folder / f"round_{number:06d}.pt"
