"""What a party does when its disk takes no more: it stops, with one message, and what it had written stays whole.

Files are replaced by renaming, and the log of rounds cuts off what it could not write, so nothing is half there. To go
on without writing would be worse than to stop: a sum that is not on the disk would be asked for a second time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from codream_secure.errors import StorageError
from protocols import FileRoundLog


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the operating system says about a write into one error that says what to do.

    Args:
        folder: the party's own.

    Raises:
        StorageError: something in it could not be written: no room, a quota, a disk that fails.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"state {str(folder)!r} cannot be written: {error.strerror or error}. What it held before is whole: make "
            "room, then start the same command again"
        ) from None


class StoredRoundLog(FileRoundLog):
    """The log of rounds in a party's folder.

    Raises:
        StorageError: it cannot be made; or, from the claims, one that could not be written, which does not count.
    """

    def __init__(self, path: Path) -> None:
        with writing(path.parent):
            super().__init__(path)

    def claim(self, round_id: bytes) -> None:
        with writing(self.path.parent):
            super().claim(round_id)

    def claim_step(self, round_id: bytes, step: int) -> None:
        with writing(self.path.parent):
            super().claim_step(round_id, step)
