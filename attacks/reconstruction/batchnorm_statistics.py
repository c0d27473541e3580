"""A client's batch-norm statistics from its dreaming gradients: an upper bound on what the gradients give away.

The feature-matching part of a dreaming gradient points from the dreams' moments towards the client's. Its length says
nothing (the norms are not squared, so only unit vectors enter), but seen from two places two directions meet. The
statistics enter a second time: an eval-mode batch norm divides by them on the way forward. So all of them are fitted at
once, to two or more steps of the same dreams.

What the adversary is granted here is much: each client's WEIGHTS, the loss, its coefficients, the dreams (which the
server makes) and the gradients without noise. It does not know the buffers. Its first guess are the statistics that
public images give under the same weights, which is also the control: statistics that a stranger's images give as well
are not leakage. A masked sum is fitted in the same way with the unknowns of all clients side by side; whether that
succeeds is a question of equations against unknowns, and has to be measured rather than assumed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from attacks.reconstruction.dream_gradient import DreamGradient
from attacks.reconstruction.robust_fit import Progress, columns, robust_fit
from codream_secure import training
from codream_secure.dreaming.losses import Moments
from codream_secure.dreaming.objective import Coefficients
from codream_secure.errors import ModelError

_FLOOR = 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class DreamStep:
    """One step as a server sees it.

    Attributes:
        dreams: (n, C, H, W) float, what was broadcast.
        gradient: of the same shape: one client's gradient, or the weighted mean of several clients'.
    """

    dreams: torch.Tensor
    gradient: torch.Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class RecoveredStatistics:
    """What was fitted, and how well it explains what was seen.

    Attributes:
        statistics: per client and batch norm, its running (mean, variance), float64.
        residual: of the fit, over the norm of the observed gradients; the attacker's own measure of success.
        iterations: steps of the fit.
        converged: whether the residual reached the tolerance.
    """

    statistics: list[list[Moments]]
    residual: float
    iterations: int
    converged: bool


def public_statistics(model: nn.Module, images: torch.Tensor) -> list[Moments]:
    """The statistics that public images (N, C, H, W) give under the model's weights, per batch norm, float64.

    The model's own buffers are neither read nor changed. At least two images.
    """
    twin = copy.deepcopy(model).eval()
    training.recalibrate(twin, images)
    return DreamGradient(twin, Coefficients(features=0.0), feature_layers=()).kept()


def recover_statistics(
    models: Sequence[nn.Module],
    observations: Sequence[DreamStep],
    *,
    start: Sequence[Sequence[Moments]],
    coefficients: Coefficients,
    shares: Sequence[float] | None = None,
    classes: torch.Tensor | None = None,
    iterations: int = 30,
    tolerance: float = 1e-5,
    progress: Progress | None = None,
) -> RecoveredStatistics:
    """Fit the statistics of one client, or of all clients in a sum, to observed gradients (``moments="channel"``).

    Args:
        models: one per client in the sum; weights are read, buffers are not. One model for one client's own gradient.
        observations: two or more steps; steps far apart are told apart better.
        start: per client and batch norm a first guess, such as :func:`public_statistics`.
        coefficients: of the dreaming loss.
        shares: each client's weight in the observed mean; equal by default.
        classes: (n,) int64, what the dreams are made for, where the loss has that term.
        iterations: at most so many steps of the fit.
        tolerance: relative residual to stop at; float32 gradients allow about 5e-6.
        progress: called with the iteration and the residual.

    Raises:
        ModelError: a matched layer is no batch norm that keeps statistics: its moments are not in the buffers.
        ValueError: the numbers of models, starts and shares differ, or nothing was observed.
    """
    shares = [1 / len(models)] * len(models) if shares is None else list(shares)
    if not (len(models) == len(start) == len(shares)):
        raise ValueError(f"there are {len(models)} models, {len(start)} starts and {len(shares)} shares: one each")
    if not observations:
        raise ValueError("observations is empty: give two or more steps")
    gradients = [DreamGradient(model, coefficients, classes=classes) for model in models]
    for gradient in gradients:
        if gradient.layers != gradient.norms:
            raise ModelError(
                "some matched layers keep no statistics of their own: their moments are measured, see position_moments"
            )
    seen = [(step.dreams.double(), step.gradient.double()) for step in observations]
    observed = torch.cat([gradient.flatten() for _, gradient in seen])
    size = observed.norm()
    observed = observed / size
    packing = [_Packing(guess) for guess in start]
    lengths = [each.length for each in packing]

    def contribution(client: int, unknowns: torch.Tensor) -> torch.Tensor:
        own = packing[client].unpack(unknowns)
        parts = [gradients[client](dreams, own, buffers=own).flatten() for dreams, _ in seen]
        return shares[client] / size * torch.cat(parts)

    def residual(unknowns: torch.Tensor) -> torch.Tensor:
        return sum(contribution(*each) for each in enumerate(unknowns.split(lengths))) - observed

    def jacobian(unknowns: torch.Tensor) -> torch.Tensor:
        blocks = [columns(partial(contribution, client), part) for client, part in enumerate(unknowns.split(lengths))]
        return torch.cat(blocks, dim=1)

    fit = robust_fit(
        residual,
        torch.cat([each.pack(guess) for each, guess in zip(packing, start, strict=True)]),
        scale=torch.cat([each.scale for each in packing]),
        jacobian=jacobian,
        iterations=iterations,
        tolerance=tolerance,
        progress=progress,
    )
    found = [each.unpack(part) for each, part in zip(packing, fit.solution.split(lengths), strict=True)]
    return RecoveredStatistics(
        statistics=found, residual=fit.residual, iterations=fit.iterations, converged=fit.converged
    )


class _Packing:
    """Between moments and one vector: means as they are, variances as logarithms, which keeps them positive."""

    def __init__(self, like: Sequence[Moments]) -> None:
        self._sizes = [len(mean) for mean, _ in like]
        self.length = 2 * sum(self._sizes)
        means = [torch.full_like(mean, float(mean.square().mean().sqrt()) + _FLOOR) for mean, _ in like]
        self.scale = torch.cat([*means, torch.ones(sum(self._sizes))]).double()

    def pack(self, moments: Sequence[Moments]) -> torch.Tensor:
        return torch.cat(
            [mean for mean, _ in moments] + [variance.clamp_min(_FLOOR).log() for _, variance in moments]
        ).double()

    def unpack(self, vector: torch.Tensor) -> list[Moments]:
        means, logarithms = vector.tensor_split(2)
        return list(zip(means.split(self._sizes), logarithms.exp().split(self._sizes), strict=True))


def relative_errors(found: Sequence[Moments], true: Sequence[Moments]) -> tuple[float, float]:
    """Of all means together and of all variances together: ||found - true|| / ||true||. For scoring only."""
    errors = []
    for part in (0, 1):
        flat = [torch.cat([moments[part].double().flatten() for moments in each]) for each in (found, true)]
        errors.append(float((flat[0] - flat[1]).norm() / flat[1].norm()))
    return errors[0], errors[1]


def mean_statistics(clients: Sequence[Sequence[Moments]]) -> list[Moments]:
    """Layer by layer the plain mean over clients of their means, and of their variances."""
    return [
        (torch.stack([mean for mean, _ in layer]).mean(0), torch.stack([variance for _, variance in layer]).mean(0))
        for layer in zip(*clients, strict=True)
    ]
