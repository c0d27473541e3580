"""Rounds over single messages, for networks that allow nothing else: no second port, no process that lives on.

The server speaks to all members at once and waits for their replies, twice for every sum; the fewer sums, the better:
``dreaming.local_steps`` of a client for each of ``dreaming.steps``. A member's program is started for a message and
ends with it. What it must not forget lies in its folder in between, sealed where it is secret to the round; the method
lives through the round once more, without computing again what was sent.

Threat model: whoever carries the messages sees what a server of streams sees: dreams, labels and sums, and of single
members masked vectors. It can drop, repeat, reorder and make up messages: a packet that is not the next of the round is
refused and changes nothing, one that is and cannot be dealt with ends the member's part in the round. Over whom a
vector is summed is kept under the question that it answered, and changes only when the machine masks another one.
*Who* sends is not proved here. Masked sums do so themselves: every member signs its part of the set-up with the key
that the roster names. Plain sums take the transport's word. Whoever later has a member's key *and* a sealed state of
its folder opens what was recorded of that round; states are removed when a round is over.
"""

from __future__ import annotations

from codream_secure.deployment.messages.aggregator import MessageAggregator, Office

__all__ = ["MessageAggregator", "Office"]
