"""What methods know of the way between clients and server, whatever moves the bytes.

Whatever leaves a client (dream gradients, soft labels, model updates, counts) is an array handed to
:meth:`BaseChannel.mean` or :meth:`BaseChannel.sum`; whatever a client receives comes out of
:meth:`BaseChannel.broadcast`. One program may hold all clients and the server
(:class:`codream_secure.channel.Channel`), or one client, or the server alone (:mod:`codream_secure.deployment`). A
method is the same in each: it computes with the clients and models that are there, hands over what they contribute, and
goes on with what it is given. What only the others know is zeros here until a broadcast replaces it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from codream_secure.errors import ConfigError, PrivacyError
from codream_secure.ledger import Ledger
from codream_secure.recording import Recorder, Silent
from codream_secure.releases import OpenReleases, Releases
from protocols import ContributionError, SumProtocol, SumResult

Tensors = Sequence[torch.Tensor]


class Summed(NamedTuple):
    """A sum over clients, in the shapes that each client handed over, and whose tensors are in it."""

    tensors: list[torch.Tensor]
    contributors: tuple[int, ...]


class Deferred(Mapping[int, Tensors]):
    """Contributions that are computed when they are looked at, each once.

    A program that is started anew in the middle of a round has sent some of them before, and need not compute them
    again to get back to where it was.

    Args:
        clients: numbers of those who contribute.
        compute: a client's tensors. What it depends on must not change before the sum.
    """

    def __init__(self, clients: Iterable[int], compute: Callable[[int], Tensors]) -> None:
        self._clients = tuple(clients)
        self._compute = compute
        self._computed: dict[int, Tensors] = {}

    def __getitem__(self, client: int) -> Tensors:
        if client not in self._clients:
            raise KeyError(client)
        if client not in self._computed:
            self._computed[client] = self._compute(client)
        return self._computed[client]

    def __iter__(self) -> Iterator[int]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)


class BaseChannel(ABC):
    """Broadcasts to clients and sums over clients.

    Args:
        protocol: how sums are protected.
        clients: how many there are, here or elsewhere; they are numbered from 0.
        releases: how values leave clients; by default as they are.

    Attributes:
        recorder: told all that passes; see :mod:`codream_secure.recording`.
    """

    def __init__(self, protocol: SumProtocol, clients: int, *, releases: Releases | None = None) -> None:
        self.protocol = protocol
        self.clients = clients
        self.releases = releases or OpenReleases()
        self.ledger = Ledger()
        self.recorder: Recorder = Silent()

    @property
    def opened_by_clients(self) -> bool:
        """Whether clients learn the sums, and the server does not."""
        return self.protocol.opened_by == "clients"

    @abstractmethod
    def begin_round(self, number: int) -> None:
        """Everything from here on belongs to this round."""

    @abstractmethod
    def broadcast(self, tensors: Tensors, *, phase: str) -> list[torch.Tensor]:
        """Hand the server's tensors to every client.

        Returns:
            Detached copies: what a client does to them never reaches the server's own.
        """

    def share(self, tensors: Tensors, *, phase: str) -> list[torch.Tensor]:
        """Have every client hold what was computed from sums.

        Where the server opens sums, it is the server that computed it, and broadcasts it. Where clients open them, each
        has computed it already; what it holds is compared along with its next contribution, and no byte moves.

        Returns:
            Detached copies, as of :meth:`broadcast`.
        """
        return self.broadcast(tensors, phase=phase)

    def sum(self, contributions: Mapping[int, Tensors], *, phase: str, like: Tensors | None = None) -> Summed:
        """Sum each client's tensors, element-wise over the clients that are still there.

        Args:
            contributions: client number to tensors, of the clients that are here; the same shapes for every client.
            phase: the stream, under which the bytes are counted.
            like: tensors of the shapes and on the device of the result, where no client may be here to give them.

        Returns:
            float32 tensors of those shapes, on the device of ``like`` or else of the first contribution.

        Raises:
            protocols.ContributionError: shapes differ or a value is not finite.
            protocols.TooFewSurvivorsError: too few were left, again and again.
            PrivacyError: there has to be noise; only means have it.
        """
        if not isinstance(self.releases, OpenReleases):
            raise PrivacyError(f"a sum of {phase!r} would leave without an account: take a mean with a bound")
        like = _shapes(contributions, like)
        result = self._sum(contributions, phase, None, like=like)
        self.recorder.opened(result, result.total)
        return Summed(shaped(result.total, like), result.contributors)

    def mean(
        self,
        contributions: Mapping[int, Tensors],
        *,
        phase: str,
        weights: Mapping[int, int] | None = None,
        bound: float | None = None,
        like: Tensors | None = None,
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
            like: as for :meth:`sum`.

        Raises:
            ProtocolError: as for :meth:`sum`; or a weight is out of range, or all are zero.
            BudgetExceededError: the privacy budget does not allow it; nothing was sent.
            PrivacyError: nothing accounts for such a release.
        """
        like = _shapes(contributions, like)
        result = self._sum(contributions, phase, weights, bound=bound, like=like)
        mean = self.releases.mean(result, phase, bound=bound)
        self.recorder.opened(result, mean)
        return shaped(mean, like)

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
            ConfigError: sums of this channel are not opened by clients.
        """
        raise ConfigError(
            f"protocol.protection is {self.protocol.name!r}: clients open no sums here; use a protocol whose sums the "
            "server opens, or a channel within one process"
        )

    @abstractmethod
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
        """The sum of flat vectors; where it is known."""


def _shapes(contributions: Mapping[int, Tensors], like: Tensors | None) -> Tensors:
    """What the result looks like.

    Raises:
        ContributionError: nothing says it.
    """
    if like is not None:
        return like
    if not contributions:
        raise ContributionError("contributions is empty: a sum needs at least one client")
    return next(iter(contributions.values()))


def flattened(contributions: Mapping[int, Tensors]) -> dict[int, npt.NDArray[np.float32]]:
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


def shaped(total: npt.NDArray[np.float64], like: Tensors) -> list[torch.Tensor]:
    """A flat vector as float32 tensors of those shapes, on their devices."""
    parts = torch.split(torch.from_numpy(total), [tensor.numel() for tensor in like])
    return [
        part.reshape(tensor.shape).to(device=tensor.device, dtype=torch.float32)
        for part, tensor in zip(parts, like, strict=True)
    ]
