"""The sum with no protection: encoded vectors in clear. Every protected sum gives the same integers as this one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import msgspec

from protocols import snapshots, wire
from protocols.encoding import Values
from protocols.errors import PhaseError, StepError
from protocols.keys import Roster
from protocols.machines import Credentials, Outbox, Phase, SumClient, SumProtocol, SumResult, SumServer
from protocols.steps import ClientSteps, RingCollection, check_offer, contribution, finished, too_few
from protocols.suspension import StoredSteps, bound_to, put_back, stored_steps
from protocols.terms import MAX_COHORT, Terms, check_cohort
from protocols.threat import ThreatModel

_SMALL_FRAME = 256
_OFFER_FRAME = 128 + 5 * MAX_COHORT


class PlainSum(SumProtocol):
    """Every client sends its encoded vector in clear; the server adds them up."""

    name: ClassVar[str] = "plain"
    needs_credentials: ClassVar[bool] = False
    threat_model: ClassVar[ThreatModel] = ThreatModel(
        passive_server="Everything: each client's vector, in clear, under the client's number.",
        active_server="Everything, as above; it can also report any sum it likes.",
        clients="Nothing of each other beyond the sum, if the server passes it on.",
        collusion="A colluding server gives away every client's vector.",
        dropouts="Nothing changes: what arrived is known already.",
        outsider="Everything, unless the transport is encrypted.",
        assumes="A server that every client trusts with its own values.",
    )

    def client(self, member: int, *, terms: Terms, credentials: Credentials | None = None) -> SumClient:
        return PlainClient(member, terms=terms)

    def server(
        self, cohort: Sequence[int], *, terms: Terms, round_id: bytes, roster: Roster | None = None
    ) -> SumServer:
        return PlainServer(cohort, terms=terms, round_id=round_id)

    def restore_client(
        self, snapshot: bytes, key: bytes, *, terms: Terms, credentials: Credentials | None = None
    ) -> SumClient:
        state = snapshots.unseal_state(snapshot, key, _ClientState, terms.digest(self.name))
        client = PlainClient(state.member, terms=terms)
        client.resume(state)
        return client

    def suspend_client(self, client: SumClient, key: bytes) -> bytes:
        if not isinstance(client, PlainClient):
            raise PhaseError(f"client is a {type(client).__name__}: it is no client of plain sums")
        return client.suspend(key)

    def resume_client(
        self, suspended: bytes, key: bytes, *, terms: Terms, credentials: Credentials | None = None
    ) -> SumClient:
        state = snapshots.unseal_state(suspended, key, _Suspended, bound_to(terms.digest(self.name)))
        client = PlainClient(state.member, terms=terms)
        client.resume_suspended(state)
        return client

    def restore_server(self, snapshot: bytes, *, terms: Terms, roster: Roster | None = None) -> SumServer:
        state = snapshots.unpack(snapshot, _ServerState, terms.digest(self.name))
        server = PlainServer(state.cohort, terms=terms, round_id=state.round_id)
        server.resume(state)
        return server


class _ClientState(snapshots.SecretState):
    member: int
    round_id: bytes
    last_step: int


class _Suspended(snapshots.SecretState):
    member: int
    round_id: bytes
    steps: StoredSteps


class _ServerState(msgspec.Struct, forbid_unknown_fields=True):
    cohort: list[int]
    round_id: bytes
    next_step: int


class PlainClient(SumClient):
    """The client's machine; see :class:`protocols.machines.SumClient`."""

    def __init__(self, member: int, *, terms: Terms) -> None:
        (self._member,) = check_cohort([member])
        self._terms = terms
        self._steps = ClientSteps(terms)
        self._round_id: bytes | None = None
        self._closed = False

    @property
    def member(self) -> int:
        return self._member

    def receive(self, message: bytes) -> bytes | None:
        if self._closed:
            raise PhaseError("this round is closed")
        if self._round_id is None:
            offer = wire.decode(message, wire.Offer, limit=_OFFER_FRAME)
            check_offer(offer, self._member, self._terms, PlainSum.name)
            self._round_id = offer.round_id
            return None
        decoded = wire.decode(message, wire.StepRequest, wire.Abort, round_id=self._round_id, limit=_SMALL_FRAME)
        if isinstance(decoded, wire.Abort):
            if decoded.step not in (None, self._steps.last):
                raise StepError(f"step {decoded.step}, which is given up, is not the one going on")
            self._steps.pending = None
            self._closed = decoded.step is None
            raise too_few(decoded.survivors, decoded.needed)
        if isinstance(decoded, wire.StepRequest):
            self._steps.accept(decoded)
        return None

    def contribute(self, values: Values, *, stream: str, weight: int | None = None, context: bytes = b"") -> bytes:
        if self._closed or self._round_id is None:
            raise PhaseError("no round is going on")
        request, (ring, self.report) = self._steps.encode(values, stream=stream, weight=weight, context=context)
        self._steps.pending = None
        return contribution(self._round_id, self._member, request.step, ring)

    def close(self) -> None:
        self._closed = True

    def snapshot(self, key: bytes) -> bytes:
        if self._closed or self._round_id is None or self._steps.pending is not None:
            raise PhaseError("a snapshot is taken between two steps")
        state = _ClientState(member=self._member, round_id=self._round_id, last_step=self._steps.last)
        return snapshots.seal_state(state, key, self._terms.digest(PlainSum.name))

    def resume(self, state: _ClientState) -> None:
        """Take over a snapshot's state."""
        self._round_id = state.round_id
        self._steps.last = state.last_step

    def suspend(self, key: bytes) -> bytes:
        """The state between any two messages; see :meth:`~protocols.machines.SumProtocol.suspend_client`."""
        snapshots.check_key(key)
        if self._closed or self._round_id is None:
            raise PhaseError("a client is suspended within a round: it has taken no offer, or the round is over")
        state = _Suspended(member=self._member, round_id=self._round_id, steps=stored_steps(self._steps))
        sealed = snapshots.seal_state(state, key, bound_to(self._terms.digest(PlainSum.name)))
        self.close()
        return sealed

    def resume_suspended(self, state: _Suspended) -> None:
        """Take over a suspended client's state."""
        self._round_id = state.round_id
        put_back(self._steps, state.steps, state.round_id)


class PlainServer(SumServer):
    """The server's machine; see :class:`protocols.machines.SumServer`."""

    def __init__(self, cohort: Sequence[int], *, terms: Terms, round_id: bytes) -> None:
        self._cohort = check_cohort(cohort)
        self._terms = terms
        self._round_id = round_id
        self._needed = terms.survivors(len(self._cohort))
        self._next_step = 0
        self._collection: RingCollection | None = None
        self._result: SumResult | None = None

    @property
    def expected(self) -> frozenset[int]:
        if self.phase is not Phase.COLLECT or self._collection is None:
            return frozenset()
        return self._collection.members - self._collection.contributors

    def open(self) -> Outbox:
        if self.phase is not Phase.NEW:
            raise PhaseError("the round is open already")
        self.phase = Phase.READY
        offer = wire.encode(wire.Offer(self._round_id, self._terms.digest(PlainSum.name), list(self._cohort)))
        return dict.fromkeys(self._cohort, offer)

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
            members=self._cohort,
            survivors=self._needed,
            exactly=exactly,
        )
        self._next_step += 1
        self._result = self.failure = None
        self.phase = Phase.COLLECT
        return self._collection.ask(self._round_id)

    def receive(self, sender: int, message: bytes) -> None:
        if self.phase is not Phase.COLLECT or self._collection is None:
            raise PhaseError(f"a message from {sender} while the server waits for {self.phase.value}")
        limit = self._collection.frame_limit
        self._collection.add(sender, wire.decode(message, wire.Contribution, round_id=self._round_id, limit=limit))

    def advance(self) -> Outbox:
        if self.phase is not Phase.COLLECT or self._collection is None:
            raise PhaseError(f"there is nothing to end while the server waits for {self.phase.value}")
        collected, self._collection = self._collection, None
        self.phase = Phase.READY
        survivors, needed = len(collected.contributors), collected.needed
        if survivors < needed:
            self.failure = too_few(survivors, needed)
            abort = wire.encode(wire.Abort(self._round_id, collected.step, survivors, needed))
            return dict.fromkeys(sorted(collected.members), abort)
        self._result = finished(collected, collected.total)
        return {}

    def result(self) -> SumResult:
        if self.failure is not None:
            raise self.failure
        if self._result is None:
            raise PhaseError("there is no finished sum")
        return self._result

    def close(self) -> None:
        self.phase = Phase.CLOSED

    def snapshot(self) -> bytes:
        if self.phase is not Phase.READY:
            raise PhaseError("a snapshot is taken between two steps")
        state = _ServerState(cohort=list(self._cohort), round_id=self._round_id, next_step=self._next_step)
        return snapshots.pack(state, self._terms.digest(PlainSum.name))

    def resume(self, state: _ServerState) -> None:
        """Take over a snapshot's state."""
        self._next_step = state.next_step
        self.phase = Phase.READY
