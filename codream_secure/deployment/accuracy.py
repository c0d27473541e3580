"""How good the clients' models are, each on its own test images: one sum of two counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from codream_secure import training
from codream_secure.base_channel import BaseChannel
from codream_secure.config import Config

Labelled = tuple[torch.Tensor, torch.Tensor]


def is_measured(config: Config, number: int) -> bool:
    """Whether accuracy is measured after this round."""
    return number % config.run.evaluate_every == 0 or number == config.run.rounds


def pooled_accuracy(
    channel: BaseChannel, models: dict[int, nn.Module], tests: dict[int, Labelled], *, device: torch.device
) -> tuple[float | None, dict[int, float]]:
    """Correct answers of all clients over images of all clients, and the accuracy of the clients that live here.

    The server learns how many test images all clients have together, and how many of them are classified well.

    Returns:
        The former, which only the server knows (None elsewhere, or without test images); and client number to the
        latter.
    """
    counts = {number: _counted(model, tests[number]) for number, model in models.items()}
    sent = {number: [torch.tensor(count, dtype=torch.float32)] for number, count in counts.items()}
    (mean,) = channel.mean(sent, phase="evaluation", like=[torch.empty(2, device=device)])
    correct, images = mean.tolist()
    own = {number: found / of for number, (found, of) in counts.items() if of}
    return (correct / images if images and not models else None), own


def _counted(model: nn.Module, test: Labelled) -> Sequence[int]:
    return (training.count_correct(model, *test) if len(test[1]) else 0, len(test[1]))
