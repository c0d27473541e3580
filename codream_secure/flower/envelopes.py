"""The one record that server and client of a protected app add to Flower's messages, and nothing else in clear.

Whatever arrives was written by somebody else: it is checked for kind and length here, and frames by the machines.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import msgspec
from flwr.app import ConfigRecord, RecordDict

from codream_secure.errors import ConfigError
from protocols.terms import MAX_MEMBER

RECORD = "codream-secure"
_VERSION = 1
_MAX_FRAMES = 3


class MessageRefusedError(ConfigError):
    """A message of the server's, or a reply to one, that is not answered or used; the text says why."""


class Kind(enum.Enum):
    """What a message asks of a node."""

    HELLO = "hello"
    """Say your member number."""
    OPEN = "open"
    """A round begins: one frame, the offer."""
    RELAY = "relay"
    """Frames for the machine; answer with what it answers."""
    STEP = "step"
    """Frames that end with a request, beside the app's own records: train or evaluate, and contribute."""
    TOTAL = "total"
    """The encrypted sum: open it, and tell the server the sum."""
    CLOSE = "close"
    """The run is over: forget its secrets."""


@dataclass(frozen=True)
class Ask:
    """From server to node."""

    kind: Kind
    frames: tuple[bytes, ...] = ()

    def record(self) -> ConfigRecord:
        """As a record of a message."""
        return ConfigRecord({"version": _VERSION, "kind": self.kind.value, "frames": list(self.frames)})


def ask_in(content: RecordDict) -> Ask | None:
    """What a message asks; None if it has no such record.

    Raises:
        MessageRefusedError: it has one that is malformed.
    """
    record = _record_in(content)
    if record is None:
        return None
    frames = record.get("frames")
    if not isinstance(frames, list) or len(frames) > _MAX_FRAMES or not all(isinstance(one, bytes) for one in frames):
        raise MessageRefusedError(f"the record {RECORD!r} has no list of at most {_MAX_FRAMES} byte strings as frames")
    try:
        return Ask(Kind(record.get("kind")), tuple(frames))
    except ValueError:
        raise MessageRefusedError(f"the record {RECORD!r} asks for nothing that this version knows") from None


@dataclass(frozen=True)
class Answer:
    """From node to server: its number, a frame of its machine, or an opened sum."""

    member: int
    frame: bytes = b""
    opened: bytes = b""

    def content(self) -> RecordDict:
        """As a message's whole content."""
        fields: dict[str, Any] = {
            "version": _VERSION,
            "member": self.member,
            "frame": self.frame,
            "opened": self.opened,
        }
        return RecordDict({RECORD: ConfigRecord(fields)})


def answer_in(content: RecordDict) -> Answer:
    """What a node answered.

    Raises:
        MessageRefusedError: nothing of this kind, or malformed.
    """
    record = _record_in(content)
    if record is None or len(content) != 1:
        raise MessageRefusedError(
            f"the reply is not one record {RECORD!r}: does the app have protected_mod among its mods?"
        )
    member, frame, opened = (record.get(key) for key in ("member", "frame", "opened"))
    if isinstance(member, bool) or not isinstance(member, int) or not 0 <= member <= MAX_MEMBER:
        raise MessageRefusedError("the reply names no member")
    if not isinstance(frame, bytes) or not isinstance(opened, bytes):
        raise MessageRefusedError("the reply's frame is not bytes")
    return Answer(member, frame, opened)


def _record_in(content: RecordDict) -> dict[str, Any] | None:
    record = content.get(RECORD)
    if record is None:
        return None
    if not isinstance(record, ConfigRecord) or record.get("version") != _VERSION:
        raise MessageRefusedError(f"the record {RECORD!r} is of another version than {_VERSION}: use one on all nodes")
    return dict(record)


class OpenedSum(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A sum that clients opened, as they tell it the server: the integers, and whose they are."""

    step: int
    contributors: list[int]
    ring: bytes
