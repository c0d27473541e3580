"""A member's private key at rest: PKCS #8 in PEM, encrypted under a passphrase, for its owner's eyes only."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from codream_secure.deployment.files import PRIVATE_FILE, read_private, write_new
from codream_secure.errors import IdentityError
from protocols.keys import Identity, Secret

SUFFIX = ".key"
_MAX_BYTES = 16 * 1024
_HEADER = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"


def save_identity(identity: Identity, path: Path, *, passphrase: Secret) -> None:
    """Write a private key, encrypted, to a new file of mode 0600.

    Args:
        identity: whose key it is.
        path: of a file that is not there yet, in a folder that is.
        passphrase: 1 to 1,023 bytes; :func:`~codream_secure.deployment.passphrase.find_passphrase` gets one. It has to
            be hard to guess: what ``cryptography`` does to slow guesses down is little (2,048 rounds of PBKDF2).

    Raises:
        IdentityError: there is a file of this name, or it cannot be written.
    """
    key = Ed25519PrivateKey.from_private_bytes(identity.private_bytes())
    encryption = BestAvailableEncryption(bytes(passphrase.value))
    write_new(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), mode=PRIVATE_FILE)


def check_key_file(path: Path) -> bytes:
    """The content of a key file, still encrypted, if it is one that nobody but its owner can read.

    Raises:
        IdentityError: the file is missing, readable by others, or no encrypted private key.
    """
    content = read_private(path, what="the key file", limit=_MAX_BYTES)
    if not content.startswith(_HEADER):
        raise IdentityError(f"the key file {str(path)!r} is no encrypted private key in PEM: make one with keys new")
    return content


def load_identity(path: Path, *, passphrase: Secret) -> Identity:
    """The identity that :func:`save_identity` wrote.

    The encryption has no checksum: damage may be noticed, or give another identity, which is on no roster.

    Args:
        path: of the key file.
        passphrase: that it was written under.

    Raises:
        IdentityError: the file is missing, readable by others, not encrypted, damaged or no Ed25519 key, or the
            passphrase is another one. No message holds any part of either.
    """
    content = check_key_file(path)
    try:
        key = load_pem_private_key(content, bytes(passphrase.value))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise IdentityError(
            f"the key file {str(path)!r} does not open: the passphrase is another one, or the file is damaged"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(f"the key file {str(path)!r} holds another kind of key: an identity is an Ed25519 key")
    return Identity(key.private_bytes_raw())
