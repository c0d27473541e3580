"""BLAKE2b (RFC 7693), BLAKE2Xb, and what Microsoft SEAL 4.0 draws from it: uniform polynomials and ternary ones."""

from __future__ import annotations

from functools import lru_cache

_IV = (
    *(0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1),
    *(0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179),
)
_ORDERS = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    (14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
    (11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4),
    (7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8),
    (9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13),
    (2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9),
    (12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11),
    (13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10),
    (6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5),
    (10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0),
)
_QUARTERS = (
    *((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)),
    *((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)),
)
_WORD = (1 << 64) - 1
_BLOCK, _DIGEST = 128, 64


def _compress(state: list[int], block: bytes, count: int, last: bool) -> list[int]:
    """RFC 7693, section 3.2."""
    message = [int.from_bytes(block[at : at + 8], "little") for at in range(0, _BLOCK, 8)]
    work = [*state, *_IV]
    work[12] ^= count
    work[14] ^= _WORD if last else 0
    for turn in range(12):
        order = iter(_ORDERS[turn % 10])
        for w, x, y, z in _QUARTERS:
            a, b, c, d = work[w], work[x], work[y], work[z]
            a = (a + b + message[next(order)]) & _WORD
            d ^= a
            d = (d >> 32 | d << 32) & _WORD
            c = (c + d) & _WORD
            b ^= c
            b = (b >> 24 | b << 40) & _WORD
            a = (a + b + message[next(order)]) & _WORD
            d ^= a
            d = (d >> 16 | d << 48) & _WORD
            c = (c + d) & _WORD
            b ^= c
            work[w], work[x], work[y], work[z] = a, (b >> 63 | b << 1) & _WORD, c, d
    return [old ^ work[at] ^ work[at + 8] for at, old in enumerate(state)]


def blake2b(parameters: bytes, data: bytes) -> bytes:
    """64 bytes, under a whole parameter block; a key is at the beginning of the data, padded to a block."""
    state = [start ^ int.from_bytes(parameters[8 * at : 8 * at + 8], "little") for at, start in enumerate(_IV)]
    starts = range(0, max(len(data), 1), _BLOCK)
    for start in starts:
        end = min(start + _BLOCK, len(data))
        state = _compress(state, data[start:end] + bytes(start + _BLOCK - end), end, start == starts[-1])
    return b"".join(word.to_bytes(8, "little") for word in state)


def parameter_block(
    digest: int, *, key: int = 0, tree: tuple[int, int] = (1, 1), leaf: int = 0, node: int = 0, xof: int = 0
) -> bytes:
    """BLAKE2b's, with BLAKE2X's length of output; ``tree`` is fanout and depth, inner nodes have a leaf's size."""
    numbers = b"".join(number.to_bytes(4, "little") for number in (leaf, node, xof))
    return bytes([digest, key, *tree]) + numbers + bytes([0, leaf]) + bytes(46)


def blake2xb(key: bytes, data: bytes, length: int) -> bytes:
    """``length`` bytes."""
    padded = key + bytes(_BLOCK - len(key)) if key else b""
    root = blake2b(parameter_block(_DIGEST, key=len(key), xof=length), padded + data)
    output = b""
    for node, start in enumerate(range(0, length, _DIGEST)):
        size = min(_DIGEST, length - start)
        block = parameter_block(size, tree=(0, 0), leaf=_DIGEST, node=node, xof=length)
        output += blake2b(block, root)[:size]
    return output


class Generator:
    """SEAL's generator: BLAKE2Xb of a counter under a seed of 64 bytes, 4096 bytes at a time."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 64:
            raise ValueError("seeds have 64 bytes")
        self._seed, self._counter, self._left = seed, 0, b""

    def take(self, count: int) -> bytes:
        """The next bytes."""
        while len(self._left) < count:
            self._left += blake2xb(self._seed, self._counter.to_bytes(8, "little"), 4096)
            self._counter += 1
        taken, self._left = self._left[:count], self._left[count:]
        return taken


@lru_cache(maxsize=32)
def uniform(seed: bytes, degree: int, modulus: int) -> tuple[int, ...]:
    """A polynomial with uniform coefficients: all words first, then new ones for those that are too large."""
    generator = Generator(seed)
    words = generator.take(8 * degree)
    limit = _WORD - _WORD % modulus - 1
    found = []
    for at in range(0, len(words), 8):
        word = words[at : at + 8]
        while int.from_bytes(word, "little") >= limit:
            word = generator.take(8)
        found.append(int.from_bytes(word, "little") % modulus)
    return tuple(found)


@lru_cache(maxsize=32)
def ternary(seed: bytes, degree: int) -> tuple[int, ...]:
    """A polynomial of -1, 0 and 1: which third of all words a word of 32 bits is in; 0 is passed over."""
    generator, found = Generator(seed), []
    while len(found) < degree:
        word = int.from_bytes(generator.take(4), "little")
        if word:
            found.append((3 * word >> 32) - 1)
    return tuple(found)
