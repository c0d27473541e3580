"""Keys that all clients hold: how they agree on one through a server that cannot read it, and open sums themselves.

Every member draws a secret and encrypts it for every other, under keys from the same signed X25519 exchange that masked
sums use; whoever completes the set-up first in order is the one whose secret counts. All of them draw one, although one
is enough, so that it does not matter who drops out: a parcel is 64 bytes.

The server adds ciphertexts up and hands the sum to everybody. Nothing about it is told to the server, so whatever is
computed from sums is computed by every client, alike; vouchers carry a digest of that state, and a client whose own
differs refuses the sum.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor

from protocols import wire
from protocols.errors import CohortError, PeerKeyError, PhaseError, ShareError, StepError
from protocols.homomorphic.client import HomomorphicClient, SavedClient, State
from protocols.homomorphic.opening import open_total, total_limit
from protocols.homomorphic.parameters import Parameters, Scheme
from protocols.homomorphic.planning import sets_of
from protocols.homomorphic.secrets import CHECK_BYTES, key_check, label, secret_key, tag_root, voucher_root
from protocols.homomorphic.vectors import Key
from protocols.homomorphic.vouchers import Notary
from protocols.keys import KEY_BYTES, PairSecrets, Secret
from protocols.machines import Credentials, SumResult
from protocols.shares import TAG_BYTES, seal, unseal
from protocols.steps import check_advertised, too_few
from protocols.terms import Terms, check_cohort

_PARCEL = label("key parcel")
PARCEL_BYTES = KEY_BYTES + CHECK_BYTES + TAG_BYTES
_SMALL_FRAME = 256


class SharedKeyClient(HomomorphicClient):
    """The client's machine where clients hold the key; see :class:`protocols.machines.SumClient`."""

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
        super().__init__(
            member, name, scheme=scheme, public=False, terms=terms, credentials=credentials, executor=executor
        )
        self._pairs: dict[int, PairSecrets] = {}
        self._root = Secret(b"")
        self._derived: tuple[Secret, ...] = ()
        self._loaded: dict[Parameters, Key] = {}
        self._opened = -1
        self._result: SumResult | None = None

    def _expected(self) -> tuple[type[wire.Message], ...]:
        match self._state:
            case State.KEYS:
                return (wire.Keys,)
            case State.GRANT:
                return (wire.Inbox,)
            case _:
                return (wire.StepRequest, wire.Total)

    def _frame_limit(self) -> int:
        match self._state:
            case State.KEYS:
                return _SMALL_FRAME + 112 * len(self._cohort)
            case State.GRANT:
                return _SMALL_FRAME + 5 * len(self._cohort) + PARCEL_BYTES
            case _:
                return total_limit(self._plans, self._terms, len(self._members))

    def _take(self, message: wire.Message) -> bytes | None:
        match message:
            case wire.Keys():
                return self._take_keys(message)
            case wire.Inbox():
                self._take_inbox(message)
            case wire.Total():
                self._take_total(message)
        return None

    # Set-up

    def _take_keys(self, message: wire.Keys) -> bytes:
        assert self._round_key is not None
        keys = {entry.member: entry.public_key for entry in message.keys}
        check_cohort([entry.member for entry in message.keys])
        if not keys.keys() <= set(self._cohort):
            raise CohortError("a key belongs to somebody who is not in the cohort")
        if keys.get(self._member) != self._round_key.public_key:
            raise PeerKeyError("this client's own key is missing or replaced")
        if len(keys) < self._needed:
            raise too_few(len(keys), self._needed)
        for entry in message.keys:
            check_advertised(entry, session=self._session, roster=self._credentials.roster)
        self._pairs = {
            peer: self._round_key.agree(self._session, self._member, peer, key)
            for peer, key in keys.items()
            if peer != self._member
        }
        self._root = Secret(os.urandom(KEY_BYTES))
        content = bytes(self._root.value) + key_check(self._root, sets_of(self._plans.values()))
        parcels = [
            wire.Parcel(peer, seal(pair.outgoing, content, self._parcel(self._member, peer)))
            for peer, pair in sorted(self._pairs.items())
        ]
        self._round_key.forget()
        self._state = State.GRANT
        return wire.encode(wire.SealedKeys(self._round_id, self._member, parcels))

    def _parcel(self, sender: int, recipient: int) -> bytes:
        return _PARCEL + self._session + sender.to_bytes(4, "big") + recipient.to_bytes(4, "big")

    def _take_inbox(self, message: wire.Inbox) -> None:
        members = self._check_members(message.members)
        if not members <= {*self._pairs, self._member}:
            raise CohortError("a member is said to have completed the set-up that never advertised a key")
        holder = min(members)
        if [parcel.peer for parcel in message.parcels] != ([holder] if holder != self._member else []):
            raise ShareError("the key has to come from the first who completed the set-up, and from nobody else")
        if holder != self._member:
            ciphertext, context = message.parcels[0].ciphertext, self._parcel(holder, self._member)
            content = unseal(self._pairs[holder].incoming, ciphertext, context)
            if len(content) != KEY_BYTES + CHECK_BYTES:
                raise ShareError(f"member {holder} sealed {len(content)} bytes: no secret is that long")
            root, check = Secret(content[:KEY_BYTES]), content[KEY_BYTES:]
            if check != key_check(root, sets_of(self._plans.values())):
                raise ShareError(
                    f"member {holder}'s secret gives other keys here than there: all clients need the same TenSEAL"
                )
            self._root.wipe()
            self._root = root
        self._forget_pairs()
        self._enter(members)

    def _enter(self, members: frozenset[int]) -> None:
        tags, vouchers = tag_root(self._root), voucher_root(self._root)
        self._derived = (tags, vouchers)
        self._begin(members, Notary(session=self._session, tags=tags, vouchers=lambda member: vouchers))

    # Steps

    def _key(self, stream: str) -> Key:
        return self._secret_key(self._plans[stream].parameters)

    def _secret_key(self, parameters: Parameters) -> Key:
        if parameters not in self._loaded:
            self._loaded[parameters] = secret_key(self._root, parameters)
        return self._loaded[parameters]

    def hold(self, state: bytes) -> None:
        self._held = state

    def _take_total(self, total: wire.Total) -> None:
        if total.step < self._steps.last:
            raise StepError(f"step {total.step} is over: step {self._steps.last} has been asked for")
        assert self._notary is not None
        result = open_total(
            total,
            terms=self._terms,
            plans=self._plans,
            notary=self._notary,
            members=self._members,
            needed=self._needed,
            roster=self._credentials.roster,
            key=self._secret_key,
            opened=self._opened,
            state=self._held,
        )
        # A member that never got the request, or whose vector was lost, learns the sum all the same.
        self._steps.last, self._steps.pending = total.step, None
        self._opened, self._result = total.step, result

    def result(self) -> SumResult:
        if self._result is None or self._opened != self._steps.last:
            raise PhaseError("the sum of the latest step has not arrived")
        return self._result

    # The end, and pauses

    def _forget_pairs(self) -> None:
        for pair in self._pairs.values():
            pair.wipe()
        self._pairs = {}

    def _forget(self) -> None:
        self._forget_pairs()
        for secret in (self._root, *self._derived):
            secret.wipe()
        for key in self._loaded.values():
            key.forget()
        self._loaded, self._result, self._held = {}, None, b""

    def _kept(self) -> list[bytes]:
        return [bytes(self._root.value)]

    def resume(self, state: SavedClient) -> None:
        """Take over a snapshot's state.

        Raises:
            RosterError: it was made under another roster.
        """
        self._rejoin(state)
        self._opened = state.last_step
        (root,) = state.secrets
        self._root = Secret(root)
        self._enter(frozenset(state.members))
