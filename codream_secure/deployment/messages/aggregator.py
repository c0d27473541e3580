"""The server's end: calls are kept until somebody has to answer, and then go out as one packet a member."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from codream_secure.deployment.heading import FINISHED, OVER
from codream_secure.deployment.messages.packets import MAX_CALLS, pack, read_reply
from codream_secure.deployment.streams.calls import decode_upward
from codream_secure.deployment.streams.errors import FrameError
from codream_secure.deployment.streams.frames import ID_BYTES
from codream_secure.deployment.streams.rounds import SumRounds
from protocols import SumServer

_LOG = logging.getLogger(__name__)
_POLL_S = 1.0


class Office(Protocol):
    """Whoever carries messages between the server and members."""

    def members(self) -> frozenset[int]:
        """Whom a message may reach now."""

    def exchange(self, packets: Mapping[int, bytes], *, timeout_s: float) -> Mapping[int, bytes]:
        """Send each of these members its packet; the replies of those that replied in time, by member."""


@dataclass
class _Bag:
    """What a member has not been sent yet, and how many calls it has."""

    sent: int = 0
    calls: list[bytes] = field(default_factory=list)

    def has_room(self, size: int, most: int) -> bool:
        """Whether a call of so many bytes goes into the same packet."""
        return len(self.calls) < MAX_CALLS and sum(map(len, self.calls)) + size <= most


class MessageAggregator(SumRounds):
    """Rounds of sums over messages. For one thread.

    A member that does not reply in time may or may not have taken the packet, so it is out until the next round.

    Args:
        office: carries the messages.
        settings: of :class:`~codream_secure.deployment.streams.rounds.SumRounds`.
    """

    def __init__(self, office: Office, **settings: Any) -> None:
        super().__init__(**settings)
        self._office = office
        self._bags: dict[int, _Bag] = {}
        """Of the members in the round."""
        self._sessions: dict[int, bytes] = {}
        """A new one for a member that may have lost what it was told."""
        self._round_id = b""
        self._known = 0

    def close(self) -> None:
        self.close_round("the aggregator stops")

    @property
    def present(self) -> frozenset[int]:
        members = self._office.members()
        self._known = len(members)
        return members

    @property
    def enrolled(self) -> dict[int, bytes]:
        return {member: self._sessions[member] for member in self._bags}

    def wait_for(self, members: Iterable[int], *, timeout_s: float) -> frozenset[int]:
        wanted, end = frozenset(members), time.monotonic() + timeout_s
        while not wanted <= (present := self.present) and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_S))
        return wanted & present

    def traffic(self) -> tuple[int, int]:
        return self._known, 0

    def close_round(self, reason: str = "") -> None:
        """End the round, if one is open, and wait until members have taken that in; some train at the end of one."""
        super().close_round(reason)
        deadlines = self._deadlines
        try:
            trains = reason in (FINISHED, OVER)
            self._deliver(list(self._bags), deadlines.contribute_s if trains else deadlines.open_s)
        finally:
            self._bags = {}

    def _announce(self, round_id: bytes) -> None:
        self._round_id = round_id

    def _enrol(self, cohort: Sequence[int]) -> None:
        there = self.present
        self._bags = {member: _Bag() for member in cohort if member in there}
        for member in self._bags:
            self._sessions.setdefault(member, os.urandom(ID_BYTES))

    def _post(self, messages: Mapping[int, bytes], *, lingers: bool = False) -> None:
        full = [
            member
            for member, message in messages.items()
            if member in self._bags and not self._bags[member].has_room(len(message), self._limits.window_bytes)
        ]
        # A round that is begun again shows what followed from sums that are known, and asks for nothing until then.
        self._deliver(full, self._deadlines.open_s)
        for member, message in messages.items():
            if member in self._bags:
                self._bags[member].calls.append(message)
                self.bytes_down += len(message)

    def _collect(self, machine: SumServer) -> None:
        phase = machine.phase
        asked = [member for member in sorted(machine.expected) if member in self._bags]
        silent = self._deliver(asked, self._patience(phase))
        for member in silent:
            where = {"member": member, "phase": phase.name.lower()}
            _LOG.warning("member %d is out of the round: no answer to %s", member, phase.value, extra=where)

    def _deliver(self, members: Sequence[int], timeout_s: float) -> list[int]:
        """Send what waits for these members and take their answers; who is out of the round now."""
        bags = {member: self._bags[member] for member in members if self._bags[member].calls}
        packets = {
            member: pack(self._round_id, bag.sent, bag.calls, limits=self._limits) for member, bag in bags.items()
        }
        for bag in bags.values():
            # Whatever becomes of it: what may have arrived is never part of another packet.
            bag.sent, bag.calls = bag.sent + len(bag.calls), []
        replies = self._office.exchange(packets, timeout_s=timeout_s) if packets else {}
        silent = [member for member in bags if member not in replies or not self._take(member, replies[member])]
        for member in silent:
            del self._bags[member], self._sessions[member]
        return silent

    def _take(self, member: int, message: bytes) -> bool:
        """Use a reply; whether the member is still in the round."""
        try:
            read = read_reply(message, limits=self._limits)
            if read.answer:
                self._take_call(member, decode_upward(read.answer))
        except FrameError as error:
            _LOG.warning("member %d breaks the rules: %r", member, str(error), extra={"member": member})
            return False
        return not read.out
