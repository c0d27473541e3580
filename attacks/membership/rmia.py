"""The robust membership attack (Zarifzadeh, Liu and Shokri 2024, "Low-Cost High-Power Membership Inference Attacks").

A candidate x is compared with other points z: by how much did training raise the target's probability of x's label
over what references say, against the same for z? The score is the share of z that x beats.

Signals must be phi of :func:`attacks.membership.signals.logit_confidence`, whose logistic function is p(x); a
gradient's signal is no probability and does not belong here.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit


def log_ratio_online(targets: np.ndarray, ins: np.ndarray, outs: np.ndarray) -> np.ndarray:
    """ln p_target(x) - ln p(x), with p(x) the mean over IN and OUT references in equal parts.

    Args:
        targets: (N,) phi.
        ins: (N, n) phi in references with the candidate.
        outs: (N, n) phi in references without it.

    Returns:
        (N,) float64.
    """
    return _log_p(targets) - _log(0.5 * (_mean_complement(ins) + _mean_complement(outs)))


def log_ratio_offline(targets: np.ndarray, outs: np.ndarray, *, a: float) -> np.ndarray:
    """ln p_target(x) - ln p(x), with p(x) = 1/2 [(1 + a) mean_OUT p + (1 - a)], where no reference had x.

    Args:
        targets: (N,) phi.
        outs: (N, n) phi in references without the candidate.
        a: in [0, 1]: p_IN is taken to be a p_OUT + 1 - a. At 1, training on x does nothing to its probability; this is
            the case of population points that no model had.

    Returns:
        (N,) float64.

    Raises:
        ValueError: a is out of range.
    """
    # 1 - p(x) = (1 + a)/2 (1 - mean_OUT p); the complements keep what p close to 1 would round off.
    if not 0 <= a <= 1:
        raise ValueError(f"a is {a}: give 0 to 1")
    return _log_p(targets) - _log(0.5 * (1 + a) * _mean_complement(outs))


def rmia(log_ratios: np.ndarray, population: np.ndarray | None = None, *, gamma: float = 1.0) -> np.ndarray:
    """The share of population points z with ratio(x) / ratio(z) > gamma.

    Args:
        log_ratios: (N,) of the candidates in one target.
        population: (Z,) of other points in the same target; None to compare each candidate with the other candidates.
        gamma: above 0. The paper uses 2 where models are far from certain; where nearly all p are close to 1 no ratio
            reaches 2 and all scores tie, which is why 1 is the default.

    Returns:
        (N,) float64 in [0, 1].

    Raises:
        ValueError: gamma is not above 0, or there is nothing to compare with.
    """
    if gamma <= 0:
        raise ValueError(f"gamma is {gamma}: give a ratio above 0")
    own = np.asarray(log_ratios, dtype=np.float64)
    others = own if population is None else np.asarray(population, dtype=np.float64)
    itself = 1 if population is None else 0
    if own.ndim != 1 or others.ndim != 1 or len(others) - itself < 1:
        raise ValueError(f"log_ratios has shape {own.shape}, population {others.shape}: give (N,) and (Z,), Z above 0")
    beaten = np.searchsorted(np.sort(others), own - np.log(gamma), side="left")
    if itself and gamma < 1:
        beaten = beaten - 1  # x beats itself then
    return beaten / (len(others) - itself)


def _log_p(phi: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -np.asarray(phi, dtype=np.float64))


def _mean_complement(phi: np.ndarray) -> np.ndarray:
    """The mean of 1 - p over references."""
    return np.asarray(expit(-np.asarray(phi, dtype=np.float64))).mean(axis=1)


def _log(complement: np.ndarray) -> np.ndarray:
    """ln(1 - c), with a floor where all references give p = 0 to rounding."""
    return np.log1p(-np.minimum(complement, 1 - 1e-15))
