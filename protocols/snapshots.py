"""States between two steps, as bytes that can be stored.

A client's state holds secrets, so it leaves the machine encrypted and authenticated (AES-256-GCM with a random nonce,
under a key of the caller's). A server's state holds none.
"""

from __future__ import annotations

import hashlib
import os
from typing import TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols.errors import MessageError

_NONCE_BYTES = 12

_State = TypeVar("_State", bound=msgspec.Struct)


class SecretState(msgspec.Struct, forbid_unknown_fields=True):
    """What a snapshot encrypts; no ``repr`` shows it."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


_Secret = TypeVar("_Secret", bound=SecretState)


def pack(state: msgspec.Struct, terms: bytes) -> bytes:
    """A server's state, with the digest of its terms and one of its own, which finds accidents and no attacks."""
    content = msgspec.msgpack.encode(state)
    return terms + hashlib.sha256(content).digest() + content


def unpack(data: bytes, kind: type[_State], terms: bytes) -> _State:
    """What :func:`pack` made.

    Raises:
        MessageError: it was made under other terms, or is damaged.
    """
    if data[: len(terms)] != terms:
        raise MessageError("the snapshot was made under other terms")
    digest, content = data[len(terms) : len(terms) + 32], data[len(terms) + 32 :]
    if hashlib.sha256(content).digest() != digest:
        raise MessageError("the snapshot is damaged: its digest does not match")
    return _decoded(content, kind)


def seal_state(state: SecretState, key: bytes, terms: bytes) -> bytes:
    """A client's state, encrypted; bound to the digest of its terms.

    Raises:
        MessageError: the key has not 32 bytes.
    """
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _cipher(key).encrypt(nonce, msgspec.msgpack.encode(state), terms)


def unseal_state(data: bytes, key: bytes, kind: type[_Secret], terms: bytes) -> _Secret:
    """What :func:`seal_state` made.

    Raises:
        MessageError: another key, other terms, or damage.
    """
    check_key(key)
    try:
        plain = _cipher(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], terms)
    except (InvalidTag, ValueError):
        raise MessageError("the snapshot does not decrypt: another key, other terms, or damage") from None
    return _decoded(plain, kind)


def _decoded(content: bytes, kind: type[_State]) -> _State:
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except msgspec.MsgspecError:
        raise MessageError("the snapshot was made by another version of this package, or is of another kind") from None


def check_key(key: bytes) -> None:
    """Return if a key can encrypt snapshots.

    Raises:
        MessageError: it has not 32 bytes.
    """
    if len(key) != 32:
        raise MessageError(f"the snapshot key has {len(key)} bytes: 32 are needed")


def _cipher(key: bytes) -> AESGCM:
    check_key(key)
    return AESGCM(key)
