"""AES (FIPS 197) by tables, in counter mode (SP 800-38A) and in Galois/counter mode (SP 800-38D)."""

from __future__ import annotations


def _times(left: int, right: int) -> int:
    """In GF(2^8) modulo x^8 + x^4 + x^3 + x + 1."""
    product = 0
    while right:
        if right & 1:
            product ^= left
        left = left << 1 ^ (0x11B if left & 0x80 else 0)
        right >>= 1
    return product


def _substitution() -> list[int]:
    box = [0] * 256
    for value in range(256):
        inverse = next((other for other in range(256) if _times(value, other) == 1), 0) if value else 0
        turned = inverse
        for _ in range(4):
            inverse = (inverse << 1 | inverse >> 7) & 0xFF
            turned ^= inverse
        box[value] = turned ^ 0x63
    return box


_BOX = _substitution()
_FIRST = [
    _times(substituted, 2) << 24 | substituted << 16 | substituted << 8 | _times(substituted, 3) for substituted in _BOX
]
_TABLES = [[(word >> 8 * turn | word << 32 - 8 * turn) & 0xFFFFFFFF for word in _FIRST] for turn in range(4)]


class AES:
    """One key's schedule. 16 or 32 bytes."""

    def __init__(self, key: bytes) -> None:
        length = len(key) // 4
        if len(key) not in (16, 32):
            raise ValueError("keys have 16 or 32 bytes")
        self.rounds = length + 6
        words = [int.from_bytes(key[at : at + 4], "big") for at in range(0, len(key), 4)]
        constant = 1
        for index in range(length, 4 * (self.rounds + 1)):
            word = words[-1]
            if index % length == 0:
                word = _substituted((word << 8 | word >> 24) & 0xFFFFFFFF) ^ constant << 24
                constant = _times(constant, 2)
            elif length > 6 and index % length == 4:
                word = _substituted(word)
            words.append(words[index - length] ^ word)
        self.words = words

    def block(self, block: int) -> int:
        """One encrypted block of 128 bits, as integers whose first byte is the highest."""
        words = self.words
        state = [(block >> shift & 0xFFFFFFFF) ^ words[at] for at, shift in enumerate((96, 64, 32, 0))]
        first, second, third, fourth = _TABLES
        for start in range(4, 4 * self.rounds, 4):
            state = [
                first[state[at] >> 24]
                ^ second[state[at - 3] >> 16 & 255]
                ^ third[state[at - 2] >> 8 & 255]
                ^ fourth[state[at - 1] & 255]
                ^ words[start + at]
                for at in range(4)
            ]
        result = 0
        for at in range(4):
            word = (
                _BOX[state[at] >> 24] << 24
                | _BOX[state[at - 3] >> 16 & 255] << 16
                | _BOX[state[at - 2] >> 8 & 255] << 8
                | _BOX[state[at - 1] & 255]
            )
            result = result << 32 | word ^ words[4 * self.rounds + at]
        return result


def _substituted(word: int) -> int:
    return int.from_bytes(bytes(_BOX[byte] for byte in word.to_bytes(4, "big")), "big")


def counter_mode(key: bytes, length: int, *, counter: int = 0, skip: int = 0) -> bytes:
    """``length`` bytes of keystream, from the ``skip``-th block on; the counter is all 128 bits, big-endian."""
    cipher = AES(key)
    blocks = range(counter + skip, counter + skip + -(-length // 16))
    return b"".join(cipher.block(number % (1 << 128)).to_bytes(16, "big") for number in blocks)[:length]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _galois_doubled(value: int) -> int:
    """Times x, in the field of SP 800-38D, section 6.3, whose bit 0 is the leftmost."""
    return value >> 1 ^ (0xE1 << 120 if value & 1 else 0)


def _galois_byte_over(value: int) -> int:
    for _ in range(8):
        value = _galois_doubled(value)
    return value


_OVER = [_galois_byte_over(byte) for byte in range(256)]
"""What a byte that is shifted out comes back as."""


def _galois_multiples(factor: int) -> list[int]:
    """A factor times each byte, as the leftmost of a block."""
    multiples = [0] * 256
    for bit in (0x80, 0x40, 0x20, 0x10, 8, 4, 2, 1):
        multiples[bit] = factor
        factor = _galois_doubled(factor)
    for byte in range(256):
        lowest = byte & -byte
        multiples[byte] = multiples[lowest] ^ multiples[byte ^ lowest]
    return multiples


def _hash(subkey: int, context: bytes, ciphertext: bytes) -> int:
    """SP 800-38D, section 6.4, over the padded context and ciphertext and their lengths in bits."""
    padded = b"".join(part + bytes(-len(part) % 16) for part in (context, ciphertext))
    padded += (8 * len(context)).to_bytes(8, "big") + (8 * len(ciphertext)).to_bytes(8, "big")
    multiples, value = _galois_multiples(subkey), 0
    for at in range(0, len(padded), 16):
        block, value = value ^ int.from_bytes(padded[at : at + 16], "big"), 0
        for _ in range(16):
            value = value >> 8 ^ _OVER[value & 255] ^ multiples[block & 255]
            block >>= 8
    return value


def _tag(key: bytes, nonce: bytes, ciphertext: bytes, context: bytes) -> bytes:
    cipher = AES(key)
    return (cipher.block(_first(nonce)) ^ _hash(cipher.block(0), context, ciphertext)).to_bytes(16, "big")


def _first(nonce: bytes) -> int:
    if len(nonce) != 12:
        raise ValueError("nonces have 12 bytes")
    return int.from_bytes(nonce + b"\x00\x00\x00\x01", "big")


def gcm_encrypt(key: bytes, nonce: bytes, plaintext: bytes, context: bytes) -> bytes:
    """Ciphertext and 16-byte tag."""
    ciphertext = _xor(plaintext, counter_mode(key, len(plaintext), counter=_first(nonce) + 1))
    return ciphertext + _tag(key, nonce, ciphertext, context)


def gcm_decrypt(key: bytes, nonce: bytes, sealed: bytes, context: bytes) -> bytes:
    """The plaintext.

    Raises:
        ValueError: the tag is not theirs.
    """
    ciphertext, tag = sealed[:-16], sealed[-16:]
    if _tag(key, nonce, ciphertext, context) != tag:
        raise ValueError("the tag does not match")
    return _xor(ciphertext, counter_mode(key, len(ciphertext), counter=_first(nonce) + 1))
