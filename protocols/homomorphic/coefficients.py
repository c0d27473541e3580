"""Coefficients modulo a prime of a whole number of bytes, as bytes without the empty ones on top."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.errors import CiphertextError

Coefficients = npt.NDArray[np.uint64]


def to_bytes(coefficients: Coefficients, width: int) -> bytes:
    """Each as ``width`` little-endian bytes."""
    little = np.ascontiguousarray(coefficients, dtype="<u8")
    return little.view(np.uint8).reshape(-1, 8)[:, :width].tobytes()


def from_bytes(data: bytes | memoryview, width: int, modulus: int) -> Coefficients:
    """What :func:`to_bytes` wrote, ``(n,)`` uint64.

    Raises:
        CiphertextError: not a whole number of coefficients, or one that is not below the modulus.
    """
    flat = np.frombuffer(data, dtype=np.uint8)
    if len(flat) % width:
        raise CiphertextError(f"{len(flat)} bytes are no whole number of coefficients of {width}")
    padded = np.zeros((len(flat) // width, 8), dtype=np.uint8)
    padded[:, :width] = flat.reshape(-1, width)
    coefficients = padded.reshape(-1).view("<u8").astype(np.uint64, copy=False)
    if coefficients.size and int(coefficients.max()) >= modulus:
        raise CiphertextError("a coefficient is not below the modulus: a ciphertext of other parameters, or none")
    return coefficients
