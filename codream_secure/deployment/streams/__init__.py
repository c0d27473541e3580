"""Sums over one long-lived TLS stream for each member, opened outwards by the member.

:class:`~codream_secure.deployment.streams.aggregator.Aggregator` is the server's side,
:class:`~codream_secure.deployment.streams.participant.Participant` a member's. gRPC is loaded when one of them starts,
torch never.
"""

from codream_secure.deployment.streams.aggregator import Aggregator
from codream_secure.deployment.streams.limits import Backoff, Deadlines, Limits
from codream_secure.deployment.streams.member import Asked, Member, Shown
from codream_secure.deployment.streams.participant import Participant
from codream_secure.deployment.streams.tls import Tls

__all__ = ["Aggregator", "Asked", "Backoff", "Deadlines", "Limits", "Member", "Participant", "Shown", "Tls"]
