"""The server of homomorphic sums: it adds ciphertexts up, holds no key, and is never told what it adds up."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, TypeVar

import msgspec

from protocols import snapshots, wire
from protocols.errors import PhaseError, ProtocolError, RosterError
from protocols.homomorphic.collection import CipherCollection
from protocols.homomorphic.parameters import Scheme
from protocols.homomorphic.planning import plan_streams
from protocols.homomorphic.secrets import round_session
from protocols.keys import Roster
from protocols.machines import Outbox, Phase, SumResult, SumServer
from protocols.steps import check_advertised, check_sender, too_few
from protocols.terms import Terms, check_cohort

_SMALL_FRAME = 512
_M = TypeVar("_M", bound=wire.Message)


class HomomorphicServer(SumServer):
    """What servers do alike; subclasses know who holds the key.

    Args:
        cohort: in ascending order.
        name: of the protocol.
        scheme: BFV or CKKS.
        terms: of the round.
        round_id: of the round.
        roster: everybody's public keys.
    """

    public: ClassVar[bool]
    """Whether vectors are encrypted with a public key."""

    def __init__(
        self,
        cohort: Sequence[int],
        name: str,
        *,
        scheme: Scheme,
        terms: Terms,
        round_id: bytes,
        roster: Roster,
    ) -> None:
        self._cohort = check_cohort(cohort)
        for member in self._cohort:
            if member not in roster:
                raise RosterError(f"member {member} of the cohort is not on the roster")
        self._name = name
        self._terms = terms
        self._round_id = round_id
        self._roster = roster
        self._plans = plan_streams(scheme, terms, public=self.public)
        self._session, self._needed = round_session(
            round_id, self._cohort, name=name, terms=terms, roster=roster, plans=self._plans
        )
        self._keys: dict[int, wire.PublicKey] = {}
        self._members: tuple[int, ...] = ()
        self._next_step = 0
        self._collection: CipherCollection | None = None
        self._result: SumResult | None = None

    # What subclasses add

    @abstractmethod
    def _sharing(self) -> frozenset[int]:
        """Who has not sent keys yet."""

    @abstractmethod
    def _take_keys(self, sender: int, message: bytes) -> None:
        """Take what somebody sends to share keys."""

    @abstractmethod
    def _ask_for_keys(self) -> Outbox:
        """Hand out the advertised keys."""

    @abstractmethod
    def _hand_out_keys(self) -> Outbox:
        """End the set-up."""

    @abstractmethod
    def _finish(self, collected: CipherCollection) -> Outbox:
        """Hand the sum of a step to whoever opens it."""

    # Taking messages

    @property
    def expected(self) -> frozenset[int]:
        match self.phase:
            case Phase.ADVERTISE:
                return frozenset(self._cohort) - self._keys.keys()
            case Phase.SHARE:
                return self._sharing()
            case Phase.COLLECT:
                return self._step.members - self._step.contributors
            case _:
                return frozenset()

    @property
    def _step(self) -> CipherCollection:
        if self._collection is None:
            raise PhaseError("no step is going on")
        return self._collection

    def open(self) -> Outbox:
        if self.phase is not Phase.NEW:
            raise PhaseError("the round is open already")
        self.phase = Phase.ADVERTISE
        offer = wire.encode(wire.Offer(self._round_id, self._terms.digest(self._name), list(self._cohort)))
        return dict.fromkeys(self._addressees(), offer)

    def _addressees(self) -> Iterable[int]:
        """Everybody who follows the round."""
        return self._cohort

    def receive(self, sender: int, message: bytes) -> None:
        match self.phase:
            case Phase.ADVERTISE:
                self._take_advertisement(sender, self._decode(wire.Advertise, message))
            case Phase.SHARE:
                self._take_keys(sender, message)
            case Phase.COLLECT:
                decoded = self._decode(wire.Ciphertexts, message, self._step.body.expected)
                self._step.add(sender, decoded, session=self._session, roster=self._roster)
            case _:
                raise PhaseError(f"a message from {sender} while the server waits for {self.phase.value}")

    def _decode(self, kind: type[_M], message: bytes, extra: int = 0) -> _M:
        return wire.decode(message, kind, round_id=self._round_id, limit=_SMALL_FRAME + extra)

    def _take_advertisement(self, sender: int, message: wire.Advertise) -> None:
        check_sender(sender, message.member, self.expected)
        check_advertised(message, session=self._session, roster=self._roster)
        self._keys[sender] = wire.PublicKey(sender, message.public_key, message.signature)

    # Ending phases

    def advance(self) -> Outbox:
        match self.phase:
            case Phase.ADVERTISE:
                if len(self._keys) < self._needed:
                    return self._give_up_round(len(self._keys))
                self.phase = Phase.SHARE
                return self._ask_for_keys()
            case Phase.SHARE:
                return self._hand_out_keys()
            case Phase.COLLECT:
                return self._add_up()
            case _:
                raise PhaseError(f"there is nothing to end while the server waits for {self.phase.value}")

    def _advertised(self) -> list[wire.PublicKey]:
        return [self._keys[member] for member in sorted(self._keys)]

    def request(
        self, stream: str, values: int, *, context: bytes = b"", exactly: Iterable[int] | None = None
    ) -> Outbox:
        if self.phase is not Phase.READY:
            raise PhaseError(f"a step cannot begin while the server waits for {self.phase.value}")
        collection = CipherCollection(
            self._terms,
            self._next_step,
            stream,
            values=values,
            context=context,
            members=self._members,
            survivors=self._needed,
            exactly=exactly,
        )
        collection.begin(self._plans[stream])
        self._collection = collection
        self._next_step += 1
        self._result = self.failure = None
        self.phase = Phase.COLLECT
        return collection.ask(self._round_id)

    def _add_up(self) -> Outbox:
        collected, survivors = self._step, len(self._step.contributors)
        if survivors < collected.needed:
            return self._give_up_step(too_few(survivors, collected.needed), survivors)
        return self._finish(collected)

    def _give_up_step(self, error: ProtocolError, left: int) -> Outbox:
        self.failure = error
        collected, self._collection = self._step, None
        self.phase = Phase.READY
        abort = wire.encode(wire.Abort(self._round_id, collected.step, left, collected.needed))
        return dict.fromkeys(sorted(collected.members), abort)

    def _give_up_round(self, left: int) -> Outbox:
        self.failure = too_few(left, self._needed)
        self.phase = Phase.CLOSED
        abort = wire.encode(wire.Abort(self._round_id, None, left, self._needed))
        return dict.fromkeys(self._addressees(), abort)

    # Results, the end, and pauses

    def result(self) -> SumResult:
        if self.failure is not None:
            raise self.failure
        if self._result is None:
            raise PhaseError("there is no finished sum, or it is the clients that open it")
        return self._result

    def close(self) -> None:
        self._collection = None
        self._keys = {}
        self.phase = Phase.CLOSED

    def snapshot(self) -> bytes:
        if self.phase is not Phase.READY:
            raise PhaseError("a snapshot is taken between two steps")
        state = SavedServer(
            cohort=list(self._cohort),
            round_id=self._round_id,
            session=self._session,
            next_step=self._next_step,
            members=list(self._members),
        )
        return snapshots.pack(state, self._terms.digest(self._name))

    def resume(self, state: SavedServer) -> None:
        """Take over a snapshot's state.

        Raises:
            RosterError: it was made under another roster.
        """
        if self._session != state.session:
            raise RosterError("the snapshot was made under another roster")
        self._next_step, self._members = state.next_step, tuple(state.members)
        self.phase = Phase.READY


class SavedServer(msgspec.Struct, forbid_unknown_fields=True):
    """What a server's snapshot holds; none of it is secret."""

    cohort: list[int]
    round_id: bytes
    session: bytes
    next_step: int
    members: list[int]
