"""Model extraction: a server that sends public images in place of dreams learns a copy of what answers.

A client cannot tell dreams from images by any rule of the protocol, and answers with logits. The copy is distilled from
those, and then anything that needs a model can be run on it, membership inference first of all. Where only sums are
opened, what is copied is the clients' ensemble.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from attacks.estimates import Estimate, clopper_pearson
from codream_secure import training
from codream_secure.client import distil
from codream_secure.training import Optimization


@dataclass(frozen=True, kw_only=True)
class ExtractionQuality:
    """How good a copy is, on images that were not among the queries. Intervals are Clopper-Pearson's.

    Attributes:
        agreement: share of images on which copy and victim say the same class.
        accuracy: the copy's.
        victim_accuracy: the victim's.
    """

    agreement: Estimate
    accuracy: Estimate
    victim_accuracy: Estimate


def extract(
    student: nn.Module,
    queries: torch.Tensor,
    logits: torch.Tensor,
    *,
    generator: torch.Generator,
    epochs: int = 200,
    temperature: float = 1.0,
    optimization: Optimization | None = None,
) -> nn.Module:
    """Distil the answers into a student, in place, and return it in eval mode.

    Args:
        student: a fresh model of any architecture; the adversary need not know the victim's.
        queries: (m, C, H, W) float32, public images that were sent as dreams.
        logits: (m, classes) float32, one client's answers, or a mean of several clients'.
        generator: CPU generator that shuffles.
        epochs: passes over the queries.
        temperature: of the distillation. At 1 the copy has the victim's confidence, which membership inference reads.
        optimization: Adam at 2e-3 in batches of 64 along a half cosine by default.

    Raises:
        ValueError: queries and answers differ in number.
    """
    if len(queries) != len(logits):
        raise ValueError(f"there are {len(queries)} queries and {len(logits)} answers: one each")
    distil(
        student,
        queries,
        logits,
        epochs=epochs,
        temperature=temperature,
        optimization=optimization or Optimization(optimizer="adam", lr=2e-3, batch_size=64, schedule="cosine"),
        generator=generator,
    )
    return student.eval()


def candidate_logits(copy: nn.Module, candidates: torch.Tensor) -> torch.Tensor:
    """The copy's logits (N, classes) on candidates (N, C, H, W), to be scored like a released model's."""
    return training.predict(copy, candidates)


def quality(
    copy: nn.Module, victim_logits: torch.Tensor, images: torch.Tensor, labels: torch.Tensor
) -> ExtractionQuality:
    """Score a copy; here, and only here, the victim's answers on test images are used.

    Args:
        copy: what was extracted.
        victim_logits: (N, classes) on ``images``.
        images: (N, C, H, W) test images, none of them among the queries.
        labels: (N,) int64.
    """
    own, other = training.predict(copy, images).argmax(1), victim_logits.argmax(1)
    return ExtractionQuality(
        agreement=_share(own == other), accuracy=_share(own == labels), victim_accuracy=_share(other == labels)
    )


def _share(hits: torch.Tensor) -> Estimate:
    count, total = int(hits.sum()), len(hits)
    low, high = clopper_pearson(count, total)
    return Estimate(value=count / total, low=low, high=high, n=total)
