"""A seam for whoever wants to know what passes between clients and server: it sees bytes where they are handed over.

Nothing is recorded by default. :meth:`codream_secure.channel.Channel.record` takes a recorder; what of a recording a
given party would have seen is not decided here but by who looks at it later.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from protocols import Envelope, SumResult


class Recorder:
    """Told everything in order; each method does nothing unless overridden, and must not change what it is given."""

    def began(self, round_number: int) -> None:
        """A round began."""

    def shown(self, phase: str, tensors: Sequence[torch.Tensor]) -> None:
        """The server handed these tensors to every client."""

    def held(self, phase: str, tensors: Sequence[torch.Tensor]) -> None:
        """Every client computed these tensors from sums that the server did not open."""

    def asked(self, stream: str, values: int) -> None:
        """A sum was begun, or is tried again; what is delivered until :meth:`opened` belongs to it."""

    def entered(self, client: int, vector: npt.NDArray[np.float32] | npt.NDArray[np.float64]) -> None:
        """A client put this flat vector into the present sum, as it is before encoding: the client's own knowledge."""

    def delivered(self, envelope: Envelope) -> None:
        """A message reached its recipient."""

    def opened(self, result: SumResult, mean: npt.NDArray[np.float64]) -> None:
        """Whoever opens sums opened the present one, and made this mean of it."""


class Silent(Recorder):
    """The recorder that is there when nobody listens."""
