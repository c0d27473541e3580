"""What happens to a client in a round, in the order in which its method hears of it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from codream_secure.deployment.streams import Asked, Shown
from codream_secure.errors import CodreamError

Vector = npt.NDArray[np.float32]


class RoundLostError(CodreamError):
    """The round goes on without this member, or not at all; the next one may be entered."""


class PausedError(CodreamError):
    """What comes next in the round comes with another message, to another process."""


class DesyncError(CodreamError):
    """The aggregator does something else than the terms of training say."""


@dataclass(frozen=True)
class Began:
    """A round of sums began; what it is for is shown next."""


@dataclass(frozen=True)
class Ended:
    """It was ended by the aggregator."""

    reason: str


@dataclass(frozen=True)
class Lost:
    """This member's part in it is over: its session could not be gone on with."""


@dataclass(frozen=True)
class Gone:
    """There will be no more events."""

    error: BaseException | None


@dataclass(frozen=True)
class Given:
    """A vector was given here, and masked, when the method lived through this for the first time."""

    stream: str
    values: int


@dataclass(frozen=True)
class Paused:
    """There will be no more events in this process."""


@dataclass(frozen=True, eq=False)
class Question:
    """A vector is asked for."""

    asked: Asked
    answer: Future[Vector | None] = field(default_factory=Future)


Event = Began | Shown | Question | Given | Ended | Lost | Gone | Paused
