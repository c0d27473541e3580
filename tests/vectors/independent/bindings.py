"""Labels, digests, what is signed, and the keys that are derived."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .aes import counter_mode
from .curves import x25519
from .encoding import scale

_MASKED = (
    *("roster", "session", "advertise", "vote", "pair", "graph", "next root", "pairwise seed", "pairwise mask"),
    *("self mask", "parcel", "backup", "backup key", "commitment"),
)
_HOMOMORPHIC = (
    *("key seed, first half", "key seed, second half", "key check", "key parcel", "grant", "grant parcel", "tags"),
    *("tag", "state", "vouchers", "voucher", "sealed tag", "contribution", "opened"),
)
_ENCRYPTED_SESSION = {"encrypted session": b"codream-secure homomorphic v1 session\0"}
_LOCAL = {"suspended": b"codream-secure suspended v1\0"}
"""Of what a client seals for itself; it never travels."""
LABELS = {"terms": b"codream-secure terms v1\0", **_ENCRYPTED_SESSION, **_LOCAL} | {
    use: f"codream-secure {family} v1 {use}\0".encode("ascii")
    for family, uses in (("masked", _MASKED), ("homomorphic", _HOMOMORPHIC))
    for use in uses
}
AUTHORITY = -1
"""Stands for the key authority where members' numbers do."""


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def hmac_sha256(key: bytes, *parts: bytes) -> bytes:
    return hmac.new(key, b"".join(parts), "sha256").digest()


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256, RFC 5869."""
    extracted = hmac_sha256(salt or bytes(32), secret)
    output, block = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac_sha256(extracted, block, info, bytes([counter]))
        output += block
    return output[:length]


# Terms


def hexadecimal(number: float) -> str:
    """A double in the one spelling that the canonical text has for it."""
    bits = int.from_bytes(struct.pack(">d", number), "big")
    sign, exponent, fraction = bits >> 63, bits >> 52 & 0x7FF, bits & (1 << 52) - 1
    minus = "-" if sign else ""
    if not exponent:
        return f"{minus}0x0.0p+0" if not fraction else f"{minus}0x0.{fraction:013x}p-1022"
    return f"{minus}0x1.{fraction:013x}p{exponent - 1023:+d}"


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; floats as texts."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f'"{hexadecimal(value)}"'
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    members = (f"{canonical(key)}:{canonical(value[key])}" for key in sorted(value))
    return "{" + ",".join(members) + "}"


def terms_text(terms: Mapping[str, Any], protocol: str) -> str:
    """The canonical text of terms as the vectors write them: floats as hexadecimal texts."""
    streams = {}
    for name, given in terms["streams"].items():
        exponent, largest = scale(given)
        streams[name] = {**given, "clip": float.fromhex(given["clip"]), "exponent": exponent, "largest": largest}
    shares = {name: float.fromhex(terms[name]) for name in ("dropout", "corruption")}
    return canonical({**terms, **shares, "streams": streams, "protocol": protocol})


def terms_digest(terms: Mapping[str, Any], protocol: str) -> bytes:
    return sha256(LABELS["terms"], terms_text(terms, protocol).encode("ascii"))


# Rosters, sessions, signatures


def party(number: int) -> bytes:
    """A member's number, or what is in its place for the key authority."""
    return b"authority" if number == AUTHORITY else u32(number)


def roster_digest(roster: Mapping[int, bytes]) -> bytes:
    everybody = sorted(roster, key=lambda number: (number == AUTHORITY, number))
    return sha256(LABELS["roster"], *(party(number) + roster[number] for number in everybody))


def members(numbers: Sequence[int]) -> bytes:
    """A list of members: how many, and each."""
    return u32(len(numbers)) + b"".join(map(u32, numbers))


def session_digest(
    roster: bytes,
    terms: bytes,
    degree: int,
    threshold: int,
    survivors: int,
    cohort: Sequence[int],
    round_id: bytes,
) -> bytes:
    bounds = u32(degree) + u32(threshold) + u32(survivors)
    return sha256(LABELS["session"], roster, terms, bounds, members(cohort), round_id)


def advertisement(session: bytes, member: int, public_key: bytes) -> bytes:
    return LABELS["advertise"] + session + u32(member) + public_key


def request(step: int, stream: str, values: int, context: bytes) -> bytes:
    """What a step asks for."""
    name = stream.encode("ascii")
    return u64(step) + u64(values) + u32(len(name)) + name + sha256(context)


def ballot(session: bytes, asked: bytes, everybody: Sequence[int], dead: Sequence[int]) -> bytes:
    return LABELS["vote"] + session + asked + members(everybody) + members(dead)


# Pairs


class Pair(NamedTuple):
    """The three keys of two members."""

    masks: bytes
    upward: bytes
    """From the lower number to the higher one."""
    downward: bytes

    def key(self, sender: int, recipient: int) -> bytes:
        return self.upward if sender < recipient else self.downward


def pair(session: bytes, private_key: bytes, me: int, my_key: bytes, peer: int, peer_key: bytes) -> Pair:
    exchanged = x25519(private_key, peer_key)
    if not any(exchanged):
        raise ValueError("the peer's key is degenerate")
    lower, upper = sorted(((me, my_key), (peer, peer_key)))
    info = LABELS["pair"] + party(lower[0]) + lower[1] + party(upper[0]) + upper[1]
    material = hkdf(exchanged, session, info, 96)
    return Pair(material[:32], material[32:64], material[64:])


# Masks


def root_at(root: bytes, step: int) -> bytes:
    """The root of a step, from that of step 0."""
    for _ in range(step):
        root = hmac_sha256(root, LABELS["next root"])
    return root


def pair_seed(root: bytes) -> bytes:
    """What two members share for the step of this root, and what the backup holds."""
    return hmac_sha256(root, LABELS["pairwise seed"])


def pair_key(seed: bytes, asked: bytes) -> bytes:
    """The key of a pairwise mask."""
    return hmac_sha256(seed, LABELS["pairwise mask"], asked)


def self_key(secret: int, asked: bytes) -> bytes:
    return hmac_sha256(secret.to_bytes(32, "big"), LABELS["self mask"], asked)


def mask(key: bytes, length: int, *, skip: int = 0) -> bytes:
    """The bytes of a mask: counter mode from block 2 on, as AES-GCM encrypts with a nonce of zeros."""
    return counter_mode(key, length, counter=2, skip=skip)
