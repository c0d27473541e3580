"""The likelihood-ratio attack (Carlini et al. 2022, "Membership Inference Attacks From First Principles").

Each candidate's signal in the target is compared with its signals in references that had it (IN) and that had not
(OUT), modelled as normal. Several observations of a candidate, say of shifted copies, are taken as independent.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from scipy.special import log_ndtr

Variance: TypeAlias = Literal["auto", "per_candidate", "pooled"]

ENOUGH_REFERENCES = 32
"""From this many references a side, "auto" trusts each candidate's own variance (64 shadow models in the paper)."""

STD_FLOOR = 1e-6
"""No spread is taken to be less, so that equal references do not divide by zero."""


def lira_online(targets: np.ndarray, ins: np.ndarray, outs: np.ndarray, *, variance: Variance = "auto") -> np.ndarray:
    """ln p(phi | IN) - ln p(phi | OUT) for each candidate (algorithm 1).

    Args:
        targets: (N,) or (N, d) float, the signals in the target.
        ins: (N, n) or (N, n, d) float, the signals in references with the candidate; n of 2 or more.
        outs: the same, in references without it.
        variance: "per_candidate": each candidate's own, of each side. "pooled": one for all candidates, of each side
            and observation: the mean of their variances about their own means. "auto":
            pooled below ENOUGH_REFERENCES references.

    Returns:
        (N,) float64, the larger the likelier IN.

    Raises:
        ValueError: wrong shapes, an unknown variance, or a value that is not finite.
    """
    phi = _signals("targets", targets, 1)
    inside, outside = _references("ins", ins, phi), _references("outs", outs, phi)
    ratio = _log_density(phi, *_normal(inside, variance)) - _log_density(phi, *_normal(outside, variance))
    return ratio.sum(axis=1)


def lira_offline(targets: np.ndarray, outs: np.ndarray, *, variance: Variance = "auto") -> np.ndarray:
    """The log-odds of Pr[Z < phi] for Z normal like the OUT references: one-sided.

    The probability itself is 1 to the last bit a few deviations above the mean; its log-odds go on ordering.

    Args:
        targets: (N,) or (N, d) float, the signals in the target.
        outs: (N, n) or (N, n, d) float, the signals in references without the candidate; n of 2 or more.
        variance: as for :func:`lira_online`.

    Returns:
        (N,) float64, the larger the likelier IN; summed over d observations.

    Raises:
        ValueError: as for :func:`lira_online`.
    """
    phi = _signals("targets", targets, 1)
    mean, std = _normal(_references("outs", outs, phi), variance)
    z = (phi - mean) / std
    return np.asarray(log_ndtr(z) - log_ndtr(-z)).sum(axis=1)


def _normal(references: np.ndarray, variance: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean (N, d) and standard deviation (N, d) or (1, d) of references (N, n, d)."""
    if variance not in ("auto", "per_candidate", "pooled"):
        raise ValueError(f"variance is {variance!r}: give 'auto', 'per_candidate' or 'pooled'")
    own = references.var(axis=1, ddof=1)
    if variance == "pooled" or (variance == "auto" and references.shape[1] < ENOUGH_REFERENCES):
        own = own.mean(axis=0, keepdims=True)
    return references.mean(axis=1), np.maximum(np.sqrt(own), STD_FLOOR)


def _log_density(values: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Of the normal distribution, without the constant, which cancels."""
    return -0.5 * ((values - mean) / std) ** 2 - np.log(std)


def _signals(name: str, values: np.ndarray, dimensions: int) -> np.ndarray:
    """Values of so many dimensions, with one for the observations appended where it is missing."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == dimensions:
        array = array[..., None]
    if array.ndim != dimensions + 1 or not array.size:
        raise ValueError(f"{name} has shape {array.shape}: {dimensions} or {dimensions + 1} dimensions are needed")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has a value that is not finite: use signals that do not saturate")
    return array


def _references(name: str, values: np.ndarray, targets: np.ndarray) -> np.ndarray:
    array = _signals(name, values, 2)
    if (len(array), array.shape[2]) != targets.shape:
        raise ValueError(f"{name} has shape {array.shape}: it does not fit targets of shape {targets.shape}")
    if array.shape[1] < 2:
        raise ValueError(f"{name} has {array.shape[1]} reference a candidate: a variance needs 2 (6 trials) or more")
    return array
