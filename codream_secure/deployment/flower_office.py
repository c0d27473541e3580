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
_ASK_AGAIN_S = 60.0


class FlowerOffice:
    """Nodes of a SuperLink as members.

    Args:
        grid: a ``flwr.serverapp.Grid``.
        members: how many there are, numbered from 0.
        hello_s: seconds to wait for new nodes to say which member they are.

    Attributes:
        exchanges: how many times nodes were sent messages and waited for.
    """

    def __init__(self, grid: Any, *, members: int, hello_s: float) -> None:
        self._grid = grid
        self._members = members
        self._hello_s = hello_s
        self._node_of: dict[int, int] = {}
        """By member."""
        self._asked: dict[int, float] = {}
        """Node to when it was asked who it is, by the monotonic clock."""
        self.exchanges = 0

    def members(self) -> frozenset[int]:
        """Whose nodes are there; those that are new are asked who they are."""
        nodes, now = set(self._grid.get_node_ids()), time.monotonic()
        known = set(self._node_of.values())
        fresh = [node for node in nodes - known if now - self._asked.get(node, -_ASK_AGAIN_S) >= _ASK_AGAIN_S]
        if fresh:
            self._asked |= dict.fromkeys(fresh, now)
            for node, record in self._send({node: {"hello": True} for node in fresh}, self._hello_s).items():
                self._note(node, record.get("member"))
        return frozenset(member for member, node in self._node_of.items() if node in nodes)

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
        api = flower("flwr.app")
        self.exchanges += 1
        messages = [
            # A message that nobody took in time is not delivered later.
            api.Message(
                api.RecordDict({RECORD: api.ConfigRecord(dict(record))}),
                dst_node_id=node,
                message_type="train",
                ttl=timeout_s,
            )
            for node, record in records.items()
        ]
        found: dict[int, dict[str, Any]] = {}
        for reply in self._grid.send_and_receive(messages, timeout=timeout_s):
            node = reply.metadata.src_node_id
            if reply.has_error():
                _LOG.warning("node %d failed: %r", node, reply.error.reason)
            elif node in records and isinstance(reply.content.get(RECORD), api.ConfigRecord):
                found[node] = dict(reply.content[RECORD])
        return found


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
