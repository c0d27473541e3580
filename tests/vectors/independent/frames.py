"""Frames, and the fields of every message with their bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .aes import gcm_encrypt
from .messagepack import Malformed, pack, unpack

VERSION = 1

Check = Callable[[Any], bool]


def _number(largest: int) -> Check:
    return lambda value: type(value) is int and 0 <= value <= largest


def _bytes(length: int | None = None) -> Check:
    return lambda value: type(value) is bytes and length in (None, len(value))


def _text(value: Any) -> bool:
    return type(value) is str and 1 <= len(value) <= 64


def _array(largest: int, item: Check) -> Check:
    return lambda value: type(value) is list and len(value) <= largest and all(item(entry) for entry in value)


def _struct(*fields: Check) -> Check:
    return lambda value: (
        type(value) is list
        and len(value) == len(fields)
        and all(check(field) for check, field in zip(fields, value, strict=True))
    )


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


_ROUND, _KEY, _SIGNATURE, _SEALED = _bytes(16), _bytes(32), _bytes(64), _bytes(76)
_MEMBER, _STEP, _COUNT = _number(2**32 - 1), _number(999_999), _number(100_000)
_MEMBERS = _array(100_000, _MEMBER)
_PARCELS = _array(100_000, _struct(_MEMBER, _bytes()))
_ENCRYPTION_KEYS = _array(64, _bytes())
_VOUCHERS = _array(100_000, _struct(_MEMBER, _KEY, _SEALED, _SIGNATURE))

MESSAGES: dict[str, tuple[int, dict[str, Check]]] = {
    "Offer": (1, {"round_id": _ROUND, "terms": _KEY, "cohort": _MEMBERS}),
    "Advertise": (2, {"round_id": _ROUND, "member": _MEMBER, "public_key": _KEY, "signature": _SIGNATURE}),
    "Keys": (3, {"round_id": _ROUND, "keys": _array(100_000, _struct(_MEMBER, _KEY, _SIGNATURE))}),
    "Shares": (
        4,
        {
            "round_id": _ROUND,
            "member": _MEMBER,
            "parcels": _PARCELS,
            "commitments": _bytes(),
            "backups": _array(1_000_000, _bytes()),
        },
    ),
    "Inbox": (5, {"round_id": _ROUND, "members": _MEMBERS, "parcels": _PARCELS}),
    "StepRequest": (
        6,
        {"round_id": _ROUND, "step": _STEP, "stream": _text, "values": _number(2**28), "context": _KEY},
    ),
    "Contribution": (7, {"round_id": _ROUND, "member": _MEMBER, "step": _STEP, "ring": _bytes()}),
    "OpenRequest": (8, {"round_id": _ROUND, "step": _STEP, "dead": _MEMBERS}),
    "Vote": (9, {"round_id": _ROUND, "member": _MEMBER, "step": _STEP, "signature": _SIGNATURE}),
    "Ballots": (10, {"round_id": _ROUND, "step": _STEP, "votes": _array(100_000, _struct(_MEMBER, _SIGNATURE))}),
    "Openings": (11, {"round_id": _ROUND, "member": _MEMBER, "step": _STEP, "shares": _bytes()}),
    "Abort": (12, {"round_id": _ROUND, "step": _optional(_STEP), "survivors": _COUNT, "needed": _COUNT}),
    "SealedKeys": (13, {"round_id": _ROUND, "member": _MEMBER, "parcels": _PARCELS}),
    "Grant": (
        14,
        {
            "round_id": _ROUND,
            "public_key": _KEY,
            "signature": _SIGNATURE,
            "encryption_keys": _ENCRYPTION_KEYS,
            "parcels": _PARCELS,
        },
    ),
    "Welcome": (
        15,
        {
            "round_id": _ROUND,
            "members": _MEMBERS,
            "public_key": _KEY,
            "signature": _SIGNATURE,
            "encryption_keys": _ENCRYPTION_KEYS,
            "sealed": _bytes(),
        },
    ),
    "Ciphertexts": (
        16,
        {
            "round_id": _ROUND,
            "member": _MEMBER,
            "step": _STEP,
            "sealed": _SEALED,
            "signature": _SIGNATURE,
            "body": _bytes(),
        },
    ),
    "Total": (
        17,
        {
            "round_id": _ROUND,
            "step": _STEP,
            "stream": _text,
            "values": _number(2**28),
            "context": _KEY,
            "vouchers": _VOUCHERS,
            "body": _bytes(),
        },
    ),
    "Opened": (18, {"round_id": _ROUND, "step": _STEP, "signature": _SIGNATURE, "ring": _bytes()}),
}
"""Name to number and fields, in their order."""


class Message(NamedTuple):
    """A message and its fields by name."""

    name: str
    fields: dict[str, Any]


def frame(name: str, *values: Any) -> bytes:
    """A message as one frame."""
    number, fields = MESSAGES[name]
    if not _struct(*fields.values())(list(values)):
        raise ValueError(f"these are no fields of {name}")
    body = pack([number, *values])
    return bytes([VERSION]) + body + checksum(VERSION, body)


def checksum(version: int, body: bytes) -> bytes:
    """GMAC under a key that everybody knows."""
    return gcm_encrypt(bytes(32), version.to_bytes(12, "big"), b"", body)


def parse(data: bytes) -> Message:
    """What a frame holds.

    Raises:
        Malformed: it is none; the text begins with what is wrong: length, version, checksum or body.
    """
    if len(data) < 17:
        raise Malformed("length: too short")
    if data[0] != VERSION:
        raise Malformed(f"version: {data[0]}")
    if checksum(VERSION, data[1:-16]) != data[-16:]:
        raise Malformed("checksum")
    try:
        body = unpack(data[1:-16])
    except Malformed as error:
        raise Malformed(f"body: {error}") from None
    if type(body) is not list or not body or type(body[0]) is not int:
        raise Malformed("body: not an array that begins with a number")
    for name, (number, fields) in MESSAGES.items():
        if number == body[0]:
            if not _struct(*fields.values())(body[1:]):
                raise Malformed(f"body: these are no fields of {name}")
            return Message(name, dict(zip(fields, body[1:], strict=True)))
    raise Malformed("body: no such message")
