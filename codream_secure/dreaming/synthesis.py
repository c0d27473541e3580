"""Collaborative dreaming: one batch of dreams, moved step by step by the mean of what all clients want of it.

What moves, and all that is exchanged, are the dreams' points in a space of :mod:`codream_secure.dreaming.spaces`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from codream_secure.base_channel import BaseChannel, Deferred
from codream_secure.dreaming.objective import DreamObjective
from codream_secure.dreaming.spaces import DreamSpace, Gradient
from codream_secure.dreaming.updates import (
    LocalOptimizerName,
    ServerOptimizer,
    ServerOptimizerName,
    local_update,
)
from protocols import ReplicaError

AfterStep = Callable[[int, torch.Tensor], None]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How dreams are optimised.

    Attributes:
        steps: R, global steps, each one broadcast and one sum.
        local_steps: M, each client's own steps within a global one.
        local_optimizer: of the local steps.
        local_lr: of the local steps.
        optimizer: the server's; see :mod:`codream_secure.dreaming.updates`.
        lr: the server's.
        betas: of the server's Adam.
        unit_updates: whether a client's update is brought to L2 norm 1 before it is sent.
        bound: L2 norm of a client's whole update, where there is noise to hide it; see
            :meth:`~codream_secure.base_channel.BaseChannel.mean`.
    """

    steps: int
    local_steps: int = 1
    local_optimizer: LocalOptimizerName = "adam"
    local_lr: float = 0.05
    optimizer: ServerOptimizerName = "adam"
    lr: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    unit_updates: bool = False
    bound: float | None = None

    def client_update(self, gradient: Gradient, points: torch.Tensor) -> torch.Tensor:
        """What one client sends for one global step: its gradient, or its pseudo-gradient after the local steps."""
        update = local_update(
            gradient, points, steps=self.local_steps, lr=self.local_lr, optimizer=self.local_optimizer
        )
        return F.normalize(update.flatten(), dim=0).view_as(update) if self.unit_updates else update


def dream_together(
    start: torch.Tensor,
    objectives: Mapping[int, DreamObjective],
    channel: BaseChannel,
    *,
    schedule: Schedule,
    space: DreamSpace | None = None,
    server_gradient: Gradient | None = None,
    after_step: AfterStep | None = None,
) -> torch.Tensor:
    """Optimise dreams by the mean of the clients' updates (CoDream, section 3; DistAdam with ``optimizer="adam"``).

    Where clients open the sums, the optimiser is replicated: each client moves its own copy of the dreams by the mean
    that it has opened, all of them alike to the last bit (on like hardware and libraries; others are found out), and
    the server knows nothing but the noise they began with.

    Args:
        start: (n, *space.shape) float32, usually standard normal noise; (n, C, H, W) for pixels.
        objectives: client number to its open objective.
        channel: carries the points down and the updates' sum up, once per step.
        schedule: numbers of steps and optimisers.
        space: where the points lie; None for pixels.
        server_gradient: added by the server to the mean update: adaptive teaching in the form of the published code.
            It is given images and gives a gradient by their pixels.
        after_step: called with the number of steps done and the current points, which it must not change.

    Returns:
        The points after the last step, in memory of their own.

    Raises:
        protocols.ReplicaError: clients' copies differ.
    """
    if channel.opened_by_clients:
        if server_gradient is not None:
            raise ValueError("server_gradient is given, but the server of these sums does not see the dreams")
        return _dream_at_clients(start, objectives, channel, schedule=schedule, space=space, after_step=after_step)
    gradients = _by_points(objectives, space)
    if server_gradient is not None and space is not None:
        server_gradient = space.pull_back(server_gradient)
    server = ServerOptimizer(start, name=schedule.optimizer, lr=schedule.lr, betas=schedule.betas)
    for step in range(schedule.steps):
        (points,) = channel.broadcast([server.dreams], phase="dreams")
        updates = _updates(gradients, points, schedule)
        (update,) = channel.mean(updates, phase="dream_updates", bound=schedule.bound, like=[points])
        if server_gradient is not None:
            update = update + server_gradient(server.dreams)
        server.step(update)
        if after_step is not None:
            after_step(step + 1, server.dreams)
    return server.dreams


def _dream_at_clients(
    start: torch.Tensor,
    objectives: Mapping[int, DreamObjective],
    channel: BaseChannel,
    *,
    schedule: Schedule,
    space: DreamSpace | None,
    after_step: AfterStep | None,
) -> torch.Tensor:
    """The replicated optimiser. Every sum compares the copies by hash; in the end they are compared themselves."""
    gradients = _by_points(objectives, space)
    (received,) = channel.broadcast([start], phase="dreams")
    replicas = {
        client: ServerOptimizer(received, name=schedule.optimizer, lr=schedule.lr, betas=schedule.betas)
        for client in objectives
    }
    for step in range(schedule.steps):
        points = {client: replica.dreams.detach().clone() for client, replica in replicas.items()}
        updates = {client: [schedule.client_update(gradient, points[client])] for client, gradient in gradients.items()}
        opened = channel.mean_at_clients(
            updates,
            phase="dream_updates",
            held={client: [copy] for client, copy in points.items()},
            bound=schedule.bound,
        )
        for client, (update,) in opened.items():
            replicas[client].step(update)
        if after_step is not None:
            after_step(step + 1, next(iter(replicas.values())).dreams)
    (first, *others) = (replica.dreams for replica in replicas.values())
    if not all(torch.equal(first, other) for other in others):
        raise ReplicaError("the clients' copies of the dreams differ after the last step")
    return first


def dream_alone(
    start: torch.Tensor,
    objectives: Mapping[int, DreamObjective],
    channel: BaseChannel,
    *,
    schedule: Schedule,
    space: DreamSpace | None = None,
) -> torch.Tensor:
    """The same number of steps without collaboration: each client moves its own share of the batch by itself.

    Client number i of K owns the i-th of K nearly equal slices. Finished slices reach the server as a sum of arrays
    that are zero everywhere else, so that even here nothing leaves a client but an array in a sum.

    Args:
        start: as for :func:`dream_together`; at least one dream per client.
        objectives: client number to its open objective.
        channel: carries the start down and the slices up, once.
        schedule: numbers of steps and optimisers; they run at the client.
        space: as for :func:`dream_together`.

    Returns:
        The points of all slices together, of the shape of ``start``.

    Raises:
        ValueError: there are fewer dreams than clients.
    """
    if len(start) < len(objectives):
        raise ValueError(f"start has {len(start)} dreams for {len(objectives)} clients: each needs at least one")
    (received,) = channel.broadcast([start], phase="dreams")
    slices = torch.arange(len(start)).tensor_split(len(objectives))
    finished = {}
    for (client, gradient), rows in zip(_by_points(objectives, space).items(), slices, strict=True):
        own = ServerOptimizer(received[rows], name=schedule.optimizer, lr=schedule.lr, betas=schedule.betas)
        for _ in range(schedule.steps):
            own.step(schedule.client_update(gradient, own.dreams))
        padded = torch.zeros_like(received)
        padded[rows] = own.dreams
        finished[client] = [padded]
    (points,) = channel.sum(finished, phase="dreams", like=[received]).tensors
    return points


def _updates(gradients: Mapping[int, Gradient], points: torch.Tensor, schedule: Schedule) -> Deferred:
    """What each client sends in answer to these points."""
    return Deferred(gradients, lambda client: [schedule.client_update(gradients[client], points)])


def _by_points(objectives: Mapping[int, DreamObjective], space: DreamSpace | None) -> dict[int, Gradient]:
    """Client number to the gradient of its loss with respect to points."""
    gradients: dict[int, Gradient] = {client: objective.gradient for client, objective in objectives.items()}
    if space is None:
        return gradients
    return {client: space.pull_back(gradient) for client, gradient in gradients.items()}
