"""Packets in Flower's messages: what carries rounds where there is nothing but a SuperLink.

Nodes say which member they are when they are first asked. Nobody proves it here; see
:mod:`codream_secure.deployment.messages`.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from codream_secure.errors import ConfigError

_LOG = logging.getLogger(__name__)
RECORD = "codream"
"""The one record of every message."""


class FlowerOffice:
    """Nodes of a SuperLink as members.

    Args:
        grid: a ``flwr.serverapp.Grid``.
        members: how many there are, numbered from 0.
        hello_s: seconds that a new node has to say which member it is, before it is asked again.

    Attributes:
        exchanges: how many times nodes were sent packets and waited for.
    """

    def __init__(self, grid: Any, *, members: int, hello_s: float) -> None:
        self._grid = grid
        self._members = members
        self._hello_s = hello_s
        self._node_of: dict[int, int] = {}
        """By member."""
        self._asked: dict[str, int] = {}
        """Message that asks who it is to node."""
        self._again: dict[int, float] = {}
        """Node to when it is asked again, by the monotonic clock."""
        self.exchanges = 0

    def members(self) -> frozenset[int]:
        """Whose nodes are there; those that are new are asked who they are, and nobody waits for them here."""
        self._hear()
        nodes, now = set(self._grid.get_node_ids()), time.monotonic()
        fresh = [node for node in nodes - set(self._node_of.values()) if now >= self._again.get(node, now)]
        if fresh:
            messages = self._messages({node: {"hello": True} for node in fresh}, self._hello_s)
            asked = zip(fresh, self._grid.push_messages(messages), strict=True)
            self._asked |= {message: node for node, message in asked if message}
            self._again |= dict.fromkeys(fresh, now + self._hello_s)
        return frozenset(member for member, node in self._node_of.items() if node in nodes)

    def _hear(self) -> None:
        """Take note of what new nodes have said."""
        for reply in self._grid.pull_messages(list(self._asked)) if self._asked else ():
            node = self._asked.pop(reply.metadata.reply_to_message_id, None)
            if node is not None:
                self._note(node, _record_in(reply, node).get("member"))

    def exchange(self, packets: Mapping[int, bytes], *, timeout_s: float) -> dict[int, bytes]:
        """Send each of these members its packet; the replies of those that replied in time, by member."""
        nodes = {self._node_of[member]: member for member in packets}
        answered = self._send({node: {"packet": packets[member]} for node, member in nodes.items()}, timeout_s)
        replies = {}
        for node, record in answered.items():
            reply = record.get("reply")
            if record.get("member") == nodes[node] and isinstance(reply, bytes):
                replies[nodes[node]] = reply
            else:
                _LOG.warning("what node %d replied for member %d is none of its replies", node, nodes[node])
        return replies

    def _note(self, node: int, member: object) -> None:
        if isinstance(member, bool) or not isinstance(member, int) or not 0 <= member < self._members:
            _LOG.warning("node %d does not say which of %d members it is", node, self._members)
            return
        if member in self._node_of:
            # One that came back under a new number of Flower's; whoever it is, masked sums ask for its signature.
            _LOG.warning("nodes %d and %d both are member %d: the later counts", self._node_of[member], node, member)
        self._node_of[member] = node

    def _send(self, records: Mapping[int, Mapping[str, Any]], timeout_s: float) -> dict[int, dict[str, Any]]:
        """Send each node a record, and wait; the records of those that replied in time."""
        self.exchanges += 1
        replies = self._grid.send_and_receive(self._messages(records, timeout_s), timeout=timeout_s)
        found = {reply.metadata.src_node_id: _record_in(reply, reply.metadata.src_node_id) for reply in replies}
        return {node: record for node, record in found.items() if record and node in records}

    @staticmethod
    def _messages(records: Mapping[int, Mapping[str, Any]], timeout_s: float) -> list[Any]:
        api = flower("flwr.app")
        return [
            # A message that nobody took in time is not delivered later.
            api.Message(
                api.RecordDict({RECORD: api.ConfigRecord(dict(record))}),
                dst_node_id=node,
                message_type="train",
                ttl=timeout_s,
            )
            for node, record in records.items()
        ]


def _record_in(reply: Any, node: int) -> dict[str, Any]:
    """The record in a reply; empty if it is none of this app's."""
    if reply.has_error():
        _LOG.warning("node %d failed: %r", node, reply.error.reason)
        return {}
    record = reply.content.get(RECORD)
    return dict(record) if isinstance(record, flower("flwr.app").ConfigRecord) else {}


def flower(name: str) -> Any:
    """A module of Flower's.

    Raises:
        ConfigError: flwr is missing.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"a Flower app needs flwr, which cannot be imported ({error}): pip install 'codream-secure[flower]'"
        ) from None
