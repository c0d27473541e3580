"""Membership by the models that a method ends with, as a party would release them, scored by LiRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from attacks.auditing.membership_rows import CHANCE, RESAMPLES
from attacks.membership import logit_confidence, score_all
from attacks.metrics import auc, summarise
from attacks.ranking import Ranking, area
from attacks.rows import Row
from codream_secure import training
from codream_secure.methods import Method
from codream_secure.methods.fedavg import FedAvg

OWN = "the client's own model"
OTHER = "another client's model"
GLOBAL = "the global model"
TUNED = "the client's copy, trained on"
STUDENT = "the server's student"

Members = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one kind of model answered about the candidates, in one federation.

    Attributes:
        signal: (N,) float64, the logit confidence in each candidate's label.
        correct: (N,) bool, whether the model gives the candidate its label.
        test_accuracy: in [0, 1], on the test images; the mean, where each client's model answers for its own part.
    """

    signal: npt.NDArray[np.float64] = field(repr=False)
    correct: npt.NDArray[np.bool_] = field(repr=False)
    test_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One kind of model in all federations.

    Attributes:
        method: how rows call the method.
        model: one of the kinds above.
        signals: (M, N) float64.
        scores: (M, N) float64 of LiRA, the larger the likelier a member.
        train_accuracy: (M,) on the members that the model was asked about.
        test_accuracy: (M,)
    """

    method: str
    model: str
    signals: npt.NDArray[np.float64] = field(repr=False)
    scores: npt.NDArray[np.float64] = field(repr=False)
    train_accuracy: npt.NDArray[np.float64]
    test_accuracy: npt.NDArray[np.float64]

    def targets(self, members: Members) -> npt.NDArray[np.float64]:
        """(M,) the AUC in each federation alone: what a comparison of one target each would have reported."""
        return np.array([auc(row, inside).value for row, inside in zip(self.scores, members, strict=True)], dtype=float)

    def to_json(self, members: Members) -> dict[str, Any]:
        """Plain values, without signals and scores."""
        return {
            "method": self.method,
            "model": self.model,
            "train_accuracy": [float(self.train_accuracy.mean()), float(self.train_accuracy.std(ddof=1))],
            "test_accuracy": [float(self.test_accuracy.mean()), float(self.test_accuracy.std(ddof=1))],
            "targets": self.targets(members).tolist(),
        }


def answers_of(
    method: Method, images: torch.Tensor, labels: torch.Tensor, *, owners: torch.Tensor
) -> dict[str, Answers]:
    """Ask every kind of model that the method ends with about all candidates.

    A client's model is asked about the candidates that this client would hold, or about those of the client before it,
    which it has met in dreams at most; under isolated training the latter is a control. FedAvg's clients all end with
    the global model; beside it stand their copies after the local training of one more round, which this function does.

    Args:
        method: after its last round; FedAvg's clients are trained on.
        images: (N, C, H, W) float32, normalised.
        labels: (N,) int64.
        owners: (N,) int64, the client that would hold each.
    """
    server, clients = method.server_model(), method.federation.clients
    if method.name == FedAvg.name:
        found = {} if server is None else {GLOBAL: _answers([server], torch.zeros_like(owners), method, images, labels)}
        for client in clients:
            method.federation.train_locally(
                client, epochs=method.config.local.epochs, place="local", number=method.config.run.rounds + 1
            )
        return found | {TUNED: _answers(method.models(), owners, method, images, labels)}
    found = {OWN: _answers(method.models(), owners, method, images, labels)}
    if len(clients) > 1:
        found[OTHER] = _answers(method.models(), (owners + 1) % len(clients), method, images, labels)
    if server is not None:
        found[STUDENT] = _answers([server], torch.zeros_like(owners), method, images, labels)
    return found


def _answers(
    models: Sequence[nn.Module], answering: torch.Tensor, method: Method, images: torch.Tensor, labels: torch.Tensor
) -> Answers:
    """Each candidate's answer by the model of the number that ``answering`` (N,) has for it."""
    logits = torch.stack([training.predict(model, images) for model in models])
    logits = logits[answering, torch.arange(len(labels))]
    tested = [training.count_correct(model, *method.federation.test) for model in models]
    return Answers(
        signal=logit_confidence(logits, labels),
        correct=(logits.argmax(dim=1) == labels).numpy(),
        test_accuracy=sum(tested) / len(tested) / len(method.federation.test[1]),
    )


def judged(method: str, model: str, answers: Sequence[Answers], members: Members, *, seed: int) -> Judged:
    """Score one kind of model, each federation in turn as the target.

    Args:
        method: how rows call the method.
        model: which kind it is.
        answers: M of them.
        members: (M, N) bool, a balanced design.
        seed: draws the references: the same ones for all methods, so that differences are not those of the draw.
    """
    signals = np.stack([each.signal for each in answers])
    generator = np.random.default_rng([seed, 0x11FA])
    return Judged(
        method=method,
        model=model,
        signals=signals,
        scores=score_all(signals, members, kind="lira_online", generator=generator),
        train_accuracy=np.array([each.correct[row].mean() for each, row in zip(answers, members, strict=True)]),
        test_accuracy=np.array([each.test_accuracy for each in answers]),
    )


def released_rows(found: Judged, members: Members, *, seed: int) -> list[Row]:
    """AUC, advantage and rates, with intervals where the sample resolves them."""
    estimates = summarise(found.scores, members, generator=_resampling(seed), resamples=RESAMPLES)
    return [
        Row(
            method=found.method,
            protection="plain",
            adversary="public",
            active=False,
            probe=f"{found.model}, LiRA",
            metric=metric,
            value=estimate.value,
            low=estimate.low,
            high=estimate.high,
            control=CHANCE[metric],
            n=estimate.n,
            seed=seed,
            assumptions="asks the released model about each candidate once; compares with federations that it trained "
            "itself on random halves of the candidates",
            note=estimate.note,
        )
        for metric, estimate in estimates.items()
    ]


def set_side_by_side(
    found: Sequence[Judged], compared: Sequence[tuple[str, str]], members: Members, *, seed: int
) -> dict[str, Any]:
    """How far each model's AUC is above those after it, and in how many targets all fall in that order.

    Args:
        found: all that was judged.
        compared: method and model, most exposed first; those that were not judged are left out.
        members: (M, N) bool.
        seed: of the resamples, which are the same for both sides of a difference.
    """
    known = {(each.method, each.model): each for each in found}
    chosen = [known[place] for place in compared if place in known]
    targets = np.stack([each.targets(members) for each in chosen]) if chosen else np.empty((0, len(members)))
    return {
        "models": [[each.method, each.model] for each in chosen],
        "targets": len(members),
        "falling": int((np.diff(targets, axis=0) < 0).all(axis=0).sum()),
        "differences": [_difference(one, other, members, seed=seed) for one, other in combinations(chosen, 2)],
    }


def _difference(one: Judged, other: Judged, members: Members, *, seed: int) -> dict[str, Any]:
    """Of two AUCs, with the interval of resamples in which both sides have the same federations and candidates."""
    drawn, values = [], []
    for each in (one, other):
        ranking = Ranking(each.scores, members)
        pieces = ranking.resampled(RESAMPLES, generator=_resampling(seed))
        drawn.append(np.concatenate([area(*counts) for counts in pieces]))
        values.append(float(area(*ranking.counts())[0]))
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    return {
        "of": one.method,
        "over": other.method,
        "value": values[0] - values[1],
        "low": float(low),
        "high": float(high),
    }


def _resampling(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 0xB007])
