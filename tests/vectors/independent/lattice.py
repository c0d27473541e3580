"""Polynomials modulo X^N + 1 and a prime: transforms as SEAL orders them, decryption with BFV and CKKS, linear tags."""

from __future__ import annotations

import cmath
from collections.abc import Sequence
from functools import lru_cache

from .aes import counter_mode

Polynomial = Sequence[int]


def _is_prime(number: int) -> bool:
    """Miller and Rabin, with bases that leave no doubt below 2^64."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        power = pow(base, odd, number)
        if power in (1, number - 1) or base == number:
            continue
        if not any((power := power * power % number) == number - 1 for _ in range(twos - 1)):
            return False
    return True


@lru_cache
def prime(degree: int, bits: int) -> int:
    """The largest prime of that many bits that is 1 modulo 2 N."""
    step = 2 * degree
    candidate = ((1 << bits) - 1) // step * step + 1
    if candidate >> bits:
        candidate -= step
    while not _is_prime(candidate):
        candidate -= step
    return candidate


@lru_cache
def least_root(degree: int, modulus: int) -> int:
    """The least number of order 2 N: a root of X^N + 1."""
    order = 2 * degree
    powers = (pow(base, (modulus - 1) // order, modulus) for base in range(2, modulus))
    root = next(power for power in powers if pow(power, degree, modulus) == modulus - 1)
    square, least = root * root % modulus, root
    for _ in range(degree):
        root = root * square % modulus
        least = min(least, root)
    return least


@lru_cache
def _twiddles(degree: int, modulus: int) -> list[int]:
    """Powers of the root, in bit-reversed order."""
    root, bits = least_root(degree, modulus), degree.bit_length() - 1
    return [pow(root, int(f"{at:0{bits}b}"[::-1], 2), modulus) for at in range(degree)]


def transformed(polynomial: Polynomial, modulus: int) -> list[int]:
    """The values at all roots of X^N + 1: at r^(2 b + 1) in place i, where b is i with its bits reversed."""
    values = [coefficient % modulus for coefficient in polynomial]
    powers, half, blocks = _twiddles(len(values), modulus), len(values) // 2, 1
    while half:
        for block in range(blocks):
            power, start = powers[blocks + block], 2 * half * block
            for at in range(start, start + half):
                product = values[at + half] * power
                values[at + half] = (values[at] - product) % modulus
                values[at] = (values[at] + product) % modulus
        half, blocks = half // 2, 2 * blocks
    return values


def coefficients(values: Polynomial, modulus: int) -> list[int]:
    """The polynomial that :func:`transformed` took."""
    found = list(values)
    powers, half, blocks = _twiddles(len(found), modulus), 1, len(found) // 2
    while blocks:
        for block in range(blocks):
            power, start = pow(powers[blocks + block], -1, modulus), 2 * half * block
            for at in range(start, start + half):
                low, high = found[at], found[at + half]
                found[at] = (low + high) % modulus
                found[at + half] = (low - high) * power % modulus
        half, blocks = 2 * half, blocks // 2
    shrink = pow(len(found), -1, modulus)
    return [value * shrink % modulus for value in found]


def product(left: Polynomial, ternary: Polynomial, modulus: int) -> list[int]:
    """Modulo X^N + 1, by one multiplication of long integers (Kronecker): N products of a coefficient and 1 at most."""
    degree, width = len(left), 10
    long = int.from_bytes(b"".join(value.to_bytes(width, "little") for value in left), "little")
    plus = int.from_bytes(b"".join(int(value == 1).to_bytes(width, "little") for value in ternary), "little")
    minus = int.from_bytes(b"".join(int(value == -1).to_bytes(width, "little") for value in ternary), "little")
    rows = [(long * part).to_bytes(2 * width * degree, "little") for part in (plus, minus)]
    both = [[int.from_bytes(row[at : at + width], "little") for at in range(0, len(row), width)] for row in rows]
    whole = [up - down for up, down in zip(*both, strict=True)]
    return [(low - high) % modulus for low, high in zip(whole[:degree], whole[degree:], strict=True)]


def centred(value: int, modulus: int) -> int:
    return value - modulus if value > modulus // 2 else value


def added(left: Polynomial, right: Polynomial, modulus: int) -> list[int]:
    return [(a + b) % modulus for a, b in zip(left, right, strict=True)]


def polynomials(data: bytes, degree: int, width: int, modulus: int) -> list[list[int]]:
    """All polynomials that stand in these bytes: ``width`` little-endian bytes a coefficient.

    Raises:
        ValueError: not a whole number of polynomials, or a coefficient that is not below the modulus.
    """
    if len(data) % (degree * width):
        raise ValueError("not a whole number of polynomials")
    values = [int.from_bytes(data[at : at + width], "little") for at in range(0, len(data), width)]
    if any(value >= modulus for value in values):
        raise ValueError("a coefficient is not below the modulus")
    return [values[at : at + degree] for at in range(0, len(values), degree)]


def polynomial_bytes(polynomial: Polynomial, width: int) -> bytes:
    return b"".join(value.to_bytes(width, "little") for value in polynomial)


# Decryption


def decrypt_bfv(first: Polynomial, second: Polynomial, secret: Polynomial, *, modulus: int, bits: int) -> list[int]:
    """Round(2^bits (c0 + c1 s) / q) mod 2^bits; the error is at most the distance to the nearest multiple."""
    phase = added(first, product(second, secret, modulus), modulus)
    return [((value << bits) + modulus // 2) // modulus % (1 << bits) for value in phase]


def decrypt_ckks(first: Polynomial, second: Polynomial, secret: Polynomial, *, modulus: int, bits: int) -> list[int]:
    """The integers of a transformed ciphertext, rounded: real parts of all slots, then their imaginary parts.

    Raises:
        ValueError: a part is far from any integer.
    """
    key = transformed(secret, modulus)
    phase = [(a + b * c) % modulus for a, b, c in zip(first, second, key, strict=True)]
    slots = _slots([centred(value, modulus) for value in coefficients(phase, modulus)])
    numbers = [slot.real / 2**bits for slot in slots] + [slot.imag / 2**bits for slot in slots]
    if any(abs(number - round(number)) > 0.45 for number in numbers):
        raise ValueError("a slot holds no integers: another key, or too much noise")
    return [round(number) for number in numbers]


def _slots(polynomial: Polynomial) -> list[complex]:
    """The values at the powers 3^j of exp(pi i / N), for j below N / 2."""
    degree = len(polynomial)
    twisted = [value * cmath.exp(1j * cmath.pi * at / degree) for at, value in enumerate(polynomial)]
    values = _fourier(twisted)
    found, power = [], 1
    for _ in range(degree // 2):
        found.append(values[(power - 1) // 2])
        power = power * 3 % (2 * degree)
    return found


def _fourier(values: list[complex]) -> list[complex]:
    """The sums over k of values[k] exp(2 pi i j k / N)."""
    size = len(values)
    if size == 1:
        return values
    even, odd = _fourier(values[0::2]), _fourier(values[1::2])
    turned = [cmath.exp(2j * cmath.pi * at / size) * value for at, value in enumerate(odd)]
    plus = [a + b for a, b in zip(even, turned, strict=True)]
    return plus + [a - b for a, b in zip(even, turned, strict=True)]


# Tags

ROWS = 4
_TAG_BLOCK = 1 << 16


def tag(vector: Polynomial, key: bytes, modulus: int) -> list[int]:
    """Four inner products with rows of 16-bit numbers; each row in turn for every 65,536 coefficients."""
    totals, skipped = [0] * ROWS, 0
    for start in range(0, len(vector), _TAG_BLOCK):
        block = vector[start : start + _TAG_BLOCK]
        size = 2 * ROWS * len(block)
        stream = _keystream(key, skipped, size)
        skipped += size
        for row in range(ROWS):
            entries = stream[2 * row * len(block) : 2 * (row + 1) * len(block)]
            totals[row] += sum(
                int.from_bytes(entries[2 * at : 2 * at + 2], "little") * value for at, value in enumerate(block)
            )
    return [total % modulus for total in totals]


@lru_cache(maxsize=8)
def _keystream(key: bytes, skipped: int, size: int) -> bytes:
    if skipped % 16:
        raise ValueError("blocks but for the last are multiples of 16 bytes")
    return counter_mode(key, size, skip=skipped // 16)
