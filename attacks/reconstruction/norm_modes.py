"""What a client's gradient is under each treatment of batch normalisation, and how an attacker evaluates a guess.

Three cases have to be told apart, for they differ by tens of dB (Huang et al. 2021, arXiv 2112.00059):

- ``eval``: layers normalise with their running statistics, which the server handed out and knows.
- ``train_sent``: layers normalise with the batch's own statistics, and those are sent beside the gradient (as every
  FedAvg does that averages the buffers).
- ``train_hidden``: as before, but the statistics stay with the client.

In both train modes the gradient is a function of the images alone, statistics included, so the attacker normalises its
guess with the guess's own statistics; where the true ones were sent, it holds the guess to them as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from codream_secure.dreaming.losses import Moments
from codream_secure.errors import DataError, ModelError

NormMode = Literal["eval", "train_sent", "train_hidden"]
NORM_MODES: tuple[NormMode, ...] = ("eval", "train_sent", "train_hidden")
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, eq=False)
class Observation:
    """What a server receives from one client for one step, and the mode that both know is in force.

    Attributes:
        gradients: one tensor per parameter, in the order of ``model.parameters()``.
        statistics: per batch-norm layer the batch's mean and biased variance, each (channels,); None unless sent.
        mode: how the client's batch norms ran.
    """

    gradients: tuple[torch.Tensor, ...]
    statistics: tuple[Moments, ...] | None = None
    mode: NormMode = "eval"


def fedsgd_gradient(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, mode: NormMode = "eval"
) -> Observation:
    """The update of one FedSGD step: the gradient of the mean cross-entropy, as an honest client sends it.

    Args:
        model: the global model; neither its modes nor its buffers change.
        images: (B, C, H, W) float, normalised.
        labels: (B,) int64.
        mode: see the module. A batch that leaves a layer one value per channel has no statistics of its own.

    Raises:
        DataError: ``mode`` is unknown.
    """
    found = simulate(model, images, labels, mode=mode)
    statistics = tuple((mean.detach(), variance.detach()) for mean, variance in found.statistics or ())
    gradients = tuple(gradient.detach() for gradient in found.gradients)
    return Observation(gradients, statistics if mode == "train_sent" else None, mode)


def simulate(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, mode: NormMode, create_graph: bool = False
) -> Observation:
    """What a client with these images would compute; differentiable by the images with ``create_graph``.

    Args:
        model: as for :func:`fedsgd_gradient`.
        images: (B, C, H, W) float, the attacker's guess or the client's own.
        labels: (B,) int64, or (B, classes) probabilities.
        mode: see the module.
        create_graph: whether the gradients can be differentiated once more.

    Returns:
        The gradients, and in both train modes the statistics.

    Raises:
        DataError: ``mode`` is unknown.
    """
    with norms_in(model, mode), recorded_statistics(model, only_if=mode != "eval") as statistics:
        loss = F.cross_entropy(model(images), labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=create_graph)
    return Observation(gradients, tuple(statistics) if mode != "eval" else None, mode)


def statistics_from_buffers(
    model: nn.Module, after: Mapping[str, torch.Tensor], *, batch_size: int, image_shape: tuple[int, int, int]
) -> tuple[Moments, ...]:
    """The statistics of one training step's batch, from running averages before and after that step.

    Running averages move by ``momentum`` towards the batch's mean and UNBIASED variance, so the server solves for
    them. It has to know the number of values per channel, hence the image's shape and the batch's size.

    Args:
        model: as it was handed out.
        after: the client's state dict, or its buffers by name, one step later.
        batch_size: B.
        image_shape: channels, height and width.

    Returns:
        Per layer the batch's mean and biased variance, in the order of ``model.modules()``.

    Raises:
        ModelError: a layer keeps plain averages (momentum None) or none at all, or its momentum is 0.
    """
    positions = _positions(model, image_shape)
    found = []
    for name, layer in model.named_modules():
        if not isinstance(layer, _BATCH_NORMS):
            continue
        if layer.running_mean is None or layer.running_var is None or not layer.momentum:
            raise ModelError(
                f"{name}: its buffers with momentum {layer.momentum} do not tell the last batch's statistics"
            )
        moved = [
            (after[f"{name}.{kind}"] - (1 - layer.momentum) * before) / layer.momentum
            for kind, before in (("running_mean", layer.running_mean), ("running_var", layer.running_var))
        ]
        count = batch_size * positions[name]
        found.append((moved[0], moved[1] * (count - 1) / count))
    return tuple(found)


@contextmanager
def norms_in(model: nn.Module, mode: NormMode) -> Iterator[None]:
    """Batch norms in the given mode and everything else in evaluation mode; no buffer changes. All is put back."""
    if mode not in NORM_MODES:
        raise DataError(f"mode={mode!r} must be one of {', '.join(NORM_MODES)}")
    modes = [(module, module.training) for module in model.modules()]
    norms = [module for module in model.modules() if isinstance(module, _BATCH_NORMS)]
    tracking = [norm.track_running_stats for norm in norms]
    model.eval()
    if mode != "eval":
        for norm in norms:
            norm.train()
            norm.track_running_stats = False  # or the running averages would move with every guess
    try:
        yield
    finally:
        for norm, was_tracking in zip(norms, tracking, strict=True):
            norm.track_running_stats = was_tracking
        for module, was_training in modes:
            module.training = was_training


@contextmanager
def recorded_statistics(model: nn.Module, *, only_if: bool = True) -> Iterator[list[Moments]]:
    """A list that fills, at each forward pass, with every batch-norm layer's input mean and biased variance."""
    statistics: list[Moments] = []

    def record(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
        statistics.append((inputs[0].mean(dim=axes), inputs[0].var(dim=axes, unbiased=False)))

    norms = [module for module in model.modules() if isinstance(module, _BATCH_NORMS)] if only_if else []
    hooks = [norm.register_forward_pre_hook(record) for norm in norms]
    try:
        yield statistics
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _positions(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Batch-norm layer's name to the number of values that one image gives each of its channels."""
    found: dict[str, int] = {}
    hooks = []
    for name, layer in model.named_modules():
        if isinstance(layer, _BATCH_NORMS):
            hooks.append(
                layer.register_forward_pre_hook(
                    lambda _, inputs, name=name: found.update({name: inputs[0][0, 0].numel()})
                )
            )
    try:
        with norms_in(model, "eval"):
            model(torch.zeros(1, *image_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return found
