"""A client's memory of the rounds and steps it has taken part in, so that none is taken part in twice.

Every round makes fresh keys, so a round id that comes again would not repeat a mask; it would still let a server show
one transcript to an auditor and another to the clients. A step that is masked twice, from a saved state that was
restored once too often, would repeat its masks. Both are refused here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import zlib
from pathlib import Path

from protocols.errors import MessageError, RoundReuseError, StepError
from protocols.terms import ROUND_ID_BYTES


class RoundLog:
    """In memory: enough for clients whose rounds all happen within one process."""

    def __init__(self) -> None:
        self._last_step: dict[bytes, int] = {}

    def claim(self, round_id: bytes) -> None:
        """Take part in a round, for the first and last time.

        Raises:
            RoundReuseError: it was claimed before.
            MessageError: it is no round id.
        """
        if len(round_id) != ROUND_ID_BYTES:
            raise MessageError(f"the round id has {len(round_id)} bytes: {ROUND_ID_BYTES} are needed")
        if round_id in self._last_step:
            raise RoundReuseError(f"round {round_id.hex()} has been taken part in before")
        self._write(round_id, -1)
        self._last_step[round_id] = -1

    def __contains__(self, round_id: bytes) -> bool:
        """Whether a round was claimed."""
        return round_id in self._last_step

    def claim_step(self, round_id: bytes, step: int) -> None:
        """Mask a step of a claimed round; steps only ever go up.

        Raises:
            StepError: this step or a later one was masked before, or the round was never claimed.
        """
        last = self._last_step.get(round_id)
        if last is None:
            raise StepError("the step belongs to a round that was never claimed")
        if step <= last:
            raise StepError(f"step {step} is over: step {last} has been masked")
        self._write(round_id, step)
        self._last_step[round_id] = step

    def _write(self, round_id: bytes, step: int) -> None:
        """Make the claim last before it is acted upon; memory has nothing to do."""


class FileRoundLog(RoundLog):
    """On disk, so that neither a restart nor a restored backup of the *state* brings a round or step back.

    One line a claim, of fixed length and with a checksum, flushed to the disk before the claim counts: a few
    milliseconds a step on most disks. The file has to be left out of whatever backup the saved states are part of. A
    last line that a crash cut short is dropped: its claim was never acted upon. Anything else that is not a line is
    damage.

    Args:
        path: the log; made, readable by its owner only, if it is not there. It is locked for as long as this object
            lives: one process, one object.

    Raises:
        RoundReuseError: the file is damaged, so which rounds are over cannot be known, or in use by somebody else.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._file = -1
        made = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise RoundReuseError(f"{str(path)!r} is in use by another log: keep one for each identity") from None
        try:
            if made:
                _flush_folder(path.parent)
            self._size = self._read(path.read_bytes())
        except BaseException:
            # The lock would outlast an object that nobody has.
            self.close()
            raise

    def _read(self, content: bytes) -> int:
        """Take over what the file says; the number of bytes that are whole lines, the rest being cut off."""
        size = len(content) - len(content) % _LINE_BYTES
        for start in range(0, size, _LINE_BYTES):
            line = content[start : start + _LINE_BYTES]
            claim = _CLAIM.fullmatch(line)
            if claim is None or line != _line(bytes.fromhex(claim[1].decode()), int(claim[2])):
                raise RoundReuseError(
                    f"{str(self.path)!r} is damaged in line {start // _LINE_BYTES + 1}: restore it, or begin a new "
                    "identity and log"
                )
            round_id, step = bytes.fromhex(claim[1].decode()), int(claim[2])
            self._last_step[round_id] = max(step, self._last_step.get(round_id, -1))
        os.ftruncate(self._file, size)
        os.fsync(self._file)
        return size

    def _write(self, round_id: bytes, step: int) -> None:
        line = _line(round_id, step)
        try:
            written = os.write(self._file, line)
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        if written != len(line):
            os.ftruncate(self._file, self._size)
            raise OSError(errno.ENOSPC, "the claim could not be written whole, so it does not count", str(self.path))
        self._size += len(line)

    def close(self) -> None:
        """Give the file up; the log claims nothing any more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()


def _line(round_id: bytes, step: int) -> bytes:
    """A claim as a line: round, step in eight characters, CRC-32 of both."""
    claim = f"{round_id.hex()} {step:08d}".encode("ascii")
    return claim + b" %08x\n" % zlib.crc32(claim)


_LINE_BYTES = len(_line(bytes(ROUND_ID_BYTES), 0))
_CLAIM = re.compile(rb"([0-9a-f]{32}) (-?[0-9]+) [0-9a-f]{8}\n")


def _flush_folder(folder: Path) -> None:
    """Make a new file's name last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
