"""Who learns what: the statement that every protocol has to make about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """What each party can learn from a sum, in words meant for the person who has to decide.

    Attributes:
        passive_server: a server that follows the protocol and keeps everything it sees.
        active_server: a server that sends whatever it likes.
        clients: what the participants learn of each other.
        collusion: what changes when clients share what they know with the server or among themselves.
        dropouts: what changes when clients vanish, or are said to have vanished.
        outsider: somebody who reads the network, where the transport adds no encryption of its own.
        assumes: what has to hold for all of the above.
    """

    passive_server: str
    active_server: str
    clients: str
    collusion: str
    dropouts: str
    outsider: str
    assumes: str
