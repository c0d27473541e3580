"""The server as a program: drives one protocol's machine over members' streams, with a deadline for every phase."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from codream_secure.deployment.streams.attendance import Attendance
from codream_secure.deployment.streams.calls import (
    Answer,
    Ask,
    Begin,
    Call,
    End,
    Relay,
    decode_upward,
    encode,
    first_context,
    next_context,
    show,
)
from codream_secure.deployment.streams.errors import BacklogError, FrameError, StreamError
from codream_secure.deployment.streams.inbox import Inbox
from codream_secure.deployment.streams.limits import Deadlines, Limits
from codream_secure.deployment.streams.loops import LoopThread
from codream_secure.deployment.streams.member import check_carried
from codream_secure.deployment.streams.server import Arrived, Dealt, Event, Outgoing, StreamServer
from codream_secure.deployment.streams.tls import Tls
from protocols import Phase, PhaseError, ProtocolError, Roster, SumProtocol, SumResult, SumServer, Terms
from protocols.machines import Outbox
from protocols.terms import ROUND_ID_BYTES

_LOG = logging.getLogger(__name__)

_LINGER_S = 0.002
"""How long a broadcast waits for the question about it."""


@dataclass(kw_only=True)
class _Round:
    round_id: bytes
    machine: SumServer
    context: bytes
    asked_to_open: dict[tuple[str, bytes], tuple[int, ...]] = field(default_factory=dict)
    """Whose vectors for a stream and context may have been half opened: they are summed again over nobody else."""


class Aggregator:
    """Rounds of sums over the members of a roster. For one thread; the streams have their own.

    Args:
        address: ``HOST:PORT`` to listen on; port 0 takes a free one.
        protocol: how sums are protected; one whose sums the server opens, without a key authority.
        terms: of every round.
        roster: the members.
        tls: this machine's certificate, and the authority of the members' machines.
        limits: what is taken from a stream; the members' limits have to be the same.
        deadlines: how long to wait.

    Attributes:
        port: where it listens.
        missing: phase of the latest set-up or step to whoever had not answered when it ended.
        refusals: who refused or could not answer in the latest set-up or step, and why.
        late: answers that came after their phase had ended.
        bytes_down: of messages for members, before frames, so far.
        on_opening: told over whom a sum is about to be opened, before anybody is asked for what opens it.

    Raises:
        ConfigError: grpcio is missing, the address is not free, or the protocol is not carried.
    """

    def __init__(
        self,
        address: str,
        *,
        protocol: SumProtocol,
        terms: Terms,
        roster: Roster,
        tls: Tls,
        limits: Limits | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        check_carried(protocol)
        self._protocol = protocol
        self._terms = terms
        self._roster = roster
        self._limits = limits or Limits()
        self._deadlines = deadlines or Deadlines()
        self._inbox = Inbox()
        self._server = StreamServer(address, roster=roster, tls=tls, limits=self._limits, emit=self._inbox.put)
        self._attendance = Attendance()
        self._round: _Round | None = None
        self._exchange = 0
        self._refused: set[int] = set()
        """Who will not answer in the present exchange."""
        self._consumed: list[Dealt] = []
        self.missing: dict[Phase, frozenset[int]] = {}
        self.refusals: list[tuple[int, str]] = []
        self.late = 0
        self.bytes_down = 0
        self.on_opening: Callable[[tuple[int, ...]], None] = lambda members: None
        self._loop = LoopThread()
        try:
            self.port = self._loop.call(self._server.start())
        except BaseException:
            self._loop.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the round, hang up and stop listening."""
        self.close_round("the aggregator stops")
        self._loop.call(self._server.stop())
        self._loop.close()

    # Members

    @property
    def present(self) -> frozenset[int]:
        """Whose stream stands now."""
        self._await_events(0.0)
        return frozenset(self._attendance.present)

    def wait_for(self, members: Iterable[int], *, timeout_s: float) -> frozenset[int]:
        """Wait until all of these are present, or the time is over.

        Returns:
            Those of them who are.
        """
        wanted, end = frozenset(members), time.monotonic() + timeout_s
        while not wanted <= self.present and (left := end - time.monotonic()) > 0:
            self._await_events(left)
        return wanted & self.present

    @property
    def enrolled(self) -> dict[int, bytes]:
        """Member to session, of all who are in the present round: another session is another life of a member."""
        self._await_events(0.0)
        return dict(self._attendance.enrolled)

    def traffic(self) -> tuple[int, int]:
        """How many members have a stream now, and how many streams were refused; from any thread."""
        return self._server.connected, self._server.turned_away

    # Rounds

    def open_round(self, members: Sequence[int] | None = None, *, round_id: bytes | None = None) -> bytes:
        """Begin a round and finish its set-up.

        Args:
            members: the cohort, in ascending order. They are waited for; who does not come in time drops out of the
                set-up. None takes whoever is present.
            round_id: 16 fresh bytes; None draws them. Give them where members are told of the round on another way.

        Returns:
            The round's id.

        Raises:
            TooFewSurvivorsError: too few completed the set-up.
            ProtocolError: no such cohort can be, under these terms.
            StreamError: members is None, and nobody is present.
        """
        self.close_round("another round begins")
        round_id = os.urandom(ROUND_ID_BYTES) if round_id is None else round_id
        self._server.round_id = round_id
        if members is not None:
            self.wait_for(members, timeout_s=self._deadlines.join_s)
        cohort = sorted(self.present) if members is None else list(members)
        if not cohort:
            raise StreamError("members is None, and nobody is present: wait_for() them first")
        machine = self._protocol.server(cohort, terms=self._terms, round_id=round_id, roster=self._roster)
        self._attendance.enrol(cohort)
        self._round = _Round(round_id=round_id, machine=machine, context=first_context(round_id))
        self.missing, self.refusals = {}, []
        self._tell(Begin(round_id))
        try:
            self._drive(self._round, _relayed(machine.open()))
        except ProtocolError as error:
            self.close_round(f"the set-up failed: {error}")
            raise
        return round_id

    def broadcast(self, tensors: Sequence[npt.NDArray[np.generic]], *, phase: str = "dreams") -> None:
        """Show arrays to every member of the round; vectors asked for from here on answer these.

        Args:
            tensors: float32, float64, int32, int64 or uint8, of any shapes.
            phase: what they are, for the members' eyes.

        Raises:
            PhaseError: no round is open.
            FrameError: an array has another type.
            BacklogError: they are longer than a message may be.
        """
        going_on = self._open()
        message = encode(show(phase, tensors))
        if len(message) > self._limits.message_bytes:
            raise BacklogError(
                f"the tensors take {len(message)} bytes, where a message has at most {self._limits.message_bytes} "
                "(message_bytes)"
            )
        going_on.context = next_context(going_on.context, message)
        self._post(dict.fromkeys(self._attendance.enrolled, message), linger_s=_LINGER_S)

    def sum(self, stream: str, values: int, *, exactly: Iterable[int] | None = None) -> SumResult:
        """One step: ask every member of the round for a vector, and open the sum of those that arrive in time.

        Where a step failed after shares had been asked for, and nothing has been broadcast since, the same vectors are
        summed over the same members or not at all, whether or not ``exactly`` says so.

        Args:
            stream: of the terms.
            values: how long the vectors are.
            exactly: see :meth:`protocols.SumServer.request`.

        Raises:
            TooFewSurvivorsError: the sum was not opened; the next one may be.
            ProtocolError: as for :meth:`protocols.SumServer.request`, or shares were wrong.
            PhaseError: no round is open.
        """
        going_on = self._open()
        question = (stream, going_on.context)
        asked = going_on.machine.request(
            stream, values, context=going_on.context, exactly=going_on.asked_to_open.get(question, exactly)
        )
        self.missing, self.refusals = {}, []
        try:
            self._drive(
                going_on,
                lambda exchange: _calls(asked, lambda message: Ask(exchange, stream, values, message)),
            )
        except ProtocolError as error:
            if error.asked_to_open is not None:
                going_on.asked_to_open.setdefault(question, error.asked_to_open)
            raise
        return going_on.machine.result()

    def close_round(self, reason: str = "") -> None:
        """End the round, if one is open."""
        if self._round is not None:
            self._tell(End(self._round.round_id, reason))
            self._round.machine.close()
        self._round, self._attendance.enrolled, self._server.round_id = None, {}, b""

    def _open(self) -> _Round:
        if self._round is None:
            raise PhaseError("no round is open: call open_round() first")
        return self._round

    # Moving the bytes

    def _drive(self, going_on: _Round, make: Callable[[int], dict[int, bytes]]) -> None:
        """Send, collect and advance until the machine is READY again; then raise what made it fail, if anything.

        Args:
            going_on: the round.
            make: the first exchange's messages, given its number.
        """
        machine = going_on.machine
        while machine.phase not in (Phase.READY, Phase.CLOSED):
            self._exchange += 1
            self._refused = set()
            self._post(make(self._exchange))
            self._collect(machine)
            collected = machine.phase is Phase.COLLECT
            self.missing[machine.phase] = machine.expected
            make = _relayed(machine.advance())
            if collected and machine.phase not in (Phase.READY, Phase.CLOSED):
                self.on_opening(tuple(sorted(machine.expected)))
        self._exchange += 1
        if last := make(self._exchange):
            self._post(last)
        if machine.failure is not None:
            raise machine.failure

    def _collect(self, machine: SumServer) -> None:
        """Take answers until everybody has answered whom it makes sense to wait for, or the deadline has come."""
        phase = machine.phase
        end = time.monotonic() + self._patience(phase)
        while True:
            waited, until = self._attendance.worth_waiting_for(
                machine.expected - self._refused, reconnect_s=self._deadlines.reconnect_s
            )
            if not waited:
                return
            left = min(end, until) - time.monotonic()
            if end <= time.monotonic():
                # What has arrived by now is in time, even if there was no time to look at it.
                self._await_events(0.0)
                for member in sorted(machine.expected):
                    where = {"member": member, "phase": phase.name.lower()}
                    _LOG.warning("member %d has not answered by the deadline: %s", member, phase.value, extra=where)
                return
            self._await_events(left, messages=len(waited))

    def _patience(self, phase: Phase) -> float:
        if phase in (Phase.ADVERTISE, Phase.SHARE):
            return self._deadlines.setup_s
        return self._deadlines.contribute_s if phase is Phase.COLLECT else self._deadlines.open_s

    def _await_events(self, timeout_s: float, *, messages: int = 1) -> None:
        for event in self._inbox.take(timeout_s, messages=messages):
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, Arrived):
            dealt = Dealt(event.member, event.session_id, len(event.message))
            if self._attendance.enrolled.get(event.member) == event.session_id:
                self._consumed.append(dealt)
                self._take_message(event)
            else:
                self._loop.soon(self._server.post, (), [dealt])
        else:
            self._attendance.note(event)

    def _take_message(self, event: Arrived) -> None:
        try:
            call = decode_upward(event.message)
        except FrameError as error:
            self._loop.soon(self._server.hang_up, event.member, str(error))
            return
        if call.exchange != self._exchange or self._round is None:
            self.late += 1
            return
        if isinstance(call, Answer):
            try:
                self._round.machine.receive(event.member, call.message)  # type: ignore[arg-type]  # any buffer will do
                return
            except ProtocolError as error:
                reason = f"its answer is refused: {error}"
        else:
            reason = call.reason
        _LOG.warning("member %d will not be waited for: %r", event.member, reason, extra={"member": event.member})
        self.refusals.append((event.member, reason))
        self._refused.add(event.member)

    def _tell(self, call: Call) -> None:
        """Send everybody in the round the same."""
        self._post(dict.fromkeys(self._attendance.enrolled, encode(call)))

    def _post(self, messages: Mapping[int, bytes], *, linger_s: float = 0.0) -> None:
        consumed, self._consumed = self._consumed, []
        enrolled = self._attendance.enrolled
        outgoing = [Outgoing(member, enrolled[member], text) for member, text in messages.items() if member in enrolled]
        self.bytes_down += sum(len(message) for _, _, message in outgoing)
        self._loop.soon(self._server.post, outgoing, consumed, linger_s)


def _relayed(outbox: Outbox) -> Callable[[int], dict[int, bytes]]:
    """A machine's messages as calls of an exchange whose number comes later."""

    return lambda exchange: _calls(outbox, lambda message: Relay(exchange, message))


def _calls(outbox: Outbox, wrap: Callable[[memoryview], Call]) -> dict[int, bytes]:
    """A machine's messages as calls. What is the same object for several members is encoded once and stays one."""
    encoded = {id(message): message for message in outbox.values()}
    calls = {key: encode(wrap(memoryview(message))) for key, message in encoded.items()}
    return {member: calls[id(message)] for member, message in outbox.items()}
