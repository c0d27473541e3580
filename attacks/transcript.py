"""Everything that passed between the parties of a federation, in order, as the laboratory records it.

A transcript is the laboratory's: it also holds what each client put into each sum, which no server sees. Probes never
get one; they get a view (:mod:`attacks.views`), which is built by copying out of it what one adversary holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from codream_secure.recording import Recorder
from protocols import SERVER, Envelope, FixedPoint, SumResult, Terms

Vector = npt.NDArray[np.float64]
Arrays = tuple[npt.NDArray[np.float32], ...]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Arrays that every client has from now on.

    Attributes:
        phase: what they are: "dreams", "soft_labels", "weights", "student", ...
        arrays: float32, in the shapes that clients got.
        by_server: the server handed them out; otherwise clients computed them from sums that only they opened.
    """

    phase: str
    arrays: Arrays
    by_server: bool


@dataclass(kw_only=True)
class Sum:
    """One sum over clients, or one try at it.

    Attributes:
        stream: what was summed.
        values: how many numbers.
        envelopes: messages that reached their recipients, in order; set-up messages belong to the sum that needed it.
        entered: client to its flat float64 vector, before encoding. Each is that client's own knowledge.
        total: the opened sum, without the server's noise; None if it was not opened.
        mean: what was made of it for use, noise included.
        contributors: whose vectors are in it.
    """

    stream: str
    values: int
    envelopes: list[Envelope] = field(default_factory=list, repr=False)
    entered: dict[int, Vector] = field(default_factory=dict, repr=False)
    total: Vector | None = field(default=None, repr=False)
    mean: Vector | None = field(default=None, repr=False)
    contributors: tuple[int, ...] = ()


@dataclass(kw_only=True)
class Transcript:
    """What passed, in order.

    Attributes:
        protection: name of the protocol.
        opened_by: who learnt the sums, "server" or "clients".
        noise_by_clients: each client adds noise to what it sends.
        clients: how many clients there are.
        streams: the public encoding of each stream.
        left_out: streams whose sums passed and are not here, because nobody asked for them to be replayed.
        events: :class:`Shown` and :class:`Sum`, in order.
    """

    protection: str
    opened_by: str
    clients: int
    streams: Mapping[str, FixedPoint]
    left_out: frozenset[str] = frozenset()
    noise_by_clients: bool = False
    events: list[Shown | Sum] = field(default_factory=list, repr=False)

    def sums(self, stream: str | None = None) -> Iterator[Sum]:
        """The sums of one stream, or all, in order."""
        return (each for each in self.events if isinstance(each, Sum) and stream in (None, each.stream))

    def shown(self, phase: str) -> Iterator[Shown]:
        """What clients were shown, or computed, in one phase."""
        return (each for each in self.events if isinstance(each, Shown) and each.phase == phase)


class TranscriptRecorder(Recorder):
    """Writes a transcript, as a channel's recorder or by the hand of a user's own federation.

    Args:
        transcript: appended to.
    """

    def __init__(self, transcript: Transcript) -> None:
        self.transcript = transcript
        self._current: Sum | None = None
        self._early: list[Envelope] = []

    def shown(self, phase: str, tensors: Sequence[torch.Tensor]) -> None:
        self.transcript.events.append(Shown(phase=phase, arrays=_arrays(tensors), by_server=True))

    def held(self, phase: str, tensors: Sequence[torch.Tensor]) -> None:
        self.transcript.events.append(Shown(phase=phase, arrays=_arrays(tensors), by_server=False))

    def asked(self, stream: str, values: int) -> None:
        self._current = Sum(stream=stream, values=values, envelopes=self._early)
        self._early = []
        self.transcript.events.append(self._current)

    def entered(self, client: int, vector: npt.NDArray[np.float32] | npt.NDArray[np.float64]) -> None:
        if self._current is not None:
            self._current.entered[client] = vector.astype(np.float64)

    def delivered(self, envelope: Envelope) -> None:
        (self._early if self._current is None else self._current.envelopes).append(envelope)

    def opened(self, result: SumResult, mean: Vector) -> None:
        if self._current is not None:
            self._current.total, self._current.mean = result.total.copy(), mean.copy()
            self._current.contributors = result.contributors


def _arrays(tensors: Sequence[torch.Tensor]) -> Arrays:
    return tuple(tensor.detach().to("cpu", torch.float32, copy=True).numpy() for tensor in tensors)


def messages_to_server(one: Sum) -> dict[int, list[bytes]]:
    """What each party sent to the server for this sum, in order."""
    found: dict[int, list[bytes]] = {}
    for envelope in one.envelopes:
        if envelope.recipient == SERVER:
            found.setdefault(envelope.sender, []).append(envelope.message)
    return found


def public_streams(terms: Terms) -> dict[str, FixedPoint]:
    """The encodings that everybody agreed on."""
    return dict(terms.streams)
