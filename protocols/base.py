"""The one interface through which values leave clients: a sum of vectors, one per client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from protocols.errors import ContributionError

Vector = npt.NDArray[np.float32]
Total = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """Who learns what from one sum, in words meant for the person who has to decide.

    Attributes:
        server: what an honest-but-curious server learns.
        clients: what the participating clients learn of each other.
        outsider: what somebody who reads the network learns when no transport encryption is added.
        assumes: what has to hold for the three statements above.
    """

    server: str
    clients: str
    outsider: str
    assumes: str


@dataclass(frozen=True, kw_only=True)
class SumOutcome:
    """A finished sum and what it cost.

    Attributes:
        total: float64 vector, the element-wise sum over the contributing clients.
        uploaded: bytes that each client really handed over, by client number.
        downloaded: bytes that each client received within the protocol itself (key shares and the like; not what the
            server broadcasts before or after the sum), by client number.
    """

    total: Total
    uploaded: Mapping[int, int]
    downloaded: Mapping[int, int]


class SumProtocol(ABC):
    """Adds up one equally long float32 vector per client.

    A caller hands over each client's vector under the client's number and gets the sum back. Which clients take part
    may differ from call to call. Implementations must not reveal more to any party than :attr:`threat_model` says.
    """

    name: ClassVar[str]
    threat_model: ClassVar[ThreatModel]

    @abstractmethod
    def sum(self, contributions: Mapping[int, Vector]) -> SumOutcome:
        """Sum one vector per client.

        Args:
            contributions: client number to float32 vector of shape ``(d,)``; every value finite, ``d`` equal for all.

        Returns:
            The sum and the bytes it took.

        Raises:
            ContributionError: no client takes part, or a vector has another shape or dtype or a value that is not
                finite; the message names the client and the index.
        """


def check_contributions(contributions: Mapping[int, Vector]) -> int:
    """Return the common length of the vectors, or refuse them.

    Raises:
        ContributionError: as :meth:`SumProtocol.sum` says.
    """
    if not contributions:
        raise ContributionError("contributions is empty: a sum needs at least one client")
    length: int | None = None
    for client, vector in contributions.items():
        if not isinstance(vector, np.ndarray) or vector.dtype != np.float32 or vector.ndim != 1:
            found = f"{vector.dtype} of shape {vector.shape}" if isinstance(vector, np.ndarray) else type(vector)
            raise ContributionError(f"client {client} handed over {found}: flatten it to one float32 vector")
        if length is None:
            length = vector.size
        if vector.size != length:
            raise ContributionError(f"client {client} handed over {vector.size} values where others gave {length}")
        finite = np.isfinite(vector)
        if not finite.all():
            index = int(np.argmin(finite))
            # The value itself is private; whether it is NaN or infinite is not.
            kind = "NaN" if np.isnan(vector[index]) else "infinite"
            raise ContributionError(f"client {client}'s vector is {kind} at index {index}: it is not summed")
    assert length is not None
    return length
