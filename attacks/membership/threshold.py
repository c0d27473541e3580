"""Thresholds: one for all candidates, chosen on scores that are not the ones it is judged by."""

from __future__ import annotations

import math

import numpy as np


def threshold_at(scores: np.ndarray, members: np.ndarray, fpr: float) -> float:
    """The lowest threshold at which held-out non-members are called members at a rate of at most ``fpr``.

    The rule is: a member where score > threshold. Choose it on scores of other trials or other candidates than those
    it is applied to; on the same ones, an attack would be tuned on its own test.

    Args:
        scores: (K,) or (M, N) float, held out.
        members: bool, of the same shape.
        fpr: 0 to 1.

    Returns:
        A finite score, or -inf where ``fpr`` is 1.

    Raises:
        ValueError: the shapes differ, a score is NaN, there is no non-member, or fpr is out of range.
    """
    values, inside = np.asarray(scores, dtype=np.float64), np.asarray(members)
    if values.shape != inside.shape or inside.dtype != bool:
        raise ValueError(
            f"scores has shape {values.shape}, members {inside.shape} {inside.dtype}: give equal shapes, bool"
        )
    if np.isnan(values).any():
        raise ValueError("scores has a NaN: score every candidate")
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr is {fpr}: give a rate, 0 to 1")
    outside = np.sort(values[~inside])[::-1]
    if not len(outside):
        raise ValueError("members has no non-member: a false-positive rate needs some")
    allowed = math.floor(fpr * len(outside) + 1e-9)  # 0.29 * 100 is a little less than 29
    return -math.inf if allowed >= len(outside) else float(outside[allowed])
