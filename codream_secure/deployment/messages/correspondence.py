"""What a member keeps between two messages, in a folder that nobody else can enter.

The state is sealed: it holds a machine of the sum, and the latest vector. It is written over *before* the machine in it
is used, and put back, changed, before the answer leaves: two answers from one state could open a vector (see
:meth:`protocols.SumProtocol.suspend_client`). A program that is killed in between has left its round. Leave the folder
out of backups.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from codream_secure.deployment.conversation import Standing
from codream_secure.deployment.events import Event, Given
from codream_secure.deployment.files import own_private_folder
from codream_secure.deployment.storage import writing
from codream_secure.deployment.streams import Shown
from codream_secure.deployment.streams.calls import Ask, Downward, Show, decode_downward, encode, shown
from codream_secure.deployment.streams.errors import FrameError
from codream_secure.deployment.streams.member import Suspended
from codream_secure.errors import CheckpointError
from codream_secure.files import PRIVATE, flush_folder, write_bytes
from protocols import MessageError
from protocols.snapshots import SecretState, seal_state, unseal_state

_SEALED = b"codream-secure message state v1\0"
MESSAGES = "messages"
"""Name of the folder, in a member's own."""


class Kept(SecretState):
    """A round between two messages.

    Attributes:
        round_id: 16 bytes.
        position: how many calls were taken.
        suspended: the member; None while a message is dealt with, and from then on if that fails.
        standing: of the method's conversation; None before the first question.
        done: whether the method has finished the round.
    """

    round_id: bytes
    position: int
    suspended: Suspended | None
    standing: Standing | None
    done: bool


class Correspondence:
    """A member's round.

    Args:
        folder: of its own; made, for its owner only, if it is not there.
        key: 32 bytes that the state is sealed under.
        most_bytes: of what was shown in one round, which is as much as a server can fill of the disk.

    Raises:
        IdentityError: it cannot be made, or others have a right to it.
    """

    def __init__(self, folder: Path, *, key: bytes, most_bytes: int = 4 << 30) -> None:
        own_private_folder(folder)
        self._key = key
        self._folder = folder
        self._state = folder / "state"
        self._calls = folder / "calls"
        self._most_bytes = most_bytes

    def read(self) -> Kept | None:
        """The round that goes on; None if there is none.

        Raises:
            CheckpointError: the file is damaged, or sealed under another key.
        """
        try:
            return unseal_state(self._state.read_bytes(), self._key, Kept, _SEALED)
        except FileNotFoundError:
            return None
        except MessageError:
            raise CheckpointError(
                f"{str(self._state)!r} is damaged: remove it; this client is back in the next round"
            ) from None

    def write(self, kept: Kept) -> None:
        """Make it last.

        Raises:
            StorageError: it cannot be written.
        """
        with writing(self._folder):
            write_bytes(self._state, seal_state(kept, self._key, _SEALED), mode=PRIVATE)

    def add(self, position: int, calls: Sequence[Downward], *, given: bool) -> None:
        """Keep what the method would have to live through again; what is for the machine alone is left out.

        Args:
            position: of the calls within the round.
            calls: of one packet.
            given: whether the question in it, if there is one, was answered with a vector.

        Raises:
            FrameError: it is more than a round may show.
            StorageError: it cannot be written.
        """
        kept = []
        for call in calls:
            if isinstance(call, Show):
                kept.append(encode(call))
            elif isinstance(call, Ask) and given:
                kept.append(encode(Ask(call.exchange, call.stream, call.values, memoryview(b""))))
        if not kept:
            return
        content = msgspec.msgpack.encode(kept)
        if len(content) + sum(path.stat().st_size for path in self._paths()) > self._most_bytes:
            raise FrameError(f"the server has shown more than {self._most_bytes} bytes in one round (most_bytes)")
        with writing(self._folder):
            own_private_folder(self._calls)
            write_bytes(self._calls / f"{position:020d}", content, mode=PRIVATE)

    def forget(self) -> None:
        """The round is over, for this member."""
        forget(self._folder)

    def events(self) -> Iterator[Event]:
        """What the method has lived through in this round since it began, a packet at a time in memory.

        Raises:
            CheckpointError: a file is damaged.
        """
        before: Event | None = None
        for path in self._paths():
            try:
                calls = [decode_downward(call) for call in msgspec.msgpack.decode(path.read_bytes(), type=list[bytes])]
                events = [_event(call) for call in calls]
            except (msgspec.MsgspecError, FrameError):
                raise CheckpointError(
                    f"{str(path)!r} is damaged: remove its folder; this client is back in the next round"
                ) from None
            for event in events:
                # Asked again with nothing shown since: the same question, which the method hears once.
                if not (isinstance(event, Given) and event == before):
                    yield event
                before = event

    def _paths(self) -> list[Path]:
        return sorted(path for path in self._calls.iterdir() if path.name.isdecimal()) if self._calls.is_dir() else []


def forget(folder: Path) -> None:
    """Remove what is kept of a round, if there is one, and whatever a kill has left half written.

    Args:
        folder: as :class:`Correspondence` has it.

    Raises:
        StorageError: it cannot be removed.
    """
    if not folder.is_dir():
        return
    with writing(folder):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        # Or a loss of power could bring it back.
        flush_folder(folder)


def _event(call: Downward) -> Event:
    if isinstance(call, Show):
        return Shown(phase=call.phase, tensors=shown(call))
    if isinstance(call, Ask):
        return Given(call.stream, call.values)
    raise FrameError("another call than those that are kept")
