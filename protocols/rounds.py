"""A client's memory of the rounds and steps it has taken part in, so that none is taken part in twice.

Every round makes fresh keys, so a round id that comes again would not repeat a mask; it would still let a server show
one transcript to an auditor and another to the clients. A step that is masked twice, from a saved state that was
restored once too often, would repeat its masks. Both are refused here.
"""

from __future__ import annotations

import os
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

    One line a claim, flushed to the disk before the claim counts: a few milliseconds a step on most disks. The file
    has to be left out of whatever backup the saved states are part of. A last line that a crash cut short is
    ignored: its claim was never acted upon.

    Args:
        path: the log; made if it is not there. One process at a time.

    Raises:
        RoundReuseError: the file is damaged: which rounds are over cannot be known.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        content = path.read_bytes() if path.exists() else b""
        whole, _, cut = content.rpartition(b"\n")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                round_text, step_text = line.decode("ascii").split(" ")
                self._last_step[bytes.fromhex(round_text)] = int(step_text)
            except ValueError:
                raise RoundReuseError(
                    f"{str(path)!r} is damaged in line {number}: restore it, or begin a new identity and log"
                ) from None
        if cut:
            with path.open("rb+") as file:
                file.truncate(len(content) - len(cut))
                os.fsync(file.fileno())

    def _write(self, round_id: bytes, step: int) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{round_id.hex()} {step}\n".encode("ascii"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
