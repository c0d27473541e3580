"""A client's class distribution from its logits on dreams.

A classifier trained on few examples of a class says that class rarely, also of inputs that belong to none. So what it
says of dreams, on average, leans towards its own training labels. The estimates are read beside two baselines that use
no client's answers: the uniform distribution, and the pool's (public, or what all clients' answers give together).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from attacks.estimates import Estimate

Method = Literal["mean_softmax", "sharpened"]
_FLOOR = 1e-3


@dataclass(frozen=True, kw_only=True)
class DistributionErrors:
    """Errors over clients, with the bootstrap's 95 % intervals over clients.

    Attributes:
        total_variation: mean over clients of half the L1 distance, in [0, 1].
        kl: mean over clients of KL(true || estimate) in nats; a thousandth of the estimate is spread over all
            classes, or one that was thought absent would make it infinite.
    """

    total_variation: Estimate
    kl: Estimate


def estimate(logits: torch.Tensor, *, method: Method = "sharpened", power: float = 1.25) -> torch.Tensor:
    """One client's class distribution, (C,) float64.

    Args:
        logits: (n, C) float, the client's own on the dreams.
        method: the mean prediction, or that raised to a power: dreams are made for all classes by all clients, so
            predictions lean towards the client's own distribution by less than they should.
        power: above 0; fixed beforehand, or chosen on federations that the adversary made itself.

    Raises:
        ValueError: there are no dreams, or the power is not above 0.
    """
    if len(logits) == 0 or power <= 0:
        raise ValueError(f"there are {len(logits)} dreams and power is {power}: give 1 or more, and a power above 0")
    mean = torch.softmax(logits.double(), dim=1).mean(0)
    sharp = mean if method == "mean_softmax" else mean**power
    return sharp / sharp.sum()


def estimate_all(logits: Sequence[torch.Tensor], *, method: Method = "sharpened", power: float = 1.25) -> torch.Tensor:
    """Every client's distribution, (K, C); arguments as for :func:`estimate`."""
    return torch.stack([estimate(each, method=method, power=power) for each in logits])


def uniform_baseline(clients: int, classes: int) -> torch.Tensor:
    """What one says who knows nothing: (K, C)."""
    return torch.full((clients, classes), 1 / classes, dtype=torch.float64)


def pooled_baseline(estimates: torch.Tensor) -> torch.Tensor:
    """The mean of all clients' estimates, for each client: what a summed answer still gives away. (K, C)."""
    return estimates.mean(0, keepdim=True).expand_as(estimates)


def total_variation(found: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Half the L1 distance of distributions (..., C); (...) in [0, 1]."""
    return (found.double() - true.double()).abs().sum(-1) / 2


def divergence(found: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """KL(true || found) in nats, of distributions (..., C), with a thousandth of ``found`` spread over all classes."""
    smooth = (1 - _FLOOR) * found.double() + _FLOOR / found.shape[-1]
    true = true.double()
    return (torch.xlogy(true, true) - true * smooth.log()).sum(-1)


def score(
    found: torch.Tensor, true: torch.Tensor, *, generator: np.random.Generator, resamples: int = 2000
) -> DistributionErrors:
    """Errors of all clients' estimates (K, C) against their true shares (K, C).

    Args:
        found: (K, C), rows add up to 1.
        true: likewise.
        generator: draws the resamples.
        resamples: of clients, with replacement.
    """
    draws = generator.integers(len(found), size=(resamples, len(found)))
    return DistributionErrors(
        total_variation=_mean(total_variation(found, true), draws), kl=_mean(divergence(found, true), draws)
    )


def _mean(errors: torch.Tensor, draws: np.ndarray) -> Estimate:
    values = errors.numpy()
    if len(values) < 2:
        return Estimate(value=float(values.mean()), low=None, high=None, n=len(values), note="one client: no interval")
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return Estimate(value=float(values.mean()), low=float(low), high=float(high), n=len(values))
