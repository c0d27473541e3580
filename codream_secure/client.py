"""One participant: private images, a model of its own, and what it can do with them."""

from __future__ import annotations

import torch
from torch import nn

from codream_secure import training
from codream_secure.dreaming import DreamBuffer
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

    def soft_labels(self, dreams: torch.Tensor) -> torch.Tensor:
        """This client's logits on dreams: (n, classes) float32."""
        return training.predict(self.model, dreams)


def distil(
    model: nn.Module,
    buffer: DreamBuffer,
    *,
    epochs: int,
    temperature: float,
    optimization: Optimization,
    generator: torch.Generator,
) -> float:
    """Teach a model the buffer's soft labels; returns the last epoch's mean loss."""

    def loss(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return training.distillation_loss(model(images), labels, temperature=temperature)

    return training.fit(
        model, (buffer.images, buffer.labels), loss, epochs=epochs, optimization=optimization, generator=generator
    )
