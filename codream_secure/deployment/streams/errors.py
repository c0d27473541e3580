"""What can go wrong between two machines, by name. No text holds a key, a nonce or a private value."""

from __future__ import annotations

from codream_secure.errors import CodreamError


def printable(text: str) -> str:
    """Somebody else's text, without what moves a cursor or begins a line in a terminal or a log.

    >>> printable("no\\x1b[2J\\nway")
    'no\\\\x1b[2J\\\\nway'
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class StreamError(CodreamError):
    """Base of the transport's deliberate errors."""


class FrameError(StreamError):
    """Bytes that are no frame: malformed, too long, of another version, or of a kind that has no place here."""


class SessionError(StreamError):
    """The other side breaks the rules of a session; the connection cannot go on."""


class GapError(SessionError):
    """A frame is missing: connect again, and have it sent once more."""


class BacklogError(StreamError):
    """Too many bytes wait for the other side's acknowledgement."""


class RefusedError(StreamError):
    """The other side does not let this one in, or sends it away.

    Attributes:
        retry: whether it may be different later.
    """

    def __init__(self, reason: str, *, retry: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry


class UnreachableError(StreamError):
    """The server could not be reached for longer than the client is willing to wait."""
