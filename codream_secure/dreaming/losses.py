"""The terms of the dreaming loss, as pure functions of tensors.

Source: CoDream (arXiv 2402.15968), section 3, with the definitions of the published code where the paper leaves them
open. Every function takes what it needs, returns a scalar, is differentiable, and stays finite for any finite input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

Moments = tuple[torch.Tensor, torch.Tensor]


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Mean Shannon entropy of the predictions, in nats, in [0, ln C].

    Args:
        logits: (n, C) float.
    """
    log_p = F.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1).mean()


def class_distance(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the predictions to given classes, in nats (DeepInversion, Yin et al. 2020, equation 1).

    Args:
        logits: (n, C) float.
        classes: (n,) int64.
    """
    return F.cross_entropy(logits, classes)


def total_variation(images: torch.Tensor) -> torch.Tensor:
    """Squared differences between vertical and horizontal neighbours, summed, over the number of values.

    Args:
        images: (n, C, H, W) float.
    """
    vertical = (images[:, :, 1:, :] - images[:, :, :-1, :]).square().sum()
    horizontal = (images[:, :, :, 1:] - images[:, :, :, :-1]).square().sum()
    return (vertical + horizontal) / images.numel()


def l2_norm(images: torch.Tensor) -> torch.Tensor:
    """Euclidean norm of the whole batch (not squared, not averaged); its gradient at zero is zero."""
    return torch.linalg.vector_norm(images)


def moment_distance(found: Sequence[Moments], wanted: Sequence[Moments]) -> torch.Tensor:
    """Feature matching: sum over layers of ||mean - mean'||_2 + ||var - var'||_2, norms not squared, layers equal.

    Args:
        found: per layer the (mean, variance) of the dreams' features, each (channels,).
        wanted: the moments to match, in the same order.
    """
    distances = [
        torch.linalg.vector_norm(mean - target_mean) + torch.linalg.vector_norm(variance - target_variance)
        for (mean, variance), (target_mean, target_variance) in zip(found, wanted, strict=True)
    ]
    return torch.stack(distances).sum()


def jensen_shannon(logits: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Mean Jensen-Shannon divergence of two models' predictions, in nats, in [0, ln 2].

    Computed in log space: log of the mixture is a logaddexp, so no probability that underflows is ever divided by.

    Args:
        logits: (n, C) float.
        other: (n, C) float.
    """
    log_p, log_q = F.log_softmax(logits, dim=1), F.log_softmax(other, dim=1)
    log_mixture = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0, dtype=log_p.dtype, device=log_p.device))
    divergence = 0.5 * (log_p.exp() * (log_p - log_mixture) + log_q.exp() * (log_q - log_mixture))
    return divergence.sum(dim=1).mean()
