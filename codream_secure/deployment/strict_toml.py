"""Small TOML files from strangers: strictly typed, and refused before they can cost anything."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from codream_secure.errors import IdentityError

MAX_LINE_BYTES = 256
"""Longer than any line of ours. A key of many thousand dotted parts would keep Python's TOML parser busy for hours."""

_T = TypeVar("_T", bound=msgspec.Struct)


def decode(content: bytes, kind: type[_T], *, what: str) -> _T:
    """The file as a struct.

    Args:
        content: untrusted bytes, of a length that was checked.
        kind: what it has to be; unknown keys are errors if the type says so.
        what: it is, for messages.

    Raises:
        IdentityError: it is no TOML, or another type somewhere; the message says where.
    """
    if max(map(len, content.split(b"\n"))) > MAX_LINE_BYTES:
        raise IdentityError(f"{what} has a line of more than {MAX_LINE_BYTES} bytes: it is none")
    try:
        return msgspec.toml.decode(content, type=kind, strict=True)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise IdentityError(f"{what} is malformed: {error}") from None
    except RecursionError:
        raise IdentityError(f"{what} is malformed: it is nested too deeply") from None
