"""The key authority: the one party that can open sums, and that never sees anything else.

It checks signatures and vouchers, so what it decrypts is the sum of at least as many distinct members' contributions as
the terms ask for; it opens one sum a step, and hands out whole numbers only.
"""

from __future__ import annotations

import hashlib
import os

from protocols import snapshots, wire
from protocols.errors import CohortError, PhaseError, RosterError, TermsError
from protocols.homomorphic.coefficients import to_bytes
from protocols.homomorphic.granted_key import grant, parcel_context
from protocols.homomorphic.opening import open_total, requested, total_limit
from protocols.homomorphic.parameters import Parameters, Scheme
from protocols.homomorphic.planning import plan_streams, sets_of
from protocols.homomorphic.seal import backend
from protocols.homomorphic.secrets import label, round_session, secret_key, tag_root, voucher_root
from protocols.homomorphic.vectors import Key
from protocols.homomorphic.vouchers import Notary
from protocols.keys import KEY_BYTES, RoundKey, Secret
from protocols.machines import Credentials, SumAuthority
from protocols.parties import AUTHORITY
from protocols.shares import seal
from protocols.steps import check_advertised, check_roster, too_few
from protocols.terms import MAX_COHORT, Terms, check_cohort

_OPENED = label("opened")
_SMALL_FRAME = 256


class KeyAuthority(SumAuthority):
    """The authority's machine; see :class:`protocols.machines.SumAuthority`."""

    def __init__(self, name: str, *, scheme: Scheme, terms: Terms, credentials: Credentials) -> None:
        if not credentials.roster.holds(AUTHORITY, credentials.identity.public_key):
            raise RosterError("the key authority is not on its own roster with this identity")
        self._name = name
        self._terms = terms
        self._credentials = credentials
        self._plans = plan_streams(scheme, terms, public=True)
        self._round_id = b""
        self._session = b""
        self._cohort: tuple[int, ...] = ()
        self._needed = 0
        self._members: frozenset[int] = frozenset()
        self._root, self._tags = Secret(b""), Secret(b"")
        self._vouchers: dict[int, Secret] = {}
        self._loaded: dict[Parameters, Key] = {}
        self._opened = -1
        self._closed = False

    def receive(self, message: bytes) -> bytes | None:
        if self._closed:
            raise PhaseError("this round is closed")
        if not self._round_id:
            self._take_offer(wire.decode(message, wire.Offer, limit=128 + 5 * MAX_COHORT))
            return None
        kind: type[wire.Keys] | type[wire.Total] = wire.Total if self._members else wire.Keys
        limit = (
            total_limit(self._plans, self._terms, len(self._members))
            if self._members
            else _SMALL_FRAME + 112 * len(self._cohort)
        )
        decoded = wire.decode(message, kind, wire.Abort, round_id=self._round_id, limit=limit)
        match decoded:
            case wire.Keys():
                return self._take_keys(decoded)
            case wire.Total():
                return self._take_total(decoded)
            case wire.Abort():
                if decoded.step is None:
                    self.close()
                raise too_few(decoded.survivors, decoded.needed)
        return None

    # Set-up

    def _take_offer(self, offer: wire.Offer) -> None:
        if offer.terms != self._terms.digest(self._name):
            raise TermsError("the server offers a round under other terms, or another protocol, than the authority's")
        cohort = check_cohort(offer.cohort)
        check_roster(cohort, self._terms, self._credentials.roster)
        self._terms.topology(len(cohort))
        self._credentials.rounds.claim(offer.round_id)
        self._join(offer.round_id, cohort)

    def _join(self, round_id: bytes, cohort: tuple[int, ...]) -> None:
        self._session, self._needed = round_session(
            round_id,
            cohort,
            name=self._name,
            terms=self._terms,
            roster=self._credentials.roster,
            plans=self._plans,
        )
        self._round_id, self._cohort = round_id, cohort

    def _take_keys(self, message: wire.Keys) -> bytes:
        members = check_cohort([entry.member for entry in message.keys])
        if not set(members) <= set(self._cohort):
            raise CohortError("a key belongs to somebody who is not in the cohort")
        if len(members) < self._needed:
            raise too_few(len(members), self._needed)
        for entry in message.keys:
            check_advertised(entry, session=self._session, roster=self._credentials.roster)
        root = Secret(os.urandom(KEY_BYTES))
        tags, vouchers, parcels = tag_root(root), {}, []
        with RoundKey() as round_key:
            for entry in message.keys:
                pair = round_key.agree(self._session, AUTHORITY, entry.member, entry.public_key)
                context = parcel_context(self._session, entry.member)
                parcels.append(wire.Parcel(entry.member, seal(pair.outgoing, bytes(tags.value), context)))
                vouchers[entry.member] = voucher_root(pair.incoming)
                pair.wipe()
            public_key = round_key.public_key
        self._root, self._tags, self._vouchers = root, tags, vouchers
        keys = [self._encryption_key(parameters) for parameters in sets_of(self._plans.values())]
        signature = self._credentials.identity.sign(grant(self._session, members, public_key, keys))
        self._members = frozenset(members)
        return wire.encode(wire.Grant(self._round_id, public_key, signature, keys, parcels))

    def _encryption_key(self, parameters: Parameters) -> bytes:
        public = backend(parameters).public_key(self._key(parameters).load())
        return to_bytes(public, parameters.coefficient_bytes)

    def _key(self, parameters: Parameters) -> Key:
        if parameters not in self._loaded:
            self._loaded[parameters] = secret_key(self._root, parameters)
        return self._loaded[parameters]

    # Steps

    def _take_total(self, total: wire.Total) -> bytes:
        result = open_total(
            total,
            terms=self._terms,
            plans=self._plans,
            notary=self._notary,
            members=self._members,
            needed=self._needed,
            roster=self._credentials.roster,
            key=self._key,
            opened=self._opened,
        )
        self._credentials.rounds.claim_step(self._round_id, total.step)
        self._opened = total.step
        ring = memoryview(result.ring.tobytes())
        statement = opened(self._session, requested(total), result.contributors, ring)
        signature = self._credentials.identity.sign(statement)
        return wire.encode(wire.Opened(self._round_id, total.step, signature, ring))

    @property
    def _notary(self) -> Notary:
        return Notary(session=self._session, tags=self._tags, vouchers=self._vouchers.__getitem__)

    # The end, and pauses

    def close(self) -> None:
        for secret in (self._root, self._tags, *self._vouchers.values()):
            secret.wipe()
        for key in self._loaded.values():
            key.forget()
        self._loaded, self._vouchers = {}, {}
        self._closed = True

    def snapshot(self, key: bytes) -> bytes:
        snapshots.check_key(key)
        if self._closed or not self._members:
            raise PhaseError("a snapshot is taken between two steps")
        state = SavedAuthority(
            round_id=self._round_id,
            session=self._session,
            cohort=list(self._cohort),
            opened=self._opened,
            root=bytes(self._root.value),
            vouchers={member: bytes(secret.value) for member, secret in self._vouchers.items()},
        )
        return snapshots.seal_state(state, key, self._terms.digest(self._name))

    def resume(self, state: SavedAuthority) -> None:
        """Take over a snapshot's state.

        Raises:
            RosterError: it was made under another roster.
        """
        self._join(state.round_id, tuple(state.cohort))
        if self._session != state.session:
            raise RosterError("the snapshot was made under another roster")
        self._opened, self._root = state.opened, Secret(state.root)
        self._tags = tag_root(self._root)
        self._vouchers = {member: Secret(secret) for member, secret in state.vouchers.items()}
        self._members = frozenset(self._vouchers)


class SavedAuthority(snapshots.SecretState):
    """What :meth:`KeyAuthority.snapshot` encrypts."""

    round_id: bytes
    session: bytes
    cohort: list[int]
    opened: int
    root: bytes
    vouchers: dict[int, bytes]


def opened(session: bytes, request: bytes, contributors: tuple[int, ...], ring: memoryview) -> bytes:
    """What the authority signs when it opens a sum."""
    listed = b"".join(member.to_bytes(4, "big") for member in contributors)
    return _OPENED + session + hashlib.sha256(ring).digest() + len(contributors).to_bytes(4, "big") + listed + request
