"""How well scores tell members from non-members, each figure with the interval that its sample allows.

Scores are those of one model, (N,), or pooled over M models that were asked about the same N candidates, (M, N).
Pooled rows are not independent: the models share candidates and references. Their intervals come from a bootstrap that
draws models and candidates both anew (the pigeonhole bootstrap, Owen 2007, which errs towards wide). One model's come
from Clopper-Pearson and DeLong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from attacks.estimates import Estimate, clopper_pearson, unresolvable
from attacks.ranking import Ranking, allowed, area, cleared_at, delong, found_at, widest

LEVEL = 0.95


@dataclass(frozen=True)
class Figure:
    """What is asked of the scores; ``rate`` is that of the errors allowed, where there is one."""

    kind: Literal["auc", "advantage", "tpr", "tnr"]
    rate: float = 0.0


REPORTED = {
    "AUC": Figure("auc"),
    "advantage": Figure("advantage"),
    "TPR@1%FPR": Figure("tpr", 0.01),
    "TPR@0.1%FPR": Figure("tpr", 0.001),
    "TNR@1%FNR": Figure("tnr", 0.01),
}
"""What is reported of every attack."""


@dataclass(frozen=True, kw_only=True)
class Roc:
    """Points of a ROC curve that were reached, from (0, 0) to (1, 1).

    Attributes:
        fpr: (P,) float64, increasing.
        tpr: (P,) float64, the largest TPR at that FPR.
    """

    fpr: np.ndarray
    tpr: np.ndarray


def auc(
    scores: np.ndarray, members: np.ndarray, *, generator: np.random.Generator | None = None, resamples: int = 300
) -> Estimate:
    """The probability that a member scores above a non-member, ties counting half; .5 is chance.

    Args:
        scores: (N,) or (M, N) float, the larger the likelier a member.
        members: bool, of the same shape.
        generator: draws the resamples of pooled scores; not needed for one model.
        resamples: how many.

    Returns:
        For one model with DeLong's interval, on the scale of log-odds; pooled with the bootstrap's.

    Raises:
        ValueError: shapes differ, a score is not finite, members or non-members are missing, or a generator is.
    """
    return _estimate(Figure("auc"), scores, members, generator, resamples)


def advantage(
    scores: np.ndarray, members: np.ndarray, *, generator: np.random.Generator | None = None, resamples: int = 300
) -> Estimate:
    """The largest TPR - FPR over all thresholds, twice the best balanced accuracy less one.

    The threshold is chosen on the very scores, so that this is above 0 for an attack that knows nothing; the note says
    how far. One model's interval holds for any threshold chosen beforehand and is wide enough for that of the sample;
    pooled, the bootstrap's excess is taken off (the "basic" bootstrap).

    Args:
        scores: as for :func:`auc`, with the rest.

    Raises:
        ValueError: as for :func:`auc`.
    """
    return _estimate(Figure("advantage"), scores, members, generator, resamples)


def tpr_at_fpr(
    scores: np.ndarray,
    members: np.ndarray,
    *,
    fpr: float,
    generator: np.random.Generator | None = None,
    resamples: int = 300,
) -> Estimate:
    """The share of members found where at most a share ``fpr`` of the non-members is called a member.

    One model's interval is Clopper-Pearson's for the threshold that these non-members set; the note says how well they
    know the FPR there. Not resolvable with fewer than 1/fpr non-members.

    Args:
        scores: as for :func:`auc`, with the rest.
        fpr: in (0, 1).

    Raises:
        ValueError: as for :func:`auc`, or fpr is out of range.
    """
    return _estimate(Figure("tpr", _rate("fpr", fpr)), scores, members, generator, resamples)


def tnr_at_fnr(
    scores: np.ndarray,
    members: np.ndarray,
    *,
    fnr: float,
    generator: np.random.Generator | None = None,
    resamples: int = 300,
) -> Estimate:
    """The share of non-members cleared where at most a share ``fnr`` of the members is; else as :func:`tpr_at_fpr`.

    Args:
        scores: as for :func:`auc`, with the rest.
        fnr: in (0, 1).

    Raises:
        ValueError: as for :func:`auc`, or fnr is out of range.
    """
    return _estimate(Figure("tnr", _rate("fnr", fnr)), scores, members, generator, resamples)


def summarise(
    scores: np.ndarray, members: np.ndarray, *, generator: np.random.Generator, resamples: int = 300
) -> dict[str, Estimate]:
    """All that is reported of an attack, from one set of resamples.

    Args:
        scores: as for :func:`auc`, with the rest.

    Returns:
        Under "AUC", "advantage", "TPR@1%FPR", "TPR@0.1%FPR" and "TNR@1%FNR".

    Raises:
        ValueError: as for :func:`auc`.
    """
    estimates = _estimates(Ranking(scores, members), list(REPORTED.values()), generator, resamples)
    return dict(zip(REPORTED, estimates, strict=True))


def roc_curve(scores: np.ndarray, members: np.ndarray, *, points: int = 200) -> Roc:
    """The ROC curve, thinned so that it can be drawn on logarithmic or linear axes.

    Args:
        scores: as for :func:`auc`.
        members: as for :func:`auc`.
        points: about how many are kept: half at equal steps of FPR, half at equal ratios.

    Raises:
        ValueError: as for :func:`auc`, or fewer than 2 points are asked for.
    """
    if points < 2:
        raise ValueError(f"points is {points}: give 2 or more")
    ranking = Ranking(scores, members)
    found, wrong = (counts[0] for counts in ranking.counts())
    last = np.flatnonzero(np.append(np.diff(wrong) > 0, True))  # the largest TPR of each FPR
    tpr, fpr = found[last] / ranking.positives, wrong[last] / ranking.negatives
    half = points // 2
    wanted = np.union1d(np.geomspace(1 / ranking.negatives, 1, points - half), np.linspace(0, 1, half + 1))
    kept = np.unique(np.searchsorted(fpr, wanted + 1e-12, side="right") - 1)
    kept = kept[kept >= 0]
    fpr, tpr = fpr[kept], tpr[kept]
    if fpr[0] > 0 or tpr[0] > 0:
        fpr, tpr = np.insert(fpr, 0, 0.0), np.insert(tpr, 0, 0.0)
    return Roc(fpr=fpr, tpr=tpr)


def _estimate(
    figure: Figure, scores: np.ndarray, members: np.ndarray, generator: np.random.Generator | None, resamples: int
) -> Estimate:
    (estimate,) = _estimates(Ranking(scores, members), [figure], generator, resamples)
    return estimate


def _estimates(
    ranking: Ranking, figures: list[Figure], generator: np.random.Generator | None, resamples: int
) -> list[Estimate]:
    values = [float(_compute(figure, *ranking.counts())[0]) for figure in figures]
    if ranking.models == 1:
        return [_single(ranking, figure, value) for figure, value in zip(figures, values, strict=True)]
    if generator is None:
        raise ValueError(f"generator is missing: scores of {ranking.models} models are resampled for their intervals")
    if resamples < 40:
        raise ValueError(f"resamples is {resamples}: give 40 or more for 2.5 % on either side, 300 to be of use")
    pieces = [
        [_compute(figure, *counts) for figure in figures]
        for counts in ranking.resampled(resamples, generator=generator)
    ]
    drawn = [np.concatenate(column) for column in zip(*pieces, strict=True)]
    return [_pooled(ranking, *of) for of in zip(figures, values, drawn, strict=True)]


def _compute(figure: Figure, found: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    if figure.kind == "auc":
        return area(found, wrong)
    if figure.kind == "advantage":
        return widest(found, wrong)
    return (found_at if figure.kind == "tpr" else cleared_at)(found, wrong, figure.rate)


def _single(ranking: Ranking, figure: Figure, value: float) -> Estimate:
    """One model's figure; its candidates are independent."""
    n = ranking.candidates
    if figure.kind == "auc":
        low, high = delong(ranking, level=LEVEL)
        return Estimate(value=value, low=low, high=high, n=n)
    if figure.kind == "advantage":
        low, high = _at_one_threshold(ranking)
        return Estimate(value=value, low=low, high=high, n=n, note=_by_chance(ranking.positives, ranking.negatives))
    missing = _too_few(ranking, figure)
    if missing:
        return unresolvable(n, missing)
    of, against = _sides(ranking, figure)
    low, high = clopper_pearson(round(value * of), of, confidence=LEVEL)
    errors = int(allowed(figure.rate, np.array(against)))
    least, most = clopper_pearson(errors, against, confidence=LEVEL)
    name = "FPR" if figure.kind == "tpr" else "FNR"
    note = f"at a threshold with at most {errors} of {against} wrong: their {name} is {least:.2%} to {most:.2%}"
    return Estimate(value=value, low=low, high=high, n=n, note=note)


def _pooled(ranking: Ranking, figure: Figure, value: float, drawn: np.ndarray) -> Estimate:
    """A figure of several models; ``drawn`` is what it was in each resample."""
    n = ranking.scores.size
    note = f"{ranking.models} models, {ranking.candidates} candidates, both resampled"
    missing = _too_few(ranking, figure)
    if missing:
        return unresolvable(n, missing)
    if len(drawn) < 40:
        return unresolvable(n, f"{note}: too few resamples had members and non-members")
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if figure.kind == "advantage":
        low, high = np.clip([2 * value - high, 2 * value - low], 0, 1)
        # Candidates at least are independent of each other.
        note = f"{_by_chance(ranking.candidates / 2, ranking.candidates / 2)}; {note}"
    if low == high:
        # All resamples agree, as they do at 0 and at 1; that shows no more than this many candidates can.
        ends = clopper_pearson(round(value * ranking.candidates), ranking.candidates, confidence=LEVEL)
        low, high = min(low, ends[0]), max(high, ends[1])
    return Estimate(value=value, low=float(min(low, value)), high=float(max(high, value)), n=n, note=note)


def _at_one_threshold(ranking: Ranking) -> tuple[float, float]:
    """TPR - FPR at the best threshold, each rate by Clopper-Pearson at half of the error probability."""
    found, wrong = (counts[0] for counts in ranking.counts())
    best = int(np.argmax(found / ranking.positives - wrong / ranking.negatives))
    each = 1 - (1 - LEVEL) / 2
    tpr = clopper_pearson(int(found[best]), ranking.positives, confidence=each)
    fpr = clopper_pearson(int(wrong[best]), ranking.negatives, confidence=each)
    return max(0.0, tpr[0] - fpr[1]), min(1.0, tpr[1] - fpr[0])


def _by_chance(positives: float, negatives: float) -> str:
    """The one-sided Smirnov statistic's 95 % point, asymptotically: exp(-2 d^2 mn/(m+n)) = .05."""
    exceeded = math.sqrt(-math.log(1 - LEVEL) / 2 * (1 / positives + 1 / negatives))
    return f"chance alone gives up to {min(1.0, exceeded):.3f} in 95 % of such samples"


def _sides(ranking: Ranking, figure: Figure) -> tuple[int, int]:
    """How many scores the figure is a share of, and how many its error rate is."""
    sides = ranking.positives, ranking.negatives
    return sides if figure.kind == "tpr" else (sides[1], sides[0])


def _too_few(ranking: Ranking, figure: Figure) -> str:
    """Why the rate cannot be resolved; empty where it can."""
    if figure.kind not in ("tpr", "tnr"):
        return ""
    against = _sides(ranking, figure)[1]
    if against * figure.rate >= 1 - 1e-9:
        return ""
    whose = "non-members" if figure.kind == "tpr" else "members"
    return f"{against} {whose} cannot resolve a rate of {figure.rate:g}: {math.ceil(1 / figure.rate - 1e-9)} are needed"


def _rate(name: str, rate: float) -> float:
    if not 0 < rate < 1:
        raise ValueError(f"{name} is {rate}: give a rate above 0 and below 1, such as 0.01")
    return rate
