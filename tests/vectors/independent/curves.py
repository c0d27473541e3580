"""X25519 (RFC 7748) and Ed25519 (RFC 8032) on Python's integers."""

from __future__ import annotations

import hashlib

P = 2**255 - 19
"""The field of both curves."""
L = 2**252 + 27742317777372353535851937790883648493
"""The order of Ed25519's base point."""


def x25519(scalar: bytes, u: bytes) -> bytes:
    """RFC 7748, section 5: the Montgomery ladder."""
    k = int.from_bytes(scalar, "little")
    k = k & ~7 & ~(1 << 255) | 1 << 254
    x1 = int.from_bytes(u, "little") & (1 << 255) - 1
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for position in range(254, -1, -1):
        bit = k >> position & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def x25519_public(scalar: bytes) -> bytes:
    """The public key of a private one."""
    return x25519(scalar, (9).to_bytes(32, "little"))


Point = tuple[int, int, int, int]
_D = -121665 * pow(121666, P - 2, P) % P
_ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
_NEUTRAL: Point = (0, 1, 1, 0)


def _add(left: Point, right: Point) -> Point:
    """RFC 8032, section 5.1.4, in extended coordinates."""
    a = (left[1] - left[0]) * (right[1] - right[0]) % P
    b = (left[1] + left[0]) * (right[1] + right[0]) % P
    c = 2 * left[3] * right[3] * _D % P
    d = 2 * left[2] * right[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _multiply(scalar: int, point: Point) -> Point:
    result = _NEUTRAL
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _compress(point: Point) -> bytes:
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decompress(data: bytes) -> Point | None:
    """RFC 8032, section 5.1.3; None where the bytes are no point."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    if y >= P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * _ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (not x and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


_BASE_Y = 4 * pow(5, P - 2, P) % P
_decompressed = _decompress(_BASE_Y.to_bytes(32, "little"))
assert _decompressed is not None
_BASE: Point = _decompressed


def _expand(private: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha512(private).digest()
    scalar = int.from_bytes(digest[:32], "little")
    return scalar & ~7 & ~(1 << 255) | 1 << 254, digest[32:]


def _challenge(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % L


def ed25519_public(private: bytes) -> bytes:
    """The public key of a private one."""
    return _compress(_multiply(_expand(private)[0], _BASE))


def ed25519_sign(private: bytes, message: bytes) -> bytes:
    """RFC 8032, section 5.1.6: the signature is a function of the key and the message."""
    scalar, prefix = _expand(private)
    public = _compress(_multiply(scalar, _BASE))
    nonce = _challenge(prefix, message)
    commitment = _compress(_multiply(nonce, _BASE))
    response = (nonce + _challenge(commitment, public, message) * scalar) % L
    return commitment + response.to_bytes(32, "little")


def ed25519_verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """RFC 8032, section 5.1.7."""
    if len(signature) != 64:
        return False
    key, commitment = _decompress(public), _decompress(signature[:32])
    response = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or response >= L:
        return False
    right = _add(commitment, _multiply(_challenge(signature[:32], public, message), key))
    return _compress(_multiply(response, _BASE)) == _compress(right)
