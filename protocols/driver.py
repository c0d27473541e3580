"""A whole cohort in one process: moves the bytes between the machines, through a network that may misbehave.

It serves simulations, tests and benchmarks. A deployment moves the same bytes between the same machines over sockets.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from protocols.costs import Costs
from protocols.encoding import Values
from protocols.errors import (
    CohortError,
    ContributionError,
    OpeningError,
    PhaseError,
    ProtocolError,
    ReplicaError,
    TooFewSurvivorsError,
)
from protocols.keys import Identity, Roster
from protocols.machines import (
    Credentials,
    Outbox,
    Phase,
    SumAuthority,
    SumClient,
    SumProtocol,
    SumResult,
    SumServer,
)
from protocols.parties import AUTHORITY, SERVER
from protocols.rounds import RoundLog
from protocols.terms import ROUND_ID_BYTES, Terms, check_cohort


class Envelope(NamedTuple):
    """Bytes on their way; ``SERVER`` (-1) is the server, ``AUTHORITY`` (-2) the key authority."""

    sender: int
    recipient: int
    message: bytes


class Rejection(NamedTuple):
    """A message that its recipient refused, and why."""

    envelope: Envelope
    error: ProtocolError


class Network:
    """Delivers everything, in order. Subclasses lose, delay, reorder, repeat or damage what they are given."""

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        """What arrives of what was sent while the server waits in ``phase``, in the order of arrival."""
        return envelopes


class Dropouts(Network):
    """Members that vanish: what they would send in a phase is lost.

    Args:
        vanishes: told the phase that the server waits in, the step's number (-1 during the set-up) and the member;
            whether that member's message is lost.
    """

    def __init__(self, vanishes: Callable[[Phase, int, int], bool]) -> None:
        self._vanishes = vanishes
        self.step = -1

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        if phase is Phase.COLLECT and any(envelope.recipient == SERVER for envelope in envelopes):
            self.step += 1
        return [
            envelope
            for envelope in envelopes
            if envelope.recipient != SERVER or not self._vanishes(phase, self.step, envelope.sender)
        ]


class Simulation:
    """One server and its cohort, round after round.

    Args:
        protocol: how sums are protected.
        members: distinct numbers in ascending order.
        terms: the same for all.
        network: what happens to messages.
        tap: shown every message that reaches its recipient, as it is handed over.

    Attributes:
        costs: bytes and CPU seconds of everything so far.
        rejections: messages that were refused, in order. Refused messages do not stop the simulation.
        clients: the present round's machines.
        server: likewise.
        authority: likewise, for protocols that have one.
        steps_left: sums that the present round's set-up still allows.
    """

    def __init__(
        self,
        protocol: SumProtocol,
        members: Sequence[int],
        *,
        terms: Terms,
        network: Network | None = None,
        tap: Callable[[Envelope], None] | None = None,
    ) -> None:
        self._tap = tap or (lambda envelope: None)
        self._protocol = protocol
        self._members = check_cohort(members)
        self._terms = terms
        self.network = network or Network()
        self.costs = Costs()
        self.rejections: list[Rejection] = []
        self.clients: dict[int, SumClient] = {}
        self.server: SumServer | None = None
        self.authority: SumAuthority | None = None
        self.steps_left = 0
        self._step = -1
        self._refused = 0
        """How many messages had been refused before the present step."""
        self._roster: Roster | None = None
        self._credentials: dict[int, Credentials] = {}
        if protocol.needs_credentials:
            self._introduce()

    def _introduce(self) -> None:
        """Identities and a roster, as a deployment would hand them out once."""
        identities = {member: Identity.generate() for member in self._members}
        keys = {member: identity.public_key for member, identity in identities.items()}
        if self._protocol.has_authority:
            identities[AUTHORITY] = Identity.generate()
            self._roster = Roster(keys, authority=identities[AUTHORITY].public_key)
        else:
            self._roster = Roster(keys)
        self._credentials = {
            party: Credentials(identity=identity, roster=self._roster, rounds=RoundLog())
            for party, identity in identities.items()
        }

    def open(self) -> None:
        """Begin a round and finish its set-up.

        Raises:
            TooFewSurvivorsError: too few members completed it.
        """
        self.close()
        self.clients = {
            member: self._protocol.client(member, terms=self._terms, credentials=self._credentials.get(member))
            for member in self._members
        }
        self.server = self._protocol.server(
            self._members, terms=self._terms, round_id=os.urandom(ROUND_ID_BYTES), roster=self._roster
        )
        if self._protocol.has_authority:
            self.authority = self._protocol.authority(terms=self._terms, credentials=self._credentials[AUTHORITY])
        with self.costs.timed(SERVER, "setup"):
            outbox = self.server.open()
        self._run(outbox, "setup")
        self.steps_left, self._step = self._terms.steps, -1

    def sum(
        self,
        vectors: Mapping[int, Values],
        *,
        stream: str,
        weights: Mapping[int, int] | None = None,
        context: bytes = b"",
        held: Mapping[int, bytes] | None = None,
        exactly: Iterable[int] | None = None,
    ) -> SumResult:
        """One step. Members without a vector do not contribute.

        Args:
            vectors: member to ``(d,)`` float32 or float64; all of one length.
            stream: of the terms.
            weights: member to integer, where the stream has weights.
            context: what the vectors answer; see :meth:`~protocols.machines.SumClient.contribute`.
            held: member to what it holds from now on; see :meth:`~protocols.machines.SumClient.hold`.
            exactly: as for :meth:`~protocols.machines.SumServer.request`; if not all of them completed the set-up, too
                few are left, and the next step needs a new round.

        Raises:
            TooFewSurvivorsError: the sum could not be opened; the next step may be.
            ShareError: likewise, because of wrong shares.
            ContributionError: a vector cannot be encoded; the message names the client. The step is over, unopened.
            CohortError: a vector is not a member's.
            PhaseError: no round is open.
        """
        server = self._open_server()
        strangers = sorted(set(vectors) - set(self._members))
        if strangers:
            raise CohortError(f"vectors of {strangers}, who are no members of this cohort")
        length = max((len(vector) for vector in vectors.values()), default=0)
        with self.costs.timed(SERVER, "step"):
            try:
                outbox = server.request(stream, length, context=context, exactly=exactly)
            except CohortError as error:
                self.close()
                failure = TooFewSurvivorsError(str(error))
                failure.asked_to_open = tuple(exactly or ())
                raise failure from None
        self.steps_left -= 1
        self._step += 1
        self._refused = len(self.rejections)
        for member, state in (held or {}).items():
            if member in self.clients:
                self.clients[member].hold(state)
        self._deliver(outbox, "step")
        try:
            answers = self._contributions(vectors, stream, weights or {}, context)
        except ProtocolError:
            # Nothing has reached the server yet, so the step is given up on every side.
            self._deliver(server.advance(), "step")
            raise
        self._collect(answers, "step")
        with self.costs.timed(SERVER, "step"):
            outbox = server.advance()
        self._run(outbox, "step")
        return self.result()

    def result(self) -> SumResult:
        """The latest sum, from whoever opens sums: the server, or all clients, alike.

        Raises:
            ReplicaError: clients have opened different ones.
            ProtocolError: nobody could open it; the error that the first met with.
        """
        return self._open_server().result() if self._protocol.opened_by == "server" else self._opened()

    def results(self) -> dict[int, SumResult]:
        """The latest sum as each client has opened it, where clients open sums; those that could not are missing."""
        found = {}
        for member, client in self.clients.items():
            with contextlib.suppress(PhaseError):
                result = client.result()
                # Whoever got neither request nor sum still has the one before.
                if result.step == self._step:
                    found[member] = result
        return found

    def _opened(self) -> SumResult:
        found = list(self.results().values())
        if not found:
            met = [one.error for one in self.rejections[self._refused :] if one.envelope.recipient != SERVER]
            raise met[0] if met else OpeningError("the sum reached no client")
        if any(
            not np.array_equal(found[0].ring, other.ring) or found[0].contributors != other.contributors
            for other in found[1:]
        ):
            raise ReplicaError("clients opened different sums of the same step")
        return found[0]

    def _contributions(
        self, vectors: Mapping[int, Values], stream: str, weights: Mapping[int, int], context: bytes
    ) -> list[Envelope]:
        """The members' answers to the present request."""
        answers = []
        for member, vector in sorted(vectors.items()):
            try:
                with self.costs.timed(member, "step"):
                    message = self.clients[member].contribute(
                        vector, stream=stream, weight=weights.get(member), context=context
                    )
            except PhaseError as error:
                # It never got the request, or is no longer part of the round.
                self.rejections.append(Rejection(Envelope(member, SERVER, b""), error))
                continue
            except ContributionError as error:
                raise ContributionError(f"client {member}: {error}") from None
            answers.append(Envelope(member, SERVER, message))
        return answers

    def _open_server(self) -> SumServer:
        if self.server is None:
            raise PhaseError("no round is open: call open() first")
        return self.server

    def close(self) -> None:
        """End the round, if one is open."""
        for client in self.clients.values():
            client.close()
        if self.server is not None:
            self.server.close()
        if self.authority is not None:
            self.authority.close()
        self.clients, self.server, self.authority, self.steps_left = {}, None, None, 0

    def _run(self, outbox: Outbox, phase: str) -> None:
        """Deliver, collect and advance until the server is READY again; then raise what made it fail, if anything."""
        assert self.server is not None
        while self.server.phase not in (Phase.READY, Phase.CLOSED):
            self._collect(self._deliver(outbox, phase), phase)
            with self.costs.timed(SERVER, phase):
                outbox = self.server.advance()
        self._deliver(outbox, phase)
        if self.server.failure is not None:
            raise self.server.failure

    def _deliver(self, outbox: Outbox, phase: str) -> list[Envelope]:
        """Hand the server's messages to the members; their answers."""
        assert self.server is not None
        sent = [Envelope(SERVER, member, message) for member, message in outbox.items()]
        answers = []
        for envelope in self.network.carry(sent, phase=self.server.phase):
            self.costs.moved(SERVER, envelope.recipient, phase, len(envelope.message))
            self._tap(envelope)
            try:
                with self.costs.timed(envelope.recipient, phase):
                    answer = self.machine(envelope.recipient).receive(envelope.message)
            except ProtocolError as error:
                self.rejections.append(Rejection(envelope, error))
                continue
            if answer is not None:
                answers.append(Envelope(envelope.recipient, SERVER, answer))
        return answers

    def machine(self, party: int) -> SumClient | SumAuthority:
        """A member's machine in the present round, or the key authority's."""
        if party != AUTHORITY:
            return self.clients[party]
        assert self.authority is not None
        return self.authority

    def _collect(self, answers: list[Envelope], phase: str) -> None:
        """Hand the members' messages to the server."""
        assert self.server is not None
        for envelope in self.network.carry(answers, phase=self.server.phase):
            self.costs.moved(envelope.sender, SERVER, phase, len(envelope.message))
            self._tap(envelope)
            try:
                with self.costs.timed(SERVER, phase):
                    self.server.receive(envelope.sender, envelope.message)
            except ProtocolError as error:
                self.rejections.append(Rejection(envelope, error))
