"""The sums of the round that goes on, on the server's disk, so that a round that broke off is gone on with.

A sum that was opened is never asked for again: asked a second time, over other members, the same vectors would give
away whoever is in one of the two sums and not in the other. A repeated round therefore takes the sums it had from here,
shows what follows from them, which is what it showed before, and asks for the first that is missing.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from codream_secure.deployment.storage import writing
from codream_secure.errors import CheckpointError
from codream_secure.files import PRIVATE, write_bytes
from protocols import SumResult


class Journal:
    """Sums by round and place.

    Args:
        folder: of its own; made when there is something to keep. It holds sums in clear, as the server saw them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, number: int, place: int, *, stream: str, values: int) -> SumResult | None:
        """A sum that was opened.

        Args:
            number: the round's.
            place: the sum's within the round, from 0.
            stream: what it has to be a sum of.
            values: how long it has to be.

        Raises:
            CheckpointError: the file is damaged, or another sum than is asked for.
        """
        path = self._path(number, place, "sum")
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as kept:
                total, contributors, name = kept["total"], kept["contributors"], str(kept["stream"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"the sum kept in {str(path)!r} cannot be read: {error}") from None
        if name != stream or total.shape != (values,) or total.dtype != np.float64:
            raise CheckpointError(
                f"the sum kept in {str(path)!r} is one of {total.shape} values of {name!r}, where {values} of "
                f"{stream!r} are needed: it is of another training"
            )
        return SumResult(
            total=total,
            weight=None,
            contributors=tuple(map(int, contributors)),
            ring=np.zeros(0, dtype=np.uint32),
        )

    def keep(self, number: int, place: int, result: SumResult, *, stream: str) -> None:
        """Make an opened sum last, before anything that follows from it is shown."""
        stream_of_bytes = io.BytesIO()
        np.savez(
            stream_of_bytes,
            total=result.total,
            contributors=np.array(result.contributors, dtype=np.int64),
            stream=np.array(stream),
        )
        with writing(self._folder):
            write_bytes(self._path(number, place, "sum"), stream_of_bytes.getvalue(), mode=PRIVATE)

    def only(self, number: int, place: int) -> tuple[int, ...] | None:
        """Over whom alone a sum may be taken, since shares that open it over them may be out."""
        path = self._path(number, place, "only")
        try:
            return tuple(map(int, path.read_text().split())) if path.exists() else None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from None

    def bind(self, number: int, place: int, members: Sequence[int]) -> None:
        """From here on, a sum is taken over these members or not at all."""
        with writing(self._folder):
            write_bytes(self._path(number, place, "only"), " ".join(map(str, members)).encode(), mode=PRIVATE)

    def forget(self, before: int) -> None:
        """Rounds before this one are over, and kept elsewhere."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name.isdecimal() and int(path.name) < before:
                    shutil.rmtree(path)

    def _path(self, number: int, place: int, kind: str) -> Path:
        return self._folder / f"{number:06d}" / f"{place:06d}.{'npz' if kind == 'sum' else kind}"
