"""A member's part in rounds, without a socket: calls of the aggregator in, answers out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from codream_secure.deployment.streams.calls import (
    Answer,
    Ask,
    Begin,
    Downward,
    End,
    Refusal,
    Relay,
    Show,
    Upward,
    first_context,
    next_context,
    shown,
)
from codream_secure.deployment.streams.errors import RefusedError
from codream_secure.errors import ConfigError
from protocols import Credentials, ProtocolError, SumClient, SumProtocol, Terms, wire
from protocols.encoding import Values
from protocols.terms import MAX_COHORT

_LOG = logging.getLogger(__name__)
_REASON = 400
_OFFER_BYTES = 128 + 5 * MAX_COHORT


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the aggregator showed to everybody.

    Attributes:
        phase: what it is, in the aggregator's words.
        tensors: read-only arrays.
    """

    phase: str
    tensors: list[npt.NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question that a vector answers.

    Attributes:
        stream: of the terms.
        values: how many values the vector has to have.
        shown: the latest that was shown in this round, if anything was.
        round_id: 16 bytes.
    """

    stream: str
    values: int
    shown: Shown | None
    round_id: bytes


class Suspended(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A member within a round, between two calls; see :meth:`Member.suspend`.

    Attributes:
        round_id: 16 bytes.
        context: 32 bytes for all that was shown.
        machine: sealed.
    """

    round_id: bytes
    context: bytes
    machine: bytes


Contribution = Values | tuple[Values, int] | None
"""``(values,)`` float32 or float64; with its integer weight where the stream has weights; or None to sit a step out."""


class Member:
    """Drives this member's machines, one a round.

    Args:
        number: the member's.
        protocol: how sums are protected; one whose sums the server opens, without a key authority.
        terms: of every round.
        credentials: identity, roster and memory of rounds; None where the protocol needs none.
        compute: gives the vector for a question.
        on_shown: told what is shown to everybody, before the questions about it.
        on_masking: told, before a vector is masked, of which stream it is and how many values it has; what it raises
            keeps the vector here.
        on_opening: told over whom the latest vector is about to be summed, before this member helps to open the sum; a
            ProtocolError that it raises refuses.
        round_id: the one round to take part in; empty for any.

    Attributes:
        failure: what ``compute``, ``on_masking`` or ``on_shown`` raised; the member answers nothing more.
        rounds: how many have ended.

    Raises:
        ConfigError: this transport does not carry the protocol.
    """

    def __init__(
        self,
        number: int,
        *,
        protocol: SumProtocol,
        terms: Terms,
        compute: Callable[[Asked], Contribution],
        credentials: Credentials | None = None,
        on_shown: Callable[[Shown], None] | None = None,
        on_masking: Callable[[str, int], None] | None = None,
        on_opening: Callable[[tuple[int, ...]], None] | None = None,
        round_id: bytes = b"",
    ) -> None:
        check_carried(protocol)
        self.number = number
        self._protocol = protocol
        self._terms = terms
        self._credentials = credentials
        self._compute = compute
        self._on_shown = on_shown
        self._on_masking = on_masking
        self._on_opening = on_opening
        self._pinned = round_id
        self._machine: SumClient | None = None
        self._offered = False
        """Whether it has been told which round it is for."""
        self._round_id = b""
        self._context = b""
        self._latest: Shown | None = None
        self.failure: Exception | None = None
        self.rounds = 0

    def handle(self, call: Downward, message: bytes | memoryview, *, overtaken: bool = False) -> Upward | None:
        """Take one call.

        Args:
            call: decoded from ``message``.
            message: as it came.
            overtaken: whether the next question is here already, so that nobody waits for the answer to this one.

        Returns:
            The answer, if there is one.

        Raises:
            RefusedError: it is about another round than the one this member is here for.
        """
        match call:
            case Begin():
                self._begin(call.round_id)
                return None
            case Show():
                self._show(call, message)
                return None
            case End():
                self.drop()
                self.rounds += 1
                _LOG.info("round %s is over: %r", call.round_id.hex(), call.reason or "done")
                return None
            case Relay() | Ask():
                try:
                    return self._turn(call, overtaken)
                except ProtocolError as error:
                    _LOG.warning("member %d refuses: %s", self.number, error)
                    return Refusal(call.exchange, f"{type(error).__name__}: {error}"[:_REASON])

    def drop(self) -> None:
        """Give the present round up, and wipe its secrets."""
        if self._machine is not None:
            self._machine.close()
        self._machine, self._latest, self._offered = None, None, False

    def suspend(self, key: bytes) -> Suspended | None:
        """Take the member out of its round, to go on in another process; None if it is in none, or never got in.

        Args:
            key: 32 bytes that the machine is sealed under.

        Raises:
            ProtocolError: see :meth:`protocols.SumProtocol.suspend_client`, and what it asks of whoever keeps this.
        """
        if self._machine is None or not self._offered:
            self.drop()
            return None
        machine, self._machine = self._machine, None
        sealed = self._protocol.suspend_client(machine, key)
        self._latest, self._offered = None, False
        return Suspended(self._round_id, self._context, sealed)

    def resume(self, suspended: Suspended, key: bytes) -> None:
        """Be in the round again that another process was in; once at most from one state.

        Raises:
            ProtocolError: another key, roster or terms, or damage.
        """
        self.drop()
        self._machine = self._protocol.resume_client(
            suspended.machine, key, terms=self._terms, credentials=self._credentials
        )
        self._machine.on_opening = self._on_opening
        self._round_id, self._context, self._offered = suspended.round_id, suspended.context, True

    def _begin(self, round_id: bytes) -> None:
        self.drop()
        if self._pinned and round_id != self._pinned:
            raise RefusedError(f"round {round_id.hex()} begins, where this member is here for {self._pinned.hex()}")
        self._machine = self._protocol.client(self.number, terms=self._terms, credentials=self._credentials)
        self._machine.on_opening = self._on_opening
        self._round_id, self._context = round_id, first_context(round_id)

    def _show(self, call: Show, message: bytes | memoryview) -> None:
        self._context = next_context(self._context, message)
        self._latest = Shown(phase=call.phase, tensors=shown(call))
        if self._on_shown is not None and self.failure is None:
            try:
                self._on_shown(self._latest)
            except Exception as error:
                self.failure = error

    def _turn(self, call: Relay | Ask, overtaken: bool) -> Upward | None:
        if self._machine is None:
            return Refusal(call.exchange, "this member is in no round")
        if not self._offered:
            # What the aggregator says began, and a caller may have pinned, is the round that the machine enters.
            wire.decode(call.message, wire.Offer, limit=_OFFER_BYTES, round_id=self._round_id)  # type: ignore[arg-type]
        answer = self._machine.receive(call.message)  # type: ignore[arg-type]  # any buffer will do
        self._offered = True
        if isinstance(call, Relay):
            return None if answer is None else Answer(call.exchange, memoryview(answer))
        if overtaken or self.failure is not None:
            return None
        return self._contribute(call, self._machine)

    def _contribute(self, call: Ask, machine: SumClient) -> Upward:
        asked = Asked(stream=call.stream, values=call.values, shown=self._latest, round_id=self._round_id)
        try:
            given = self._compute(asked)
            if given is not None and self._on_masking is not None:
                self._on_masking(call.stream, call.values)
        except Exception as error:
            # Raised again by whoever drives this member, once the aggregator has been told not to wait.
            self.failure = error
            return Refusal(call.exchange, "this member has no vector that it may give")
        if given is None:
            return Refusal(call.exchange, "this member sits the step out")
        values, weight = given if isinstance(given, tuple) else (given, None)
        message = machine.contribute(values, stream=call.stream, weight=weight, context=self._context)
        return Answer(call.exchange, memoryview(message))


def check_carried(protocol: SumProtocol) -> None:
    """Return if streams carry a protocol.

    Raises:
        ConfigError: they do not.
    """
    if protocol.has_authority or protocol.opened_by != "server":
        raise ConfigError(
            f"protocol {protocol.name!r} is not carried by streams: use one whose sums the server opens and that has "
            "no key authority, such as masked"
        )
