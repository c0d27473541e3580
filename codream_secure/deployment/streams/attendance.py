"""Who is there: which members have a stream, whose session a round began with, and who is not worth waiting for."""

from __future__ import annotations

import time
from collections.abc import Iterable

from codream_secure.deployment.streams.server import Joined, Left


class Attendance:
    """Kept by whoever drives rounds, from the events of a server.

    A machine's state lives in a member's process. A member that comes back with its session has kept it; one that
    begins a new session has lost it, and is out until the next round.

    Attributes:
        present: member to session, of all whose stream stands.
        enrolled: member to session, of those in the round.
    """

    def __init__(self) -> None:
        self.present: dict[int, bytes] = {}
        self.enrolled: dict[int, bytes] = {}
        self._cut: dict[int, float] = {}
        """When a member's stream was cut, by the monotonic clock."""

    def note(self, event: Joined | Left) -> None:
        """Take an event into account."""
        member = event.member
        if isinstance(event, Joined):
            self.present[member] = event.session_id
            self._cut.pop(member, None)
            if self.enrolled.get(member, event.session_id) != event.session_id:
                del self.enrolled[member]
            return
        if self.present.get(member) == event.session_id:
            del self.present[member]
            self._cut[member] = time.monotonic()
        if event.over and self.enrolled.get(member) == event.session_id:
            del self.enrolled[member]

    def enrol(self, members: Iterable[int]) -> None:
        """Begin a round with those of these who are present."""
        self.enrolled = {member: self.present[member] for member in members if member in self.present}

    def worth_waiting_for(self, members: Iterable[int], *, reconnect_s: float) -> tuple[set[int], float]:
        """Those who may still answer, and until when (monotonic) that holds, if nothing else happens."""
        now, found, until = time.monotonic(), set(), float("inf")
        for member in members:
            if member not in self.enrolled:
                continue
            if member in self.present:
                found.add(member)
            elif now < (end := self._cut[member] + reconnect_s):
                found.add(member)
                until = min(until, end)
        return found, until
