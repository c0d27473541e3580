"""The only way between clients and server.

Whatever leaves a client (dream gradients, soft labels, model updates, counts) is an array handed to :meth:`Channel.sum`
or :meth:`Channel.mean`; whatever a client receives comes out of :meth:`Channel.broadcast`. The sum itself is a protocol
of the :mod:`protocols` package, so protecting a run means giving the channel another protocol. Bytes are counted here,
from the buffers that are really handed over, so what passes here is always counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from protocols import ContributionError, SumProtocol

Tensors = Sequence[torch.Tensor]


class Ledger:
    """Bytes up (client to server) and down (server to client), by client and phase."""

    def __init__(self) -> None:
        self._up: dict[tuple[int, str], int] = defaultdict(int)
        self._down: dict[tuple[int, str], int] = defaultdict(int)

    def add_up(self, client: int, phase: str, count: int) -> None:
        """Count ``count`` bytes that ``client`` sent in ``phase``."""
        self._up[client, phase] += count

    def add_down(self, client: int, phase: str, count: int) -> None:
        """Count ``count`` bytes that ``client`` received in ``phase``."""
        self._down[client, phase] += count

    def by_phase(self, client: int) -> dict[str, tuple[int, int]]:
        """Phase to (bytes up, bytes down) for one client."""
        phases = sorted({phase for owner, phase in (*self._up, *self._down) if owner == client})
        return {phase: (self._up.get((client, phase), 0), self._down.get((client, phase), 0)) for phase in phases}

    def client_total(self, client: int) -> tuple[int, int]:
        """Bytes (up, down) of one client over all phases."""
        table = self.by_phase(client).values()
        return sum(up for up, _ in table), sum(down for _, down in table)

    def state_dict(self) -> dict[str, Any]:
        """Plain lists, for a checkpoint."""
        return {
            direction: [[client, phase, count] for (client, phase), count in sorted(counts.items())]
            for direction, counts in (("up", self._up), ("down", self._down))
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        for direction, counts in (("up", self._up), ("down", self._down)):
            counts.clear()
            counts.update({(client, phase): count for client, phase, count in state[direction]})


class Channel:
    """Broadcasts to clients and sums over clients, through one protocol and one ledger.

    Args:
        protocol: how sums are protected.
        clients: how many clients there are; they are numbered from 0.
    """

    def __init__(self, protocol: SumProtocol, clients: int) -> None:
        self.protocol = protocol
        self.clients = clients
        self.ledger = Ledger()

    def broadcast(self, tensors: Tensors, *, phase: str) -> list[torch.Tensor]:
        """Hand the server's tensors to every client.

        Returns:
            Detached copies: what a client does to them never reaches the server's own.
        """
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        for client in range(self.clients):
            self.ledger.add_down(client, phase, size)
        return [tensor.detach().clone() for tensor in tensors]

    def sum(self, contributions: Mapping[int, Tensors], *, phase: str) -> list[torch.Tensor]:
        """Sum each client's tensors, element-wise over clients.

        Args:
            contributions: client number to tensors; the same shapes for every client.
            phase: what the bytes are counted under.

        Returns:
            float32 tensors of those shapes, on the device of the first contribution.

        Raises:
            protocols.ContributionError: shapes differ or a value is not finite.
        """
        shapes = {client: [tuple(tensor.shape) for tensor in tensors] for client, tensors in contributions.items()}
        expected = next(iter(shapes.values()), [])
        for client, found in shapes.items():
            if found != expected:
                raise ContributionError(f"client {client} handed over shapes {found} where others gave {expected}")
        outcome = self.protocol.sum({client: _flatten(tensors) for client, tensors in contributions.items()})
        for client, count in outcome.uploaded.items():
            self.ledger.add_up(client, phase, count)
        for client, count in outcome.downloaded.items():
            self.ledger.add_down(client, phase, count)
        like = next(iter(contributions.values()))
        total = torch.from_numpy(outcome.total)
        parts = torch.split(total, [tensor.numel() for tensor in like])
        return [
            part.reshape(tensor.shape).to(device=tensor.device, dtype=torch.float32)
            for part, tensor in zip(parts, like, strict=True)
        ]

    def mean(
        self, contributions: Mapping[int, Tensors], *, phase: str, weights: Mapping[int, float] | None = None
    ) -> list[torch.Tensor]:
        """The (weighted) mean over the clients that contribute.

        A weight travels inside the sum as one more element, so the server learns the total weight and never a
        client's own. Without weights the mean is uniform and nothing is added.

        Args:
            contributions: as for :meth:`sum`.
            phase: as for :meth:`sum`.
            weights: client number to weight >= 0, not all zero.

        Raises:
            ValueError: a weight is negative, or all are zero.
        """
        if weights is None:
            return [total / len(contributions) for total in self.sum(contributions, phase=phase)]
        for client in contributions:
            if weights[client] < 0:
                raise ValueError(f"weights[{client}] is {weights[client]}: a weight must not be negative")
        weighted = {
            client: [*(weights[client] * tensor for tensor in tensors), torch.tensor([weights[client]])]
            for client, tensors in contributions.items()
        }
        *totals, total_weight = self.sum(weighted, phase=phase)
        if not total_weight.item() > 0:
            raise ValueError("weights sum to 0: at least one contributing client needs a positive weight")
        return [total / total_weight.item() for total in totals]


def _flatten(tensors: Tensors) -> Any:
    return torch.cat([tensor.detach().reshape(-1).to("cpu", torch.float32) for tensor in tensors]).numpy()
