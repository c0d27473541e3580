"""Frames: of every message, in other spellings, and such as are refused."""

from __future__ import annotations

from typing import Any

import msgspec

from protocols import errors
from protocols import wire as messages

from .randomness import Seeded

Case = dict[str, Any]

_ROUND = bytes(range(16))
_HEAD = b"\xc4\x10" + _ROUND
_TERMS = bytes(range(32, 64))
_OFFER = b"\x94\x01" + _HEAD + b"\xc4\x20" + _TERMS
"""An offer as far as its cohort."""


def _examples() -> dict[str, messages.Message]:
    """One or more of every message; numbers of every width."""
    some = Seeded("frames")
    key, signature, sealed = some.bytes(32), some.bytes(64), Seeded("frames: a voucher").bytes(76)
    large = 2**32 - 1
    return {
        "Offer": messages.Offer(_ROUND, _TERMS, [0, 127, 128, 255, 256, 65_535, 65_536, large]),
        "Offer of sixteen": messages.Offer(_ROUND, _TERMS, list(range(16))),
        "Advertise": messages.Advertise(_ROUND, 7, key, signature),
        "Keys": messages.Keys(_ROUND, [messages.PublicKey(7, key, signature), messages.PublicKey(300, key, signature)]),
        "Shares": messages.Shares(_ROUND, 7, [messages.Parcel(300, some.bytes(80))], some.bytes(32), [some.bytes(48)]),
        "Inbox": messages.Inbox(_ROUND, [7, 300], [messages.Parcel(7, some.bytes(80))]),
        "StepRequest": messages.StepRequest(_ROUND, 0, "gradients", 2**28, bytes(range(32))),
        "StepRequest with a long name": messages.StepRequest(_ROUND, 999_999, "s" * 64, 0, bytes(32)),
        "Contribution": messages.Contribution(_ROUND, 7, 1, memoryview(some.bytes(12))),
        "Contribution of 256 bytes": messages.Contribution(_ROUND, 7, 1, memoryview(some.bytes(256))),
        "Contribution of nothing": messages.Contribution(_ROUND, 7, 1, memoryview(b"")),
        "OpenRequest": messages.OpenRequest(_ROUND, 1, [300]),
        "OpenRequest without dead": messages.OpenRequest(_ROUND, 1, []),
        "Vote": messages.Vote(_ROUND, 7, 1, signature),
        "Ballots": messages.Ballots(_ROUND, 1, [messages.Ballot(7, signature), messages.Ballot(300, signature)]),
        "Openings": messages.Openings(_ROUND, 7, 1, some.bytes(64)),
        "Abort of a step": messages.Abort(_ROUND, 1, 2, 3),
        "Abort of a round": messages.Abort(_ROUND, None, 2, 3),
        "SealedKeys": messages.SealedKeys(_ROUND, 7, [messages.Parcel(300, some.bytes(64))]),
        "Grant": messages.Grant(_ROUND, key, signature, [some.bytes(20)], [messages.Parcel(7, some.bytes(48))]),
        "Welcome": messages.Welcome(_ROUND, [7, 300], key, signature, [some.bytes(20)], some.bytes(48)),
        "Ciphertexts": messages.Ciphertexts(_ROUND, 7, 1, sealed, signature, memoryview(some.bytes(30))),
        "Total": messages.Total(
            _ROUND,
            1,
            "gradients",
            3,
            key,
            [messages.Voucher(7, key, sealed, signature), messages.Voucher(300, key, sealed, signature)],
            memoryview(some.bytes(300)),
        ),
        "Opened": messages.Opened(_ROUND, 1, signature, memoryview(some.bytes(12))),
    }


def _json(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return {"hex": bytes(value).hex()}
    if isinstance(value, msgspec.Struct):
        return [_json(getattr(value, name)) for name in value.__struct_fields__]
    return [_json(item) for item in value] if isinstance(value, list) else value


def _fields(message: messages.Message) -> dict[str, Any]:
    return {name: _json(getattr(message, name)) for name in message.__struct_fields__}


def _framed(body: bytes, version: int = 1) -> bytes:
    return bytes([version]) + body + messages.checksum(version, body)


def frames() -> list[Case]:
    """All cases."""
    cases = []
    for name, message in _examples().items():
        given = {"message": type(message).__name__, "fields": _fields(message)}
        expected = {"frame": messages.encode(message).hex()}
        cases.append({"kind": "frame", "name": name, "given": given, "expected": expected})
    for name, body in _OTHER_SPELLINGS.items():
        frame = _framed(body)
        message = messages.decode(frame, messages.Message, limit=len(frame))
        expected = {"message": type(message).__name__, "fields": _fields(message)}
        cases.append({"kind": "other spelling", "name": name, "given": {"frame": frame.hex()}, "expected": expected})
    for name, (reason, frame) in _refused().items():
        try:
            messages.decode(frame, messages.Message, limit=len(frame))
        except errors.MessageError:
            given, expected = {"frame": frame.hex()}, {"refused_for": reason}
            cases.append({"kind": "refused frame", "name": name, "given": given, "expected": expected})
        else:
            raise ValueError(f"{name}: this frame is not refused")
    return cases


_CONTEXT = b"\xc4\x20" + bytes(range(32))
_SIGNED = b"\xc4\x40" + bytes(64)

_OTHER_SPELLINGS = {
    "the message's number in two bytes": b"\x94\xcc" + _OFFER[1:] + b"\x92\x00\x01",
    "a member's number in nine bytes": _OFFER + b"\x92\x00\xcf" + bytes(7) + b"\x01",
    "a member's number as a signed integer": _OFFER + b"\x92\x00\xd0\x01",
    "an array with a long header": b"\xdd\x00\x00\x00\x04" + _OFFER[1:] + b"\xdc\x00\x02\x00\x01",
    "bytes with a long header": b"\x94\x01\xc6\x00\x00\x00\x10" + _OFFER[4:] + b"\x92\x00\x01",
    "a text with a long header": b"\x96\x06" + _HEAD + b"\x00\xd9\x01a\x00" + _CONTEXT,
}


def _refused() -> dict[str, tuple[str, bytes]]:
    offer = _OFFER + b"\x92\x00\x01"
    good = _framed(offer)
    vote = b"\x95\x09" + _HEAD
    bodies = {
        "bytes after the body": offer + b"\x00",
        "a body cut short": offer[:-1],
        "an array that is one field too long": b"\x95" + offer[1:] + b"\x00",
        "an array that is one field too short": b"\x93" + _OFFER[1:],
        "a map": b"\x81\x01" + _HEAD,
        "an unknown message": b"\x94\x13" + offer[2:],
        "message 0": b"\x94\x00" + offer[2:],
        "the message's number as a text": b"\x94\xa11" + offer[2:],
        "the message's number as a float": b"\x94\xcb\x3f\xf0" + bytes(6) + offer[2:],
        "a round id of 15 bytes": b"\x94\x01\xc4\x0f" + _ROUND[:15] + offer[20:],
        "a round id as a text": b"\x94\x01\xb0" + b"0123456789abcdef" + offer[20:],
        "a terms digest of 31 bytes": b"\x94\x01" + _HEAD + b"\xc4\x1f" + _TERMS[:31] + b"\x92\x00\x01",
        "an offer without a terms digest": b"\x93\x01" + _HEAD + b"\x92\x00\x01",
        "a member below 0": _OFFER + b"\x92\x00\xff",
        "a member beyond 2^32 - 1": _OFFER + b"\x91\xcf\x00\x00\x00\x01\x00\x00\x00\x00",
        "a member as a float": _OFFER + b"\x92\x00\xcb\x3f\xf0" + bytes(6),
        "a member as a boolean": _OFFER + b"\x92\x00\xc3",
        "nil for a cohort": _OFFER + b"\xc0",
        "a step beyond 999,999": b"\x94\x08" + _HEAD + b"\xce\x00\x0f\x42\x40\x90",
        "nil for a step that has to be": b"\x94\x08" + _HEAD + b"\xc0\x90",
        "a stream as bytes": b"\x96\x06" + _HEAD + b"\x00\xc4\x01a\x00" + _CONTEXT,
        "a stream without a name": b"\x96\x06" + _HEAD + b"\x00\xa0\x00" + _CONTEXT,
        "a stream with a name of 65 characters": b"\x96\x06" + _HEAD + b"\x00\xd9\x41" + b"s" * 65 + b"\x00" + _CONTEXT,
        "a stream that is not UTF-8": b"\x96\x06" + _HEAD + b"\x00\xa1\xff\x00" + _CONTEXT,
        "2^28 + 1 values": b"\x96\x06" + _HEAD + b"\x00\xa1a\xce\x10\x00\x00\x01" + _CONTEXT,
        "a context of 31 bytes": b"\x96\x06" + _HEAD + b"\x00\xa1a\x00\xc4\x1f" + bytes(31),
        "a vector as a text": b"\x95\x07" + _HEAD + b"\x00\x00\xa4abcd",
        "a sealed tag of 75 bytes": b"\x97\x10" + _HEAD + b"\x00\x00\xc4\x4b" + bytes(75) + _SIGNED + b"\xc4\x00",
        "65 encryption keys": b"\x96\x0e" + _HEAD + _CONTEXT + _SIGNED + b"\xdc\x00\x41" + 65 * b"\xc4\x00" + b"\x90",
        "a signature of 63 bytes": vote + b"\x00\x00\xc4\x3f" + bytes(63),
    }
    flipped = bytearray(good)
    flipped[9] ^= 1
    return {
        "sixteen bytes": ("length", good[:16]),
        "version 0": ("version", _framed(offer, version=0)),
        "version 2": ("version", _framed(offer, version=2)),
        "a bit flipped": ("checksum", bytes(flipped)),
        "a byte missing": ("checksum", good[:-1]),
        "a checksum with its bytes reversed": ("checksum", good[:-16] + good[:-17:-1]),
        **{name: ("body", _framed(body)) for name, body in bodies.items()},
        "no body": ("body", _framed(b"")),
        "another version's checksum": ("checksum", good[:-16] + messages.checksum(2, offer)),
    }
