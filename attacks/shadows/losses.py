"""The losses of training, for (m, classes, B) logits of many models: one value a model."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def cross_entropies(logits: torch.Tensor, labels: list[torch.Tensor]) -> torch.Tensor:
    """(m,) mean cross-entropies of (m, classes, B) logits, the padding left out."""
    together = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
    counts = torch.tensor([len(each) for each in labels]).to(logits)
    return F.cross_entropy(logits, together, reduction="none").sum(dim=1) / counts


def divergences(logits: torch.Tensor, targets: list[torch.Tensor], *, temperature: float) -> torch.Tensor:
    """(m,) values of :func:`codream_secure.training.distillation_loss`, of (m, classes, B) logits.

    Args:
        logits: of the models that learn.
        targets: for each (n, classes) soft labels as logits; padding, where there is any, counts nothing.
        temperature: T > 0.
    """
    counts = torch.tensor([len(each) for each in targets]).to(logits)
    together = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True).transpose(1, 2)
    log_q = F.log_softmax(logits / temperature, dim=1)
    log_p = F.log_softmax(together.detach() / temperature, dim=1)
    each = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)
    if int(counts.min()) != together.shape[-1]:
        places = torch.arange(together.shape[-1], device=logits.device)
        each = each * (places < counts[:, None])
    return temperature**2 * each.sum(dim=1) / counts
