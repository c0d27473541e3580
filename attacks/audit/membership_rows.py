"""From signals of many federations to rows: scored against references, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from attacks.estimates import Estimate
from attacks.membership import ScoreKind, score_all
from attacks.metrics import roc_curve, summarise
from attacks.probes.base import MembershipProbe, Signal
from attacks.rows import Row

SCORES: dict[str, ScoreKind] = {"LiRA": "lira_online", "threshold": "threshold"}
CHANCE = {"AUC": 0.5, "advantage": 0.0, "TPR@1%FPR": 0.01, "TPR@0.1%FPR": 0.001, "TNR@1%FNR": 0.01}
RESAMPLES = 300


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where rows belong: the columns that they have in common."""

    method: str
    protection: str
    probe: MembershipProbe

    def row(self, metric: str, estimate: Estimate, *, score: str) -> Row:
        """One row of this place."""
        return Row(
            method=self.method,
            protection=self.protection,
            adversary=self.probe.adversary,
            active=self.probe.active,
            probe=f"{self.probe.name}, {score}",
            metric=metric,
            value=estimate.value,
            low=estimate.low,
            high=estimate.high,
            control=CHANCE[metric],
            n=estimate.n,
            assumptions=self.probe.assumptions + _OF_SCORE[score],
            note=estimate.note,
        )


_OF_SCORE = {
    "LiRA": "; compares with federations that it trained itself on random halves of the candidates",
    "threshold": "; one threshold for all candidates, without reference models",
}


def membership_rows(
    place: Place, signals: Signal, members: npt.NDArray[np.bool_], *, generator: np.random.Generator
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Rows and ROC curves of one probe under one protection.

    Args:
        place: whose they are.
        signals: (M, N) float64, the signal of each candidate in each federation.
        members: (M, N) bool, a balanced design.
        generator: draws references and resamples.
    """
    rows, curves = [], []
    for name, kind in SCORES.items():
        scores = score_all(signals, members, kind=kind, generator=generator)
        for metric, estimate in summarise(scores, members, generator=generator, resamples=RESAMPLES).items():
            rows.append(place.row(metric, estimate, score=name))
        curve = roc_curve(scores, members)
        curves.append(
            {
                "method": place.method,
                "protection": place.protection,
                "adversary": place.probe.adversary,
                "active": place.probe.active,
                "probe": f"{place.probe.name}, {name}",
                "fpr": curve.fpr.tolist(),
                "tpr": curve.tpr.tolist(),
                "members": int(members.sum()),
                "nonmembers": int((~members).sum()),
            }
        )
    return rows, curves


def withheld_row(place: Place, reason: str, *, n: int) -> Row:
    """The row of a probe whose adversary does not hold what it needs."""
    return Row(
        method=place.method,
        protection=place.protection,
        adversary=place.probe.adversary,
        active=place.probe.active,
        probe=f"{place.probe.name}, LiRA",
        metric="AUC",
        value=None,
        control=CHANCE["AUC"],
        n=n,
        assumptions=place.probe.assumptions,
        note=f"not in view: {reason}",
    )
