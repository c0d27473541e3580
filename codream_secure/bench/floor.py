"""The least that masking can cost: the AES-256-CTR keystream of some masks, added up, and nothing else."""

from __future__ import annotations

import os
import time

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

_BLOCK_BYTES = 128 * 1024


class Floor:
    """The keystream of some masks, added up in a ring of 32 bits.

    Its buffers stay: memory that is given back and faulted in anew would slow down whoever runs next.

    Args:
        values: length of the vector.
        masks: how many.
    """

    def __init__(self, values: int, masks: int) -> None:
        self._masks = masks
        self._total = np.ones(values, dtype=np.uint32)
        self._zeros = memoryview(bytes(_BLOCK_BYTES))
        self._buffer = bytearray(_BLOCK_BYTES + 15)

    def seconds(self) -> float:
        """CPU seconds of one turn, with fresh keys that are set up before."""
        streams = [Cipher(AES(os.urandom(32)), CTR(bytes(16))).encryptor() for _ in range(self._masks)]
        total, buffer, width = self._total, self._buffer, _BLOCK_BYTES // self._total.itemsize
        mask = np.frombuffer(buffer, dtype=total.dtype, count=width)
        started = time.thread_time()
        for start in range(0, len(total), width):
            block = total[start : start + width]
            for stream in streams:
                stream.update_into(self._zeros[: block.nbytes], buffer)
                np.add(block, mask[: len(block)], out=block)
        return time.thread_time() - started
