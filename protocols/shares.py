"""Shamir's secret sharing of 256-bit secrets, in batches, and the encryption of what is shared.

The field is the integers mod 2^256 - 189, the largest 256-bit prime. Holders stand at small points x = 1, 2, ..., so
polynomials are evaluated without reduction until the end: one long integer times a small one is cheap. Coefficients
are fresh from the operating system; t shares open a secret, t - 1 say nothing about it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols.errors import ShareError
from protocols.keys import Secret

PRIME = 2**256 - 189
SHARE_BYTES = 32
TAG_BYTES = 16
_ONCE = bytes(12)
"""Nonce of keys that encrypt a single message."""


def random_element() -> int:
    """A uniform field element from the operating system."""
    while (element := int.from_bytes(os.urandom(SHARE_BYTES), "big")) >= PRIME:
        pass
    return element


def split(secrets: Sequence[int], points: Sequence[int], threshold: int) -> list[list[int]]:
    """Share a batch of secrets.

    Args:
        secrets: field elements.
        points: the holders' distinct points, x >= 1.
        threshold: t, 1 <= t <= number of points.

    Returns:
        For each point the shares of all secrets, in order.
    """
    if not 1 <= threshold <= len(points):
        raise ValueError(f"threshold is {threshold}: between 1 and the number of holders ({len(points)})")
    if len(set(points)) != len(points) or any(not 1 <= point < PRIME for point in points):
        raise ValueError("points must be distinct and at least 1")
    shares: list[list[int]] = [[] for _ in points]
    for secret in secrets:
        # From the highest power down, as Horner's rule takes them.
        coefficients = [random_element() for _ in range(threshold - 1)]
        for held, point in zip(shares, points, strict=True):
            value = 0
            for coefficient in coefficients:
                value = (value + coefficient) * point
            held.append((value + secret) % PRIME)
    return shares


def opening_weights(points: Sequence[int]) -> list[int]:
    """Lagrange coefficients at zero: a secret is the sum of its shares at these points times these, mod PRIME.

    Args:
        points: exactly t distinct points.
    """
    weights = []
    for here in points:
        above, below = 1, 1
        for other in points:
            if other != here:
                above = above * other % PRIME
                below = below * (other - here) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return weights


def combine(shares: Sequence[int], weights: Sequence[int]) -> int:
    """The secret that shares open, given :func:`opening_weights` of their points."""
    return sum(share * weight for share, weight in zip(shares, weights, strict=True)) % PRIME


def to_bytes(elements: Sequence[int]) -> bytes:
    """Field elements as 32 big-endian bytes each."""
    return b"".join(element.to_bytes(SHARE_BYTES, "big") for element in elements)


def from_bytes(data: bytes) -> list[int]:
    """What :func:`to_bytes` wrote.

    Raises:
        ShareError: not a whole number of elements, or one that is not below PRIME.
    """
    if len(data) % SHARE_BYTES:
        raise ShareError(f"{len(data)} bytes are no whole number of shares of {SHARE_BYTES}")
    elements = [int.from_bytes(data[at : at + SHARE_BYTES], "big") for at in range(0, len(data), SHARE_BYTES)]
    if any(element >= PRIME for element in elements):
        raise ShareError("a share is not an element of the field")
    return elements


def seal(key: Secret | bytes, plaintext: bytes, context: bytes) -> bytes:
    """Encrypt the only message that a key ever encrypts (AES-256-GCM); ``context`` is authenticated with it."""
    return AESGCM(bytes(key.value) if isinstance(key, Secret) else key).encrypt(_ONCE, plaintext, context)


def unseal(key: Secret | bytes, ciphertext: bytes, context: bytes) -> bytes:
    """Decrypt what :func:`seal` made.

    Raises:
        ShareError: the ciphertext, the key or the context is another.
    """
    try:
        return AESGCM(bytes(key.value) if isinstance(key, Secret) else key).decrypt(_ONCE, ciphertext, context)
    except InvalidTag:
        raise ShareError("what was shared does not decrypt: tampered with, swapped, or of another round") from None
