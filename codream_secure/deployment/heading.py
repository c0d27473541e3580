"""What a round of sums is for: shown by the server before anything else in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codream_secure.deployment.events import DesyncError
from codream_secure.deployment.streams import Shown

ROUND = "round"
"""The phase under which a round says what it is for."""
BUFFER = "buffer"
"""The phase under which members that come back are given the dreams that are learnt from, images and labels."""
FINISHED = "the round is finished"
"""The reason for which a round ends: the server has it on its disk."""
OVER = "training is over"
"""Likewise, of the last round."""
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Heading:
    """What a round is for.

    Attributes:
        number: of the round of training, from 1.
        with_buffer: whether the buffer is shown next.
        digest: of the terms of training. Everything that is shown goes into the context that vectors are bound to, so
            no vector that answers one training enters a sum of another.
    """

    number: int
    with_buffer: bool
    digest: bytes

    def arrays(self) -> list[npt.NDArray[Any]]:
        """int64 (2,) and uint8 (32,)."""
        return [
            np.array([self.number, self.with_buffer], dtype=np.int64),
            np.frombuffer(self.digest, dtype=np.uint8),
        ]


def read_heading(shown: Shown) -> Heading:
    """A heading from what the server showed first.

    Raises:
        DesyncError: it is none.
    """
    shapes = [(array.shape, array.dtype.name) for array in shown.tensors]
    if shown.phase != ROUND or shapes != [((2,), "int64"), ((_DIGEST_BYTES,), "uint8")]:
        raise DesyncError(f"the server begins a round with {shown.phase!r}, not with what the round is for")
    number, with_buffer = map(int, shown.tensors[0])
    if number < 1 or with_buffer not in (0, 1):
        raise DesyncError(f"the server begins round {number}: rounds count from 1")
    return Heading(number, bool(with_buffer), shown.tensors[1].tobytes())
