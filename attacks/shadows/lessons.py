"""What a call of ``training.fit`` wants, read so that many of them can be done at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from attacks.shadows.losses import Losses, cross_entropies, divergences
from attacks.shadows.stacked import signature
from codream_secure import training
from codream_secure.client import DistillationLoss, Rehearsal
from codream_secure.training import Fit


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """One model and what it is to learn.

    Attributes:
        model: to be fitted.
        images: (N, C, H, W).
        labels: (N,) int64 classes, or (N, classes) soft labels as logits.
        generator: shuffles, and draws what is rehearsed.
        temperature: of soft labels; None for classes.
        rehearsal: images of its own that a client learns from beside soft labels.
    """

    model: nn.Module = field(repr=False)
    images: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)
    generator: torch.Generator
    temperature: float | None = None
    rehearsal: Rehearsal | None = None

    @property
    def count(self) -> int:
        """Images in an epoch."""
        return len(self.images)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for lessons that one ensemble can learn."""
        shapes = tuple(self.images.shape[1:]), tuple(self.labels.shape[1:]), self.images.dtype
        return signature(self.model), shapes, self.temperature, self.rehearsal is not None

    def taken(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels of one batch."""
        rows = rows.to(self.images.device)
        return self.images[rows], self.labels[rows]

    def rehearsed(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Images and classes of the coming batch of its own, drawn as :class:`Rehearsal` draws them."""
        own = self.rehearsal
        if own is None:
            return None
        rows = torch.randperm(len(own.images), generator=self.generator)[: own.batch_size].to(own.images.device)
        return own.images[rows], own.labels[rows]

    @property
    def rehearsal_weight(self) -> float:
        """0 without rehearsal."""
        return self.rehearsal.weight if self.rehearsal is not None else 0.0

    def losses(self, logits: torch.Tensor, labels: list[torch.Tensor]) -> Losses:
        """The losses of (m, classes, B) logits, for this lesson and others with its key."""
        if self.temperature is None:
            return cross_entropies(logits, labels)
        return divergences(logits, labels, temperature=self.temperature)


def lesson_of(fit: Fit) -> Lesson | None:
    """The lesson, or None where the model cannot be stacked or the loss is none of those that are known here."""
    known = _known_loss(fit.loss, fit.generator)
    if known is None or len(fit.tensors) != 2 or not len(fit.tensors[0]) or signature(fit.model) is None:
        return None
    temperature, rehearsal = known
    if rehearsal is not None and min(len(rehearsal.images), rehearsal.batch_size) < 2:
        return None  # one image has no statistics, and the other batch of the same step has
    images, labels = fit.tensors
    return Lesson(
        model=fit.model,
        images=images,
        labels=labels,
        generator=fit.generator,
        temperature=temperature,
        rehearsal=rehearsal,
    )


def _known_loss(
    loss: Callable[..., torch.Tensor], generator: torch.Generator
) -> tuple[float | None, Rehearsal | None] | None:
    """Temperature and rehearsal of one of this package's two losses."""
    if loss is training.cross_entropy:
        return None, None
    if not isinstance(loss, DistillationLoss) or loss.generator is not generator:
        return None
    return loss.temperature, loss.rehearsal
