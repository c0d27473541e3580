"""Each trial in turn as the target, the other trials as references: scores for a whole design."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np

from attacks.membership.design import checked_memberships, references
from attacks.membership.lira import Variance, lira_offline, lira_online
from attacks.membership.rmia import log_ratio_offline, log_ratio_online, rmia

ScoreKind: TypeAlias = Literal["threshold", "lira_online", "lira_offline", "rmia_online", "rmia_offline"]


def score_all(
    signals: np.ndarray,
    members: np.ndarray,
    *,
    kind: ScoreKind,
    generator: np.random.Generator,
    variance: Variance = "auto",
    a: float = 0.3,
    gamma: float = 1.0,
    population: np.ndarray | None = None,
) -> np.ndarray:
    """Score every candidate in every trial, with equally many IN and OUT references for each.

    References' memberships are known to the adversary; the target's enter only as what :func:`references` must not
    tell. Candidates share references, and each trial serves all others, so that rows are not independent: judge the
    scores with both models and candidates resampled, as :mod:`attacks.metrics` does.

    Args:
        signals: (M, N) or (M, N, d) float: each candidate's signal in each trial.
        members: (M, N) bool, a balanced design.
        kind: "threshold": the signal itself, one threshold for all candidates, no references. "lira_online",
            "lira_offline": :mod:`attacks.membership.lira`; 6 trials or more. "rmia_online", "rmia_offline":
            :mod:`attacks.membership.rmia`; signals must be logit confidences.
        generator: draws the references.
        variance: of LiRA.
        a: of offline RMIA: 0 to 1, the smaller the more training raises a probability. Choose it on held-out trials or
            leave it; never on the scores that are reported.
        gamma: of RMIA.
        population: (M, Z) phi of public points that no trial trained on, for RMIA to compare with; None for the other
            candidates.

    Returns:
        (M, N) float64, the larger the likelier IN; scores of different trials share one scale.

    Raises:
        ValueError: shapes do not fit, the design is not balanced, an unknown kind, or a value that is not finite.
    """
    members = checked_memberships(members)
    values = np.asarray(signals, dtype=np.float64)
    if values.shape[:2] != members.shape or values.ndim not in (2, 3):
        raise ValueError(f"signals has shape {values.shape}: give {members.shape}, or one axis of observations more")
    if not np.isfinite(values).all():
        raise ValueError("signals has a value that is not finite: use signals that do not saturate")
    if kind not in get_args(ScoreKind):
        raise ValueError(f"kind is {kind!r}: give one of {', '.join(get_args(ScoreKind))}")
    if population is not None:
        population = np.asarray(population, dtype=np.float64)
        if population.ndim != 2 or len(population) != len(members):
            raise ValueError(f"population has shape {population.shape}: give ({len(members)}, points)")
    if values.ndim == 2:
        values = values[:, :, None]
    if kind == "threshold":
        return values.sum(axis=2)
    return np.stack(
        [
            _score(values, members, target, kind, generator, variance, a=a, gamma=gamma, population=population)
            for target in range(len(members))
        ]
    )


def _score(
    values: np.ndarray,
    members: np.ndarray,
    target: int,
    kind: str,
    generator: np.random.Generator,
    variance: Variance,
    *,
    a: float,
    gamma: float,
    population: np.ndarray | None,
) -> np.ndarray:
    """(N,) scores of one trial."""
    having, lacking = references(members, target, generator=generator)
    candidates = np.arange(members.shape[1])[:, None]
    ins, outs, phi = values[having, candidates], values[lacking, candidates], values[target]
    if kind == "lira_online":
        return lira_online(phi, ins, outs, variance=variance)
    if kind == "lira_offline":
        return lira_offline(phi, outs, variance=variance)
    compared = None
    if population is not None:
        # No reference had these points, and training on candidates raises none of them: p(z) is the plain mean.
        compared = log_ratio_offline(population[target], np.delete(population, target, axis=0).T, a=1.0)
    scores = []
    for observation in range(values.shape[2]):
        own, without = phi[:, observation], outs[:, :, observation]
        if kind == "rmia_online":
            ratios = log_ratio_online(own, ins[:, :, observation], without)
        else:
            ratios = log_ratio_offline(own, without, a=a)
        scores.append(rmia(ratios, compared, gamma=gamma))
    return np.mean(scores, axis=0)
