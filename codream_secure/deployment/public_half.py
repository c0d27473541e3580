"""What the owner of an identity hands out: name, public key, and a signature that both belong together."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from codream_secure.deployment.files import PUBLIC_FILE, read_public, write_new
from codream_secure.deployment.strict_toml import decode
from codream_secure.errors import IdentityError
from protocols.keys import Identity
from protocols.terms import MAX_MEMBER

SUFFIX = ".pub"
_MAX_BYTES = 4096
FORMAT: Final = "codream-secure public half 1"
_CLAIM = b"codream-secure public half v1\0"
_FINGERPRINT = b"codream-secure fingerprint v1\0"
_FINGERPRINT_BYTES = 20
_P = 2**255 - 19
_ORDER_EIGHT = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SMALL_ORDER = frozenset({0, 1, _P - 1, _ORDER_EIGHT, _P - _ORDER_EIGHT})
"""The y of all eight points of edwards25519 whose order divides 8."""

Name = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]*\Z",
        max_length=64,
        description="of letters, digits, dots, hyphens and underscores in ASCII; begins with a letter or a digit",
    ),
]
"""A file name everywhere, and a word that can be said over the phone."""
Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_MEMBER)]
PublicKey = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
"""32 bytes in lower-case hexadecimal: one spelling for each key."""
Signature = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{128}\Z")]
Fingerprint = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{4}( [0-9a-f]{4}){9}\Z")]


class PublicHalf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An identity's public half.

    Attributes:
        format: of the file; what :data:`FORMAT` says.
        name: its owner's.
        member: the number that the owner wants on the roster, if that was agreed on.
        public_key: 64 lower-case hexadecimal digits.
        fingerprint: of the key.
        created: the day, by UTC.
        signature: of all of it, by the key itself: whoever made the file has the private half.

    Raises:
        IdentityError: the key has no private half, or the fingerprint or the signature is another key's.
    """

    format: Literal["codream-secure public half 1"]
    name: Name
    member: Number | None = None
    public_key: PublicKey
    fingerprint: Fingerprint
    created: datetime.date
    signature: Signature

    def __post_init__(self) -> None:
        check_key(self.name, self.public_key, self.fingerprint)
        text = _claim(self.name, self.member, self.public_key, self.created)
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key)).verify(
                bytes.fromhex(self.signature), text
            )
        except (InvalidSignature, ValueError):
            raise IdentityError(
                f"the public half of {self.name!r} is not signed by its own key: it was changed, ask for it again"
            ) from None


def make_public_half(
    identity: Identity, name: str, *, member: int | None = None, created: datetime.date | None = None
) -> PublicHalf:
    """The public half of an identity.

    Args:
        identity: whose private key signs it.
        name: see :func:`check_name`.
        member: the number wanted, in [0, 2^32).
        created: default: today, by UTC.

    Raises:
        IdentityError: the name or the number cannot be.
    """
    check_name(name)
    if member is not None and not 0 <= member <= MAX_MEMBER:
        raise IdentityError(f"the member's number is {member}: it must lie in [0, {MAX_MEMBER}]")
    created = created or datetime.datetime.now(datetime.UTC).date()
    public_key = identity.public_key.hex()
    return PublicHalf(
        format=FORMAT,
        name=name,
        member=member,
        public_key=public_key,
        fingerprint=fingerprint(public_key),
        created=created,
        signature=identity.sign(_claim(name, member, public_key, created)).hex(),
    )


def check_name(name: str) -> str:
    """The name, if it can be one: at most 64 letters, digits, dots, hyphens and underscores, a letter or digit first.

    Raises:
        IdentityError: it cannot.
    """
    try:
        return msgspec.convert(name, Name)
    except msgspec.ValidationError:
        raise IdentityError(
            f"the name is {name!r}: use 1 to 64 letters, digits, '.', '-' and '_' of ASCII, a letter or digit first"
        ) from None


def fingerprint(public_key: str) -> str:
    """The first 160 bits of a labelled SHA-256 of the key, as ten groups of four digits, to be read out.

    So many bits that nobody can make two keys with one fingerprint either.
    """
    digest = hashlib.sha256(_FINGERPRINT + bytes.fromhex(public_key)).digest()
    return in_groups(digest[:_FINGERPRINT_BYTES])


def check_key(name: str, public_key: str, claimed: str) -> None:
    """Return if the fingerprint is the key's, and the key one that only its owner can sign with.

    Under a public key of small order, which has no private half, anybody's signature passes; OpenSSL takes such keys.

    Raises:
        IdentityError: it is not.
    """
    if int.from_bytes(bytes.fromhex(public_key), "little") % 2**255 % _P in _SMALL_ORDER:
        raise IdentityError(f"the public key of {name!r} is of small order: anybody could sign in that name")
    if fingerprint(public_key) != claimed:
        raise IdentityError(f"the fingerprint of {name!r} is not that of its public key: one of them was changed")


def in_groups(digest: bytes) -> str:
    """Hexadecimal digits, four by four."""
    return digest.hex(" ", 2)


def write_public_half(public: PublicHalf, path: Path) -> None:
    """Write it to a new file.

    Raises:
        IdentityError: there is a file of this name, or it cannot be written.
    """
    write_new(path, msgspec.toml.encode(public), mode=PUBLIC_FILE)


def load_public_half(path: Path) -> PublicHalf:
    """What :func:`write_public_half` wrote, checked.

    Raises:
        IdentityError: the file is missing, malformed, or not signed by its own key.
    """
    what = f"the public half {str(path)!r}"
    return decode(read_public(path, what="the public half", limit=_MAX_BYTES), PublicHalf, what=what)


def _claim(name: str, member: int | None, public_key: str, created: datetime.date) -> bytes:
    """What the signature is under: every part of fixed length, or behind its length."""
    number = b"\0" if member is None else b"\1" + member.to_bytes(4, "big")
    text = name.encode("ascii")
    return _CLAIM + bytes([len(text)]) + text + number + bytes.fromhex(public_key) + created.isoformat().encode("ascii")
