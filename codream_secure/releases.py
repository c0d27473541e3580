"""What stands between clients' values and a sum where something is claimed about privacy.

A channel asks its :class:`Releases` three things: what of a client's vector may enter the sum, whether the sum may be
taken at all (it is accounted for *before*), and what the mean of it is. Which noise there is, and who adds it, is
decided in :mod:`codream_secure.privacy.planning`; clients' noise is added by the machines that sum.

Threat model. With noise from the clients it holds against whoever sees the sums and up to ``dp.colluders`` clients that
tell their noise or leave it out, and rests on the protection to hide single messages. With noise from the server the
server is trusted: it holds against those who get the results. In either case a client that is absent counts as one that
contributes the zero vector, and who takes part is no secret.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from codream_secure.errors import PrivacyError
from codream_secure.privacy.events import ExactRelease, Release
from codream_secure.privacy.ledger import PrivacyLedger
from codream_secure.privacy.planning import NoisySums
from codream_secure.privacy.signal import Signal
from protocols import SumResult

Vector = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Total = npt.NDArray[np.float64]

_SHORTENED = 1 - 2.0**-45
"""So that a vector brought to the bound does not exceed it by rounding, and is not counted as clipped."""


class Releases(ABC):
    """How values leave clients.

    Attributes:
        ledger: the account of all releases; None where nothing is claimed.
        signal: what is left beside the noise; None where there is no noise on dreams.
    """

    ledger: PrivacyLedger | None = None
    signal: Signal | None = None

    def __init__(self) -> None:
        self.journal: Callable[[dict[str, Any]], None] | None = None
        """Told the ledger's state after every new entry and before the release; it makes that state safe."""

    def record(self, event: Release) -> None:
        """Account for a release that is about to be made.

        Raises:
            BudgetExceededError: it would exceed the budget, and must not be made.
        """
        if self.ledger is None:
            return
        self.ledger.record(event)
        if self.journal is not None:
            self.journal(self.ledger.state_dict())

    def publishes(self, stream: str) -> bool:
        """Whether values of this stream may leave clients at all."""
        return True

    def fits(self, stream_counts: dict[str, int]) -> bool:
        """Whether the budget allows so many more sums, stream by stream, of the largest size planned."""
        return True

    def noise_multipliers(self) -> dict[str, float]:
        """Stream to z, the noise's standard deviation in a sum over the longest contribution; empty without noise."""
        return {}

    @abstractmethod
    def before_sum(self, stream: str, *, values: int) -> None:
        """Account for a sum of vectors of so many coordinates.

        Raises:
            BudgetExceededError: it would exceed the budget, and must not be taken.
            PrivacyError: nothing describes such a release.
        """

    def contribution(self, vector: Vector, stream: str, *, bound: float | None) -> Vector:
        """What of a client's flat vector enters the sum; ``bound`` is the L2 norm that it has at most."""
        return vector

    def mean(self, result: SumResult, stream: str, *, bound: float | None) -> Total:
        """The mean of the clients' vectors."""
        return result.mean()


class OpenReleases(Releases):
    """The null object: values leave as they are, and nothing is claimed."""

    def before_sum(self, stream: str, *, values: int) -> None:
        pass


class DerivedReleases(Releases):
    """Noise is in the training of the models that values come from; whatever is computed from those costs nothing.

    Args:
        ledger: of the unit "example"; the training enters it by :meth:`record`.
        streams: what is computed from such models alone, and may therefore leave.
    """

    def __init__(self, ledger: PrivacyLedger, streams: frozenset[str]) -> None:
        super().__init__()
        self.ledger = ledger
        self._streams = streams

    def publishes(self, stream: str) -> bool:
        return stream in self._streams

    def before_sum(self, stream: str, *, values: int) -> None:
        if not self.publishes(stream):
            raise PrivacyError(f"sums of {stream!r} come from private data and nothing accounts for them: not released")
        self.record(ExactRelease(stream, "computed from privately trained models alone", private_data=False))


class NoisyReleases(Releases):
    """Sums of bounded contributions with integer noise.

    Args:
        ledger: of the unit "client" or "local".
        sums: norms and noise.
        normalise: the streams whose contributions are brought to the bound, rather than shortened to it.
        largest: stream to coordinates of its longest planned sum.
        signal: what is left beside the noise.
    """

    def __init__(
        self,
        ledger: PrivacyLedger,
        sums: NoisySums,
        *,
        normalise: frozenset[str],
        largest: dict[str, int],
        signal: Signal | None = None,
    ) -> None:
        super().__init__()
        self.ledger: PrivacyLedger = ledger
        self.sums = sums
        self.signal = signal
        self._normalise = normalise
        self._largest = largest

    def publishes(self, stream: str) -> bool:
        return stream in self.sums.norms

    def noise_multipliers(self) -> dict[str, float]:
        return {stream: self.sums.multiplier(stream) for stream in self.sums.norms}

    def fits(self, stream_counts: dict[str, int]) -> bool:
        events = [
            self.sums.event(stream, values=self._largest[stream], count=count)
            for stream, count in stream_counts.items()
            if count and self.publishes(stream)
        ]
        return self.ledger.allows(events)

    def before_sum(self, stream: str, *, values: int) -> None:
        self._check_planned(stream)
        self.record(self.sums.event(stream, values=values))

    def contribution(self, vector: Vector, stream: str, *, bound: float | None) -> Vector:
        """The vector in ring units: of norm D where it had the bound's. What is longer, the encoding shortens.

        A vector that is not finite counts as zero.

        Raises:
            PrivacyError: nothing is planned for the stream, or no bound is given.
        """
        limit = self._checked(stream, bound)
        if not np.isfinite(vector).all():
            # An error, or this client's absence, would tell what its data did; a zero vector is as good as absent.
            return np.zeros(len(vector))
        doubled = vector.astype(np.float64)
        length = float(np.linalg.norm(doubled)) if stream in self._normalise else limit
        if not length:
            return doubled
        return doubled * (self.sums.norms[stream] / length * _SHORTENED)

    def mean(self, result: SumResult, stream: str, *, bound: float | None) -> Total:
        """The noisy sum over *all* clients' number, however many are in it: a count of survivors is data too."""
        limit = self._checked(stream, bound)
        total = result.total
        if self.sums.cohort.by_server:
            total = total + _drawn(self.sums, len(total))
        return total * (limit / self.sums.norms[stream] / self.sums.cohort.clients)

    def _check_planned(self, stream: str) -> None:
        if not self.publishes(stream):
            raise PrivacyError(f"sums of {stream!r} have no noise planned: nothing accounts for them, not released")

    def _checked(self, stream: str, bound: float | None) -> float:
        self._check_planned(stream)
        if bound is None:
            raise PrivacyError(f"a sum of {stream!r} has no bound on a client's contribution: noise cannot hide it")
        return bound


def _drawn(sums: NoisySums, values: int) -> Total:
    """The server's noise: integers, in ring units."""
    noise = sums.noise.add(np.zeros(values, dtype=np.uint64))
    return noise.view(np.int64).astype(np.float64)
