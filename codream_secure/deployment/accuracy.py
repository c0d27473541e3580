"""How good the clients' models are, each on its own test images: one sum of shares.

Of shares and not of counts: the difference of two such sums, over other clients, would say how many test images one
client has.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from codream_secure import training
from codream_secure.base_channel import BaseChannel
from codream_secure.config import Config

Labelled = tuple[torch.Tensor, torch.Tensor]


def is_measured(config: Config, number: int) -> bool:
    """Whether accuracy is measured after this round."""
    return number % config.run.evaluate_every == 0 or number == config.run.rounds


def is_shared(config: Config) -> bool:
    """Whether the sum is taken: not where privacy is claimed, for nothing accounts for it. Clients know their own."""
    return not config.dp.on


def accuracy_of(model: nn.Module, test: Labelled) -> float | None:
    """Which share of a client's test images its model classifies correctly; None if there are none."""
    return training.count_correct(model, *test) / len(test[1]) if len(test[1]) else None


def mean_accuracy(
    channel: BaseChannel, accuracies: Mapping[int, float | None], *, bound: float, device: torch.device
) -> float | None:
    """The mean over the clients that have test images, however many, from one sum.

    The server learns this mean and how many clients in the sum have test images, and no number of images.

    Args:
        channel: to the others.
        accuracies: client number to its share in [0, 1], None without images, of the clients that live here.
        bound: above 0, of the values of the stream: shares are sent in units of it, which loses least to rounding.
        device: of the channel's tensors.

    Returns:
        A share, where the sum is known, which is the server; None elsewhere, or if nobody has test images.
    """
    sent = {
        number: [bound * torch.tensor([0.0, 0.0] if share is None else [share, 1.0], dtype=torch.float32)]
        for number, share in accuracies.items()
    }
    (mean,) = channel.mean(sent, phase="evaluation", like=[torch.empty(2, device=device)])
    right, there = mean.tolist()
    return right / there if there else None
