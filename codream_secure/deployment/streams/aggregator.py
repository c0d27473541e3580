"""The server as a program: drives one protocol's machine over members' streams, with a deadline for every phase."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence

from codream_secure.deployment.streams.attendance import Attendance
from codream_secure.deployment.streams.calls import decode_upward
from codream_secure.deployment.streams.errors import FrameError
from codream_secure.deployment.streams.inbox import Inbox
from codream_secure.deployment.streams.limits import Deadlines, Limits
from codream_secure.deployment.streams.loops import LoopThread
from codream_secure.deployment.streams.rounds import SumRounds
from codream_secure.deployment.streams.server import Arrived, Dealt, Event, Outgoing, StreamServer
from codream_secure.deployment.streams.tls import Tls
from protocols import Roster, SumProtocol, SumServer, Terms

_LOG = logging.getLogger(__name__)

_LINGER_S = 0.002
"""How long a broadcast waits for the question about it."""


class Aggregator(SumRounds):
    """Rounds of sums over streams. For one thread; the streams have their own.

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
        super().__init__(protocol=protocol, terms=terms, roster=roster, limits=limits, deadlines=deadlines)
        self._inbox = Inbox()
        self._server = StreamServer(address, roster=roster, tls=tls, limits=self._limits, emit=self._inbox.put)
        self._attendance = Attendance()
        self._consumed: list[Dealt] = []
        self._loop = LoopThread()
        try:
            self.port = self._loop.call(self._server.start())
        except BaseException:
            self._loop.close()
            raise

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

    def close_round(self, reason: str = "") -> None:
        super().close_round(reason)
        self._attendance.enrolled, self._server.round_id = {}, b""

    # Moving the bytes

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
        self._take_call(event.member, call)

    def _announce(self, round_id: bytes) -> None:
        self._server.round_id = round_id

    def _enrol(self, cohort: Sequence[int]) -> None:
        self._attendance.enrol(cohort)

    def _post(self, messages: Mapping[int, bytes], *, lingers: bool = False) -> None:
        if not messages:
            # What was dealt with is told along with the next ones.
            return
        consumed, self._consumed = self._consumed, []
        enrolled = self._attendance.enrolled
        outgoing = [Outgoing(member, enrolled[member], text) for member, text in messages.items() if member in enrolled]
        self.bytes_down += sum(len(message) for _, _, message in outgoing)
        self._loop.soon(self._server.post, outgoing, consumed, _LINGER_S if lingers else 0.0)
