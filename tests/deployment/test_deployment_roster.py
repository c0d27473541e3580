"""Roster files: one spelling each, a digest over everything, changes in one direction, and machines that hold to it."""

from __future__ import annotations

import hashlib
import os
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codream_secure.deployment.membership import next_roster
from codream_secure.deployment.public_half import PublicHalf, fingerprint
from codream_secure.deployment.roster import (
    FORMAT,
    MAX_BYTES,
    MAX_MEMBERS,
    MAX_REVOKED,
    Listed,
    Member,
    Revoked,
    RosterFile,
    decode_roster,
    encode_roster,
    load_roster,
    parse_digest,
    read_roster_file,
    write_roster_file,
)
from codream_secure.errors import IdentityError

Introduce = Callable[..., PublicHalf]
LETTERS = string.ascii_letters + string.digits
NAMES = st.builds(str.__add__, st.sampled_from(LETTERS), st.text(LETTERS + "._-", max_size=63))
KEYS = st.binary(min_size=32, max_size=32).filter(lambda key: any(key[1:-1]) and min(key[1:-1]) < 255)


def listed(kind: type[Any], name: str, key: bytes, **more: Any) -> Any:
    return kind(name=name, public_key=key.hex(), fingerprint=fingerprint(key.hex()), **more)


@st.composite
def rosters(draw: st.DrawFn) -> RosterFile:
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique_by=str.lower))
    authority = draw(st.booleans()) and len(names) > 1
    gone = draw(st.lists(NAMES, max_size=4))
    keys = draw(st.lists(KEYS, min_size=len(names) + len(gone), max_size=len(names) + len(gone), unique=True))
    numbers = sorted(
        draw(st.sets(st.integers(0, 2**32 - 1), min_size=len(names) - authority, max_size=len(names) - authority))
    )
    version = draw(st.integers(1, 1_000_000))
    revoked = [
        listed(
            Revoked,
            name,
            key,
            number=draw(st.none() | st.integers(0, 2**32 - 1)),
            version=draw(st.integers(1, version)),
        )
        for name, key in zip(gone, keys[len(names) :], strict=True)
    ]
    return RosterFile(
        format=FORMAT,
        version=version,
        members=tuple(
            listed(Member, name, key, number=number)
            for number, name, key in zip(numbers, names[authority:], keys[authority : len(names)], strict=True)
        ),
        authority=listed(Listed, names[0], keys[0]) if authority else None,
        revoked=tuple(sorted(revoked, key=lambda one: (one.version, one.public_key))),
    )


# Files


@settings(deadline=None, max_examples=50)
@given(roster=rosters())
def test_a_roster_comes_back_and_has_one_spelling(roster: RosterFile) -> None:
    content = encode_roster(roster)
    again = decode_roster(content)
    assert again == roster
    assert encode_roster(again) == content
    assert again.digest() == roster.digest()


@settings(deadline=None, max_examples=50)
@given(roster=rosters())
def test_the_digest_is_over_everything_as_documented(roster: RosterFile) -> None:
    """Written out once more, from the parsed file instead of the structs."""
    content = msgspec.toml.decode(encode_roster(roster))

    def u32(value: int) -> bytes:
        return value.to_bytes(4, "big")

    def entry(one: dict[str, Any]) -> bytes:
        return bytes([len(one["name"])]) + one["name"].encode() + bytes.fromhex(one["public_key"])

    text = b"codream-secure roster file v1\0" + u32(content["version"]) + u32(len(content["members"]))
    text += b"".join(u32(one["number"]) + entry(one) for one in content["members"])
    text += b"\1" + entry(content["authority"]) if "authority" in content else b"\0"
    text += u32(len(content.get("revoked", [])))
    for one in content.get("revoked", []):
        number = b"\1" + u32(one["number"]) if "number" in one else b"\0"
        text += u32(one["version"]) + number + entry(one)
    assert roster.digest() == hashlib.sha256(text).digest()


@settings(deadline=None, max_examples=50)
@given(one=rosters(), other=rosters())
def test_only_equal_rosters_have_equal_digests(one: RosterFile, other: RosterFile) -> None:
    assert (one.digest() == other.digest()) == (one == other)
    assert (one.roster().digest == other.roster().digest) == (one == other)


@settings(deadline=None, max_examples=150)
@given(roster=rosters(), seed=st.integers(0, 2**32), kind=st.sampled_from(["flip", "cut", "drop", "repeat"]))
def test_damage_is_refused_or_changes_the_digest_or_nothing(roster: RosterFile, seed: int, kind: str) -> None:
    """Whatever happens to the bytes: no other error, and no roster that differs under the same digest."""
    content, chance = bytearray(encode_roster(roster)), random.Random(seed)
    place = chance.randrange(len(content))
    lines = bytes(content).split(b"\n")
    line = chance.randrange(len(lines))
    if kind == "flip":
        content[place] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del content[place:]
    else:
        lines[line : line + 1] = [] if kind == "drop" else [lines[line]] * 2
        content = bytearray(b"\n".join(lines))
    try:
        found = decode_roster(bytes(content))
    except IdentityError:
        return
    assert (found.digest() == roster.digest()) == (found == roster)


@pytest.fixture
def publics(introduce: Introduce) -> list[PublicHalf]:
    return [introduce(name) for name in ("anna", "bert", "carl")]


@pytest.fixture
def tree(publics: list[PublicHalf], introduce: Introduce) -> dict[str, Any]:
    """A roster with all its parts, as plain data to spoil."""
    roster = next_roster(next_roster(None, publics, authority=introduce("key-office")), revoke=["bert"])
    content: dict[str, Any] = msgspec.toml.decode(encode_roster(roster))
    return content


def refuse(content: bytes) -> str:
    with pytest.raises(IdentityError) as caught:
        decode_roster(content)
    return str(caught.value)


def test_the_tree_is_a_roster(tree: dict[str, Any]) -> None:
    assert decode_roster(msgspec.toml.encode(tree)).version == 2


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an unknown key": (lambda tree: tree.update(comment="hello"), "unknown field `comment`"),
    "an unknown key of a member": (lambda tree: tree["members"][0].update(role="x"), "unknown field `role`"),
    "an unknown key of the authority": (lambda tree: tree["authority"].update(number=3), "unknown field `number`"),
    "an unknown key of a revoked": (lambda tree: tree["revoked"][0].update(why="x"), "unknown field `why`"),
    "no format": (lambda tree: tree.pop("format"), "missing required field `format`"),
    "another format": (lambda tree: tree.update(format="codream-secure roster 2"), "Invalid enum value"),
    "no version": (lambda tree: tree.pop("version"), "missing required field `version`"),
    "version 0": (lambda tree: tree.update(version=0), ">= 1"),
    "version true": (lambda tree: tree.update(version=True), "Expected `int`, got `bool`"),
    "version 2.0": (lambda tree: tree.update(version=2.0), "Expected `int`, got `float`"),
    "version '2'": (lambda tree: tree.update(version="2"), "Expected `int`, got `str`"),
    "a huge version": (lambda tree: tree.update(version=2**63 - 1), "<= 1000000"),
    "no members": (lambda tree: tree.update(members=[]), "length >= 1"),
    "members no list": (lambda tree: tree.update(members={"0": tree["members"][0]}), "Expected `array`"),
    "a member no table": (lambda tree: tree.update(members=["anna"]), "Expected `object`"),
    "a member of no name": (lambda tree: tree["members"][0].pop("name"), "missing required field `name`"),
    "a member of no number": (lambda tree: tree["members"][0].pop("number"), "missing required field `number`"),
    "number -1": (lambda tree: tree["members"][0].update(number=-1), ">= 0"),
    "number 2^32": (lambda tree: tree["members"][1].update(number=2**32), "<= 4294967295"),
    "31 bytes": (lambda tree: spell(tree, lambda key: key[2:]), "matching regex"),
    "33 bytes": (lambda tree: spell(tree, lambda key: key + "00"), "matching regex"),
    "no bytes": (lambda tree: spell(tree, lambda key: ""), "matching regex"),
    "no hexadecimal": (lambda tree: spell(tree, lambda key: "g" + key[1:]), "matching regex"),
    "capitals": (lambda tree: spell(tree, lambda key: "A" + key[1:]), "matching regex"),
    "0x": (lambda tree: spell(tree, lambda key: "0x" + key[2:]), "matching regex"),
    "a line feed": (lambda tree: spell(tree, lambda key: key + "\n"), "matching regex"),
    "a key that is a number": (lambda tree: tree["members"][0].update(public_key=7), "Expected `str`, got `int`"),
    "a key of small order": (lambda tree: rekey(tree["members"][0], "00" * 32), "of small order"),
    "another fingerprint": (
        lambda tree: tree["members"][0].update(fingerprint=tree["members"][1]["fingerprint"]),
        "the fingerprint of 'anna' is not that of its public key",
    ),
    "a key twice": (lambda tree: rekey(tree["members"][1], tree["members"][0]["public_key"]), "on the roster twice"),
    "the authority's key": (
        lambda tree: rekey(tree["authority"], tree["members"][0]["public_key"]),
        "on the roster twice",
    ),
    "a revoked key": (lambda tree: rekey(tree["members"][0], tree["revoked"][0]["public_key"]), "was revoked in"),
    "revoked twice": (lambda tree: tree["revoked"].append(tree["revoked"][0]), "on the roster twice"),
    "a name twice": (lambda tree: tree["members"][1].update(name="anna"), "the name 'anna' is on the roster twice"),
    "a name in capitals": (lambda tree: tree["members"][1].update(name="ANNA"), "the name 'anna' is on the"),
    "the authority's name": (lambda tree: tree["authority"].update(name="carl"), "the name 'carl' is on the"),
    "a number twice": (lambda tree: tree["members"][1].update(number=0), "the number '0' is on the roster twice"),
    "out of order": (lambda tree: tree["members"].reverse(), "not in ascending order of their numbers"),
    "revoked later": (lambda tree: tree["revoked"][0].update(version=3), "revoked in a version after this one, 2"),
    "a long name": (lambda tree: tree["members"][0].update(name="a" * 65), "length <= 64"),
    "a name that is a path": (lambda tree: tree["members"][0].update(name="a/../b"), "matching regex"),
    "a name with a sequence": (lambda tree: tree["members"][0].update(name="a\x1b[2J"), "matching regex"),
}


def spell(tree: dict[str, Any], change: Callable[[str], str]) -> None:
    tree["members"][0]["public_key"] = change(tree["members"][0]["public_key"])


def rekey(one: dict[str, Any], key: str) -> None:
    one.update(public_key=key, fingerprint=fingerprint(key))


@pytest.mark.parametrize("case", HOSTILE)
def test_a_roster_that_cannot_be_is_refused(case: str, tree: dict[str, Any]) -> None:
    spoil, message = HOSTILE[case]
    spoil(tree)
    assert message in refuse(msgspec.toml.encode(tree))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "missing required field"),
        (b"\0", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b'version = 1\nversion = 2\nformat = ""\n', "malformed"),
        (b"[\n" * 100_000, "malformed"),
        (b"a = " + b"[\n" * 100_000, "malformed"),
        (b"a = " + b"{a = \n" * 1000, "malformed"),
        (b".".join([b"a"] * 100_000) + b" = 1", "a line of more than 256 bytes"),
        (b"version = " + b"9" * 240, "malformed"),
        (b"version = " + b"9" * 100_000, "a line of more than 256 bytes"),
        (b"#" * (MAX_BYTES + 1), f"has {MAX_BYTES + 1} bytes: at most {MAX_BYTES}"),
    ],
    ids=range(11),
)
def test_bytes_that_are_no_roster_are_refused(content: bytes, message: str) -> None:
    assert message in refuse(content)


def test_the_worst_that_short_lines_can_do_is_refused_all_the_same() -> None:
    """As many dotted keys as fit into a file, in lines as long as they may be: still malformed, and not endless."""
    line = ".".join(["a"] * 120)
    lines = "\n".join(f"{line}.k{number} = 1" for number in range(MAX_BYTES // (len(line) + 12)))
    assert "malformed" in refuse(lines.encode())


def full(count: int) -> RosterFile:
    def key() -> bytes:
        return os.urandom(32)

    return RosterFile(
        format=FORMAT,
        version=1_000_000,
        members=tuple(listed(Member, f"{n:064}", key(), number=2**32 - 1 - count + n) for n in range(count)),
        revoked=tuple(
            sorted(
                (listed(Revoked, "x" * 64, key(), number=2**32 - 1, version=1_000_000) for _ in range(count)),
                key=lambda one: one.public_key,
            )
        ),
    )


def test_the_largest_roster_fits_and_a_larger_one_is_refused() -> None:
    assert MAX_MEMBERS == MAX_REVOKED
    content = encode_roster(full(MAX_MEMBERS))
    assert len(content) < MAX_BYTES
    assert len(decode_roster(content).members) == MAX_MEMBERS
    assert "length <= 1000" in refuse(encode_roster(full(MAX_MEMBERS + 1)))


def test_a_file_that_others_can_change_is_refused(tmp_path: Path, publics: list[PublicHalf]) -> None:
    path = tmp_path / "roster.toml"
    write_roster_file(next_roster(None, publics), path)
    assert path.stat().st_mode & 0o022 == 0
    for rights in (0o664, 0o646, 0o666):
        path.chmod(rights)
        with pytest.raises(IdentityError, match=f"has mode {rights:04o}: others than its owner can change it"):
            load_roster(path)
    path.chmod(0o444)
    assert len(load_roster(path)) == 3


def test_a_pipe_or_a_missing_file_is_no_roster(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("pipe", "no regular file"), ("missing", "cannot be read")):
        with pytest.raises(IdentityError, match=message):
            read_roster_file(tmp_path / name)


def test_a_pinned_digest_is_held_to(tmp_path: Path, publics: list[PublicHalf]) -> None:
    path = tmp_path / "roster.toml"
    first = next_roster(None, publics)
    write_roster_file(first, path)
    digest = first.digest()
    for text in (digest.hex(), digest.hex().upper(), digest.hex(" ", 2), digest.hex(":") + "\n", digest.hex("-", 4)):
        assert read_roster_file(path, digest=text) == first
    second = next_roster(first, revoke=["carl"])
    write_roster_file(second, path)
    with pytest.raises(IdentityError, match="version 2, is .* not the one that was given"):
        load_roster(path, digest=digest.hex())


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "0g" * 32, "0x" + "00" * 31, "00" * 31 + "0"])
def test_a_part_of_a_digest_is_none(text: str) -> None:
    with pytest.raises(IdentityError, match="give all 64 hexadecimal digits"):
        parse_digest(text)
