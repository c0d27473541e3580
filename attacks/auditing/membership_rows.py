"""From signals of many federations to rows: scored against references, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from attacks.estimates import Estimate
from attacks.membership import ScoreKind, balanced_memberships, score_all
from attacks.metrics import auc, roc_curve, summarise
from attacks.probes.base import MembershipProbe, Signal
from attacks.rows import Row

SCORES: dict[str, ScoreKind] = {"LiRA": "lira_online", "threshold": "threshold"}
CHANCE = {"AUC": 0.5, "advantage": 0.0, "TPR@1%FPR": 0.01, "TPR@0.1%FPR": 0.001, "TNR@1%FNR": 0.01}
RESAMPLES = 300
FEWEST_CANARIES = 10


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where rows belong: the columns that they have in common."""

    method: str
    protection: str
    probe: MembershipProbe

    def row(self, metric: str, estimate: Estimate, *, score: str, only: str = "") -> Row:
        """One row of this place."""
        return Row(
            method=self.method,
            protection=self.protection,
            adversary=self.probe.adversary,
            active=self.probe.active,
            probe=f"{self.probe.name}, {score}{only}",
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
    place: Place,
    signals: Signal,
    members: npt.NDArray[np.bool_],
    *,
    asked: npt.NDArray[np.bool_],
    canaries: npt.NDArray[np.bool_],
    generator: np.random.Generator,
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Rows and ROC curves of one probe under one protection.

    Args:
        place: whose they are.
        signals: (M, N) float64, the signal of each candidate in each federation.
        members: (M, N) bool, a balanced design.
        asked: (N,) bool, the candidates that this adversary can say something of.
        canaries: (N,) bool; those with wrong labels also get a row of their own.
        generator: draws references and resamples.
    """
    rows, curves = [], []
    for name, kind in SCORES.items():
        scores = score_all(signals[:, asked], members[:, asked], kind=kind, generator=generator)
        inside = members[:, asked]
        for metric, estimate in summarise(scores, inside, generator=generator, resamples=RESAMPLES).items():
            rows.append(place.row(metric, estimate, score=name))
        few = canaries[asked]
        if few.sum() >= FEWEST_CANARIES:
            estimate = auc(scores[:, few], inside[:, few], generator=generator, resamples=RESAMPLES)
            rows.append(place.row("AUC", estimate, score=name, only=", mislabelled canaries"))
        curve = roc_curve(scores, inside)
        curves.append(
            {
                "method": place.method,
                "protection": place.protection,
                "adversary": place.probe.adversary,
                "active": place.probe.active,
                "probe": f"{place.probe.name}, {name}",
                "fpr": curve.fpr.tolist(),
                "tpr": curve.tpr.tolist(),
                "members": int(inside.sum()),
                "nonmembers": int((~inside).sum()),
            }
        )
    return rows, curves


def null_auc(signals: Signal, members: npt.NDArray[np.bool_], *, generator: np.random.Generator) -> float:
    """The AUC that the whole scoring gives on memberships that were drawn anew, and that nothing was trained on."""
    redrawn = balanced_memberships(members.shape[1], len(members), generator=generator)
    scores = score_all(signals, redrawn, kind="lira_online", generator=generator)
    found = auc(scores, redrawn, generator=generator, resamples=40).value
    assert found is not None  # there are members and non-members
    return found


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
        note=reason,
    )
