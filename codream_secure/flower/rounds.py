"""The server's half of a protected round: one machine, the nodes it speaks to, and the messages in between."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
from flwr.app import RecordDict

from codream_secure.flower.envelopes import Answer, Ask, Kind, OpenedSum
from codream_secure.flower.settings import Protection
from protocols import Phase, ProtocolError, ReplicaError, Roster, SumResult
from protocols.machines import Outbox
from protocols.terms import ROUND_ID_BYTES

_LOG = logging.getLogger("flwr")

Exchange = Callable[[Mapping[int, Ask], RecordDict | None], dict[int, Answer]]
"""Sends each node what it is asked, beside records for all of them; the answers of those that answered, by node."""


@dataclass
class Round:
    """Set up once, good for many sums over the same nodes.

    Args:
        protection: the same as the clients'.
        roster: everybody's public keys.
        nodes: Flower's node by member number.
        exchange: sends messages and waits for replies.
    """

    protection: Protection
    roster: Roster | None
    nodes: dict[int, int]
    exchange: Exchange
    used: int = 0
    whole: bool = True
    """Whether all members have taken part in everything so far."""
    _undelivered: Outbox = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._members = {node: member for member, node in self.nodes.items()}
        self._server = self.protection.protocol.server(
            sorted(self.nodes), terms=self.protection.terms, round_id=os.urandom(ROUND_ID_BYTES), roster=self.roster
        )

    def set_up(self) -> None:
        """Exchange keys.

        Raises:
            ProtocolError: too few nodes completed it.
        """
        # The offer has no answer where there are no keys; it is a message of its own all the same.
        outbox, kind = self._server.open(), Kind.OPEN
        while outbox and (kind is Kind.OPEN or self._server.phase in (Phase.ADVERTISE, Phase.SHARE)):
            self._take(self._send(kind, outbox))
            kind = Kind.RELAY
            outbox = {} if self._server.phase is Phase.READY else self._server.advance()
        if self._server.failure is not None:
            raise self._server.failure
        # The last message of a set-up is not answered: it travels with the first request.
        self._undelivered = outbox

    def usable_for(self, nodes: Iterable[int]) -> bool:
        """Whether another sum over exactly these nodes needs no new set-up."""
        return self.whole and set(nodes) == set(self._members) and self.used < self.protection.steps

    def sum(self, stream: str, values: int, *, context: bytes, content: RecordDict) -> SumResult:
        """One sum.

        Args:
            stream: what is summed.
            values: how many values a vector has.
            context: digest of what the nodes are shown.
            content: what they are shown.

        Raises:
            ProtocolError: the sum was not opened; see its ``asked_to_open``.
        """
        self.used += 1
        # Anything that goes wrong below leaves nodes at different places: the next sum begins anew.
        whole, self.whole = self.whole, False
        requests = self._server.request(stream, values, context=context)
        frames = {
            member: [*([self._undelivered[member]] if member in self._undelivered else []), request]
            for member, request in requests.items()
        }
        self._undelivered = {}
        self._take(self._ask({member: Ask(Kind.STEP, tuple(parts)) for member, parts in frames.items()}, content))
        contributors = len(frames) - len(self._server.expected)
        outbox = self._server.advance()
        while self._server.phase not in (Phase.READY, Phase.CLOSED):
            self._take(self._send(Kind.RELAY, outbox))
            outbox = self._server.advance()
        if self._server.failure is not None:
            raise self._server.failure
        result = (
            self._server.result()
            if self.protection.protocol.opened_by == "server"
            else self._told(outbox, stream, values)
        )
        self.whole = whole and contributors == len(self.nodes) == len(result.contributors)
        return result

    def _told(self, totals: Outbox, stream: str, values: int) -> SumResult:
        """The sum as the clients opened it; all that answer have to say the same, and enough have to."""
        answers = self._send(Kind.TOTAL, totals)
        told = Counter(answer.opened for answer in answers.values() if answer.opened)
        needed = self.protection.terms.survivors(len(self.nodes))
        try:
            if len(told) != 1 or sum(told.values()) < needed:
                raise ReplicaError(
                    f"{sum(told.values())} of {len(totals)} nodes told {len(told)} different sums, where {needed} have "
                    "to tell the same"
                )
            return self._result(next(iter(told)), stream, values)
        except ReplicaError as error:
            error.asked_to_open = tuple(sorted(totals))
            raise

    def _result(self, content: bytes, stream: str, values: int) -> SumResult:
        encoding = self.protection.terms.streams[stream]
        try:
            opened = msgspec.msgpack.decode(content, type=OpenedSum)
        except msgspec.MsgspecError:
            raise ReplicaError("the sum that the nodes told is malformed") from None
        if len(opened.ring) != encoding.length(values) * encoding.dtype.itemsize:
            raise ReplicaError("the sum that the nodes told has another length")
        if not opened.contributors or not set(opened.contributors) <= set(self.nodes):
            raise ReplicaError("the sum that the nodes told is over nobody, or over strangers")
        ring = np.frombuffer(opened.ring, dtype=encoding.dtype)
        total, weight = encoding.decode(ring)
        contributors = tuple(opened.contributors)
        return SumResult(total=total, weight=weight, contributors=contributors, ring=ring, step=opened.step)

    def _send(self, kind: Kind, outbox: Outbox) -> dict[int, Answer]:
        return self._ask({member: Ask(kind, (frame,)) for member, frame in outbox.items()}, None)

    def _ask(self, asks: Mapping[int, Ask], content: RecordDict | None) -> dict[int, Answer]:
        """Answers by member. Nodes answer for their own member only."""
        answers = self.exchange({self.nodes[member]: ask for member, ask in asks.items()}, content)
        return {self._members[node]: answer for node, answer in answers.items()}

    def _take(self, answers: Mapping[int, Answer]) -> None:
        for member, answer in sorted(answers.items()):
            if not answer.frame:
                continue
            try:
                self._server.receive(member, answer.frame)
            except ProtocolError as error:
                _LOG.warning("protected sum: refused what member %d sent: %s", member, error)
