"""What owners hand out says itself whether it is right."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from codream_secure.deployment.public_half import (
    FORMAT,
    PublicHalf,
    check_name,
    fingerprint,
    load_public_half,
    make_public_half,
)
from codream_secure.errors import IdentityError
from protocols import Identity

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]


def add(one: Point, other: Point) -> Point:
    """On edwards25519, RFC 8032, section 5.1.4, in affine coordinates."""
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2 % P
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P,
    )


def with_y(y: int) -> Point:
    """A point with this y, RFC 8032, section 5.1.3."""
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    square = u * pow(v, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
    assert x * x % P == square, "no point has this y"
    return x, y % P


ORDER_EIGHT = int.from_bytes(
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
)
SMALL = [0, 1, P - 1, ORDER_EIGHT, P - ORDER_EIGHT]
# The same once more where 255 bits have room for a second spelling, and all with either sign of x.
SPELLINGS = [y | sign << 255 for y in (*SMALL, P, P + 1) for sign in (0, 1)]


@pytest.mark.parametrize("y", SMALL)
def test_the_small_points_are_small(y: int) -> None:
    point = with_y(y)
    for _ in range(3):
        point = add(point, point)
    assert point == (0, 1)


def test_there_is_a_signature_that_anybody_can_make_under_a_small_key() -> None:
    one = (1).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(one).verify(one + bytes(32), b"anything at all")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_key_without_a_private_half_is_refused(spelling: int) -> None:
    key = spelling.to_bytes(32, "little").hex()
    with pytest.raises(IdentityError, match="of small order: anybody could sign in that name"):
        PublicHalf(
            format=FORMAT,
            name="anna",
            public_key=key,
            fingerprint=fingerprint(key),
            created=datetime.date(2030, 1, 1),
            signature=(1).to_bytes(32, "little").hex() + bytes(32).hex(),
        )


def test_a_fingerprint_is_ten_groups_of_four_digits_and_another_one_for_every_key() -> None:
    key = bytes(range(32))
    digits = hashlib.sha256(b"codream-secure fingerprint v1\0" + key).hexdigest()[:40]
    assert fingerprint(key.hex()) == " ".join(digits[start : start + 4] for start in range(0, 40, 4))
    assert fingerprint(key[::-1].hex()) != fingerprint(key.hex())


@pytest.mark.parametrize("name", ["a", "A1", "0", "north-2", "st.gallen", "a_b", "x" * 64])
def test_names_that_can_be(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "-a", "_a", "a/b", "a b", "a\n", "ä", "a\0", "x" * 65, "../a", "a=b", "a\u0430"]
)
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(IdentityError, match="the name is "):
        check_name(name)
    with pytest.raises(IdentityError, match="the name is "):
        make_public_half(Identity.generate(), name)


@pytest.mark.parametrize("member", [-1, 2**32])
def test_numbers_that_cannot_be(member: int) -> None:
    with pytest.raises(IdentityError, match=f"the member's number is {member}"):
        make_public_half(Identity.generate(), "anna", member=member)


def test_a_public_half_is_dated_today_unless_told_otherwise() -> None:
    before = datetime.datetime.now(datetime.UTC).date()
    created = make_public_half(Identity.generate(), "anna").created
    assert before <= created <= datetime.datetime.now(datetime.UTC).date()


def other_key(public: PublicHalf) -> dict[str, Any]:
    key = Identity.generate().public_key.hex()
    return {"public_key": key, "fingerprint": fingerprint(key)}


CHANGES: dict[str, tuple[Callable[[PublicHalf], dict[str, Any]], str]] = {
    "name": (lambda public: {"name": "bert"}, "not signed by its own key"),
    "member": (lambda public: {"member": 4}, "not signed by its own key"),
    "no member": (lambda public: {"member": None}, "not signed by its own key"),
    "day": (lambda public: {"created": datetime.date(2031, 1, 31)}, "not signed by its own key"),
    "signature": (lambda public: {"signature": "00" * 64}, "not signed by its own key"),
    "key": (other_key, "not signed by its own key"),
    "key alone": (lambda public: {"public_key": other_key(public)["public_key"]}, "the fingerprint of 'anna'"),
    "fingerprint": (lambda public: {"fingerprint": fingerprint(bytes(32).hex())}, "the fingerprint of 'anna'"),
    "format": (lambda public: {"format": "codream-secure public half 2"}, "malformed"),
    "no format": (lambda public: {"format": msgspec.UNSET}, "malformed"),
    "an unknown key": (lambda public: {"comment": "hello"}, "malformed"),
    "a text for a number": (lambda public: {"member": "3"}, "malformed"),
    "capitals": (lambda public: {"public_key": public.public_key.upper()}, "malformed"),
    "31 bytes": (lambda public: {"public_key": public.public_key[2:]}, "malformed"),
    "no hexadecimal": (lambda public: {"public_key": "x" * 64}, "malformed"),
    "a name for a path": (lambda public: {"name": "../anna"}, "malformed"),
    "a line behind a name": (lambda public: {"name": "anna\n"}, "malformed"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_changed_public_half_is_refused(case: str, tmp_path: Path, introduce: Callable[..., PublicHalf]) -> None:
    make, message = CHANGES[case]
    public = introduce("anna", member=3)
    content = msgspec.to_builtins(public, builtin_types=(datetime.date,)) | make(public)
    kept = {key: value for key, value in content.items() if value is not None and value is not msgspec.UNSET}
    (tmp_path / "anna.pub").write_bytes(msgspec.toml.encode(kept))
    with pytest.raises(IdentityError, match=message):
        load_public_half(tmp_path / "anna.pub")


def test_what_is_no_public_half_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "anna.pub"
    for content, message in (
        (b"", "malformed"),
        (b"\xff", "malformed"),
        (b"name = [" * 3, "malformed"),
        (b"#\n" * 5000, "more than 4096 bytes"),
        (b"#" + b" " * 300, "a line of more than 256 bytes"),
    ):
        path.write_bytes(content)
        with pytest.raises(IdentityError, match=message):
            load_public_half(path)
