"""The losses of training, for (m, classes, B) logits of many models: one value a model, and its gradient.

Padding counts nothing: its gradients are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F


class Losses(NamedTuple):
    """(m,) values, and the (m, classes, B) gradient of each by its own model's logits."""

    values: torch.Tensor
    gradient: torch.Tensor


def cross_entropies(logits: torch.Tensor, labels: Sequence[torch.Tensor]) -> Losses:
    """Mean cross-entropies.

    Args:
        logits: of all models.
        labels: for each its (n,) int64 classes.
    """
    shares = _shares(labels, logits)
    classes = torch.nn.utils.rnn.pad_sequence(list(labels), batch_first=True)[:, None]
    log_q = F.log_softmax(logits, dim=1)
    values = (log_q.gather(1, classes).neg_()[:, 0] * shares).sum(dim=1)
    gradient = log_q.exp_()
    gradient.scatter_add_(1, classes, gradient.new_full((), -1.0).expand(classes.shape))
    return Losses(values, gradient.mul_(shares[:, None]))


def divergences(logits: torch.Tensor, targets: Sequence[torch.Tensor], *, temperature: float) -> Losses:
    """:func:`codream_secure.training.distillation_loss` of each model.

    Args:
        logits: of all models.
        targets: for each its (n, classes) soft labels as logits.
        temperature: T > 0.
    """
    shares = _shares(targets, logits)
    together = torch.nn.utils.rnn.pad_sequence(list(targets), batch_first=True).transpose(1, 2)
    log_q = F.log_softmax(logits / temperature, dim=1)
    log_p = F.log_softmax(together / temperature, dim=1)
    p = log_p.exp()
    values = temperature**2 * ((p * (log_p - log_q)).sum(dim=1) * shares).sum(dim=1)
    return Losses(values, log_q.exp_().sub_(p).mul_((temperature * shares)[:, None]))


def _shares(batches: Sequence[torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    """(m, B) what each image counts in its batch's mean: 1 / n, and 0 for padding."""
    counts = torch.tensor([len(batch) for batch in batches]).to(logits)[:, None]
    return (torch.arange(logits.shape[-1], device=logits.device) < counts) / counts
