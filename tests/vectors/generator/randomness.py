"""A seeded stream in the place of the operating system's randomness: in this generator, never in the package."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocols import keys, shares


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
        mock.patch.object(shares, "os", SimpleNamespace(urandom=stream.bytes)),
        mock.patch.object(keys, "X25519PrivateKey", SimpleNamespace(generate=generate)),
    ):
        yield
