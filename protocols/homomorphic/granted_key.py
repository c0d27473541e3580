"""Clients of a key authority: they encrypt with its public key, and learn no sum unless the server passes it on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor

from protocols import wire
from protocols.errors import CiphertextError, RosterError, ShareError
from protocols.homomorphic.client import HomomorphicClient, SavedClient, State
from protocols.homomorphic.parameters import Parameters, Scheme
from protocols.homomorphic.planning import sets_of
from protocols.homomorphic.secrets import label, voucher_root
from protocols.homomorphic.vectors import Key
from protocols.homomorphic.vouchers import Notary
from protocols.keys import KEY_BYTES, Secret
from protocols.machines import Credentials
from protocols.parties import AUTHORITY
from protocols.shares import TAG_BYTES, unseal
from protocols.terms import Terms

_GRANT = label("grant")
_PARCEL = label("grant parcel")
PARCEL_BYTES = KEY_BYTES + TAG_BYTES
_SMALL_FRAME = 512


class GrantedKeyClient(HomomorphicClient):
    """The client's machine where an authority holds the key; see :class:`protocols.machines.SumClient`."""

    def __init__(
        self,
        member: int,
        name: str,
        *,
        scheme: Scheme,
        terms: Terms,
        credentials: Credentials,
        executor: Executor | None = None,
    ) -> None:
        if AUTHORITY not in credentials.roster:
            raise RosterError(f"{name} sums need the key authority's public key on the roster: Roster(..., authority=)")
        super().__init__(
            member, name, scheme=scheme, public=True, terms=terms, credentials=credentials, executor=executor
        )
        self._keys: dict[Parameters, Key] = {}
        self._tags, self._vouchers = Secret(b""), Secret(b"")

    def _expected(self) -> tuple[type[wire.Message], ...]:
        return (wire.Welcome,) if self._state is State.KEYS else (wire.StepRequest,)

    def _frame_limit(self) -> int:
        if self._state is State.KEYS:
            return _SMALL_FRAME + 5 * len(self._cohort) + keys_bytes(sets_of(self._plans.values()))
        return _SMALL_FRAME

    def _take(self, message: wire.Message) -> None:
        if isinstance(message, wire.Welcome):
            self._take_welcome(message)

    def _take_welcome(self, message: wire.Welcome) -> None:
        assert self._round_key is not None
        members = self._check_members(message.members)
        granted = grant(self._session, message.members, message.public_key, message.encryption_keys)
        self._credentials.roster.verify(AUTHORITY, message.signature, granted)
        keys = self._read_keys(message.encryption_keys)
        pair = self._round_key.agree(self._session, self._member, AUTHORITY, message.public_key)
        tags = unseal(pair.incoming, message.sealed, parcel_context(self._session, self._member))
        if len(tags) != KEY_BYTES:
            raise ShareError(f"the key authority sealed {len(tags)} bytes: no secret is that long")
        self._tags = Secret(tags)
        self._vouchers = voucher_root(pair.outgoing)
        pair.wipe()
        self._keys = keys
        self._enter(members)

    def _read_keys(self, contents: Sequence[bytes]) -> dict[Parameters, Key]:
        """The authority's public keys, by what they are for.

        Raises:
            CiphertextError: another number of keys, or one is none.
        """
        sets = sets_of(self._plans.values())
        if len(contents) != len(sets):
            raise CiphertextError(f"{len(contents)} encryption keys were granted, where {len(sets)} are needed")
        keys = {
            parameters: Key(parameters, content, secret=False)
            for parameters, content in zip(sets, contents, strict=True)
        }
        for key in keys.values():
            key.load()
        return keys

    def _enter(self, members: frozenset[int]) -> None:
        vouchers = self._vouchers
        self._begin(members, Notary(session=self._session, tags=self._tags, vouchers=lambda member: vouchers))

    def _key(self, stream: str) -> Key:
        return self._keys[self._plans[stream].parameters]

    def _may_be_open(self, step: int | None) -> bool:
        # It may have had it opened by the authority before it said so.
        return self._contributed >= 0 and step in (None, self._contributed)

    def _forget(self) -> None:
        self._tags.wipe()
        self._vouchers.wipe()
        self._keys = {}

    def _kept(self) -> list[bytes]:
        keys = [self._keys[parameters].material for parameters in sets_of(self._plans.values())]
        return [bytes(self._tags.value), bytes(self._vouchers.value), *keys]

    def resume(self, state: SavedClient) -> None:
        """Take over a snapshot's state.

        Raises:
            RosterError: it was made under another roster.
        """
        self._rejoin(state)
        tags, vouchers, *keys = state.secrets
        self._tags, self._vouchers, self._keys = Secret(tags), Secret(vouchers), self._read_keys(keys)
        self._enter(frozenset(state.members))


def keys_bytes(sets: Sequence[Parameters]) -> int:
    """Bytes of all encryption keys in a message."""
    return sum(2 * parameters.polynomial_bytes + 8 for parameters in sets)


def grant(session: bytes, members: Sequence[int], public_key: bytes, encryption_keys: Sequence[bytes]) -> bytes:
    """What the authority signs: who takes part, its key of this round, and what to encrypt with."""
    digest = hashlib.sha256()
    for content in encryption_keys:
        digest.update(len(content).to_bytes(8, "big") + content)
    listed = b"".join(member.to_bytes(4, "big") for member in members)
    return _GRANT + session + public_key + digest.digest() + len(members).to_bytes(4, "big") + listed


def parcel_context(session: bytes, member: int) -> bytes:
    """What a member's parcel is bound to."""
    return _PARCEL + session + member.to_bytes(4, "big")
