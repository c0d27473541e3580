"""Masks: AES-256 in counter mode, added block by block while a block is in the processor's cache.

Every key is used for one mask and thrown away, so the counter starts at zero. The keys of different steps, pairs and
purposes come out of HMAC-SHA256 under different labels: one step's keys reveal neither another step's nor their root.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from protocols.encoding import Ring
from protocols.keys import Secret

_PAIR_MASK = b"codream-secure masked v1 pairwise mask"
_SELF_MASK = b"codream-secure masked v1 self mask"
_BLOCK_BYTES = 128 * 1024
_ZEROS = bytes(_BLOCK_BYTES)


def pair_mask_key(root: Secret, step: int) -> bytes:
    """Key of the mask that two members share at one step; 32 bytes."""
    return root.derive(_PAIR_MASK + step.to_bytes(8, "big"))


def self_mask_key(opening: Secret) -> bytes:
    """Key of the mask that a member puts on alone, from the secret that its neighbours can open; 32 bytes."""
    return opening.derive(_SELF_MASK)


def apply_masks(ring: Ring, *, add: Iterable[bytes] = (), subtract: Iterable[bytes] = ()) -> None:
    """Add and subtract the masks of these keys, in place, mod 2^32 or 2^64.

    Args:
        ring: ``(d,)`` unsigned little-endian.
        add: 32-byte keys of masks to add.
        subtract: 32-byte keys of masks to subtract.
    """
    streams = [(_keystream(key), np.add) for key in add] + [(_keystream(key), np.subtract) for key in subtract]
    width = _BLOCK_BYTES // ring.itemsize
    # OpenSSL may write up to one cipher block less one byte beyond what it is given.
    buffer = bytearray(_BLOCK_BYTES + 15)
    mask = np.frombuffer(buffer, dtype=ring.dtype, count=width)
    for start in range(0, len(ring), width):
        block = ring[start : start + width]
        zeros = memoryview(_ZEROS)[: block.nbytes]
        for stream, apply in streams:
            stream.update_into(zeros, buffer)
            apply(block, mask[: len(block)], out=block)


def _keystream(key: bytes):  # type: ignore[no-untyped-def]
    return Cipher(AES(key), CTR(bytes(16))).encryptor()
