"""The server's half of masked secure aggregation. It holds no secret: whatever it opens, its adversary may see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import ClassVar, TypeVar

import msgspec

from protocols import snapshots, wire
from protocols.errors import CohortError, MessageError, PhaseError, ProtocolError, RosterError, ShareError, StepError
from protocols.keys import Roster, ballot, session_digest
from protocols.machines import Outbox, Phase, SumResult, SumServer
from protocols.openings import COMMITMENT_BYTES, backup_bytes, parcel_bytes
from protocols.shares import SHARE_BYTES
from protocols.steps import RingCollection, check_advertised, check_sender, finished, too_few
from protocols.terms import Terms, check_cohort
from protocols.unmasking import Unmasker, Wiring

_SMALL_FRAME = 256
_M = TypeVar("_M", bound=wire.Message)


class MaskedServer(SumServer):
    """The server's machine; see :class:`protocols.machines.SumServer` and the module :mod:`protocols.masked`."""

    protocol: ClassVar[str] = "masked"

    def __init__(self, cohort: Sequence[int], *, terms: Terms, round_id: bytes, roster: Roster) -> None:
        self._cohort = check_cohort(cohort)
        for member in self._cohort:
            if member not in roster:
                raise RosterError(f"member {member} of the cohort is not on the roster")
        self._terms = terms
        self._round_id = round_id
        self._roster = roster
        self._topology = terms.topology(len(self._cohort))
        self._session = session_digest(
            round_id,
            roster=roster.digest,
            terms=terms.digest(self.protocol),
            cohort=self._cohort,
            topology=self._topology,
        )
        self._wiring = Wiring(self._cohort, self._topology, self._session)
        self._keys: dict[int, wire.PublicKey] = {}
        self._shares: dict[int, wire.Shares] = {}
        self._unmasker: Unmasker | None = None
        self._next_step = 0
        self._collection: RingCollection | None = None
        self._votes: dict[int, bytes] = {}
        self._openings: dict[int, bytes] = {}
        self._result: SumResult | None = None

    # Who is who

    @property
    def _members(self) -> list[int]:
        """Who completed the set-up, in ascending order."""
        return sorted(self._shares)

    @property
    def expected(self) -> frozenset[int]:
        match self.phase:
            case Phase.ADVERTISE:
                return frozenset(self._cohort) - self._keys.keys()
            case Phase.SHARE:
                return frozenset(self._keys) - self._shares.keys()
            case Phase.COLLECT:
                return self._step.members - self._step.contributors
            case Phase.VOTE:
                return frozenset(self._step.contributors) - self._votes.keys()
            case Phase.OPEN:
                return self._openers - self._openings.keys()
            case _:
                return frozenset()

    @property
    def _openers(self) -> frozenset[int]:
        return frozenset(self._votes if self._terms.active else self._step.contributors)

    @property
    def _step(self) -> RingCollection:
        if self._collection is None:
            raise PhaseError("no step is going on")
        return self._collection

    # Taking messages

    def open(self) -> Outbox:
        if self.phase is not Phase.NEW:
            raise PhaseError("the round is open already")
        self.phase = Phase.ADVERTISE
        return dict.fromkeys(
            self._cohort, wire.encode(wire.Offer(self._round_id, self._terms.digest(self.protocol), list(self._cohort)))
        )

    def receive(self, sender: int, message: bytes) -> None:
        match self.phase:
            case Phase.ADVERTISE:
                self._take_advertisement(sender, self._decode(wire.Advertise, message, 0))
            case Phase.SHARE:
                self._take_shares(sender, self._decode(wire.Shares, message, self._shares_bytes))
            case Phase.COLLECT:
                limit = self._step.frame_limit
                contribution = wire.decode(message, wire.Contribution, round_id=self._round_id, limit=limit)
                self._step.add(sender, contribution)
            case Phase.VOTE:
                self._take_vote(sender, self._decode(wire.Vote, message, 0))
            case Phase.OPEN:
                limit = SHARE_BYTES * len(self._shares)
                self._take_openings(sender, self._decode(wire.Openings, message, limit))
            case _:
                raise PhaseError(f"a message from {sender} while the server waits for {self.phase.value}")

    def _decode(self, kind: type[_M], message: bytes, extra: int) -> _M:
        return wire.decode(message, kind, round_id=self._round_id, limit=_SMALL_FRAME + extra)

    @property
    def _shares_bytes(self) -> int:
        steps, degree = self._terms.steps, self._topology.degree
        return degree * (parcel_bytes(steps) + 16) + steps * (COMMITMENT_BYTES + backup_bytes(degree) + 8)

    def _take_advertisement(self, sender: int, message: wire.Advertise) -> None:
        check_sender(sender, message.member, self.expected)
        check_advertised(message, session=self._session, roster=self._roster)
        self._keys[sender] = wire.PublicKey(sender, message.public_key, message.signature)

    def _take_shares(self, sender: int, message: wire.Shares) -> None:
        check_sender(sender, message.member, self.expected)
        peers, steps = self._wiring.peers(sender, self._keys), self._terms.steps
        if [parcel.peer for parcel in message.parcels] != peers:
            raise CohortError(f"member {sender} did not make shares for exactly its neighbours")
        if any(len(parcel.ciphertext) != parcel_bytes(steps) for parcel in message.parcels):
            raise MessageError(f"member {sender} made shares of another number of steps")
        if len(message.commitments) != steps * COMMITMENT_BYTES:
            raise MessageError(f"member {sender} committed to another number of steps")
        if [len(backup) for backup in message.backups] != [backup_bytes(len(peers))] * steps:
            raise MessageError(f"member {sender} made backups of another shape")
        self._shares[sender] = message

    def _take_vote(self, sender: int, message: wire.Vote) -> None:
        self._check_answer(sender, message.member, message.step)
        signed = ballot(self._session, self._step.request, members=self._members, dead=self._dead)
        self._roster.verify(sender, message.signature, signed)
        self._votes[sender] = message.signature

    def _take_openings(self, sender: int, message: wire.Openings) -> None:
        self._check_answer(sender, message.member, message.step)
        if len(message.shares) != SHARE_BYTES * len(self._wiring.group(sender, self._shares)):
            raise MessageError(f"member {sender} sent another number of shares than it holds")
        self._openings[sender] = message.shares

    def _check_answer(self, sender: int, named: int, step: int) -> None:
        check_sender(sender, named, self.expected)
        if step != self._step.step:
            raise StepError(f"member {sender} answers for step {step}, this is step {self._step.step}")

    # Ending phases

    def advance(self) -> Outbox:
        match self.phase:
            case Phase.ADVERTISE:
                return self._hand_out_keys()
            case Phase.SHARE:
                return self._hand_out_shares()
            case Phase.COLLECT:
                return self._name_the_dead()
            case Phase.VOTE:
                return self._hand_out_votes()
            case Phase.OPEN:
                return self._finish()
            case _:
                raise PhaseError(f"there is nothing to end while the server waits for {self.phase.value}")

    def _hand_out_keys(self) -> Outbox:
        if not self._enough(self._keys.keys(), self._keys):
            return self._give_up_round(len(self._keys))
        self.phase = Phase.SHARE
        return {
            member: wire.encode(
                wire.Keys(self._round_id, [self._keys[other] for other in self._wiring.group(member, self._keys)])
            )
            for member in self._keys
        }

    def _hand_out_shares(self) -> Outbox:
        if not self._enough(self._shares.keys(), self._shares):
            return self._give_up_round(len(self._shares))
        inboxes: dict[int, list[wire.Parcel]] = {member: [] for member in self._members}
        for sender in self._members:
            for parcel in self._shares[sender].parcels:
                if parcel.peer in inboxes:
                    inboxes[parcel.peer].append(wire.Parcel(sender, parcel.ciphertext))
        # What is passed on is not needed any more; commitments and backups are.
        self._finish_setup(
            {member: msgspec.structs.replace(shares, parcels=[]) for member, shares in self._shares.items()}
        )
        return {
            member: wire.encode(wire.Inbox(self._round_id, self._members, parcels))
            for member, parcels in inboxes.items()
        }

    def _finish_setup(self, shares: dict[int, wire.Shares]) -> None:
        self._shares = shares
        self._unmasker = Unmasker(self._wiring, self._session, self._keys, shares)
        self.phase = Phase.READY

    def request(
        self, stream: str, values: int, *, context: bytes = b"", exactly: Iterable[int] | None = None
    ) -> Outbox:
        if self.phase is not Phase.READY:
            raise PhaseError(f"a step cannot begin while the server waits for {self.phase.value}")
        self._collection = RingCollection(
            self._terms,
            self._next_step,
            stream,
            values=values,
            context=context,
            members=self._shares,
            survivors=self._topology.survivors,
            exactly=exactly,
        )
        self._next_step += 1
        self._votes, self._openings = {}, {}
        self._result = self.failure = None
        self.phase = Phase.COLLECT
        return self._collection.ask(self._round_id)

    @property
    def _dead(self) -> list[int]:
        return sorted(self._shares.keys() - self._step.contributors)

    def _name_the_dead(self) -> Outbox:
        survivors, needed = self._step.contributors, self._step.needed
        if not self._enough(survivors, self._shares, needed):
            return self._give_up_step(too_few(len(survivors), needed), len(survivors), needed)
        self.phase = Phase.VOTE if self._terms.active else Phase.OPEN
        request = wire.encode(wire.OpenRequest(self._round_id, self._step.step, self._dead))
        return dict.fromkeys(sorted(survivors), request)

    def _hand_out_votes(self) -> Outbox:
        voters, needed = self._votes.keys(), self._topology.survivors
        if not self._enough(voters, self._shares):
            # Votes may have been enough for somebody who saw those that were lost on the way here.
            return self._give_up_step(too_few(len(voters), needed), len(voters), needed, asked_to_open=True)
        self.phase = Phase.OPEN
        votes = [wire.Ballot(member, self._votes[member]) for member in sorted(voters)]
        ballots = wire.encode(wire.Ballots(self._round_id, self._step.step, votes))
        return dict.fromkeys(sorted(voters), ballots)

    def _finish(self) -> Outbox:
        collected, left, needed = self._step, len(self._openings), self._topology.survivors
        if not self._enough(self._openings.keys(), self._shares):
            return self._give_up_step(too_few(left, needed), left, needed, asked_to_open=True)
        assert self._unmasker is not None
        try:
            self._unmasker.unmask(
                collected.total,
                step=collected.step,
                request=collected.request,
                survivors=collected.contributors,
                openings=self._openings,
            )
        except ShareError as error:
            return self._give_up_step(error, left, needed, asked_to_open=True)
        self._result = finished(collected, collected.total)
        self._collection = None
        self.phase = Phase.READY
        return {}

    def _enough(self, left: AbstractSet[int], opened: Iterable[int], needed: int = 0) -> bool:
        return self._wiring.enough(left, opened, needed=max(needed, self._topology.survivors))

    def _give_up_step(self, error: ProtocolError, left: int, needed: int, *, asked_to_open: bool = False) -> Outbox:
        if asked_to_open:
            error.asked_to_open = tuple(sorted(self._step.contributors))
        self.failure = error
        abort = wire.encode(wire.Abort(self._round_id, self._step.step, left, needed))
        asked = sorted(self._step.members)
        self._collection = None
        self.phase = Phase.READY
        return dict.fromkeys(asked, abort)

    def _give_up_round(self, left: int) -> Outbox:
        self.failure = too_few(left, self._topology.survivors)
        self.phase = Phase.CLOSED
        abort = wire.Abort(self._round_id, None, left, self._topology.survivors)
        return dict.fromkeys(self._cohort, wire.encode(abort))

    # Results, the end, and pauses

    def result(self) -> SumResult:
        if self.failure is not None:
            raise self.failure
        if self._result is None:
            raise PhaseError("there is no finished sum")
        return self._result

    def close(self) -> None:
        self._collection, self._unmasker = None, None
        self._shares, self._keys, self._votes, self._openings = {}, {}, {}, {}
        self.phase = Phase.CLOSED

    def snapshot(self) -> bytes:
        if self.phase is not Phase.READY:
            raise PhaseError("a snapshot is taken between two steps")
        state = _Saved(
            cohort=list(self._cohort),
            round_id=self._round_id,
            session=self._session,
            next_step=self._next_step,
            keys=list(self._keys.values()),
            shares={member: (shares.commitments, shares.backups) for member, shares in self._shares.items()},
        )
        return snapshots.pack(state, self._terms.digest(self.protocol))

    @classmethod
    def restore(cls, snapshot: bytes, *, terms: Terms, roster: Roster) -> MaskedServer:
        """A server from a snapshot, READY for the next step.

        Raises:
            MessageError: other terms, or damage.
            RosterError: another roster.
        """
        state = snapshots.unpack(snapshot, _Saved, terms.digest(cls.protocol))
        server = cls(state.cohort, terms=terms, round_id=state.round_id, roster=roster)
        if server._session != state.session:
            raise RosterError("the snapshot was made under another roster")
        server._next_step = state.next_step
        server._keys = {key.member: key for key in state.keys}
        server._finish_setup(
            {
                member: wire.Shares(state.round_id, member, [], commitments, backups)
                for member, (commitments, backups) in state.shares.items()
            }
        )
        return server


class _Saved(msgspec.Struct, forbid_unknown_fields=True):
    """What :meth:`MaskedServer.snapshot` holds: public values and ciphertexts."""

    cohort: list[int]
    round_id: bytes
    session: bytes
    next_step: int
    keys: list[wire.PublicKey]
    shares: dict[int, tuple[bytes, list[bytes]]]
