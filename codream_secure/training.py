"""Fitting a model to tensors: local cross-entropy, distillation in log space, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from codream_secure.errors import NumericalError

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How a model is fitted.

    Attributes:
        optimizer: torch's SGD or Adam; its state starts afresh at every call of :func:`fit`.
        lr: learning rate.
        momentum: of SGD.
        weight_decay: L2 coefficient.
        batch_size: images per step; the last batch of an epoch may be smaller.
        max_grad_norm: gradients longer than this are scaled down to it (Pascanu et al. 2013): tiny batches and sharp
            soft labels otherwise send a model to infinity now and then. None switches it off.
        schedule: the learning rate stays, or falls to 0 along a half cosine over one call of :func:`fit`.
    """

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 256
    max_grad_norm: float | None = 5.0
    schedule: Literal["constant", "cosine"] = "constant"

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """A fresh optimiser over all parameters of the model."""
        if self.optimizer == "adam":
            return torch.optim.Adam(model.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(model.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """The arguments of one call of :func:`fit`, for a fitter that does it in another way."""

    model: nn.Module = field(repr=False)
    tensors: Sequence[torch.Tensor] = field(repr=False)
    loss: Callable[..., torch.Tensor]
    epochs: int
    optimization: Optimization
    generator: torch.Generator


Fitter = Callable[[Fit], float]
_fitter: ContextVar[Fitter | None] = ContextVar("fitter", default=None)


@contextmanager
def fitted_by(fitter: Fitter | None) -> Iterator[None]:
    """Inside the block, and in this thread, every :func:`fit` is handed to that function; None fits here again.

    It is how many runs train their models together. Whatever it does, a model ends as :func:`fit` would leave it, up to
    rounding, and it returns or raises what :func:`fit` does.
    """
    token = _fitter.set(fitter)
    try:
        yield
    finally:
        _fitter.reset(token)


def fit(
    model: nn.Module,
    tensors: Sequence[torch.Tensor],
    loss: Callable[..., torch.Tensor],
    *,
    epochs: int,
    optimization: Optimization,
    generator: torch.Generator,
) -> float:
    """Fit a model, in train mode, by minimising ``loss(model, *batch)`` over shuffled batches.

    A batch of a single image runs with the batch norms' stored statistics, because one image may leave them a single
    value per channel, which has no variance.

    Args:
        model: trained in place.
        tensors: equally long along their first axis; batches are cut from all of them alike.
        loss: scalar of a model and a batch.
        epochs: passes over the tensors; 0 does nothing.
        optimization: the optimiser and its batch size.
        generator: CPU generator that shuffles.

    Returns:
        Mean loss over the last epoch's images; NaN where there was nothing to do.

    Raises:
        NumericalError: the loss is not finite.
    """
    fitter = _fitter.get()
    if fitter is not None:
        return fitter(
            Fit(
                model=model,
                tensors=tensors,
                loss=loss,
                epochs=epochs,
                optimization=optimization,
                generator=generator,
            )
        )
    count = len(tensors[0])
    mean_loss = float("nan")
    if not count:
        return mean_loss
    optimizer = optimization.build(model)
    steps = epochs * -(-count // optimization.batch_size)
    scheduler = CosineAnnealingLR(optimizer, steps) if optimization.schedule == "cosine" else None
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(count, generator=generator).to(tensors[0].device)
        total = torch.zeros((), device=tensors[0].device)
        for indices in order.split(optimization.batch_size):
            optimizer.zero_grad(set_to_none=True)
            with stored_statistics(model, only_if=len(indices) == 1):
                value = loss(model, *(tensor[indices] for tensor in tensors))
            value.backward()
            if optimization.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), optimization.max_grad_norm)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            total += value.detach() * len(indices)
        mean_loss = total.item() / count
        if not torch.isfinite(total):
            raise NumericalError(
                f"training loss is {mean_loss} in epoch {epoch + 1}: lower the learning rate (lr = {optimization.lr})"
            )
    return mean_loss


@contextmanager
def stored_statistics(model: nn.Module, *, only_if: bool) -> Iterator[None]:
    """Batch norms that keep statistics in eval mode inside the block."""
    layers = (
        [m for m in model.modules() if isinstance(m, _BATCH_NORMS) and m.running_mean is not None] if only_if else []
    )
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


@torch.no_grad()
def recalibrate(model: nn.Module, images: torch.Tensor, *, batch_size: int = 512) -> None:
    """Set the batch norms' running statistics to those of the images, under the current weights.

    Running averages lag behind: after a distillation on dreams they are still half the dreams' own. Everything but the
    batch norms is in eval mode meanwhile. A single image has no statistics to offer and changes nothing.

    Args:
        model: its batch norms' buffers are changed in place; modes and momenta are restored.
        images: (N, C, H, W) float32.
        batch_size: statistics are averaged over nearly equal batches of at most this size.
    """
    norms = [module for module in model.modules() if isinstance(module, _BATCH_NORMS) and module.track_running_stats]
    if len(images) < 2 or not norms:
        return
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()
    try:
        for batch in images.tensor_split(-(-len(images) // batch_size)):
            model(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes:
            module.training = mode


def cross_entropy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy, in nats."""
    return F.cross_entropy(model(images), labels)


def distillation_loss(logits: torch.Tensor, target: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """T^2 KL(softmax(target / T) || softmax(logits / T)), mean over the batch (Hinton et al. 2015; CoDream, section 3).

    Both distributions stay in log space and the target is constant, so a probability that underflows costs nothing:
    neither the value nor the gradient can become NaN for finite logits.

    Args:
        logits: (n, C) of the model that learns.
        target: (n, C) soft labels as logits.
        temperature: T > 0.
    """
    log_q = F.log_softmax(logits / temperature, dim=1)
    log_p = F.log_softmax(target.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@torch.no_grad()
def predict(model: nn.Module, images: torch.Tensor, *, batch_size: int = 512) -> torch.Tensor:
    """Logits (N, C) in eval mode; the model's mode is restored."""
    was_training = model.training
    model.eval()
    try:
        return torch.cat([model(batch) for batch in images.split(batch_size)])
    finally:
        model.train(was_training)


def count_correct(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> int:
    """How many of the images the model classifies correctly, in eval mode."""
    return int((predict(model, images).argmax(dim=1) == labels).sum())
