"""Scores in falling order, and what every threshold on them finds: the arithmetic under :mod:`attacks.metrics`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy import stats

CHUNK = 1 << 21
"""So many weights are held at once, 16 MB of float64."""


class Ranking:
    """Scores of members and non-members, sorted once, for any number of weightings.

    Args:
        scores: (N,) of one model or (M, N) of several on the same candidates, float, finite.
        members: bool, of the same shape.

    Attributes:
        models: M; 1 for one model.
        candidates: N.
        positives: how many scores are members'.
        negatives: how many are non-members'.

    Raises:
        ValueError: shapes differ, a score is not finite, or members or non-members are missing.
    """

    def __init__(self, scores: np.ndarray, members: np.ndarray) -> None:
        values, inside = np.asarray(scores, dtype=np.float64), np.asarray(members)
        if values.shape != inside.shape or values.ndim not in (1, 2):
            raise ValueError(
                f"scores has shape {values.shape}, members {inside.shape}: give both (N,), or both (models, candidates)"
            )
        if inside.dtype != bool:
            raise ValueError(f"members is {inside.dtype}: give bool, True for a member")
        if not np.isfinite(values).all():
            raise ValueError("scores has a value that is not finite: score every candidate")
        if not inside.any() or inside.all():
            raise ValueError(f"members has {inside.sum()} of {inside.size}: members and non-members are needed")
        self.scores, self.members = np.atleast_2d(values), np.atleast_2d(inside)
        self.models, self.candidates = self.scores.shape
        self.positives = int(inside.sum())
        self.negatives = inside.size - self.positives
        order = np.argsort(-self.scores, axis=None, kind="stable")
        self._model, self._candidate = np.unravel_index(order, self.scores.shape)
        self._inside = self.members.ravel()[order]
        ranked = self.scores.ravel()[order]
        self._ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives of each threshold from above all scores to below, each (1, G + 1) float64."""
        return self._counts(np.ones((1, len(self._inside))))

    def resampled(self, resamples: int, *, generator: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As :meth:`counts`, for models and candidates drawn with replacement; (r, G + 1) each, in several pieces.

        A draw without members or without non-members says nothing and is left out.
        """
        piece = max(1, CHUNK // len(self._inside))
        for begin in range(0, resamples, piece):
            size = min(piece, resamples - begin)
            models = _draw(self.models, size, generator)
            candidates = _draw(self.candidates, size, generator)
            found, wrong = self._counts(models[:, self._model] * candidates[:, self._candidate])
            usable = (found[:, -1] > 0) & (wrong[:, -1] > 0)
            yield found[usable], wrong[usable]

    def _counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = np.cumsum(np.where(self._inside, weights, 0.0), axis=1)
        wrong = np.cumsum(weights, axis=1) - found
        if len(self._ends) < len(self._inside):
            found, wrong = found[:, self._ends], wrong[:, self._ends]
        start = np.zeros((len(weights), 1))
        return np.hstack([start, found]), np.hstack([start, wrong])


def area(found: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """(R,) areas under the ROC curve, ties counting half."""
    steps = np.diff(wrong, axis=1) * (found[:, 1:] + found[:, :-1])
    return steps.sum(axis=1) / (2 * found[:, -1] * wrong[:, -1])


def widest(found: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """(R,) largest TPR - FPR."""
    return np.max(found / found[:, -1:] - wrong / wrong[:, -1:], axis=1)


def found_at(found: np.ndarray, wrong: np.ndarray, rate: float) -> np.ndarray:
    """(R,) TPR of the lowest threshold whose FPR is at most ``rate``."""
    return np.max(np.where(wrong <= allowed(rate, wrong[:, -1:]), found, 0.0), axis=1) / found[:, -1]


def cleared_at(found: np.ndarray, wrong: np.ndarray, rate: float) -> np.ndarray:
    """(R,) TNR of the highest threshold whose FNR is at most ``rate``."""
    return found_at(wrong[:, -1:] - wrong[:, ::-1], found[:, -1:] - found[:, ::-1], rate)


def allowed(rate: float, of: np.ndarray) -> np.ndarray:
    """How many of so many are at most that rate; .07 * 100 must not count as more than 7, nor .29 * 100 as less."""
    return np.floor(rate * of + 1e-9)


def delong(ranking: Ranking, *, level: float) -> tuple[float, float]:
    """One model's interval of the area (DeLong, DeLong and Clarke-Pearson 1988), on the scale of log-odds.

    At an area of 0 or 1 the variance is estimated as 0. Pairs of different members and non-members are independent
    trials then that all went one way, and the end away from there is Clopper-Pearson's.
    """
    ours, theirs = ranking.scores[ranking.members], ranking.scores[~ranking.members]
    ranks = stats.rankdata(np.concatenate([ours, theirs]))
    above = (ranks[: len(ours)] - stats.rankdata(ours)) / len(theirs)
    below = 1 - (ranks[len(ours) :] - stats.rankdata(theirs)) / len(ours)
    value = float(above.mean())
    tail = (1 - level) / 2
    if value in (0.0, 1.0):
        end = tail ** (1 / min(len(ours), len(theirs)))
        return (end, 1.0) if value else (0.0, 1 - end)
    if min(len(ours), len(theirs)) < 2:
        return 0.0, 1.0
    deviation = math.sqrt(above.var(ddof=1) / len(ours) + below.var(ddof=1) / len(theirs))
    reach = float(stats.norm.isf(tail)) * deviation / (value * (1 - value))
    odds = math.log(value / (1 - value))
    return _logistic(odds - reach), _logistic(odds + reach)


def _draw(size: int, draws: int, generator: np.random.Generator) -> np.ndarray:
    """(draws, size) how often each of ``size`` is drawn in ``size`` draws with replacement."""
    return generator.multinomial(size, np.full(size, 1 / size), size=draws).astype(np.float64)


def _logistic(odds: float) -> float:
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0
