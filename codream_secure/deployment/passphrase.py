"""Where the passphrase of a private key comes from: a file, the environment, or whoever sits at the terminal."""

from __future__ import annotations

import getpass
import hmac
import os
import warnings
from pathlib import Path

from codream_secure.deployment.files import read_private
from codream_secure.errors import IdentityError
from protocols.keys import Secret

VARIABLE = "CODREAM_KEY_PASSPHRASE"
MAX_PASSPHRASE_BYTES = 1023
"""As much as OpenSSL takes."""
_MAX_FILE_BYTES = MAX_PASSPHRASE_BYTES + 2


def find_passphrase(file: Path | None = None, *, twice: bool = False) -> Secret:
    """The passphrase: from the file if one is given, else from ``CODREAM_KEY_PASSPHRASE``, else asked for without echo.

    Args:
        file: one line; a line ending behind it is not part of the passphrase.
        twice: whether to ask a second time, for a passphrase that is new.

    Raises:
        IdentityError: it is empty, longer than 1,023 bytes or not one line; the file is readable by others; there is
            nobody to ask; or the second answer differs. No message holds any part of it.
    """
    if file is not None:
        return _checked(read_private(file, what="the passphrase file", limit=_MAX_FILE_BYTES), "the passphrase file")
    if (found := os.environb.get(VARIABLE.encode())) is not None:
        return _checked(found, VARIABLE)
    answer = _ask("Passphrase: ")
    if twice and not hmac.compare_digest(answer.encode(), _ask("The same again: ").encode()):
        raise IdentityError("the two passphrases differ: nothing was written")
    return _checked(answer.encode(), "the passphrase")


def _checked(text: bytes, source: str) -> Secret:
    line = text.removesuffix(b"\n").removesuffix(b"\r")
    if not line.strip():
        raise IdentityError(f"{source} is empty: a private key is not stored without a passphrase")
    if b"\n" in line or b"\r" in line or b"\0" in line:
        raise IdentityError(f"{source} holds more than one line: give the passphrase alone")
    if len(line) > MAX_PASSPHRASE_BYTES:
        raise IdentityError(f"{source} has {len(line)} bytes: a passphrase has at most {MAX_PASSPHRASE_BYTES}")
    return Secret(line)


def _ask(prompt: str) -> str:
    """One line without echo. Where echo cannot be turned off, the answer is not asked for at all."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(prompt)
    except (getpass.GetPassWarning, EOFError, OSError):
        raise IdentityError(
            f"there is no terminal to ask for the passphrase at: set {VARIABLE}, or name a file with --passphrase-file"
        ) from None
