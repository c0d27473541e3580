"""The next version of a roster: members who join, leave, or get a new key. Pure functions; nothing touches a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from codream_secure.deployment.public_half import PublicHalf
from codream_secure.deployment.roster import (
    FORMAT,
    MAX_VERSION,
    Listed,
    Member,
    Revoked,
    RosterFile,
    decode_roster,
    encode_roster,
)
from codream_secure.errors import IdentityError


def next_roster(
    before: RosterFile | None,
    joining: Sequence[PublicHalf] = (),
    *,
    numbers: Sequence[int] = (),
    revoke: Collection[str] = (),
    replace: Mapping[str, PublicHalf] | None = None,
    authority: PublicHalf | None = None,
) -> RosterFile:
    """The roster after one set of changes, which is one version further; the first has version 1.

    Args:
        before: the roster so far; None: there is none.
        joining: new members, in order.
        numbers: theirs, as many as there are of them. Empty: each gets the one that its public half asks for, or the
            lowest that no member has or had.
        revoke: names of those who leave. Their keys are never taken again, under no name.
        replace: name to the public half of a new key; number and name stay, the old key is revoked.
        authority: the key authority, where there was none.

    Raises:
        IdentityError: nothing would change; somebody is not on the roster; or the result cannot be.
    """
    replace = replace or {}
    if not (joining or revoke or replace or authority):
        raise IdentityError("nothing changes: name public halves to add, or use --revoke or --replace")
    if before is None and (revoke or replace):
        raise IdentityError("there is no roster yet from which a key could be revoked: make one first, or check --out")
    version = 1 if before is None else before.version + 1
    if version > MAX_VERSION:
        raise IdentityError(f"the roster has had {MAX_VERSION} versions: begin a new one")
    leaving = _found(before, [*revoke, *replace])
    revoked = [*(() if before is None else before.revoked), *(_revoked(one, version) for one in leaving)]
    staying = [] if before is None else [one for one in before.members if one not in leaving]
    renewed = [_renewed(one, public) for one, public in zip(leaving[len(revoke) :], replace.values(), strict=True)]
    members = [*staying, *(one for one in renewed if isinstance(one, Member))]
    members += _numbered(joining, numbers, taken={one.number for one in members}, retired=revoked)
    authorities = [one for one in renewed if not isinstance(one, Member)]
    if before is not None and before.authority is not None and before.authority not in leaving:
        authorities.append(before.authority)
    if authority is not None:
        authorities.append(_listed(authority))
    if len(authorities) > 1:
        raise IdentityError(f"{authorities[0].name!r} is the key authority: replace or revoke that one first")
    if not members:
        raise IdentityError("no member would be left on the roster")
    made = RosterFile(
        format=FORMAT,
        version=version,
        members=tuple(sorted(members, key=lambda one: one.number)),
        authority=authorities[0] if authorities else None,
        revoked=tuple(sorted(revoked, key=lambda one: (one.version, one.public_key))),
    )
    # Types and lengths are checked in reading: what comes out of here can be read.
    return decode_roster(encode_roster(made))


def _found(before: RosterFile | None, names: Sequence[str]) -> list[Listed]:
    """Those of these names, in this order."""
    found: list[Listed] = []
    for name in names:
        one = before.find(name) if before is not None else None
        if one is None:
            raise IdentityError(f"{name!r} is not on the roster")
        if one in found:
            raise IdentityError(f"{name!r} is named twice: revoke a member or replace its key, once")
        found.append(one)
    return found


def _renewed(old: Listed, public: PublicHalf) -> Listed:
    """The same party with its new key."""
    if public.name.lower() != old.name.lower():
        raise IdentityError(
            f"the new key for {old.name!r} is in the name of {public.name!r}: make it in the same name, in another "
            "folder"
        )
    if not isinstance(old, Member):
        return _listed(public)
    if public.member not in (None, old.number):
        raise IdentityError(f"the new key for {old.name!r} asks for number {public.member}: its owner has {old.number}")
    return Member(number=old.number, name=old.name, public_key=public.public_key, fingerprint=public.fingerprint)


def _numbered(
    joining: Sequence[PublicHalf], numbers: Sequence[int], *, taken: Collection[int], retired: Sequence[Revoked]
) -> list[Member]:
    """New members with their numbers: asked for ones first, then the lowest that nobody has or had."""
    if numbers and len(numbers) != len(joining):
        raise IdentityError(f"{len(numbers)} numbers for {len(joining)} new members: give one for each, or none at all")
    wanted: list[int | None] = [public.member for public in joining]
    for place, number in enumerate(numbers):
        if wanted[place] not in (None, number):
            raise IdentityError(
                f"{joining[place].name!r} has signed for number {wanted[place]}: give it that one, not {number}"
            )
        wanted[place] = number
    used = {*taken, *(one.number for one in retired), *wanted}
    members = []
    for public, asked in zip(joining, wanted, strict=True):
        number = next(free for free in range(len(used) + 1) if free not in used) if asked is None else asked
        used.add(number)
        members.append(
            Member(number=number, name=public.name, public_key=public.public_key, fingerprint=public.fingerprint)
        )
    return members


def _listed(public: PublicHalf) -> Listed:
    return Listed(name=public.name, public_key=public.public_key, fingerprint=public.fingerprint)


def _revoked(one: Listed, version: int) -> Revoked:
    number = one.number if isinstance(one, Member) else None
    return Revoked(
        number=number, name=one.name, public_key=one.public_key, fingerprint=one.fingerprint, version=version
    )
