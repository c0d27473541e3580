"""Labels that noise can hide: votes of bounded length, and probabilities again from a noisy mean of them.

A vote on n dreams is one probability vector each, less the uniform one. Its squared norm is at most n (1 - 1/c), which
is reached where a client is certain of every label, so no vote is ever shortened. A noisy mean of votes is moved to the
nearest probability vectors; that uses nothing but the mean, so it costs no privacy, and brings it nearer to the mean
without noise, which is a vector of probabilities itself.

Dreams that were made for public classes need no votes: the class is the label, and asking nobody costs nothing.
"""

from __future__ import annotations

import math

import torch

_SMOOTHING = 0.1


def public_classes(images: int, classes: int) -> torch.Tensor:
    """(n,) int64: what the dreams of a batch are made for, every class as often as the others, but for one."""
    return torch.arange(images) % classes


def class_labels(classes: torch.Tensor, count: int) -> torch.Tensor:
    """(n, count) logits of classes (n,), smoothed: a tenth of the probability is spread over all of them."""
    certain = torch.nn.functional.one_hot(classes, count).float()
    return ((1 - _SMOOTHING) * certain + _SMOOTHING / count).log()


def votes(probabilities: torch.Tensor) -> torch.Tensor:
    """(n, c) probabilities less the uniform ones: rows add up to 0."""
    return probabilities - 1 / probabilities.shape[1]


def longest_vote(images: int, classes: int) -> float:
    """The L2 norm that no vote on so many images exceeds."""
    return math.sqrt(images * (1 - 1 / classes))


def probabilities_from(mean: torch.Tensor) -> torch.Tensor:
    """The probability vectors nearest to a mean of votes, in L2 norm.

    Args:
        mean: (n, c) float32, with or without noise.
    """
    return project_to_simplex(mean + 1 / mean.shape[1])


def project_to_simplex(points: torch.Tensor) -> torch.Tensor:
    """Row by row the nearest vector with entries of at least 0 that add up to 1 (Duchi et al. 2008, figure 1).

    Args:
        points: (n, c) float.
    """
    descending = points.sort(dim=1, descending=True).values
    excess = descending.cumsum(dim=1) - 1
    ranks = torch.arange(1, points.shape[1] + 1, device=points.device, dtype=points.dtype)
    kept = (descending * ranks > excess).sum(dim=1, keepdim=True)
    threshold = excess.gather(1, kept - 1) / kept
    return (points - threshold).clamp_min(0)
