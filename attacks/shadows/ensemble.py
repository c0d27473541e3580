"""Fit many models at once, each to its own images, as :func:`codream_secure.training.fit` fits one.

The same batches in the same order, the same clipping, the same running statistics: a model ends with the weights that
it would have ended with alone, up to rounding. Step number s of every model's epoch is one step of the ensemble, in
which shorter batches are padded; models whose epochs are shorter wait for the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from attacks.shadows.layers import Call, Padding
from attacks.shadows.lessons import Lesson
from attacks.shadows.losses import cross_entropies
from attacks.shadows.optimizers import make_optimizer
from attacks.shadows.stacked import Stack
from codream_secure.errors import NumericalError
from codream_secure.training import Optimization

Result = float | NumericalError
# Values of a batch's images that an ensemble works on at a time: so many that the cost of starting operations is small,
# and so few that activations, some fifty times as many, do not leave the processor's second-level cache for long.
_VALUES = 65_536
_FEWEST = 4


@dataclass
class _Learner:
    """One model's part: its row of the stack, and how far it has got."""

    lesson: Lesson
    batches: list[torch.Tensor] = field(default_factory=list)
    total: float = 0.0


def fit_together(lessons: Sequence[Lesson], optimization: Optimization, *, epochs: int) -> list[Result]:
    """Fit every lesson's model in place.

    Args:
        lessons: of models with equal signatures, with losses of the same kind.
        optimization: of all of them.
        epochs: likewise.

    Returns:
        For each lesson the mean loss over the last epoch, or the error that it ended with.
    """
    results: list[Result] = []
    first = lessons[0].images
    each = first[0].numel() * min(optimization.batch_size, len(first))
    size = max(_FEWEST, _VALUES // each)
    for start in range(0, len(lessons), size):
        ensemble = _Ensemble(lessons[start : start + size], optimization, epochs)
        with torch.no_grad():
            for epoch in range(epochs):
                ensemble.epoch(epoch)
        ensemble.stack.write_back()
        results += ensemble.results
    return results


class _Ensemble:
    def __init__(self, lessons: Sequence[Lesson], optimization: Optimization, epochs: int) -> None:
        self.stack = Stack([lesson.model for lesson in lessons])
        self.learners = [_Learner(lesson) for lesson in lessons]
        self.results: list[Result] = [math.nan for _ in lessons]
        self._optimization = optimization
        size = optimization.batch_size
        steps = torch.tensor([epochs * -(-lesson.count // size) for lesson in lessons])
        self._optimizer = make_optimizer(optimization, self.stack.weights, steps)
        self._everyone = list(range(len(lessons)))

    def epoch(self, number: int) -> None:
        """One pass of every model that has not failed."""
        size = self._optimization.batch_size
        going = [index for index in self._everyone if not isinstance(self.results[index], NumericalError)]
        for index in going:
            learner = self.learners[index]
            order = torch.randperm(learner.lesson.count, generator=learner.lesson.generator)
            learner.batches, learner.total = list(order.split(size)), 0.0
        for step in range(max((len(self.learners[index].batches) for index in going), default=0)):
            active = [index for index in going if step < len(self.learners[index].batches)]
            # A single image has no variance; models that are given one take their stored statistics.
            alone = [index for index in active if len(self.learners[index].batches[step]) == 1]
            for rows, stored in ((alone, True), ([index for index in active if index not in alone], False)):
                if rows:
                    self._step(rows, [self.learners[index].batches[step] for index in rows], stored=stored)
        for index in going:
            learner = self.learners[index]
            self.results[index] = mean = learner.total / learner.lesson.count
            if not math.isfinite(mean):
                self.results[index] = NumericalError(
                    f"training loss is {mean} in epoch {number + 1}: lower the learning rate "
                    f"(lr = {self._optimization.lr})"
                )

    def _step(self, rows: list[int], batches: list[torch.Tensor], *, stored: bool) -> None:
        chosen = None if rows == self._everyone else torch.tensor(rows)
        weights = self.stack.weights if chosen is None else self.stack.weights[chosen]
        lessons = [self.learners[index].lesson for index in rows]
        gradient, values = self._gradient(weights, chosen, lessons, batches, stored=stored)
        if self._optimization.max_grad_norm is not None:
            length = torch.linalg.vector_norm(gradient, dim=1)
            gradient.mul_((self._optimization.max_grad_norm / (length + 1e-6)).clamp_(max=1.0)[:, None])
        self._optimizer.step(gradient, chosen)
        for index, batch, value in zip(rows, batches, values.tolist(), strict=True):
            self.learners[index].total += value * len(batch)

    def _gradient(
        self,
        weights: torch.Tensor,
        chosen: torch.Tensor | None,
        lessons: list[Lesson],
        batches: list[torch.Tensor],
        *,
        stored: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(m, P) gradients and (m,) losses, of which a single image's is taken with stored statistics."""
        stack = self.stack
        taken = [lesson.taken(batch) for lesson, batch in zip(lessons, batches, strict=True)]
        logits, tape = self._forward(weights, chosen, [images for images, _ in taken], stored=stored)
        values, by_logits = lessons[0].losses(logits, [labels for _, labels in taken])
        gradient = stack.backward(weights, tape, by_logits)
        pairs = [pair for pair in (lesson.rehearsed() for lesson in lessons) if pair is not None]
        if pairs:
            logits, tape = self._forward(weights, chosen, [images for images, _ in pairs], stored=stored)
            rehearsed, by_logits = cross_entropies(logits, [labels for _, labels in pairs])
            factors = values.new_tensor([lesson.rehearsal_weight for lesson in lessons])
            gradient.add_(stack.backward(weights, tape, by_logits.mul_(factors[:, None, None])))
            values = values + factors * rehearsed
        return gradient, values

    def _forward(
        self, weights: torch.Tensor, chosen: torch.Tensor | None, images: list[torch.Tensor], *, stored: bool
    ) -> tuple[torch.Tensor, list[Any]]:
        """(m, classes, B) logits of (n, C, H, W) images each, where B is the longest n, and the tape."""
        stack = self.stack
        batch = torch.nn.utils.rnn.pad_sequence(images, batch_first=True)
        counts = [len(each) for each in images]
        padding = None
        if min(counts) != max(counts):
            sizes = torch.tensor(counts, device=batch.device)
            mask = torch.arange(max(counts), device=batch.device) < sizes[:, None]
            padding = Padding(mask[:, None].to(batch.dtype), sizes.to(batch.dtype))
        running = stack.running if chosen is None else stack.running[chosen]
        found = stack.forward(
            weights, batch.permute(0, 2, 3, 4, 1).contiguous(), Call(running, padding=padding, stored=stored)
        )
        if not stored:
            if chosen is not None:
                stack.running[chosen] = running
            stack.batches[slice(None) if chosen is None else chosen] += 1
        return found
