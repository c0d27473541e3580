"""The only way between clients and server, where all of them are in one process.

What methods know of it is :class:`~codream_secure.base_channel.BaseChannel`. The sum itself runs through the machines
of a protocol of the :mod:`protocols` package, set up once per round, so protecting a run means naming another protocol.
Bytes are counted here: of sums the messages that are really handed over, of broadcasts their arrays. (Centralised
training, which pools the images, goes round all this.)

What may leave at all, how large it may be and what noise hides it is the business of :mod:`codream_secure.releases`,
which accounts for every sum before it is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch

from codream_secure.base_channel import BaseChannel, Summed, Tensors, flattened, shaped
from codream_secure.faults import FaultyNetwork
from codream_secure.releases import Releases
from protocols import (
    Costs,
    ReplicaError,
    Simulation,
    SumProtocol,
    SumResult,
    Terms,
    TooFewSurvivorsError,
)

_ATTEMPTS = 50
__all__ = ["Channel", "Summed", "Tensors"]


class Channel(BaseChannel):
    """Broadcasts to clients and sums over clients, through one protocol and one ledger.

    A sum for which too few clients are left is asked for again; once shares that open it are out, only over the very
    same clients, because the difference of two sums of the same vectors would give away those in one and not in the
    other. A client that is missing from one sum is back for the next; the dreams of a step, say, are then moved by
    those who were there.

    Some protocols have clients open the sums, and the server learns none (:attr:`opened_by_clients`). What is computed
    from sums is then computed by every client, alike.

    Args:
        protocol: how sums are protected.
        clients: how many there are; they are numbered from 0.
        terms: of every round; sums name one of its streams.
        network: loses messages; None loses none.
        releases: how values leave clients; by default as they are.
    """

    def __init__(
        self,
        protocol: SumProtocol,
        clients: int,
        *,
        terms: Terms,
        network: FaultyNetwork | None = None,
        releases: Releases | None = None,
    ) -> None:
        super().__init__(protocol, clients, releases=releases)
        self._terms = terms
        self._network = network
        self._simulation = Simulation(
            protocol,
            range(clients),
            terms=terms,
            network=network,
            tap=lambda envelope: self.recorder.delivered(envelope),
        )
        self._round = 0
        self._sums = 0
        self._shown = hashlib.sha256()
        """All that the server has shown clients so far: the context of the next sum."""
        self._opened = hashlib.sha256()
        """Where clients open sums, all that they made of them: it never leaves them but as a keyed digest."""

    def begin_round(self, number: int) -> None:
        """Everything from here on belongs to this round; the next sum sets it up."""
        self._simulation.close()
        self._round, self._sums = number, 0
        self.recorder.began(number)

    def broadcast(self, tensors: Tensors, *, phase: str) -> list[torch.Tensor]:
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        _update(self._shown, tensors)
        self.recorder.shown(phase, tensors)
        for client in range(self.clients):
            self.ledger.add_down(client, phase, size)
        return [tensor.detach().clone() for tensor in tensors]

    def share(self, tensors: Tensors, *, phase: str) -> list[torch.Tensor]:
        if not self.opened_by_clients:
            return self.broadcast(tensors, phase=phase)
        _update(self._opened, tensors)
        self.recorder.held(phase, tensors)
        return [tensor.detach().clone() for tensor in tensors]

    def mean_at_clients(
        self,
        contributions: Mapping[int, Tensors],
        *,
        phase: str,
        held: Mapping[int, Tensors],
        bound: float | None = None,
    ) -> dict[int, list[torch.Tensor]]:
        like = next(iter(contributions.values()))
        opened = self._sum(contributions, phase, None, like=like, held=held, bound=bound)
        results = self._simulation.results()
        missing = sorted(set(range(self.clients)) - results.keys())
        if missing:
            raise ReplicaError(f"clients {missing} could not open a sum of {phase!r}: they cannot follow the others")
        self.recorder.opened(opened, self.releases.mean(opened, phase, bound=bound))
        return {
            client: shaped(self.releases.mean(result, phase, bound=bound), like)
            for client, result in sorted(results.items())
        }

    def _sum(
        self,
        contributions: Mapping[int, Tensors],
        phase: str,
        weights: Mapping[int, int] | None,
        *,
        like: Tensors,
        held: Mapping[int, Tensors] | None = None,
        bound: float | None = None,
    ) -> SumResult:
        vectors = {
            client: self.releases.contribution(vector, phase, bound=bound)
            for client, vector in flattened(contributions).items()
        }
        values = len(next(iter(vectors.values())))
        self._sums += 1
        exactly: tuple[int, ...] | None = None
        context = self._shown.digest()
        states = self._states(held or {}) if self.opened_by_clients else None
        for attempt in range(_ATTEMPTS):
            if self._network is not None:
                self._network.place = (self._round, self._sums, attempt)
            # Whoever asks again gets fresh noise on the same values: that is one more release, opened or not.
            self.releases.before_sum(phase, values=values)
            try:
                self.recorder.asked(phase, values)
                for client, vector in vectors.items():
                    self.recorder.entered(client, vector)
                if not self._simulation.steps_left:
                    self._simulation.open()
                result = self._simulation.sum(
                    vectors, stream=phase, weights=weights, context=context, held=states, exactly=exactly
                )
            except TooFewSurvivorsError as error:
                self.ledger.retries += 1
                exactly = error.asked_to_open or exactly
                failure = error
            else:
                self._count_clipping(result.contributors, phase)
                return result
            finally:
                self._count_costs(phase)
        raise failure

    def _states(self, held: Mapping[int, Tensors]) -> dict[int, bytes]:
        """Client number to a digest of all that only clients know; of every client, contributing or not."""
        states = {}
        for client in range(self.clients):
            digest = self._opened.copy()
            _update(digest, held.get(client, ()))
            states[client] = digest.digest()
        return states

    def _count_costs(self, phase: str) -> None:
        """Move the simulation's costs into the ledger."""
        for (party, part), cost in self._simulation.costs.by_party.items():
            counted = "protocol_setup" if part == "setup" else phase
            self.ledger.add_cpu(party, counted, cost.cpu_seconds)
            if party >= 0:
                self.ledger.add_up(party, counted, cost.sent)
                self.ledger.add_down(party, counted, cost.received)
        self._simulation.costs = Costs()

    def _count_clipping(self, contributors: Sequence[int], phase: str) -> None:
        for client in contributors:
            report = self._simulation.clients[client].report
            if report is not None:
                self.ledger.add_encoded(client, phase, values=report.values, clipped=report.clipped)


def _update(digest: hashlib._Hash, tensors: Tensors) -> None:
    for tensor in tensors:
        # Shape and type, so that no two lists of tensors look alike.
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
