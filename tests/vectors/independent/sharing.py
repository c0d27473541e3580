"""Secret sharing, and what is made of the shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .aes import gcm_decrypt, gcm_encrypt
from .bindings import LABELS, hmac_sha256, pair_seed, root_at, sha256, u32, u64

PRIME = 2**256 - 189
NONCE = bytes(12)


def share(secret: int, coefficients: Sequence[int], point: int) -> int:
    """The polynomial's value: coefficients from the highest power down to the first, then the secret."""
    degree = len(coefficients)
    powers = sum(coefficient * pow(point, degree - at, PRIME) for at, coefficient in enumerate(coefficients))
    return (secret + powers) % PRIME


def open_secret(shares: Mapping[int, int]) -> int:
    """Lagrange interpolation at zero of shares by their points."""
    secret = 0
    for here, value in shares.items():
        weight = 1
        for other in shares:
            if other != here:
                weight = weight * other * pow(other - here, -1, PRIME) % PRIME
        secret += weight * value
    return secret % PRIME


def element(value: int) -> bytes:
    return value.to_bytes(32, "big")


def elements(data: bytes) -> list[int]:
    values = [int.from_bytes(data[at : at + 32], "big") for at in range(0, len(data), 32)]
    if len(data) % 32 or any(value >= PRIME for value in values):
        raise ValueError("no field elements")
    return values


def place(session: bytes, member: int, step: int) -> bytes:
    return session + u32(member) + u64(step)


def commitment(session: bytes, member: int, step: int, secret: int) -> bytes:
    return sha256(LABELS["commitment"], place(session, member, step), element(secret))


def backup_key(secret: int) -> bytes:
    return hmac_sha256(element(secret), LABELS["backup key"])


def backup(session: bytes, member: int, step: int, secret: int, roots: Sequence[bytes]) -> bytes:
    """A step's seeds, in the order of the neighbours; the roots are those of step 0."""
    seeds = b"".join(pair_seed(root_at(root, step)) for root in roots)
    return gcm_encrypt(backup_key(secret), NONCE, seeds, LABELS["backup"] + place(session, member, step))


def open_backup(session: bytes, member: int, step: int, secret: int, sealed: bytes) -> list[bytes]:
    seeds = gcm_decrypt(backup_key(secret), NONCE, sealed, LABELS["backup"] + place(session, member, step))
    return [seeds[at : at + 32] for at in range(0, len(seeds), 32)]


def parcel_context(session: bytes, sender: int, recipient: int) -> bytes:
    return LABELS["parcel"] + session + u32(sender) + u32(recipient)


def parcel(key: bytes, batch: bytes, context: bytes) -> bytes:
    return gcm_encrypt(key, NONCE, batch, context)


def open_parcel(key: bytes, sealed: bytes, context: bytes) -> bytes:
    return gcm_decrypt(key, NONCE, sealed, context)
