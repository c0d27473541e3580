"""Sums of clients' vectors, each with a stated protection.

This package stands alone: it knows numpy, and nothing of models, images or sockets. A protocol is chosen by its name
through :func:`make_protocol`; what it protects against whom is its :attr:`SumProtocol.threat_model`.
"""

from protocols.base import SumOutcome, SumProtocol, ThreatModel
from protocols.errors import ContributionError, ProtocolError, UnknownProtocolError
from protocols.plain import PlainSum
from protocols.registry import available_protocols, make_protocol

__all__ = [
    "ContributionError",
    "PlainSum",
    "ProtocolError",
    "SumOutcome",
    "SumProtocol",
    "ThreatModel",
    "UnknownProtocolError",
    "available_protocols",
    "make_protocol",
]
