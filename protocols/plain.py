"""The sum with no protection at all: the reference that every protected sum is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from protocols.base import SumOutcome, SumProtocol, ThreatModel, Vector, check_contributions
from protocols.errors import ContributionError

_WIRE = np.dtype("<f4")


class PlainSum(SumProtocol):
    """Every client sends its vector in clear, four bytes a value; the server adds them up in float64.

    Clients are added in ascending order of their number, so the same contributions give the same bits whatever the
    order in which they arrive.
    """

    name: ClassVar[str] = "plain"
    threat_model: ClassVar[ThreatModel] = ThreatModel(
        server="Everything: each client's vector, in clear, under the client's number.",
        clients="Nothing of each other beyond the sum, if the server passes it on.",
        outsider="Everything, unless the transport is encrypted.",
        assumes="A server that every client trusts with its own values.",
    )

    def sum(self, contributions: Mapping[int, Vector]) -> SumOutcome:
        length = check_contributions(contributions)
        total = np.zeros(length, dtype=np.float64)
        uploaded = {}
        for client in sorted(contributions):
            message = encode(contributions[client])
            uploaded[client] = len(message)
            total += decode(message, length)
        return SumOutcome(total=total, uploaded=uploaded, downloaded=dict.fromkeys(uploaded, 0))


def encode(vector: Vector) -> bytes:
    """The client's side: a float32 vector as little-endian bytes."""
    return vector.astype(_WIRE, copy=False).tobytes()


def decode(message: bytes, length: int) -> Vector:
    """The server's side: a read-only float32 vector of ``length`` values.

    Raises:
        ContributionError: the message has not exactly ``4 * length`` bytes.
    """
    if len(message) != length * _WIRE.itemsize:
        raise ContributionError(f"message has {len(message)} bytes; {length} values take {length * _WIRE.itemsize}")
    return np.frombuffer(message, dtype=_WIRE)
