"""Files with keys and rosters in them: never half-written, never lost by mistake, refused where others can get at them.

The helpers of :mod:`codream_secure.files` replace what is there and give results the usual modes; a key needs the
opposite of both. And a node that only signs should not have to load torch, which that package brings along.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from codream_secure.errors import IdentityError
from codream_secure.files import flush_folder

PRIVATE_FILE, PRIVATE_FOLDER, PUBLIC_FILE = 0o600, 0o700, 0o644
_OTHERS_CAN_READ = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_private_folder(path: Path) -> None:
    """Make a folder that only its owner can enter, and those above it as usual; one that is there stays as it is.

    Raises:
        IdentityError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    except OSError as error:
        raise IdentityError(f"the folder {str(path)!r} cannot be made: {error.strerror}") from None


def own_private_folder(path: Path) -> None:
    """Make a folder that only its owner can enter, and last; or take one that is there, if it is one.

    Raises:
        IdentityError: it cannot be made, belongs to somebody else, or group or others have any right to it.
    """
    made = not path.exists()
    make_private_folder(path)
    try:
        facts = path.stat()
        if made:
            flush_folder(path.parent)
    except OSError as error:
        raise IdentityError(f"the folder {str(path)!r} cannot be looked at: {error.strerror}") from None
    if facts.st_mode & _OTHERS_CAN_READ or facts.st_uid != os.geteuid():
        raise IdentityError(
            f"the folder {str(path)!r} has mode {stat.S_IMODE(facts.st_mode):04o} and belongs to user {facts.st_uid}: "
            "models, dreams and sums are kept there in clear, so make it your own and run chmod 700 on it"
        )


def write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Make a file that is not there yet: whole, on the disk, and with its mode from the first moment on.

    The content is written beside its place and *linked* into it: like a rename, a link is all or nothing, but unlike a
    rename it fails where there is a file already, even one that appeared a moment ago.

    Args:
        path: of the file, in a folder that exists.
        content: all of it.
        mode: permissions, from which the umask can only take.

    Raises:
        IdentityError: there is a file of this name, or it cannot be written.
    """
    try:
        temporary = _write_beside(path, content, mode)
        try:
            os.link(temporary, path)
        finally:
            temporary.unlink()
        flush_folder(path.parent)
    except FileExistsError:
        raise IdentityError(f"{str(path)!r} is there already, and is never written over: choose another name") from None
    except OSError as error:
        raise IdentityError(f"{str(path)!r} cannot be written: {error.strerror}") from None


def write_over(path: Path, content: bytes, *, mode: int) -> None:
    """Replace a file, or make it: a reader sees the old content or the new one, never a part.

    Raises:
        IdentityError: it cannot be written.
    """
    try:
        temporary = _write_beside(path, content, mode)
        try:
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink()
            raise
        flush_folder(path.parent)
    except OSError as error:
        raise IdentityError(f"{str(path)!r} cannot be written: {error.strerror}") from None


def read_private(path: Path, *, what: str, limit: int) -> bytes:
    """A file that nobody but its owner can read.

    What is checked is the file that was opened, not its name, so it cannot be swapped in between.

    Args:
        path: of the file; a symbolic link is followed.
        what: it is, for messages.
        limit: bytes; a longer file is refused.

    Raises:
        IdentityError: it is missing, too long or no regular file; group or others have any right to it; or it is owned
            by somebody who is neither this user nor root.
    """
    content, facts = _read(path, what, limit)
    if facts.st_mode & _OTHERS_CAN_READ:
        mode = stat.S_IMODE(facts.st_mode)
        raise IdentityError(
            f"{what} {str(path)!r} has mode {mode:04o}: others than its owner can get at it; run chmod 600 on it, and "
            "if somebody may have read it, treat it as stolen"
        )
    if facts.st_uid not in (os.geteuid(), 0):
        raise IdentityError(f"{what} {str(path)!r} belongs to user {facts.st_uid}, who can read and replace it")
    return content


def read_guarded(path: Path, *, what: str, limit: int) -> bytes:
    """A file that anybody may read, but nobody but its owner can change.

    Raises:
        IdentityError: it is missing, too long or no regular file, or group or others can write it.
    """
    content, facts = _read(path, what, limit)
    if facts.st_mode & _OTHERS_CAN_WRITE:
        mode = stat.S_IMODE(facts.st_mode)
        raise IdentityError(
            f"{what} {str(path)!r} has mode {mode:04o}: others than its owner can change it; run chmod go-w on it, and "
            "compare its digest again"
        )
    return content


def read_public(path: Path, *, what: str, limit: int) -> bytes:
    """A file that says itself whether it is right.

    Raises:
        IdentityError: it is missing, too long or no regular file.
    """
    return _read(path, what, limit)[0]


def _read(path: Path, what: str, limit: int) -> tuple[bytes, os.stat_result]:
    """At most ``limit`` bytes, and whose file it is. Not blocking: a pipe must not keep a node waiting for a writer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as stream:
            facts = os.fstat(stream.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise IdentityError(f"{what} {str(path)!r} is no regular file")
            content = stream.read(limit + 1)
    except OSError as error:
        raise IdentityError(f"{what} {str(path)!r} cannot be read: {error.strerror}") from None
    if len(content) > limit:
        raise IdentityError(f"{what} {str(path)!r} has more than {limit} bytes: it is none")
    return content, facts


def _write_beside(path: Path, content: bytes, mode: int) -> Path:
    """The content in a new file in the same folder, whole and on the disk; nothing is left of it if that fails."""
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        temporary.unlink()
        raise
    return temporary
