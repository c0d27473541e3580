"""Masks: AES-256 in counter mode, added block by block while a block is in the processor's cache.

Every key is used for one mask and thrown away, so all begin at the same counter block: 2, big-endian in 16 bytes, which
is where AES-GCM with a nonce of zeros begins to encrypt. So both of OpenSSL's implementations give the same keystream,
its counter mode and its GCM (whose tag is not asked for); the latter is faster on processors with vector AES
and slower on others. The first mask of a process tries both and keeps the faster.

Keys come out of HMAC-SHA256 under different labels: root of step t -> root of step t + 1; root of step t -> seed of
step t -> key of that step's mask for what the step asks for. A seed reveals neither another step's nor a root, and a
root none before it, so a client that forgets the roots it has used cannot be made to open an earlier step. Clients that
a server asks for different things at the same step make masks that do not cancel, so it cannot subtract known answers
to one question from a sum that hides the other.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, GCM

from protocols.encoding import Ring
from protocols.keys import Secret, label

_NEXT_ROOT = label("next root")
_PAIR_SEED = label("pairwise seed")
_PAIR_MASK = label("pairwise mask")
_SELF_MASK = label("self mask")
_BLOCK_BYTES = 128 * 1024
_ZEROS = bytes(_BLOCK_BYTES)
MODES: tuple[CTR | GCM, ...] = (CTR(bytes(15) + b"\2"), GCM(bytes(12)))
"""Two ways to the same keystream."""


def next_root(root: Secret) -> Secret:
    """The root of the step after the one that this root belongs to."""
    return Secret(root.derive(_NEXT_ROOT))


def pair_seed(root: Secret) -> bytes:
    """What two members share for the step that this root belongs to; 32 bytes."""
    return root.derive(_PAIR_SEED)


def pair_mask_key(seed: bytes, request: bytes) -> bytes:
    """Key of the mask that two members share at one step; 32 bytes.

    Args:
        seed: of the pair and step.
        request: what the step asks for, see :func:`protocols.keys.request_context`.
    """
    return hmac.digest(seed, _PAIR_MASK + request, "sha256")


def self_mask_key(opening: Secret, request: bytes) -> bytes:
    """Key of the mask that a member puts on alone, from the secret that its neighbours can open; 32 bytes."""
    return opening.derive(_SELF_MASK + request)


def apply_masks(ring: Ring, *, add: Iterable[bytes] = (), subtract: Iterable[bytes] = ()) -> None:
    """Add and subtract the masks of these keys, in place, mod 2^32 or 2^64.

    Args:
        ring: ``(d,)`` unsigned little-endian.
        add: 32-byte keys of masks to add.
        subtract: 32-byte keys of masks to subtract.
    """
    streams = [(keystream(key), np.add) for key in add] + [(keystream(key), np.subtract) for key in subtract]
    width = min(_BLOCK_BYTES // ring.itemsize, len(ring))
    # OpenSSL may write up to one cipher block less one byte beyond what it is given.
    buffer = np.empty(width * ring.itemsize + 15, dtype=np.uint8)
    room, mask = buffer.data, buffer[: width * ring.itemsize].view(ring.dtype)
    for start in range(0, len(ring), max(width, 1)):
        block = ring[start : start + width]
        zeros, part = memoryview(_ZEROS)[: block.nbytes], mask[: len(block)]
        for stream, apply in streams:
            stream.update_into(zeros, room)
            apply(block, part, out=block)


def keystream(key: bytes) -> CipherContext:
    """What encrypts zeros to the keystream of a 32-byte key that is used for nothing else."""
    return Cipher(AES(key), _fastest_mode()).encryptor()


@lru_cache(maxsize=1)
def _fastest_mode() -> CTR | GCM:
    """Whichever of :data:`MODES` fills a block in less time here, in the best of several tries."""

    def seconds(mode: CTR | GCM) -> float:
        stream, buffer, tries = Cipher(AES(bytes(32)), mode).encryptor(), bytearray(_BLOCK_BYTES + 15), []
        for _ in range(8):
            started = time.perf_counter()
            stream.update_into(_ZEROS, buffer)
            tries.append(time.perf_counter() - started)
        return min(tries)

    return min(MODES, key=seconds)
