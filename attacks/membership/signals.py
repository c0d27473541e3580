"""One number per candidate from what a model answered: the larger, the more the model seems to have seen it."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from scipy.special import logsumexp

Array: TypeAlias = np.ndarray | torch.Tensor

NORM_FLOOR = 1e-30
"""Gradients whose norm is below this count as this long. Float32 gradients of a saturated softmax are exactly zero."""


def logit_confidence(logits: Array, labels: Array) -> np.ndarray:
    """phi = ln p_y - ln sum_{j != y} p_j (Carlini et al. 2022), without forming the probabilities.

    The softmax's normalisation cancels, so that phi = z_y - logsumexp of the other logits: exact to rounding even where
    p_y is 1 to the last bit.

    Args:
        logits: (N, C) float, C of 2 or more.
        labels: (N,) int, 0 to C - 1.

    Returns:
        (N,) float64, finite.

    Raises:
        ValueError: wrong shapes, a label out of range, or a logit that is not finite.
    """
    values = _float64("logits", logits)
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(f"logits has shape {values.shape}: give (candidates, classes), 2 classes or more")
    classes = _numpy(labels)
    if classes.shape != values.shape[:1] or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"labels is {classes.dtype} of shape {classes.shape}: give ({len(values)},) whole numbers")
    if classes.size and not (classes.min() >= 0 and classes.max() < values.shape[1]):
        raise ValueError(f"labels has {classes.min()} to {classes.max()}: the classes are 0 to {values.shape[1] - 1}")
    rows = np.arange(len(values))
    own = values[rows, classes]
    others = values.copy()
    others[rows, classes] = -np.inf
    return own - np.asarray(logsumexp(others, axis=1), dtype=np.float64).reshape(len(values))


def gradient_signal(gradients: Array) -> np.ndarray:
    """-ln ||g|| of each candidate's own input gradient, where no logits can be had.

    Near a confident answer the norm of the entropy's gradient falls like (1-p) ln(1/(1-p)), so that this follows phi.

    Args:
        gradients: (N, ...) float, one for each candidate.

    Returns:
        (N,) float64, at most -ln(NORM_FLOOR), which is 69.1.

    Raises:
        ValueError: a value is not finite, or there is no candidate axis.
    """
    values = _float64("gradients", gradients)
    if values.ndim < 2:
        raise ValueError(f"gradients has shape {values.shape}: give (candidates, ...)")
    norms = np.linalg.norm(values.reshape(len(values), -1), axis=1)
    return -np.log(np.maximum(norms, NORM_FLOOR))


def antithetic(first: Array, second: Array) -> np.ndarray:
    """The signal of two gradients whose batch-norm parts are nearly opposite.

    A candidate is asked about in two batches, among real-like dummies scaled up and scaled down. The unit vectors of
    the batch-norm residuals roughly change sign between them, so that the sum of the two gradients leaves little of the
    batch-norm term, which says nothing about the candidate. What is left of it is alike for all candidates, and goes
    with their mean.

    Args:
        first: (N, ...) float, each candidate's gradient in the first context.
        second: in the second, of the same shape.

    Returns:
        (N,) float64, as for :func:`gradient_signal`.

    Raises:
        ValueError: the shapes differ, or a value is not finite.
    """
    one, other = _float64("first", first), _float64("second", second)
    if one.shape != other.shape:
        raise ValueError(f"first has shape {one.shape} and second {other.shape}: give the same candidates in both")
    if one.ndim < 2 or len(one) < 2:
        raise ValueError(f"first has shape {one.shape}: give (candidates, ...), 2 or more, to subtract their mean")
    total = one + other
    return gradient_signal(total - total.mean(axis=0))


def _numpy(values: Array) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _float64(name: str, values: Array) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().double()  # before numpy, which has no bfloat16
    array = _numpy(values).astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has a value that is not finite: such a model cannot be audited by its answers")
    return array
