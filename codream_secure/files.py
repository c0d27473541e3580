"""Files that are either whole or not there: written beside their place and renamed into it."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from codream_secure.errors import ConfigError

PRIVATE = 0o600
"""The mode of files that only their owner reads."""


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing, so that they outlive a loss of power."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        flush_folder(folder.parent)


def flush_folder(folder: Path) -> None:
    """Make the names in a folder last: what was made, renamed or removed there."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a folder's contents to one writer, within a process or across processes of one machine.

    What asks for it keeps others out that ask as well. The folder itself is locked, so no file is left behind, and the
    lock ends with its process, however that ends.

    Args:
        folder: that exists.

    Raises:
        ConfigError: somebody else holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{str(folder)!r} is being written to by another run: wait until it has ended, or choose another "
                "directory"
            ) from None
        yield
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write atomically: a reader, or a run after a kill or a loss of power, sees the old content or the new, whole.

    Once this returns, it is the new.

    Args:
        path: of the file; its folder is made.
        content: all of it.
        mode: permissions; None gives a result those of any file of this user.
    """
    make_folder(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files private.
        if mode is None:
            umask = os.umask(0)
            os.umask(umask)
            mode = 0o666 & ~umask
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def write_text(path: Path, content: str, *, mode: int | None = None) -> None:
    """:func:`write_bytes` of UTF-8 text."""
    write_bytes(path, content.encode(), mode=mode)


def write_json(path: Path, content: Any, *, mode: int | None = None) -> None:
    """:func:`write_text` of indented JSON with a final newline."""
    write_text(path, json.dumps(content, indent=2) + "\n", mode=mode)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], *, mode: int | None = None) -> None:
    """One JSON object a line."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows), mode=mode)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per row under the union of their keys, in order of first appearance; lists as ``a;b;c``."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: ";".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()})
    write_text(path, stream.getvalue())
