"""The interface: a protocol is a pair of state machines that take bytes and give bytes.

They open no socket and no thread, and touch no file but the caller's log of rounds; whoever drives them moves the bytes
and decides how long to wait. A round goes like this, with every arrow a message that a driver carries:

    server.open() -> messages; each client.receive(message) -> its answer; server.receive(member, answer)
    server.advance() -> the next messages, and so on until server.phase is READY: the set-up, once per round
    server.request(stream, values) -> messages; clients receive them and client.contribute(values) -> answer
    server.advance() -> the next messages, until server.phase is READY again: one step, as often as wanted
    server.result(), or every client.result() -> the sum; ``SumProtocol.opened_by`` says which
    server.close(), client.close()

``advance`` ends the wait: whoever has not answered by then has dropped out of that phase. A member that drops out of
a step may be back for the next one; a member that drops out of the set-up is out for the round.

The transport has to tell the server truthfully who sent what; the machines refuse messages in somebody else's name
only as far as they are signed or encrypted.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from protocols.encoding import EncodingReport, Ring, Values
from protocols.errors import ContributionError, PhaseError, ProtocolError, RosterError
from protocols.keys import Identity, Roster
from protocols.rounds import RoundLog
from protocols.terms import Terms
from protocols.threat import ThreatModel

Outbox = dict[int, bytes]
"""Messages to send, by the member they are for; ``AUTHORITY`` (-2) stands for the key authority."""


class Phase(enum.Enum):
    """What a server waits for."""

    NEW = "open() has not been called"
    ADVERTISE = "keys"
    SHARE = "shares"
    READY = "request(), or close()"
    COLLECT = "contributions"
    VOTE = "votes on the set of survivors"
    OPEN = "shares that open the sum"
    CLOSED = "nothing: the round is over"


@dataclass(frozen=True, kw_only=True)
class SumResult:
    """One finished sum.

    Attributes:
        total: ``(d,)`` float64, the (weighted) sum over the contributors.
        weight: the sum of their weights; None where the stream has none.
        contributors: whose vectors are in it.
        ring: the sum before decoding, ``(length(d),)``.
        step: its number within the round.
    """

    total: npt.NDArray[np.float64]
    weight: int | None
    contributors: tuple[int, ...]
    ring: Ring
    step: int = -1

    def mean(self) -> npt.NDArray[np.float64]:
        """The (weighted) mean over the contributors.

        Raises:
            ProtocolError: all weights are zero.
        """
        divisor = len(self.contributors) if self.weight is None else self.weight
        if divisor <= 0:
            raise ProtocolError("the weights sum to 0: at least one contributor needs a positive one")
        return self.total / divisor


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What a client needs in order to be told from others.

    Attributes:
        identity: its long-term key pair.
        roster: everybody's public keys.
        rounds: its memory of rounds; keep one per identity.
    """

    identity: Identity
    roster: Roster
    rounds: RoundLog


class SumClient(ABC):
    """A member's half of one round.

    A message that is refused raises the error that names why, and leaves the machine as it was; nothing is sent. Only
    an abort raises and changes it: the step, or the round, is over here as well.
    """

    report: EncodingReport | None = None
    """What encoding did to the latest vector. It describes private values: for the client's own eyes."""
    on_opening: Callable[[tuple[int, ...]], None] | None = None
    """Told over whom the latest vector is about to be summed, in ascending order, before this client signs the set or
    gives a share that opens the sum; a ProtocolError that it raises refuses. Where the server opens masked sums."""

    @property
    @abstractmethod
    def member(self) -> int:
        """This member's number."""

    @abstractmethod
    def receive(self, message: bytes) -> bytes | None:
        """Take one message from the server; the answer to it, where there is one.

        Raises:
            ProtocolError: the message is refused; subclasses say why.
        """

    @abstractmethod
    def contribute(self, values: Values, *, stream: str, weight: int | None = None, context: bytes = b"") -> bytes:
        """Answer the latest request with this client's vector.

        Args:
            values: ``(d,)`` float32 or float64, of the length that was asked for.
            stream: what the values are; refused if the server asked for something else.
            weight: integer, where the stream has weights.
            context: what the vector is an answer to, as this client was shown it, or a digest of it. Where values are
                masked, masks cancel only among contributors with the same context, so a server that shows one client
                something else learns nothing of it. Must equal what the server gave to :meth:`SumServer.request`.

        Raises:
            ContributionError: the vector cannot be encoded, or has another length than was asked for.
            PhaseError: nothing was asked for, or another stream or context.
        """

    def hold(self, state: bytes) -> None:
        """Say what only clients know of what the next vectors answer, where clients open sums: before each step.

        Args:
            state: or a digest of it, such as of what was computed from earlier sums. It is in force until the next
                call, and nothing at first. It travels with contributions, as a digest that says nothing to the server,
                and is compared by whoever opens the sum, contributor or not: a client refuses a sum to which another
                state contributed.

        Raises:
            ContributionError: it is the server that opens sums, and so knows what clients know of them: use context.
        """
        raise ContributionError("hold() was called, but it is the server that opens this protocol's sums: use context")

    def result(self) -> SumResult:
        """The sum of the latest step, where clients open sums.

        Raises:
            PhaseError: there is none yet, or it is the server that opens them.
        """
        raise PhaseError("the server opens this protocol's sums")

    @abstractmethod
    def close(self) -> None:
        """End the round here, and wipe its secrets."""

    @abstractmethod
    def snapshot(self, key: bytes) -> bytes:
        """The state between two steps, encrypted and authenticated under a 32-byte key of the caller's.

        A step that this client has contributed to and not yet helped to open is given up.

        Raises:
            PhaseError: the set-up is not finished, or a vector has been asked for.
            MessageError: the key has not 32 bytes.
        """


class SumServer(ABC):
    """The server's half of one round. It is told nothing that it must not know."""

    phase: Phase = Phase.NEW
    failure: ProtocolError | None = None
    """Why the latest step, or the whole round if :attr:`phase` is CLOSED, ended without a sum."""

    @property
    @abstractmethod
    def expected(self) -> frozenset[int]:
        """Who has not answered yet in this phase."""

    @abstractmethod
    def open(self) -> Outbox:
        """Begin the round."""

    @abstractmethod
    def receive(self, sender: int, message: bytes) -> None:
        """Take one member's answer; a message that is refused changes nothing.

        Raises:
            SenderError: the sender is not expected.
            ProtocolError: the message is refused; subclasses say why.
        """

    @abstractmethod
    def advance(self) -> Outbox:
        """End the present phase with whoever has answered.

        Where too few are left, :attr:`failure` says so, the messages tell the clients, and the step or round is over.
        """

    @abstractmethod
    def request(
        self, stream: str, values: int, *, context: bytes = b"", exactly: Iterable[int] | None = None
    ) -> Outbox:
        """Begin a step: ask everybody for ``values`` values of a stream.

        Args:
            stream: of the terms.
            values: how long the vectors are.
            context: what the vectors answer, as everybody was shown it; its digest is sent, to tell mistakes apart.
            exactly: ask only these members, and open the sum over all of them or not at all. For the vectors of a
                step that failed after shares had been asked for: see :class:`~protocols.errors.ProtocolError`.

        Raises:
            CohortError: ``exactly`` names somebody who did not complete the set-up, or fewer than a sum needs.
            PhaseError: the server is not READY.
            StepError: all steps that were set up are used.
            TermsError: there is no such stream, or it is longer than the terms allow.
        """

    @abstractmethod
    def result(self) -> SumResult:
        """The sum of the latest step.

        Raises:
            TooFewSurvivorsError: it failed for that reason; other errors of :attr:`failure` likewise.
            PhaseError: there is none yet, or it is the clients that open sums.
        """

    @abstractmethod
    def close(self) -> None:
        """End the round here."""

    @abstractmethod
    def snapshot(self) -> bytes:
        """The state between two steps. It holds nothing that the server's adversaries must not see.

        Raises:
            PhaseError: the server is not READY.
        """


class SumAuthority(ABC):
    """A key authority's part of one round: apart from server and clients, it sees sums and opens them.

    It refuses as clients do: a message that is refused raises and changes nothing.
    """

    @abstractmethod
    def receive(self, message: bytes) -> bytes | None:
        """Take one message from the server; the answer to it, where there is one.

        Raises:
            ProtocolError: the message is refused; subclasses say why.
        """

    @abstractmethod
    def close(self) -> None:
        """End the round here, and wipe its secrets."""

    @abstractmethod
    def snapshot(self, key: bytes) -> bytes:
        """The state between two steps, encrypted and authenticated under a 32-byte key of the caller's.

        Raises:
            PhaseError: the set-up is not finished.
            MessageError: the key has not 32 bytes.
        """


class SumProtocol(ABC):
    """A way to protect sums: makes the machines and states its threat model."""

    name: ClassVar[str]
    threat_model: ClassVar[ThreatModel]
    needs_credentials: ClassVar[bool]
    carries_noise: ClassVar[bool] = True
    """Whether ``terms.noise`` may be other than none."""
    has_authority: ClassVar[bool] = False
    """Whether a key authority takes part."""
    opened_by: ClassVar[Literal["server", "clients"]] = "server"
    """Who learns the sums: the server, or every client and not the server."""

    @abstractmethod
    def client(self, member: int, *, terms: Terms, credentials: Credentials | None = None) -> SumClient:
        """A member's machine for one round."""

    @abstractmethod
    def server(
        self, cohort: Sequence[int], *, terms: Terms, round_id: bytes, roster: Roster | None = None
    ) -> SumServer:
        """The server's machine for one round of this cohort, in ascending order."""

    @abstractmethod
    def restore_client(
        self, snapshot: bytes, key: bytes, *, terms: Terms, credentials: Credentials | None = None
    ) -> SumClient:
        """A client from :meth:`SumClient.snapshot`, under the same terms and credentials.

        Raises:
            MessageError: another key, other terms, or damage.
        """

    def suspend_client(self, client: SumClient, key: bytes) -> bytes:
        """A client's state between *any* two messages, sealed under a 32-byte key; the machine is closed.

        For drivers whose process ends after each message. Unlike a snapshot it holds what the step that goes on needs,
        so it must be resumed once at most: two machines from one state could be made to open their vector between
        them, each giving the share that the other withholds. Whoever stores it deletes it before resuming.

        Raises:
            PhaseError: this protocol's clients cannot be suspended, or the round is closed.
            MessageError: the key has not 32 bytes.
        """
        raise PhaseError(f"a client of {self.name} sums cannot be suspended: keep its process alive")

    def resume_client(
        self, suspended: bytes, key: bytes, *, terms: Terms, credentials: Credentials | None = None
    ) -> SumClient:
        """A client from :meth:`suspend_client`, under the same terms and credentials; never twice from one state.

        Raises:
            MessageError: another key, other terms, or damage.
            RosterError: another roster, or the identity is not the member's.
            PhaseError: this protocol's clients cannot be suspended.
        """
        raise PhaseError(f"a client of {self.name} sums cannot be resumed")

    @abstractmethod
    def restore_server(self, snapshot: bytes, *, terms: Terms, roster: Roster | None = None) -> SumServer:
        """A server from :meth:`SumServer.snapshot`, under the same terms.

        Raises:
            MessageError: other terms, or damage.
        """

    def authority(self, *, terms: Terms, credentials: Credentials | None = None) -> SumAuthority:
        """The key authority's machine for one round.

        Raises:
            PhaseError: this protocol has none.
        """
        raise PhaseError(f"{self.name} sums have no key authority")

    def restore_authority(
        self, snapshot: bytes, key: bytes, *, terms: Terms, credentials: Credentials | None = None
    ) -> SumAuthority:
        """An authority from :meth:`SumAuthority.snapshot`, under the same terms and credentials.

        Raises:
            MessageError: another key, other terms, or damage.
            PhaseError: this protocol has none.
        """
        raise PhaseError(f"{self.name} sums have no key authority")


_T = TypeVar("_T")


def required(value: _T | None, name: str) -> _T:
    """The value, where a protocol cannot do without.

    Raises:
        RosterError: it is None.
    """
    if value is None:
        raise RosterError(f"{name} is None: this protocol tells members apart by their keys")
    return value
