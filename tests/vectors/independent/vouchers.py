"""What is derived, sealed and signed where sums are homomorphic."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from . import blake, lattice
from .aes import gcm_decrypt, gcm_encrypt
from .bindings import LABELS, hmac_sha256, members, sha256, u32, u64
from .planning import Carrier

NONCE = bytes(12)


def sets(carriers: Iterable[Carrier]) -> list[Carrier]:
    """One carrier for each set of parameters, by their texts."""
    found = {carrier.text: carrier for carrier in carriers}
    return [found[text] for text in sorted(found)]


def streams(carriers: Mapping[str, Carrier]) -> str:
    """One line for each stream: how its vectors are encrypted."""
    return "".join(f"{name}: {carriers[name].text}; {carriers[name].packing_text}\n" for name in sorted(carriers))


def session(plain: bytes, carriers: Mapping[str, Carrier]) -> bytes:
    """The digest of a session where vectors are encrypted."""
    return sha256(LABELS["encrypted session"], plain, streams(carriers).encode("ascii"))


def key_seed(root: bytes, carrier: Carrier) -> bytes:
    """What SEAL's secret key comes out of."""
    halves = (LABELS[f"key seed, {half} half"] for half in ("first", "second"))
    return b"".join(hmac_sha256(root, half, carrier.text.encode("ascii")) for half in halves)


def secret_key(root: bytes, carrier: Carrier) -> tuple[int, ...]:
    """The ternary polynomial."""
    return blake.ternary(key_seed(root, carrier), carrier.degree)


def key_check(root: bytes, carriers: Iterable[Carrier]) -> bytes:
    keys = (lattice.transformed(secret_key(root, carrier), carrier.modulus) for carrier in sets(carriers))
    return sha256(LABELS["key check"], *(lattice.polynomial_bytes(key, 8) for key in keys))[:16]


def tag_root(root: bytes) -> bytes:
    return hmac_sha256(root, LABELS["tags"])


def voucher_root(secret: bytes) -> bytes:
    return hmac_sha256(secret, LABELS["vouchers"])


def tag_key(tags: bytes, session: bytes, asked: bytes) -> bytes:
    return hmac_sha256(tags, LABELS["tag"], session, asked)


def state(tags: bytes, session: bytes, asked: bytes, shared: bytes) -> bytes:
    return hmac_sha256(tags, LABELS["state"], session, asked, sha256(shared))[:16]


def voucher_key(vouchers: bytes, session: bytes, member: int) -> bytes:
    return hmac_sha256(vouchers, LABELS["voucher"], session, u32(member))


def _place(session: bytes, member: int, digest: bytes, asked: bytes) -> bytes:
    return LABELS["sealed tag"] + session + u32(member) + digest + asked


def seal(
    vouchers: bytes, session: bytes, member: int, digest: bytes, asked: bytes, *, nonce: bytes, content: bytes
) -> bytes:
    """Nonce, encrypted tag and state, and their tag of AES-GCM."""
    place = _place(session, member, digest, asked)
    return nonce + gcm_encrypt(voucher_key(vouchers, session, member), nonce, content, place)


def unseal(
    vouchers: bytes, session: bytes, member: int, digest: bytes, asked: bytes, *, sealed: bytes
) -> tuple[list[int], bytes]:
    """The linear tag, and the state."""
    key, place = voucher_key(vouchers, session, member), _place(session, member, digest, asked)
    content = gcm_decrypt(key, sealed[:12], sealed[12:], place)
    return [int.from_bytes(content[at : at + 8], "big") for at in (0, 8, 16, 24)], content[32:]


def contribution(session: bytes, member: int, digest: bytes, sealed: bytes, asked: bytes) -> bytes:
    """What a contributor signs."""
    return LABELS["contribution"] + session + u32(member) + digest + sealed + asked


def grant(session: bytes, everybody: Sequence[int], public_key: bytes, encryption_keys: Iterable[bytes]) -> bytes:
    """What the authority signs when it hands out keys."""
    digest = hashlib.sha256()
    for key in encryption_keys:
        digest.update(u64(len(key)) + key)
    return LABELS["grant"] + session + public_key + digest.digest() + members(everybody)


def opened(session: bytes, ring: bytes, contributors: Sequence[int], asked: bytes) -> bytes:
    """What the authority signs when it opens a sum."""
    return LABELS["opened"] + session + sha256(ring) + members(contributors) + asked


def key_parcel(session: bytes, sender: int, recipient: int) -> bytes:
    """What a parcel from client to client is bound to."""
    return LABELS["key parcel"] + session + u32(sender) + u32(recipient)


def grant_parcel(session: bytes, member: int) -> bytes:
    """What a parcel from the authority is bound to."""
    return LABELS["grant parcel"] + session + u32(member)
