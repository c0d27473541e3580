"""Between a strategy and Flower's grid: one train message a node goes in, the weighted mean comes out as one reply."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from codream_secure.errors import CodreamError, ConfigError
from codream_secure.flower.contents import layout, shown_digest
from codream_secure.flower.envelopes import RECORD, Answer, Ask, Kind, MessageRefusedError, answer_in
from codream_secure.flower.privacy import CountedReleases
from codream_secure.flower.rounds import Round
from codream_secure.flower.settings import EVALUATE, TRAIN, Protection
from codream_secure.releases import Releases
from protocols import ProtocolError, Roster
from protocols.steps import too_few

_LOG = logging.getLogger("flwr")
_GOODBYE_S = 60.0


class SumLostError(CodreamError):
    """A sum was given up when it may be open already, so that its vectors must not be summed again: the run is over."""


class ProtectedGrid(Grid):
    """Flower's grid for a strategy that may see sums only.

    Args:
        grid: Flower's own.
        protection: the same as the clients'.
        roster: everybody's public keys; None only for ``protection.name == "plain"``.
        phase_timeout: seconds for messages that no training hangs on; None waits as long as for training.
        releases: the account of what was released in this run so far; None: nothing was.

    Attributes:
        exchanges: how many times nodes were sent messages and waited for, so far.
    """

    def __init__(
        self,
        grid: Grid,
        protection: Protection,
        *,
        roster: Roster | None,
        phase_timeout: float | None = None,
        releases: Releases | None = None,
    ) -> None:
        if roster is None and protection.protocol.needs_credentials:
            raise ConfigError(f"roster is None: {protection.name} sums tell members apart by their keys")
        self._grid = grid
        self._protection = protection
        self._roster = roster
        self._phase_timeout = phase_timeout
        self._releases = releases or protection.releases()
        self._member_of: dict[int, int] = {}
        """By node."""
        self._round: Round | None = None
        self.exchanges = 0
        self._message_type, self._timeout = TRAIN, phase_timeout
        self._errors: list[Message] = []
        """Replies of nodes that failed, in the present sum."""

    # What is Flower's own

    def set_run(self, run: Any) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        return self._grid.run

    def create_message(self, *args: Any, **named: Any) -> Message:
        return self._grid.create_message(*args, **named)

    def get_node_ids(self) -> Iterable[int]:
        return self._grid.get_node_ids()

    def get_nodes(self) -> Any:
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._grid.pull_messages(message_ids)

    # What is protected

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The replies: of a train (or evaluate) message to many nodes one, which holds the mean, and those of failures.

        Args:
            messages: all with the same type and content; one a node.
            timeout: seconds that each exchange of messages waits for training.

        Raises:
            ConfigError: messages of several types or contents, or more than one for a node.
            SumLostError: the sum was given up when it may be open already.
        """
        sent = list(messages)
        types = {message.metadata.message_type for message in sent}
        if len(types) > 1:
            raise ConfigError(f"messages of types {', '.join(sorted(types))} were sent at once: send one at a time")
        stream = next(iter(types)).split(".")[0] if types else ""
        if not sent or stream in self._protection.clear:
            return self._grid.send_and_receive(sent, timeout=timeout)
        if stream == EVALUATE and self._protection.dp is not None:
            raise ConfigError(
                "evaluate messages ask for what nothing accounts for: with dp give the strategy fraction_evaluate=0.0, "
                "and evaluate on the server's own data"
            )
        if stream not in (TRAIN, EVALUATE):
            raise ConfigError(
                f"{stream} messages are not summed: to pass them in clear, name {stream!r} in Protection(clear=)"
            )
        if len({message.metadata.dst_node_id for message in sent}) != len(sent):
            raise ConfigError("a node is sent two messages at once: a protected sum has one vector of each")
        if len(sent) > self._protection.clients:
            raise ConfigError(
                f"{len(sent)} nodes are sent {stream} messages, but Protection(clients={self._protection.clients}) is "
                "for at most so many: raise it on server and nodes, or sample fewer"
            )
        (self._message_type,) = types
        self._timeout, self._errors = timeout, []
        content = self._sum(stream, sent)
        replies = list(self._errors)
        return replies if content is None else [Message(content, reply_to=sent[0]), *replies]

    def _sum(self, stream: str, sent: list[Message]) -> RecordDict | None:
        """The mean as one node's reply; None if no sum was begun or it was given up, without harm."""
        content, settings, before = sent[0].content, self._protection.digest(), self.exchanges
        context = shown_digest(content, settings, stream)
        for message in sent[1:]:
            if message.content is not content and shown_digest(message.content, settings, stream) != context:
                raise ConfigError("nodes are sent different contents: a protected sum answers one question")
        vectors = layout(content, self._protection, stream)
        if vectors.values > self._protection.terms.max_values:
            raise ConfigError(
                f"the arrays have {vectors.values} values, and nodes answer with at most "
                f"{self._protection.terms.max_values}: raise dp.values on server and nodes"
            )
        if not self._releases.fits({stream: 1}):
            # No error: the run would end without its arrays. The strategy goes through its rounds with what it has.
            _LOG.warning("protected %s: no more sums, the next is beyond plan or budget. %s", stream, self._spent())
            return None
        nodes = [message.metadata.dst_node_id for message in sent]
        try:
            current = self._round_for(nodes)
        except ProtocolError as error:
            _LOG.warning("protected %s: no sum in this round, keys were not set up: %s", stream, error)
            return None
        # Before the nodes are asked: a sum that fails may have been seen.
        self._releases.before_sum(stream, values=vectors.values)
        try:
            result = current.sum(stream, vectors.values, context=context, content=content)
        except ProtocolError as error:
            self._round = None
            if error.asked_to_open is None and not self._protection.active:
                _LOG.warning("protected %s: no sum in this round: %s", stream, error)
                return None
            raise SumLostError(
                f"the {stream} sum was given up when nodes may have opened it already ({error}): they will not answer "
                "the same arrays again, so begin a new run"
            ) from error
        weight = self._protection.clients if result.weight is None else result.weight
        if not weight:
            raise SumLostError(f"the weights of the {stream} sum are 0: there is no mean")
        _LOG.info(
            "protected %s (%s): the mean of %d of %d nodes, weight %d; %d exchanges of messages",
            stream,
            self._protection.name,
            len(result.contributors),
            len(nodes),
            weight,
            self.exchanges - before,
        )
        if self._protection.dp is not None:
            _LOG.info("protected %s: %s", stream, self._spent())
        mean = self._releases.mean(result, stream, bound=self._protection.clip)
        return vectors.reply(mean, weight, self._protection.weight_key)

    def _spent(self) -> str:
        return self._releases.told() if isinstance(self._releases, CountedReleases) else ""

    def _round_for(self, nodes: list[int]) -> Round:
        """A round that is set up for these nodes, or as many of them as answer for a member.

        Raises:
            ProtocolError: too few are there, or completed the set-up.
        """
        self._introduce(nodes)
        there = {self._member_of[node]: node for node in nodes if node in self._member_of}
        needed = self._protection.terms.survivors(len(nodes))
        if len(there) < needed:
            raise too_few(len(there), needed)
        if self._round is None or not self._round.usable_for(there.values()):
            self._round = None
            fresh = Round(self._protection, self._roster, there, self._exchange)
            fresh.set_up()
            self._round = fresh
        return self._round

    def _introduce(self, nodes: list[int]) -> None:
        """Ask nodes that are new for their member numbers. Keys and signatures show later whether they are true."""
        unknown = [node for node in nodes if node not in self._member_of]
        if not unknown:
            return
        answers = self._exchange({node: Ask(Kind.HELLO) for node in unknown}, None)
        for node, answer in answers.items():
            others = [other for other, member in self._member_of.items() if member == answer.member]
            if others:
                # A node that came back under a new number of Flower's; the other, if it is still there, has no part.
                _LOG.warning("protected: nodes %d and %d are both member %d", node, others[0], answer.member)
                for other in others:
                    del self._member_of[other]
            if self._roster is not None and answer.member not in self._roster:
                _LOG.warning("protected: node %d says it is member %d, who is not on the roster", node, answer.member)
                continue
            self._member_of[node] = answer.member

    def _exchange(self, asks: Mapping[int, Ask], content: RecordDict | None) -> dict[int, Answer]:
        """Send, wait, and read what came back; see :data:`codream_secure.flower.rounds.Exchange`."""
        self.exchanges += 1
        timeout = self._timeout if content is not None or self._phase_timeout is None else self._phase_timeout
        shown = {} if content is None else dict(content)
        messages = [
            Message(RecordDict({**shown, RECORD: ask.record()}), dst_node_id=node, message_type=self._message_type)
            for node, ask in asks.items()
        ]
        answers = {}
        for reply in self._grid.send_and_receive(messages, timeout=timeout):
            node = reply.metadata.src_node_id
            if reply.has_error():
                _LOG.warning("protected: node %d failed: %r", node, reply.error.reason)
                self._errors.append(reply)
                continue
            try:
                answer = answer_in(reply.content)
                if node not in asks or self._member_of.get(node, answer.member) != answer.member:
                    raise MessageRefusedError("it answers for somebody else")
            except MessageRefusedError as error:
                _LOG.warning("protected: the reply of node %d is not used: %r", node, str(error))
                continue
            answers[node] = answer
        return answers

    def close(self) -> None:
        """Tell the nodes that the run is over, so that they wipe its secrets; a minute is enough for that."""
        if self._member_of:
            self._round, self._errors = None, []
            self._phase_timeout = min(_GOODBYE_S, self._phase_timeout or _GOODBYE_S)
            self._exchange({node: Ask(Kind.CLOSE) for node in self._member_of}, None)
