"""Uniform random words for noise: AES-256 in counter mode, under a key that the operating system gave.

There is no way to pass a key or a seed in. A stream is made for one vector's noise and thrown away, so no two vectors,
objects or processes (after a fork, say) ever share one.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from protocols.keys import KEY_BYTES
from protocols.masks import keystream

Words = npt.NDArray[np.uint64]
_KEY_LIFE_BYTES = 1 << 30
_BLOCK_BYTES = 128 * 1024
_ZEROS = bytes(_BLOCK_BYTES)
_SPILL_WORDS = 2


class Keystream:
    """An endless stream of independent uniform bits.

    The key is never an attribute: it lives in OpenSSL's key schedule, which the operating system gets back when the
    stream is dropped. Python's copies are immutable and cannot be overwritten; they die where they were made. Each
    gibibyte is drawn under a fresh key, far within what one key may encrypt.
    """

    __slots__ = ("_left", "_stream")

    def __init__(self) -> None:
        self._rekey()

    def words(self, count: int) -> Words:
        """So many fresh uniform integers in [0, 2^64)."""
        # OpenSSL may write up to one cipher block less one byte beyond what it is given.
        words = np.empty(count + _SPILL_WORDS, dtype=np.uint64)
        buffer = words.data.cast("B")
        for start in range(0, 8 * count, _BLOCK_BYTES):
            size = min(_BLOCK_BYTES, 8 * count - start)
            if size > self._left:
                self._rekey()
            self._left -= size
            self._stream.update_into(memoryview(_ZEROS)[:size], buffer[start:])
        return words[:count]

    def _rekey(self) -> None:
        self._stream = keystream(os.urandom(KEY_BYTES))
        self._left = _KEY_LIFE_BYTES

    def __repr__(self) -> str:
        return "Keystream(...)"

    def __reduce__(self) -> str:
        raise TypeError("keystreams are not pickled: a copy would repeat the original's noise")
