"""The client's half of masked secure aggregation: what it sends, and all that it refuses."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import ClassVar

from protocols import snapshots, wire
from protocols.encoding import Values
from protocols.errors import (
    AlreadyAnsweredError,
    CohortError,
    EquivocationError,
    PeerKeyError,
    PhaseError,
    RosterError,
    ShareError,
    StepError,
)
from protocols.graph import Topology, neighbours_of
from protocols.holdings import Holdings
from protocols.keys import PairSecrets, RoundKey, Secret, advertisement, ballot, request_context, session_digest
from protocols.machines import Credentials, SumClient
from protocols.masks import apply_masks
from protocols.openings import StepSecrets, parcel_bytes, parcel_context, points_of, self_secret
from protocols.shares import seal, unseal
from protocols.steps import ClientSteps, check_advertised, check_offer, check_roster, contribution, too_few
from protocols.terms import MAX_COHORT, Terms, check_cohort

_SMALL_FRAME = 256


class _State(enum.Enum):
    OFFER = enum.auto()
    KEYS = enum.auto()
    INBOX = enum.auto()
    READY = enum.auto()
    CLOSED = enum.auto()


_EXPECTED: dict[_State, tuple[type[wire.Message], ...]] = {
    _State.KEYS: (wire.Keys,),
    _State.INBOX: (wire.Inbox,),
    _State.READY: (wire.StepRequest, wire.OpenRequest, wire.Ballots),
}


class MaskedClient(SumClient):
    """The client's machine; see :class:`protocols.machines.SumClient` and the module :mod:`protocols.masked`.

    It trusts its terms, its credentials and its own randomness. Every message is the adversary's until checked; a
    refused one changes nothing.
    """

    protocol: ClassVar[str] = "masked"

    def __init__(self, member: int, *, terms: Terms, credentials: Credentials) -> None:
        (self._member,) = check_cohort([member])
        if not credentials.roster.holds(member, credentials.identity.public_key):
            raise RosterError(f"member {member} is not on its own roster with this identity")
        self._terms = terms
        self._credentials = credentials
        self._steps = ClientSteps(terms)
        self._state = _State.OFFER
        self._round_id = b""
        self._cohort: tuple[int, ...] = ()
        self._needed = 0
        """Members that must be left for a sum to be opened."""
        self._needed_in_group = 0
        """Holders of shares that open a secret."""
        self._session = b""
        self._group: frozenset[int] = frozenset()
        """This client and its neighbours: who holds shares of its secrets."""
        self._round_key: RoundKey | None = None
        self._pairs: dict[int, PairSecrets] = {}
        """Of neighbours, until their shares have arrived."""
        self._holdings = Holdings(self._member, roots={}, selves=[], batches={})
        self._members: frozenset[int] = frozenset()
        """Who completed the set-up."""
        self._masked = -1
        """The latest step that this client contributed to."""
        self._answered = -1
        """The latest step that it helped to open."""
        self._asked = b""
        """What that step asked for."""
        self._agreed: tuple[int, ...] | None = None
        """The dead of the latest masked step, once this client has signed them or opened the step."""

    @property
    def member(self) -> int:
        return self._member

    def receive(self, message: bytes) -> bytes | None:
        if self._state is _State.CLOSED:
            raise PhaseError("this round is closed")
        if self._state is _State.OFFER:
            return self._take_offer(wire.decode(message, wire.Offer, limit=128 + 5 * MAX_COHORT))
        kinds = _EXPECTED[self._state]
        decoded = wire.decode(message, *kinds, wire.Abort, round_id=self._round_id, limit=self._frame_limit())
        match decoded:
            case wire.Keys():
                return self._take_keys(decoded)
            case wire.Inbox():
                self._take_inbox(decoded)
            case wire.StepRequest():
                self._steps.accept(decoded)
            case wire.OpenRequest():
                return self._take_open_request(decoded)
            case wire.Ballots():
                return self._take_ballots(decoded)
            case wire.Abort():
                self._take_abort(decoded)
        return None

    def _frame_limit(self) -> int:
        each = {_State.KEYS: 112, _State.INBOX: 24 + parcel_bytes(self._terms.steps), _State.READY: 80}[self._state]
        return _SMALL_FRAME + each * len(self._cohort)

    # Set-up

    def _take_offer(self, offer: wire.Offer) -> bytes:
        cohort = check_offer(offer, self._member, self._terms, self.protocol)
        check_roster(cohort, self._terms, self._credentials.roster)
        topology = self._terms.topology(len(cohort))
        self._credentials.rounds.claim(offer.round_id)
        self._enter(offer.round_id, cohort, topology)
        self._round_key = RoundKey()
        public_key = self._round_key.public_key
        signature = self._credentials.identity.sign(advertisement(self._session, self._member, public_key))
        self._state = _State.KEYS
        return wire.encode(wire.Advertise(offer.round_id, self._member, public_key, signature))

    def _enter(self, round_id: bytes, cohort: tuple[int, ...], topology: Topology) -> None:
        """Take note of the round: everything below is bound to these."""
        self._round_id, self._cohort = round_id, cohort
        self._needed, self._needed_in_group = topology.survivors, topology.threshold
        self._session = session_digest(
            round_id,
            roster=self._credentials.roster.digest,
            terms=self._terms.digest(self.protocol),
            cohort=cohort,
            topology=topology,
        )
        self._group = frozenset(neighbours_of(self._member, cohort, topology.degree, self._session)) | {self._member}

    def _take_keys(self, message: wire.Keys) -> bytes:
        assert self._round_key is not None
        keys = {entry.member: entry.public_key for entry in message.keys}
        check_cohort([entry.member for entry in message.keys])
        if not keys.keys() <= self._group:
            raise CohortError("a key belongs to somebody who is neither this client nor a neighbour")
        if keys.get(self._member) != self._round_key.public_key:
            raise PeerKeyError("this client's own key is missing or replaced")
        self._require(len(keys), self._needed_in_group)
        for entry in message.keys:
            check_advertised(entry, session=self._session, roster=self._credentials.roster)
        peers = [member for member in keys if member != self._member]
        pairs = {peer: self._round_key.agree(self._session, self._member, peer, keys[peer]) for peer in peers}
        return self._share(pairs)

    def _share(self, pairs: dict[int, PairSecrets]) -> bytes:
        """Draw this round's step secrets and hand them, shared and encrypted, to the neighbours."""
        secrets = StepSecrets(self._terms.steps)
        points = points_of(self._cohort)
        holders = {member: points[member] for member in sorted([*pairs, self._member])}
        batches = secrets.batches(holders, self._needed_in_group)
        parcels = [
            wire.Parcel(peer, seal(pair.outgoing, batches[peer], parcel_context(self._session, self._member, peer)))
            for peer, pair in pairs.items()
        ]
        message = wire.Shares(
            self._round_id,
            self._member,
            parcels,
            secrets.commitments(self._session, self._member),
            secrets.backups(self._session, self._member, (pair.masks for pair in pairs.values())),
        )
        self._pairs = pairs
        self._holdings = Holdings(
            self._member,
            roots={},
            selves=[self_secret(secret) for secret in secrets.selves],
            batches={self._member: bytearray(batches[self._member])},
        )
        if self._round_key is not None:
            self._round_key.forget()
        self._state = _State.INBOX
        return wire.encode(message)

    def _take_inbox(self, message: wire.Inbox) -> None:
        members = frozenset(check_cohort(message.members))
        if not members <= set(self._cohort) or self._member not in members:
            raise CohortError("those who completed the set-up are not members of the cohort, or lack this client")
        senders = (members & self._group) - {self._member}
        if not senders <= self._pairs.keys():
            raise CohortError("a neighbour is said to have completed the set-up that never advertised a key")
        self._require(len(members), self._needed)
        self._require(len(senders) + 1, self._needed_in_group)
        if [parcel.peer for parcel in message.parcels] != sorted(senders):
            raise ShareError("shares are missing, repeated, or from somebody who did not complete the set-up")
        opened: dict[int, bytearray] = {}
        for parcel in message.parcels:
            if len(parcel.ciphertext) != parcel_bytes(self._terms.steps):
                raise ShareError(f"the shares of member {parcel.peer} are not those of {self._terms.steps} steps")
            context = parcel_context(self._session, parcel.peer, self._member)
            opened[parcel.peer] = bytearray(unseal(self._pairs[parcel.peer].incoming, parcel.ciphertext, context))
        self._holdings.batches |= opened
        self._holdings.roots = {peer: self._pairs.pop(peer).keep_masks() for peer in sorted(senders)}
        self._forget_pairs()
        self._members = members
        self._state = _State.READY

    # Steps

    def contribute(self, values: Values, *, stream: str, weight: int | None = None, context: bytes = b"") -> bytes:
        if self._state is not _State.READY:
            raise PhaseError("the set-up of this round is not finished, or the round is closed")
        request, (ring, report) = self._steps.encode(values, stream=stream, weight=weight, context=context)
        step = request.step
        self._credentials.rounds.claim_step(self._round_id, step)
        self._steps.pending, self.report = None, report
        self._masked, self._agreed = step, None
        self._asked = request_context(step, stream, request.values, request.context)
        add, subtract = self._holdings.mask_keys(step, self._asked)
        apply_masks(ring, add=add, subtract=subtract)
        return contribution(self._round_id, self._member, step, ring)

    def _take_open_request(self, request: wire.OpenRequest) -> bytes:
        self._check_step(request.step)
        dead = check_cohort(request.dead)
        if not self._members.issuperset(dead):
            raise CohortError("somebody is said to have dropped out who did not complete the set-up")
        if self._member in dead:
            raise CohortError("this client is said to have dropped out: it opens nothing")
        self._require(len(self._members) - len(dead), self._needed)
        self._require(len(set(self._holdings.group) - set(dead)), self._needed_in_group)
        if self._terms.active and self._agreed is not None:
            raise AlreadyAnsweredError(f"the set of survivors of step {request.step} has been signed already")
        if self.on_opening is not None:
            self.on_opening(tuple(sorted(self._members.difference(dead))))
        if not self._terms.active:
            return self._open(dead)
        self._agreed = dead
        signature = self._credentials.identity.sign(self._ballot(dead))
        return wire.encode(wire.Vote(self._round_id, self._member, request.step, signature))

    def _take_ballots(self, message: wire.Ballots) -> bytes:
        self._check_step(message.step)
        if self._agreed is None:
            raise PhaseError("this client has signed no set of survivors that others could agree with")
        voters = check_cohort([vote.member for vote in message.votes])
        if not self._members.difference(self._agreed).issuperset(voters):
            raise CohortError("somebody voted who is not among the survivors")
        signed = self._ballot(self._agreed)
        for vote in message.votes:
            try:
                self._credentials.roster.verify(vote.member, vote.signature, signed)
            except PeerKeyError:
                raise EquivocationError(
                    f"member {vote.member} did not sign the survivors of step {message.step} as shown to this client"
                ) from None
        agreeing = len({*voters, self._member})
        if agreeing < self._needed:
            raise EquivocationError(
                f"{agreeing} members signed the survivors of step {message.step}, where {self._needed} are needed"
            )
        return self._open(self._agreed)

    def _ballot(self, dead: Sequence[int]) -> bytes:
        return ballot(self._session, self._asked, members=sorted(self._members), dead=dead)

    def _check_step(self, step: int) -> None:
        """Only the latest step that this client contributed to is opened, once."""
        if step <= self._answered:
            raise AlreadyAnsweredError(f"step {step} has been answered, or passed over, already")
        if step < self._steps.last:
            raise StepError(f"step {step} is over: step {self._steps.last} has been asked for")
        if step != self._masked:
            raise StepError(f"this client contributed nothing to step {step}")

    def _open(self, dead: Sequence[int]) -> bytes:
        """One share for each member of the group, and never a second one for this step or those before it."""
        step = self._masked
        self._answered, self._agreed = step, tuple(dead)
        shares = self._holdings.shares(step, frozenset(dead))
        return wire.encode(wire.Openings(self._round_id, self._member, step, shares))

    def _take_abort(self, message: wire.Abort) -> None:
        if message.step is None:
            self.close()
        elif message.step != self._steps.last:
            raise StepError(f"step {message.step}, which is given up, is not the one going on")
        else:
            self._steps.pending = None
            self._answered = message.step
            self._holdings.pass_over(message.step + 1)
            self._holdings.wipe_through(message.step)
        error = too_few(message.survivors, message.needed)
        if self._agreed is not None and message.step in (None, self._masked):
            error.asked_to_open = tuple(sorted(self._members.difference(self._agreed)))
        raise error

    @staticmethod
    def _require(left: int, needed: int) -> None:
        if left < needed:
            raise too_few(left, needed)

    # The end, and pauses

    def close(self) -> None:
        self._holdings.wipe()
        self._forget_pairs()
        if self._round_key is not None:
            self._round_key.forget()
        self._state = _State.CLOSED

    def _forget_pairs(self) -> None:
        for pair in self._pairs.values():
            pair.wipe()
        self._pairs = {}

    def snapshot(self, key: bytes) -> bytes:
        snapshots.check_key(key)
        if self._state is not _State.READY or self._steps.pending is not None:
            raise PhaseError("a snapshot is taken between two steps")
        last = self._steps.last
        self._holdings.pass_over(last + 1)
        self._holdings.wipe_through(last)
        state = _Saved(
            member=self._member,
            round_id=self._round_id,
            session=self._session,
            cohort=list(self._cohort),
            members=sorted(self._members),
            last_step=last,
            roots={peer: bytes(root.value) for peer, root in self._holdings.roots.items()},
            selves=[bytes(secret.value) for secret in self._holdings.selves[last + 1 :]],
            batches={member: bytes(batch) for member, batch in self._holdings.batches.items()},
        )
        self._answered = last
        return snapshots.seal_state(state, key, self._terms.digest(self.protocol))

    @classmethod
    def restore(cls, snapshot: bytes, key: bytes, *, terms: Terms, credentials: Credentials) -> MaskedClient:
        """A client from a snapshot; steps up to the one that the snapshot was taken after are over for it.

        Raises:
            MessageError: another key, other terms, or damage.
            RosterError: another roster, or the identity is not the member's.
        """
        state = snapshots.unseal_state(snapshot, key, _Saved, terms.digest(cls.protocol))
        client = cls(state.member, terms=terms, credentials=credentials)
        client._enter(state.round_id, tuple(state.cohort), terms.topology(len(state.cohort)))
        if client._session != state.session:
            raise RosterError("the snapshot was made under another roster")
        client._members = frozenset(state.members)
        client._steps.last = client._masked = client._answered = state.last_step
        client._holdings = Holdings(
            state.member,
            roots={peer: Secret(root) for peer, root in state.roots.items()},
            selves=[Secret(b"")] * (state.last_step + 1) + [Secret(secret) for secret in state.selves],
            batches={member: bytearray(batch) for member, batch in state.batches.items()},
            next_step=state.last_step + 1,
        )
        client._state = _State.READY
        return client


class _Saved(snapshots.SecretState):
    """What :meth:`MaskedClient.snapshot` encrypts."""

    member: int
    round_id: bytes
    session: bytes
    cohort: list[int]
    members: list[int]
    last_step: int
    roots: dict[int, bytes]
    selves: list[bytes]
    batches: dict[int, bytes]
