"""How good the clients' models are, each on its own test images: one sum of two counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from codream_secure import training
from codream_secure.base_channel import BaseChannel
from codream_secure.config import Config

Labelled = tuple[torch.Tensor, torch.Tensor]


class Counts(NamedTuple):
    """Of test images."""

    correct: int
    images: int

    @property
    def accuracy(self) -> float | None:
        """A share, if there are any."""
        return self.correct / self.images if self.images else None


def is_measured(config: Config, number: int) -> bool:
    """Whether accuracy is measured after this round."""
    return number % config.run.evaluate_every == 0 or number == config.run.rounds


def counted(model: nn.Module, test: Labelled) -> Counts:
    """Of a client's test images, how many its model classifies correctly."""
    return Counts(training.count_correct(model, *test) if len(test[1]) else 0, len(test[1]))


def pooled_accuracy(channel: BaseChannel, counts: Mapping[int, Counts], *, device: torch.device) -> float | None:
    """Correct answers of all clients over images of all clients, from one sum.

    The server learns how many test images all clients have together, and how many of them are classified well.

    Args:
        channel: to the others.
        counts: client number to counts, of the clients that live here.
        device: of the channel's tensors.

    Returns:
        A share, where the sum is known, which is the server; None elsewhere, or if nobody has test images.
    """
    sent = {number: [torch.tensor(count, dtype=torch.float32)] for number, count in counts.items()}
    (mean,) = channel.mean(sent, phase="evaluation", like=[torch.empty(2, device=device)])
    correct, images = mean.tolist()
    return correct / images if images else None
