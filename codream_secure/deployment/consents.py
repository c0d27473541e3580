"""Over whom a client has let each of its vectors be summed: over these members again, or over nobody.

Asked for a second time over other members, the same vector would come out as the difference of the two sums. The
server's journal keeps an honest server from asking; this keeps a client from answering one that asks all the same: in
the same round, or in one that it lets break off and begins anew, for which the client goes back and computes the same
bits.

It recognises a question that is repeated, by its place in a round of training or by all that was shown before it. It
does not recognise one that resembles another: a server that shows nearly the same dreams in another place is answered.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from codream_secure.deployment.files import PRIVATE_FOLDER, own_private_folder
from codream_secure.deployment.storage import writing
from codream_secure.files import PRIVATE, flush_folder, write_bytes
from protocols import AlreadyAnsweredError


class Consents:
    """Questions, and the survivors agreed to for each. For any thread.

    Args:
        folder: of its own, made when there is something to keep; None keeps all in memory. It must be as old as the
            states that vectors are computed from: leave it out of backups that the states are not part of.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._memory: dict[tuple[int, bytes], bytes] = {}

    def agree(self, base: int, questions: Sequence[bytes], *, survivors: Sequence[int]) -> None:
        """Return once it is on the disk that the answer to a question is summed over these members.

        Args:
            base: the round after which the state was kept that the answer follows from.
            questions: digests under which the question may come again.
            survivors: members' numbers.

        Raises:
            AlreadyAnsweredError: other members were agreed to.
            IdentityError: others have a right to the folder.
            StorageError: it cannot be written.
        """
        line = " ".join(map(str, sorted(survivors))).encode()
        with self._lock:
            known = [self._find(base, question) for question in questions]
            if any(found not in (None, line) for found in known):
                raise AlreadyAnsweredError(
                    "the same question was answered before, for a sum over other members: the difference of the two "
                    "sums could be the vector of one; ask for it over exactly the same members"
                )
            for question, found in zip(questions, known, strict=True):
                if found is None:
                    self._keep(base, question, line)

    def forget(self, before: int) -> None:
        """Drop what follows from states before that of this round.

        They are gone, so nothing more is computed from them; nothing that was may be open to be summed any more.
        """
        with self._lock:
            self._memory = {key: line for key, line in self._memory.items() if key[0] >= before}
            if self._folder is not None and self._folder.is_dir():
                for path in self._folder.iterdir():
                    if path.name.isdecimal() and int(path.name) < before:
                        shutil.rmtree(path)

    def _find(self, base: int, question: bytes) -> bytes | None:
        if self._folder is None:
            return self._memory.get((base, question))
        try:
            return self._path(self._folder, base, question).read_bytes()
        except FileNotFoundError:
            return None

    def _keep(self, base: int, question: bytes, line: bytes) -> None:
        if self._folder is None:
            self._memory[base, question] = line
            return
        path = self._path(self._folder, base, question)
        with writing(self._folder):
            if not path.parent.is_dir():
                for folder in (self._folder, path.parent):
                    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
                    own_private_folder(folder)
                    flush_folder(folder.parent)
            write_bytes(path, line, mode=PRIVATE)

    @staticmethod
    def _path(folder: Path, base: int, question: bytes) -> Path:
        return folder / f"{base:06d}" / question.hex()
