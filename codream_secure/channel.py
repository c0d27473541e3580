"""The only way between clients and server.

Whatever leaves a client (dream gradients, soft labels, model updates, counts) is an array handed to
:meth:`Channel.mean` or :meth:`Channel.sum`; whatever a client receives comes out of :meth:`Channel.broadcast`. The sum
itself runs through the machines of a protocol of the :mod:`protocols` package, set up once per round, so protecting a
run means naming another protocol. Bytes are counted here: of sums the
messages that are really handed over, of broadcasts their arrays. (Centralised training, which pools the images, goes
round all this.)

What may leave at all, how large it may be and what noise hides it is the business of :mod:`codream_secure.releases`,
which accounts for every sum before it is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from codream_secure.errors import PrivacyError
from codream_secure.faults import FaultyNetwork
from codream_secure.ledger import Ledger
from codream_secure.recording import Recorder, Silent
from codream_secure.releases import OpenReleases, Releases
from protocols import (
    ContributionError,
    Costs,
    ReplicaError,
    Simulation,
    SumProtocol,
    SumResult,
    Terms,
    TooFewSurvivorsError,
)

Tensors = Sequence[torch.Tensor]
_ATTEMPTS = 50


class Summed(NamedTuple):
    """A sum over clients, in the shapes that each client handed over, and whose tensors are in it."""

    tensors: list[torch.Tensor]
    contributors: tuple[int, ...]


class Channel:
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
        self.protocol = protocol
        self.clients = clients
        self.releases = releases or OpenReleases()
        self.ledger = Ledger()
        self._terms = terms
        self._network = network
        self.recorder: Recorder = Silent()
        """Told all that passes; see :mod:`codream_secure.recording`."""
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

    @property
    def opened_by_clients(self) -> bool:
        """Whether clients learn the sums, and the server does not."""
        return self.protocol.opened_by == "clients"

    def begin_round(self, number: int) -> None:
        """Everything from here on belongs to this round; the next sum sets it up."""
        self._simulation.close()
        self._round, self._sums = number, 0
        self.recorder.began(number)

    def broadcast(self, tensors: Tensors, *, phase: str) -> list[torch.Tensor]:
        """Hand the server's tensors to every client.

        Returns:
            Detached copies: what a client does to them never reaches the server's own.
        """
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        _update(self._shown, tensors)
        self.recorder.shown(phase, tensors)
        for client in range(self.clients):
            self.ledger.add_down(client, phase, size)
        return [tensor.detach().clone() for tensor in tensors]

    def share(self, tensors: Tensors, *, phase: str) -> list[torch.Tensor]:
        """Have every client hold what was computed from sums.

        Where the server opens sums, it is the server that computed it, and broadcasts it. Where clients open them, each
        has computed it already; what it holds is compared along with its next contribution, and no byte moves.

        Returns:
            Detached copies, as of :meth:`broadcast`.
        """
        if not self.opened_by_clients:
            return self.broadcast(tensors, phase=phase)
        _update(self._opened, tensors)
        self.recorder.held(phase, tensors)
        return [tensor.detach().clone() for tensor in tensors]

    def sum(self, contributions: Mapping[int, Tensors], *, phase: str) -> Summed:
        """Sum each client's tensors, element-wise over the clients that are still there.

        Args:
            contributions: client number to tensors; the same shapes for every client.
            phase: the stream, under which the bytes are counted.

        Returns:
            float32 tensors of those shapes, on the device of the first contribution.

        Raises:
            protocols.ContributionError: shapes differ or a value is not finite.
            protocols.TooFewSurvivorsError: too few were left, again and again.
            PrivacyError: there has to be noise; only means have it.
        """
        if not isinstance(self.releases, OpenReleases):
            raise PrivacyError(f"a sum of {phase!r} would leave without an account: take a mean with a bound")
        result = self._sum(contributions, phase, None)
        self.recorder.opened(result, result.total)
        return Summed(_shaped(result.total, next(iter(contributions.values()))), result.contributors)

    def mean(
        self,
        contributions: Mapping[int, Tensors],
        *,
        phase: str,
        weights: Mapping[int, int] | None = None,
        bound: float | None = None,
    ) -> list[torch.Tensor]:
        """The (weighted) mean over the clients that are still there.

        A weight travels inside the sum as one more element, so the server learns the total weight and never a
        client's own. Without weights the mean is uniform and nothing is added.

        Args:
            contributions: as for :meth:`sum`.
            phase: as for :meth:`sum`; with weights, the stream has to have them.
            weights: client number to integer >= 0, not all zero.
            bound: L2 norm that a client's whole contribution has at most, where there is noise to hide it. What is
                longer is shortened; without noise it is not looked at. With noise the mean is over all clients'
                number, whoever is missing.

        Raises:
            ProtocolError: as for :meth:`sum`; or a weight is out of range, or all are zero.
            BudgetExceededError: the privacy budget does not allow it; nothing was sent.
            PrivacyError: nothing accounts for such a release.
        """
        result = self._sum(contributions, phase, weights, bound=bound)
        mean = self.releases.mean(result, phase, bound=bound)
        self.recorder.opened(result, mean)
        return _shaped(mean, next(iter(contributions.values())))

    def mean_at_clients(
        self,
        contributions: Mapping[int, Tensors],
        *,
        phase: str,
        held: Mapping[int, Tensors],
        bound: float | None = None,
    ) -> dict[int, list[torch.Tensor]]:
        """The mean as each client has opened it, where clients open sums.

        Args:
            contributions: as for :meth:`sum`.
            phase: as for :meth:`sum`.
            held: client number to the state that its tensors answer, such as its replica of the dreams.
            bound: as for :meth:`mean`.

        Raises:
            protocols.ReplicaError: a client holds another state than the others, or could not open the sum.
            ProtocolError: as for :meth:`sum`.
        """
        like = next(iter(contributions.values()))
        opened = self._sum(contributions, phase, None, held=held, bound=bound)
        results = self._simulation.results()
        missing = sorted(set(range(self.clients)) - results.keys())
        if missing:
            raise ReplicaError(f"clients {missing} could not open a sum of {phase!r}: they cannot follow the others")
        self.recorder.opened(opened, self.releases.mean(opened, phase, bound=bound))
        return {
            client: _shaped(self.releases.mean(result, phase, bound=bound), like)
            for client, result in sorted(results.items())
        }

    def _sum(
        self,
        contributions: Mapping[int, Tensors],
        phase: str,
        weights: Mapping[int, int] | None,
        *,
        held: Mapping[int, Tensors] | None = None,
        bound: float | None = None,
    ) -> SumResult:
        vectors = {
            client: self.releases.contribution(vector, phase, bound=bound)
            for client, vector in _flattened(contributions).items()
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


def _flattened(contributions: Mapping[int, Tensors]) -> dict[int, npt.NDArray[np.float32]]:
    """One float32 vector per client.

    Raises:
        ContributionError: shapes differ, or there are none.
    """
    if not contributions:
        raise ContributionError("contributions is empty: a sum needs at least one client")
    expected = [tuple(tensor.shape) for tensor in next(iter(contributions.values()))]
    for client, tensors in contributions.items():
        found = [tuple(tensor.shape) for tensor in tensors]
        if found != expected:
            raise ContributionError(f"client {client} handed over shapes {found} where others gave {expected}")
    return {
        client: torch.cat([tensor.detach().reshape(-1).to("cpu", torch.float32) for tensor in tensors]).numpy()
        for client, tensors in contributions.items()
    }


def _shaped(total: npt.NDArray[np.float64], like: Tensors) -> list[torch.Tensor]:
    """A flat vector as float32 tensors of those shapes, on their devices."""
    parts = torch.split(torch.from_numpy(total), [tensor.numel() for tensor in like])
    return [
        part.reshape(tensor.shape).to(device=tensor.device, dtype=torch.float32)
        for part, tensor in zip(parts, like, strict=True)
    ]
