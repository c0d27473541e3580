"""Linear tags: with a step's key one can tell whether a vector is the sum of others, knowing only the others' tags.

The tag of a vector c modulo a prime q is R c mod q, where R has :data:`ROWS` rows of independent uniform entries in
[0, 2^16), made from a key by AES-256-CTR. Tags add up with the vectors. A server that does not know the key, and has
seen no tag (they travel encrypted), changes a vector by D != 0 mod q and goes undetected if R D = 0 mod q: at the place
where D is not zero at most one of 2^16 values of each row's entry allows that, so with probability at most 2^-64. This
is the inner-product hash of Carter and Wegman (1981) with small keys.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from protocols.homomorphic.coefficients import from_bytes

ROWS = 4
TAG_BYTES = 8 * ROWS
_LIMB_BITS, _LIMBS = 20, 3
# 16 bits of R times 20 of a limb, summed over a block, are whole numbers below 2^53: exact in double precision.
_BLOCK = 1 << 16

Tag = tuple[int, ...]


def tag(vector: bytes | bytearray | memoryview, *, key: bytes, width: int, modulus: int) -> Tag:
    """The tag of a vector.

    Args:
        vector: coefficients as :mod:`~protocols.homomorphic.coefficients` writes them.
        key: 32 bytes, for this step alone.
        width: bytes of a coefficient.
        modulus: q, below 2^60.

    Raises:
        CiphertextError: a coefficient is not below the modulus.
    """
    stream = Cipher(AES(key), CTR(bytes(16))).encryptor()
    view, totals, mask = memoryview(vector), [0] * ROWS, np.uint64((1 << _LIMB_BITS) - 1)
    for start in range(0, len(view), _BLOCK * width):
        block = from_bytes(view[start : start + _BLOCK * width], width, modulus)
        entries = np.frombuffer(stream.update(bytes(2 * ROWS * len(block))), dtype="<u2")
        rows = entries.reshape(ROWS, len(block)).astype(np.float64)
        limbs = np.stack([(block >> np.uint64(_LIMB_BITS * place)) & mask for place in range(_LIMBS)])
        products = rows @ limbs.astype(np.float64).T
        for row in range(ROWS):
            totals[row] += sum(int(products[row, place]) << (_LIMB_BITS * place) for place in range(_LIMBS))
    return tuple(total % modulus for total in totals)


def add_tags(one: Tag, other: Tag, *, modulus: int) -> Tag:
    """The tag of the sum of two vectors."""
    return tuple((left + right) % modulus for left, right in zip(one, other, strict=True))


def to_tag_bytes(value: Tag) -> bytes:
    """A tag as :data:`TAG_BYTES` bytes."""
    return b"".join(number.to_bytes(8, "big") for number in value)


def from_tag_bytes(data: bytes) -> Tag:
    """What :func:`to_tag_bytes` wrote."""
    return tuple(int.from_bytes(data[at : at + 8], "big") for at in range(0, TAG_BYTES, 8))
