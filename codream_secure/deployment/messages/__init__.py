"""Rounds over single messages, for networks that allow nothing else: no second port, no process that lives on.

The server speaks to all members at once and waits for their replies, twice for every sum; the fewer sums, the better:
``dreaming.local_steps`` of a client for each of ``dreaming.steps``. A member's program is started for a message and
ends with it. What it must not forget lies in its folder in between, sealed where it is secret to the round; the method
lives through the round once more, without computing again what was sent.

Threat model: whoever carries the messages sees what a server of streams sees: dreams, labels and sums, and of single
members masked vectors. It can drop, repeat and reorder messages: a packet that is not the next is refused, and so is
any other until a new round begins. *Who* sends is not proved here. Masked sums do so themselves: every member signs
its part of the set-up with the key that the roster names. Plain sums take the transport's word.
"""

from __future__ import annotations

from codream_secure.deployment.messages.aggregator import MessageAggregator, Office

__all__ = ["MessageAggregator", "Office"]
