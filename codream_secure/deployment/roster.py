"""The roster file: who takes part, under which number and key, and whose keys were revoked; and the digest of all that.

The machines sign a digest of their :class:`protocols.keys.Roster`. :func:`load_roster` puts the file's digest into it,
so what participants compare over the phone is what their machines hold each other to: nodes with different members,
keys, names, revoked keys or versions share no keys.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from codream_secure.deployment.files import PUBLIC_FILE, read_guarded, write_over
from codream_secure.deployment.public_half import (
    Fingerprint,
    Name,
    Number,
    PublicKey,
    check_key,
    in_groups,
)
from codream_secure.deployment.strict_toml import decode
from codream_secure.errors import IdentityError
from protocols.keys import Roster

MAX_MEMBERS = 1000
MAX_REVOKED = 1000
MAX_VERSION = 1_000_000
MAX_BYTES = 1024 * 1024
"""More than a full roster takes."""
FORMAT: Final = "codream-secure roster 1"
_DIGEST = b"codream-secure roster file v1\0"
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")

Version = Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSION)]


class Listed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody with a key: the key authority as it stands, members and revoked ones with more about them.

    Attributes:
        name: of its owner.
        public_key: 64 lower-case hexadecimal digits.
        fingerprint: of the key, for people; :func:`~codream_secure.deployment.public_half.fingerprint` makes it.

    Raises:
        IdentityError: the key has no private half, or the fingerprint is another key's.
    """

    name: Name
    public_key: PublicKey
    fingerprint: Fingerprint

    def __post_init__(self) -> None:
        check_key(self.name, self.public_key, self.fingerprint)


class Member(Listed, frozen=True, kw_only=True):
    """A member.

    Attributes:
        number: by which the machines know it.
    """

    number: Number


class Revoked(Listed, frozen=True, kw_only=True, omit_defaults=True):
    """A key that was taken off the roster and never comes back on it.

    Attributes:
        number: whose it was; None: the key authority's.
        version: of the first roster without it.
    """

    number: Number | None = None
    version: Version


class RosterFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the file holds. There is one spelling of each roster: members by number, revoked keys by version and key.

    Attributes:
        format: of the file; what :data:`FORMAT` says.
        version: one more with every change.
        members: 1 to 1,000, in ascending order of their numbers.
        authority: the key authority, for protections that have one.
        revoked: at most 1,000, in ascending order of version, then key.

    Raises:
        IdentityError: a key, a name or a number is there twice, a revoked key is in use, or the order is another one.
    """

    format: Literal["codream-secure roster 1"]
    version: Version
    members: Annotated[tuple[Member, ...], msgspec.Meta(min_length=1, max_length=MAX_MEMBERS)]
    authority: Listed | None = None
    revoked: Annotated[tuple[Revoked, ...], msgspec.Meta(max_length=MAX_REVOKED)] = ()

    def __post_init__(self) -> None:
        numbers = [member.number for member in self.members]
        in_use: list[Listed] = list(self.members if self.authority is None else (*self.members, self.authority))
        _refuse_twice("number", map(str, numbers))
        _refuse_twice("name", (one.name.lower() for one in in_use))
        gone = {one.public_key: one for one in self.revoked}
        for one in in_use:
            if one.public_key in gone:
                was = gone[one.public_key]
                raise IdentityError(
                    f"the key of {one.name!r} was revoked in version {was.version}, when {was.name!r} had it: it "
                    "never comes back; make a new one with keys new"
                )
        _refuse_twice("public key", (one.public_key for one in (*in_use, *self.revoked)))
        if numbers != sorted(numbers):
            raise IdentityError("the members are not in ascending order of their numbers")
        if list(self.revoked) != sorted(self.revoked, key=lambda one: (one.version, one.public_key)):
            raise IdentityError("the revoked keys are not in ascending order of version, then key")
        if any(one.version > self.version for one in self.revoked):
            raise IdentityError(f"a key was revoked in a version after this one, {self.version}")

    def find(self, name: str) -> Listed | None:
        """The member, or the key authority, of this name, whatever the case of its letters."""
        in_use: Sequence[Listed] = self.members if self.authority is None else (*self.members, self.authority)
        return next((one for one in in_use if one.name.lower() == name.lower()), None)

    def holder(self, public_key: bytes) -> Listed | None:
        """Whose key that is: a :class:`Member`, :class:`Revoked`, the key authority as :class:`Listed`, or nobody."""
        everybody: Sequence[Listed] = (*self.members, *self.revoked)
        everybody = everybody if self.authority is None else (*everybody, self.authority)
        return next((one for one in everybody if one.public_key == public_key.hex()), None)

    def digest(self) -> bytes:
        """32 bytes: SHA-256 over version, members, key authority and revoked keys, names included."""
        digest = hashlib.sha256(_DIGEST + _u32(self.version) + _u32(len(self.members)))
        for member in self.members:
            digest.update(_u32(member.number) + _entry(member))
        digest.update(b"\0" if self.authority is None else b"\1" + _entry(self.authority))
        digest.update(_u32(len(self.revoked)))
        for one in self.revoked:
            number = b"\0" if one.number is None else b"\1" + _u32(one.number)
            digest.update(_u32(one.version) + number + _entry(one))
        return digest.digest()

    def roster(self) -> Roster:
        """The same for the machines, with the file's digest as its edition."""
        keys = {member.number: bytes.fromhex(member.public_key) for member in self.members}
        authority = None if self.authority is None else bytes.fromhex(self.authority.public_key)
        return Roster(keys, authority=authority, edition=self.digest())


def encode_roster(roster: RosterFile) -> bytes:
    """The file's content, TOML; :func:`decode_roster` reads it back to an equal roster."""
    return msgspec.toml.encode(roster)


def decode_roster(content: bytes) -> RosterFile:
    """A roster from untrusted bytes.

    Raises:
        IdentityError: too long, no TOML, an unknown key, a wrong type, or a roster that cannot be.
    """
    if len(content) > MAX_BYTES:
        raise IdentityError(f"the roster has {len(content)} bytes: at most {MAX_BYTES}")
    return decode(content, RosterFile, what="the roster")


def read_roster_file(path: Path, *, digest: str | None = None) -> RosterFile:
    """A roster file, checked.

    Args:
        path: of the file.
        digest: what it has to be, as it was compared with others: 64 hexadecimal digits, in groups or not.

    Raises:
        IdentityError: the file is missing, malformed or writable by others, or has another digest.
    """
    found = decode_roster(read_guarded(path, what="the roster", limit=MAX_BYTES))
    if digest is not None and parse_digest(digest) != found.digest():
        raise IdentityError(
            f"the digest of {str(path)!r}, version {found.version}, is {in_groups(found.digest())}, not the one that "
            "was given: it is not the roster that the others have; ask for theirs"
        )
    return found


def load_roster(path: Path, *, digest: str | None = None) -> Roster:
    """The roster for the machines, from a file; see :func:`read_roster_file` for what is checked.

    Raises:
        IdentityError: the file is missing, malformed or writable by others, or has another digest.
    """
    return read_roster_file(path, digest=digest).roster()


def write_roster_file(roster: RosterFile, path: Path) -> None:
    """Write it, over the version before it.

    Raises:
        IdentityError: it cannot be written.
    """
    write_over(path, encode_roster(roster), mode=PUBLIC_FILE)


def parse_digest(text: str) -> bytes:
    """32 bytes from what somebody typed: 64 hexadecimal digits, with spaces, colons and hyphens as they please.

    Raises:
        IdentityError: it is anything else; a part of a digest is no digest.
    """
    digits = re.sub(r"[\s:-]", "", text).lower()
    if not _HEX_DIGEST.fullmatch(digits):
        raise IdentityError(f"the digest is {text[:100]!r}: give all 64 hexadecimal digits, in groups or not")
    return bytes.fromhex(digits)


def _refuse_twice(what: str, values: Iterable[str]) -> None:
    value, times = Counter(values).most_common(1)[0]
    if times > 1:
        raise IdentityError(f"the {what} {value!r} is on the roster twice")


def _entry(one: Listed) -> bytes:
    """Name and key: the one behind its length, the other of fixed length."""
    name = one.name.encode("ascii")
    return bytes([len(name)]) + name + bytes.fromhex(one.public_key)


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")
