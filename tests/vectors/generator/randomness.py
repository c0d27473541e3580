"""A seeded stream in the place of the operating system's randomness: in this generator, never in the package."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocols import keys, shares
from protocols.homomorphic.coefficients import Coefficients
from protocols.homomorphic.packing import Integers
from protocols.homomorphic.parameters import Parameters
from protocols.homomorphic.seal import Seal

SEAL_SEED_BYTES = 64
_ENCRYPT, _PUBLIC_KEY = Seal.encrypt, Seal.public_key


class Seeded:
    """Bytes that follow from a label; keeps what it gave."""

    def __init__(self, label: str) -> None:
        self._label = label.encode()
        self.given: list[bytes] = []

    def bytes(self, count: int) -> bytes:
        """The next bytes."""
        number = len(self.given).to_bytes(8, "big")
        self.given.append(hashlib.shake_256(self._label + b"|" + number).digest(count))
        return self.given[-1]

    def element(self) -> int:
        """The next 32 bytes as a field element."""
        value = int.from_bytes(self.bytes(32), "big")
        if value >= shares.PRIME:  # pragma: no cover - one in 2^248
            raise ValueError("choose another label")
        return value


@contextmanager
def in_place_of_the_system(stream: Seeded) -> Iterator[None]:
    """Whatever the protocol draws comes from the stream."""

    def generate() -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(stream.bytes(32))

    with (
        mock.patch.object(os, "urandom", stream.bytes),
        mock.patch.object(keys, "X25519PrivateKey", SimpleNamespace(generate=generate)),
        mock.patch.object(Seal, "encrypt", lambda seal, integers, key: _encrypt(seal, integers, key, stream)),
        mock.patch.object(Seal, "public_key", lambda seal, secret: _public_key(seal, secret, stream)),
    ):
        yield


class SeededSeal(Seal):
    """SEAL whose own generator follows from a seed; good for one ciphertext or public key."""

    def __init__(self, parameters: Parameters, seed: bytes) -> None:
        self._seed = struct.unpack("<8Q", seed)
        super().__init__(parameters)

    def _settings(self) -> Any:
        settings = super()._settings()
        settings.set_random_generator(self._api.Blake2xbPRNGFactory(list(self._seed)))
        return settings


def _encrypt(seal: Seal, integers: Integers, key: Any, stream: Seeded) -> tuple[bytes, ...]:
    """As SEAL does it, each ciphertext under a seed of its own."""
    parts = [
        _ENCRYPT(SeededSeal(seal.parameters, stream.bytes(SEAL_SEED_BYTES)), chunk[None], key) for chunk in integers
    ]
    return tuple(b"".join(column) for column in zip(*parts, strict=True))


def _public_key(seal: Seal, secret: Any, stream: Seeded) -> Coefficients:
    return _PUBLIC_KEY(SeededSeal(seal.parameters, stream.bytes(SEAL_SEED_BYTES)), secret)
