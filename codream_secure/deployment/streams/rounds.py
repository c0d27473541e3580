"""Rounds of sums as the server drives them, whatever carries its calls to members and their answers back."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from codream_secure.deployment.streams.calls import (
    Answer,
    Ask,
    Begin,
    Call,
    End,
    Relay,
    Upward,
    encode,
    first_context,
    next_context,
    show,
)
from codream_secure.deployment.streams.errors import BacklogError, StreamError
from codream_secure.deployment.streams.limits import Deadlines, Limits
from codream_secure.deployment.streams.member import check_carried
from protocols import Phase, PhaseError, ProtocolError, Roster, SumProtocol, SumResult, SumServer, Terms
from protocols.machines import Outbox
from protocols.terms import ROUND_ID_BYTES

_LOG = logging.getLogger(__name__)


@dataclass(kw_only=True)
class GoingOn:
    """A round that is open."""

    round_id: bytes
    machine: SumServer
    context: bytes
    asked_to_open: dict[tuple[str, bytes], tuple[int, ...]] = field(default_factory=dict)
    """Whose vectors for a stream and context may have been half opened: they are summed again over nobody else."""


class SumRounds(ABC):
    """Rounds of sums over the members of a roster. For one thread.

    Args:
        protocol: how sums are protected; one whose sums the server opens, without a key authority.
        terms: of every round.
        roster: the members.
        limits: what is taken from a member, and sent to one.
        deadlines: how long to wait.

    Attributes:
        missing: phase of the latest set-up or step to whoever had not answered when it ended.
        refusals: who refused or could not answer in the latest set-up or step, and why.
        late: answers that came after their phase had ended.
        bytes_down: of calls for members, before they are wrapped, so far.
        on_opening: told over whom a sum is about to be opened, before anybody is asked for what opens it.

    Raises:
        ConfigError: the protocol is not carried.
    """

    def __init__(
        self,
        *,
        protocol: SumProtocol,
        terms: Terms,
        roster: Roster,
        limits: Limits | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        check_carried(protocol)
        self._protocol = protocol
        self._terms = terms
        self._roster = roster
        self._limits = limits or Limits()
        self._deadlines = deadlines or Deadlines()
        self._round: GoingOn | None = None
        self._exchange = 0
        self._refused: set[int] = set()
        """Who will not answer in the present exchange."""
        self.missing: dict[Phase, frozenset[int]] = {}
        self.refusals: list[tuple[int, str]] = []
        self.late = 0
        self.bytes_down = 0
        self.on_opening: Callable[[tuple[int, ...]], None] = lambda members: None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End the round, and speak to nobody any more."""

    # Members

    @property
    @abstractmethod
    def present(self) -> frozenset[int]:
        """Who can be spoken to now."""

    @property
    @abstractmethod
    def enrolled(self) -> dict[int, bytes]:
        """Member to session, of all who are in the present round: another session is another life of a member."""

    @abstractmethod
    def wait_for(self, members: Iterable[int], *, timeout_s: float) -> frozenset[int]:
        """Wait until all of these are present, or the time is over.

        Returns:
            Those of them who are.
        """

    @abstractmethod
    def traffic(self) -> tuple[int, int]:
        """How many members are there now, and how many were turned away; from any thread."""

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
        self._announce(round_id)
        if members is not None:
            self.wait_for(members, timeout_s=self._deadlines.join_s)
        cohort = sorted(self.present) if members is None else list(members)
        if not cohort:
            raise StreamError("members is None, and nobody is present: wait_for() them first")
        machine = self._protocol.server(cohort, terms=self._terms, round_id=round_id, roster=self._roster)
        self._enrol(cohort)
        self._round = GoingOn(round_id=round_id, machine=machine, context=first_context(round_id))
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
        self._post(dict.fromkeys(self.enrolled, message), lingers=True)

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
        self._round = None

    def _open(self) -> GoingOn:
        if self._round is None:
            raise PhaseError("no round is open: call open_round() first")
        return self._round

    # Moving the bytes

    def _drive(self, going_on: GoingOn, make: Callable[[int], dict[int, bytes]]) -> None:
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
        self._post(make(self._exchange))
        if machine.failure is not None:
            raise machine.failure

    def _patience(self, phase: Phase) -> float:
        if phase in (Phase.ADVERTISE, Phase.SHARE):
            return self._deadlines.setup_s
        return self._deadlines.contribute_s if phase is Phase.COLLECT else self._deadlines.open_s

    def _take_call(self, member: int, call: Upward) -> None:
        """An answer, or a refusal; those of earlier exchanges are counted and dropped."""
        if call.exchange != self._exchange or self._round is None:
            self.late += 1
            return
        if isinstance(call, Answer):
            try:
                self._round.machine.receive(member, call.message)  # type: ignore[arg-type]  # any buffer will do
                return
            except ProtocolError as error:
                reason = f"its answer is refused: {error}"
        else:
            reason = call.reason
        _LOG.warning("member %d will not be waited for: %r", member, reason, extra={"member": member})
        self.refusals.append((member, reason))
        self._refused.add(member)

    def _tell(self, call: Call) -> None:
        """Send everybody in the round the same."""
        self._post(dict.fromkeys(self.enrolled, encode(call)))

    @abstractmethod
    def _announce(self, round_id: bytes) -> None:
        """Whoever comes from here on comes for this round."""

    @abstractmethod
    def _enrol(self, cohort: Sequence[int]) -> None:
        """A round begins with those of these who are present."""

    @abstractmethod
    def _post(self, messages: Mapping[int, bytes], *, lingers: bool = False) -> None:
        """Send calls to members who are in the round.

        Args:
            messages: encoded; members who are not in the round are passed over.
            lingers: the question about it is on its way, and they may travel together.
        """

    @abstractmethod
    def _collect(self, machine: SumServer) -> None:
        """Take answers until everybody has answered whom it makes sense to wait for, or the deadline has come."""


def _relayed(outbox: Outbox) -> Callable[[int], dict[int, bytes]]:
    """A machine's messages as calls of an exchange whose number comes later."""
    return lambda exchange: _calls(outbox, lambda message: Relay(exchange, message))


def _calls(outbox: Outbox, wrap: Callable[[memoryview], Call]) -> dict[int, bytes]:
    """A machine's messages as calls. What is the same object for several members is encoded once and stays one."""
    encoded = {id(message): message for message in outbox.values()}
    calls = {key: encode(wrap(memoryview(message))) for key, message in encoded.items()}
    return {member: calls[id(message)] for member, message in outbox.items()}
