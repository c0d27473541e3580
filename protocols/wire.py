"""Messages as bytes: versioned, strict, with a limit on everything that has a length.

A frame is ``version (1 byte) | body | checksum (16 bytes)``; the body is a msgpack array that begins with the message's
number. The checksum is GMAC under a key that everybody knows: it finds accidents, not attacks. What has to be authentic
is signed or encrypted inside. GMAC, because processors that do AES do it at the speed of memory, several times faster
than CRC-32, and a vector is checked at every step on both sides. ``docs/wire_format.md`` describes every message, with
test vectors.
"""

from __future__ import annotations

import hmac
from typing import Annotated, TypeVar

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

from protocols.errors import MessageError, PhaseError
from protocols.terms import MAX_COHORT, MAX_MEMBER, MAX_STEPS, MAX_VALUES, ROUND_ID_BYTES

VERSION = 1
CHECKSUM_BYTES = 16

RoundId = Annotated[bytes, msgspec.Meta(min_length=ROUND_ID_BYTES, max_length=ROUND_ID_BYTES)]
Member = Annotated[int, msgspec.Meta(ge=0, le=MAX_MEMBER)]
Members = Annotated[list[Member], msgspec.Meta(max_length=MAX_COHORT)]
Step = Annotated[int, msgspec.Meta(ge=0, lt=MAX_STEPS)]
Stream = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
SEALED_BYTES = 76
MAX_KEYS = 64
Sealed = Annotated[bytes, msgspec.Meta(min_length=SEALED_BYTES, max_length=SEALED_BYTES)]


class Message(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Any message; all carry the round they belong to."""

    round_id: RoundId


class Offer(Message, frozen=True, tag=1):
    """Server to client: a round begins with this cohort, under the terms with this digest."""

    terms: Bytes32
    cohort: Members


class Advertise(Message, frozen=True, tag=2):
    """Client to server: a fresh X25519 public key for this round, signed with the client's identity."""

    member: Member
    public_key: Bytes32
    signature: Signature


class PublicKey(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One member's key within :class:`Keys`."""

    member: Member
    public_key: Bytes32
    signature: Signature


class Keys(Message, frozen=True, tag=3):
    """Server to client: the keys of those in its group (its neighbours and itself) who advertised one."""

    keys: Annotated[list[PublicKey], msgspec.Meta(max_length=MAX_COHORT)]


class Parcel(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Encrypted shares from one member to another; ``peer`` is the other end as seen by whom the message is for."""

    peer: Member
    ciphertext: bytes


Parcels = Annotated[list[Parcel], msgspec.Meta(max_length=MAX_COHORT)]


class Shares(Message, frozen=True, tag=4):
    """Client to server: shares for its neighbours, commitments to its self-masks, and its encrypted pairwise seeds."""

    member: Member
    parcels: Parcels
    commitments: bytes
    backups: Annotated[list[bytes], msgspec.Meta(max_length=MAX_STEPS)]


class Inbox(Message, frozen=True, tag=5):
    """Server to client: who completed the set-up, and the shares that its neighbours made for it."""

    members: Members
    parcels: Parcels


class StepRequest(Message, frozen=True, tag=6):
    """Server to client: hand over ``values`` values of a stream, in answer to what has this digest."""

    step: Step
    stream: Stream
    values: Annotated[int, msgspec.Meta(ge=0, le=MAX_VALUES)]
    context: Bytes32


class Contribution(Message, frozen=True, tag=7):
    """Client to server: the encoded vector, protected as the protocol says, as little-endian ring elements."""

    member: Member
    step: Step
    ring: memoryview


class OpenRequest(Message, frozen=True, tag=8):
    """Server to client: whose vectors are not in the sum. Nobody else is named, so nothing else can be asked for."""

    step: Step
    dead: Members


class Vote(Message, frozen=True, tag=9):
    """Client to server, facing an active server: the client's signature under what was asked for and who is gone."""

    member: Member
    step: Step
    signature: Signature


class Ballot(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One member's vote within :class:`Ballots`."""

    member: Member
    signature: Signature


class Ballots(Message, frozen=True, tag=10):
    """Server to client: the votes of all who voted, its own among them."""

    step: Step
    votes: Annotated[list[Ballot], msgspec.Meta(max_length=MAX_COHORT)]


class Openings(Message, frozen=True, tag=11):
    """Client to server: a 32-byte share for itself and each neighbour that completed the set-up, in ascending order."""

    member: Member
    step: Step
    shares: bytes


class Abort(Message, frozen=True, tag=12):
    """Server to client: too few are left, so the step (or, with step None, the whole round) is over without a sum."""

    step: Step | None
    survivors: Annotated[int, msgspec.Meta(ge=0, le=MAX_COHORT)]
    needed: Annotated[int, msgspec.Meta(ge=0, le=MAX_COHORT)]


class SealedKeys(Message, frozen=True, tag=13):
    """Client to server: the secret from which keys of homomorphic sums come, encrypted for each other member."""

    member: Member
    parcels: Parcels


class Grant(Message, frozen=True, tag=14):
    """Key authority to server: its X25519 key for this round, signed, its encryption keys, and a parcel a member."""

    public_key: Bytes32
    signature: Signature
    encryption_keys: Annotated[list[bytes], msgspec.Meta(max_length=MAX_KEYS)]
    parcels: Parcels


class Welcome(Message, frozen=True, tag=15):
    """Server to client: who takes part, and what the key authority granted this client."""

    members: Members
    public_key: Bytes32
    signature: Signature
    encryption_keys: Annotated[list[bytes], msgspec.Meta(max_length=MAX_KEYS)]
    sealed: bytes


class Ciphertexts(Message, frozen=True, tag=16):
    """Client to server: its encrypted vector, with a sealed tag of it and a signature under both."""

    member: Member
    step: Step
    sealed: Sealed
    signature: Signature
    body: memoryview


class Voucher(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One contribution within :class:`Total`, without its ciphertexts."""

    member: Member
    digest: Bytes32
    sealed: Sealed
    signature: Signature


class Total(Message, frozen=True, tag=17):
    """Server to key holders: what was asked for, the vouchers of those who contributed, and the sum, encrypted."""

    step: Step
    stream: Stream
    values: Annotated[int, msgspec.Meta(ge=0, le=MAX_VALUES)]
    context: Bytes32
    vouchers: Annotated[list[Voucher], msgspec.Meta(max_length=MAX_COHORT)]
    body: memoryview


class Opened(Message, frozen=True, tag=18):
    """Key authority to server: the sum as little-endian ring elements, signed."""

    step: Step
    signature: Signature
    ring: memoryview


AnyMessage = (
    Offer
    | Advertise
    | Keys
    | Shares
    | Inbox
    | StepRequest
    | Contribution
    | OpenRequest
    | Vote
    | Ballots
    | Openings
    | Abort
    | SealedKeys
    | Grant
    | Welcome
    | Ciphertexts
    | Total
    | Opened
)

_LONG: dict[type[Message], str] = {Contribution: "ring", Ciphertexts: "body", Total: "body", Opened: "ring"}
"""Messages whose last field is a vector."""

_MAC = AESGCM(bytes(32))
_ONE_CALL = 2**31 - 1
"""Longest body that :data:`_MAC` takes."""

_M = TypeVar("_M", bound=Message)
_DECODER = msgspec.msgpack.Decoder(AnyMessage)
_ENCODER = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """A message as one frame."""
    name = _LONG.get(type(message))
    parts = _long_parts(message, name) if name else (_ENCODER.encode(message),)
    return b"".join((bytes([VERSION]), *parts, checksum(VERSION, *parts)))


def _long_parts(message: Message, name: str) -> tuple[bytes, memoryview]:
    """The body up to the long last field, and that field, which is by far the most of it and is copied only once."""
    content: memoryview = getattr(message, name).cast("B")
    head = _ENCODER.encode(msgspec.structs.replace(message, **{name: memoryview(b"")})).removesuffix(b"\xc4\x00")
    for tag, size in ((b"\xc4", 1), (b"\xc5", 2), (b"\xc6", 4)):
        if len(content) < 256**size:
            return head + tag + len(content).to_bytes(size, "big"), content
    raise MessageError(f"a vector of {len(content)} bytes does not fit into a message")


def checksum(version: int, *parts: bytes | memoryview) -> bytes:
    """16 bytes: the tag of AES-256-GCM with a key of zeros, the version as nonce, no plaintext, and the body as AAD.

    Args:
        version: of the frame.
        parts: the body, in one piece or several.
    """
    nonce = version.to_bytes(12, "big")
    if len(parts) == 1 and len(parts[0]) <= _ONE_CALL:
        return _MAC.encrypt(nonce, b"", parts[0])
    mac = Cipher(AES(bytes(32)), GCM(nonce)).encryptor()
    for part in parts:
        mac.authenticate_additional_data(part)
    mac.finalize()
    return mac.tag


def decode(frame: bytes, *kinds: type[_M], limit: int, round_id: bytes | None = None) -> _M:
    """One message of one of the given kinds.

    Args:
        frame: untrusted bytes.
        kinds: what is expected.
        limit: longest frame that is looked at.
        round_id: the round it has to belong to; None accepts any.

    Raises:
        MessageError: too long, damaged, malformed, of another version or round.
        PhaseError: of another kind.
    """
    if not isinstance(frame, bytes | bytearray | memoryview):
        raise MessageError(f"a message has to be bytes, not {type(frame).__name__}")
    if len(frame) > limit:
        raise MessageError(f"the message has {len(frame)} bytes, where at most {limit} are expected")
    if len(frame) < 1 + CHECKSUM_BYTES:
        raise MessageError(f"the message has {len(frame)} bytes: too short to be one")
    view = memoryview(frame)
    if view.itemsize != 1 or not view.contiguous:
        raise MessageError("a message has to be contiguous bytes")
    if view[0] != VERSION:
        raise MessageError(f"the message has version {view[0]}, this is version {VERSION}")
    body = view[1:-CHECKSUM_BYTES]
    if not hmac.compare_digest(checksum(VERSION, body), view[-CHECKSUM_BYTES:]):
        raise MessageError("the message is damaged: its checksum does not match")
    try:
        message = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"the message is malformed: {type(error).__name__}") from None
    if not isinstance(message, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise PhaseError(f"the message is {type(message).__name__}, where {expected} is expected")
    if round_id is not None and message.round_id != round_id:
        raise MessageError("the message belongs to another round")
    return message
