"""Who is who, and the secrets that two members share for one round.

Every member has a long-term Ed25519 identity, whose public half stands on a roster that all members hold. For each
round it makes a fresh X25519 key pair and signs the public half. Two members derive from their exchange one root for
masks and one key for shares in each direction; nothing long-term ever encrypts anything, so identities that leak later
open no past round.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from types import TracebackType

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocols.errors import PeerKeyError, RosterError
from protocols.graph import Topology
from protocols.parties import AUTHORITY
from protocols.terms import check_cohort

KEY_BYTES = 32
EDITION_BYTES = 32


def label(purpose: str) -> bytes:
    """What keeps one use of a key, a hash or a signature apart from every other; no label begins another."""
    return b"codream-secure masked v1 " + purpose.encode("ascii") + b"\0"


_ROSTER = label("roster")
_EDITION = b"edition"
_SESSION = label("session")
_ADVERTISE = label("advertise")
_VOTE = label("vote")
_PAIR = label("pair")


class Secret:
    """Key material that can be wiped, and that no ``repr``, comparison or pickle gives away.

    Wiping overwrites the one buffer that this object owns. Python and the libraries below it make copies on the way
    (immutable ``bytes``, key schedules inside OpenSSL, integers) that cannot be reached from here; they die when the
    interpreter lets go of them, and may stay readable in freed memory until it is used again.
    """

    __slots__ = ("_buffer",)

    def __init__(self, value: bytes | bytearray) -> None:
        self._buffer = bytearray(value)

    @property
    def value(self) -> bytearray:
        """The buffer itself, not a copy.

        Raises:
            ValueError: it was wiped.
        """
        if not self._buffer:
            raise ValueError("this secret was wiped")
        return self._buffer

    def wipe(self) -> None:
        """Overwrite the buffer with zeros and drop it."""
        # Of the same length, so it is written over in place.
        self._buffer[:] = bytes(len(self._buffer))
        self._buffer = bytearray()

    def derive(self, label: bytes) -> bytes:
        """HMAC-SHA256 of a label under this secret: 32 bytes that reveal neither it nor any other label's."""
        return hmac.digest(self.value, label, "sha256")

    def __repr__(self) -> str:
        return "Secret(...)"

    def __reduce__(self) -> str:
        raise TypeError("secrets are not pickled")


class Identity:
    """A member's long-term Ed25519 key pair.

    Args:
        private_key: 32 bytes, as :meth:`private_bytes` gave them.

    Raises:
        RosterError: it is not 32 bytes long.
    """

    def __init__(self, private_key: bytes) -> None:
        if len(private_key) != KEY_BYTES:
            raise RosterError(f"the private key has {len(private_key)} bytes: an Ed25519 key has {KEY_BYTES}")
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)

    @classmethod
    def generate(cls) -> Identity:
        """A new identity, from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def public_key(self) -> bytes:
        """32 bytes, for the roster."""
        return self._key.public_key().public_bytes_raw()

    def private_bytes(self) -> bytes:
        """32 secret bytes. Whoever stores them has to protect them."""
        return self._key.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """A 64-byte signature."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"Identity(public_key={self.public_key.hex()})"


class Roster:
    """The members' public keys, the same for everybody, brought to each member on a way that the server cannot change.

    Args:
        public_keys: member number to 32-byte Ed25519 public key.
        authority: the key authority's, for protocols that have one.
        edition: 32 bytes that stand for what else the parties agree on about the roster, such as its version and whose
            keys were revoked; empty: nothing. Parties with different ones share no keys.

    Raises:
        RosterError: a key is malformed or listed twice, or the edition has another length.
        CohortError: a number is out of range.
    """

    def __init__(
        self, public_keys: Mapping[int, bytes], *, authority: bytes | None = None, edition: bytes = b""
    ) -> None:
        self._keys: dict[int, Ed25519PublicKey] = {}
        members = check_cohort(sorted(public_keys))
        listed = dict(public_keys) if authority is None else {**public_keys, AUTHORITY: authority}
        if len({bytes(key) for key in listed.values()}) != len(listed):
            raise RosterError("two members have the same public key")
        self._size = len(members)
        digest = hashlib.sha256(_ROSTER)
        for member in [*members, *(listed.keys() - members)]:
            key = listed[member]
            try:
                self._keys[member] = Ed25519PublicKey.from_public_bytes(key)
            except ValueError:
                raise RosterError(f"the public key of {party(member)} is not an Ed25519 public key") from None
            digest.update(_party(member) + key)
        if edition:
            if len(edition) != EDITION_BYTES:
                raise RosterError(f"the edition has {len(edition)} bytes: give {EDITION_BYTES}, or none")
            # 36 bytes a member, 41 for an authority, 39 here: what was hashed can be told from its length alone.
            digest.update(_EDITION + edition)
        self.digest = digest.digest()
        """SHA-256 over all members and keys, and the edition: equal for equal rosters only."""

    def __contains__(self, member: int) -> bool:
        return member in self._keys

    def __len__(self) -> int:
        return self._size

    def holds(self, member: int, public_key: bytes) -> bool:
        """Whether this key is the member's."""
        return member in self._keys and self._keys[member].public_bytes_raw() == public_key

    def verify(self, member: int, signature: bytes, message: bytes) -> None:
        """Return if the signature is the member's (or the authority's).

        Raises:
            PeerKeyError: it is not.
            RosterError: there is no such member.
        """
        if member not in self._keys:
            raise RosterError(f"{party(member)} is not on the roster")
        try:
            self._keys[member].verify(signature, message)
        except InvalidSignature:
            raise PeerKeyError(f"the signature in {party(member)}'s name is not {party(member)}'s") from None


def session_digest(round_id: bytes, *, roster: bytes, terms: bytes, cohort: Sequence[int], topology: Topology) -> bytes:
    """32 bytes that stand for one round of one cohort under one set of terms; everything below is bound to them.

    The thresholds follow from the terms, by floating-point arithmetic; with them in here, two machines that got
    different ones share no keys.
    """
    bounds = b"".join(_number(bound) for bound in (topology.degree, topology.threshold, topology.survivors))
    return hashlib.sha256(_SESSION + roster + terms + bounds + _list(cohort) + round_id).digest()


def advertisement(session: bytes, member: int, public_key: bytes) -> bytes:
    """What a member signs when it advertises its key for a round."""
    return _ADVERTISE + session + _number(member) + public_key


def ballot(session: bytes, request: bytes, *, members: Sequence[int], dead: Sequence[int]) -> bytes:
    """What a member signs when it has been shown who is gone at a step.

    Args:
        session: of the round.
        request: what was asked for, as :func:`request_context` puts it.
        members: who completed the set-up.
        dead: those of them who are gone.
    """
    return _VOTE + session + request + _list(members) + _list(dead)


def context_digest(context: bytes) -> bytes:
    """SHA-256 of what a step's vectors answer."""
    return hashlib.sha256(context).digest()


def request_context(step: int, stream: str, values: int, context: bytes) -> bytes:
    """What a step asks for, unambiguously: masks made for one request do not cancel with those made for another.

    Args:
        step: its number.
        stream: what the values are.
        values: how many.
        context: digest of what they answer, such as the dreams at which gradients are taken.
    """
    name = stream.encode("ascii")
    return step.to_bytes(8, "big") + values.to_bytes(8, "big") + _number(len(name)) + name + context


class RoundKey:
    """A member's X25519 key pair for one round, never used again; stored only in a suspended client's sealed state.

    Args:
        private_key: 32 bytes, as :meth:`private_bytes` gave them; None draws a new pair.
    """

    def __init__(self, private_key: bytes | None = None) -> None:
        self._key: X25519PrivateKey | None = (
            X25519PrivateKey.generate() if private_key is None else X25519PrivateKey.from_private_bytes(private_key)
        )
        self.public_key = self._key.public_key().public_bytes_raw()

    def private_bytes(self) -> bytes | None:
        """32 secret bytes, for a state that is sealed at once; None once the key was dropped."""
        return None if self._key is None else self._key.private_bytes_raw()

    def __enter__(self) -> RoundKey:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop the private key: once the pairs' secrets are derived it has served."""
        self._key = None

    def agree(self, session: bytes, me: int, peer: int, peer_key: bytes) -> PairSecrets:
        """The secrets shared with one peer, by HKDF-SHA256 over the X25519 exchange.

        Raises:
            PeerKeyError: the peer's key is degenerate.
        """
        if self._key is None:
            raise ValueError("this round's private key was dropped")
        try:
            exchanged = self._key.exchange(X25519PublicKey.from_public_bytes(peer_key))
        except ValueError:
            raise PeerKeyError(f"the key of {party(peer)} is degenerate") from None
        ends = sorted(((me, self.public_key), (peer, peer_key)))
        info = _PAIR + b"".join(_party(member) + key for member, key in ends)
        material = HKDF(algorithm=hashes.SHA256(), length=3 * KEY_BYTES, salt=session, info=info).derive(exchanged)
        masks, upward, downward = (Secret(material[start : start + KEY_BYTES]) for start in range(0, 96, KEY_BYTES))
        return PairSecrets(masks, upward, downward) if me < peer else PairSecrets(masks, downward, upward)


class PairSecrets:
    """What two members share for one round.

    Attributes:
        masks: root of the pairwise masks, of step 0.
        outgoing: encrypts the one parcel to the peer.
        incoming: decrypts the one parcel from the peer.
    """

    __slots__ = ("incoming", "masks", "outgoing")

    def __init__(self, masks: Secret, outgoing: Secret, incoming: Secret) -> None:
        self.masks = masks
        self.outgoing = outgoing
        self.incoming = incoming

    def private_bytes(self) -> tuple[bytes, bytes, bytes]:
        """All three as secret bytes, in the order of the arguments, for a state that is sealed at once."""
        return bytes(self.masks.value), bytes(self.outgoing.value), bytes(self.incoming.value)

    def keep_masks(self) -> Secret:
        """The root of the masks; the two parcels' keys have served and are wiped."""
        self.outgoing.wipe()
        self.incoming.wipe()
        return self.masks

    def wipe(self) -> None:
        """Wipe all three."""
        for secret in (self.masks, self.outgoing, self.incoming):
            secret.wipe()


def party(number: int) -> str:
    """Who that is, for messages."""
    return "the key authority" if number == AUTHORITY else f"member {number}"


def _party(number: int) -> bytes:
    """A member's number, or longer than any of them."""
    return b"authority" if number == AUTHORITY else _number(number)


def _number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _list(members: Sequence[int]) -> bytes:
    return _number(len(members)) + b"".join(_number(member) for member in members)
