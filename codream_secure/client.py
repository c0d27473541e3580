"""One participant: private images, a model of its own, and what it can do with them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from codream_secure import training
from codream_secure.training import Optimization


class Client:
    """A client's private state. Nothing here talks: what leaves it goes through the channel, by a method's hand.

    Args:
        number: position among the clients, from 0.
        architecture: registry name of the model.
        model: this client's own model.
        images: (N, C, H, W) float32, private, normalised.
        labels: (N,) int64, private.
    """

    def __init__(
        self, number: int, architecture: str, *, model: nn.Module, images: torch.Tensor, labels: torch.Tensor
    ) -> None:
        self.number = number
        self.architecture = architecture
        self.model = model
        self.images = images
        self.labels = labels

    def train(self, *, epochs: int, optimization: Optimization, generator: torch.Generator) -> float:
        """Local cross-entropy training; returns the last epoch's mean loss."""
        return training.fit(
            self.model,
            (self.images, self.labels),
            training.cross_entropy,
            epochs=epochs,
            optimization=optimization,
            generator=generator,
        )


def distil(
    model: nn.Module,
    dreams: torch.Tensor,
    soft_labels: torch.Tensor,
    *,
    epochs: int,
    temperature: float,
    optimization: Optimization,
    generator: torch.Generator,
    rehearsal: Rehearsal | None = None,
) -> float:
    """Teach a model the soft labels of dreams; returns the last epoch's mean loss.

    Args:
        model: trained in place.
        dreams: (m, C, H, W) float32.
        soft_labels: (m, classes) float32 logits.
        epochs: passes over the dreams.
        temperature: T of :func:`~codream_secure.training.distillation_loss`.
        optimization: the optimiser and its batch size.
        generator: CPU generator that shuffles and draws the rehearsal's batches.
        rehearsal: a client's own images, so that it does not forget them while it learns from dreams.
    """

    return training.fit(
        model,
        (dreams, soft_labels),
        DistillationLoss(temperature=temperature, rehearsal=rehearsal, generator=generator),
        epochs=epochs,
        optimization=optimization,
        generator=generator,
    )


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Cross-entropy on a random batch of a client's own images, added to every distillation step.

    The published method distils first and trains locally afterwards, each time undoing some of the other; rehearsal
    lets a model agree with the dreams' labels and its own at once, and reaches the same accuracy in fewer epochs. It
    also means that CoDream sees the private images more often than the baselines do, one batch a distillation step.
    """

    images: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)
    batch_size: int
    weight: float

    def loss(self, model: nn.Module, generator: torch.Generator) -> torch.Tensor:
        """The weighted loss of one batch, drawn without replacement."""
        rows = torch.randperm(len(self.images), generator=generator)[: self.batch_size].to(self.images.device)
        with training.stored_statistics(model, only_if=len(rows) == 1):
            return self.weight * training.cross_entropy(model, self.images[rows], self.labels[rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class DistillationLoss:
    """What a distillation step minimises: a value, so that whoever fits many models at once can see what it is."""

    temperature: float
    rehearsal: Rehearsal | None
    generator: torch.Generator

    def __call__(self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        value = training.distillation_loss(model(images), labels, temperature=self.temperature)
        return value if self.rehearsal is None else value + self.rehearsal.loss(model, self.generator)
