"""Feature matching for any model: which layers are tapped, and which moments their inputs should have.

A batch-norm layer keeps the running mean and variance of its own input; those are the moments that dreams are pulled
towards (DeepInversion, Yin et al. 2020; CoDream, section 3). A model without batch norm has no such record, so its
moments are measured: one pass over the client's private images through the frozen model. They never leave the client.

Moments are taken per channel, as batch norm does, or per channel and position. The latter say where in the image a
feature belongs. They make better dreams of small, centred images, and they say more about the private images: with few
of those, a mean per position is close to a mean image, seen through the layers before it. Moments stay at the client,
but the gradients that leave it pull dreams towards them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable

from codream_secure.dreaming.losses import Moments
from codream_secure.errors import ModelError

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_OTHER_NORMS = (nn.GroupNorm, nn.InstanceNorm2d)
_WEIGHTED = (nn.Conv2d, nn.Linear)


def default_feature_layers(model: nn.Module) -> list[str]:
    """Names of the layers whose inputs are matched when none are named.

    Batch norms where there are any; else the other normalisation layers; else every convolution and linear layer but
    the first, whose input is the image itself.
    """
    named = list(model.named_modules())
    for kinds in (_BATCH_NORMS, _OTHER_NORMS):
        found = [name for name, layer in named if isinstance(layer, kinds)]
        if found:
            return found
    return [name for name, layer in named if isinstance(layer, _WEIGHTED)][1:]


def moments(features: torch.Tensor) -> Moments:
    """Mean and biased variance per channel, over the batch and all positions; differentiable once.

    Args:
        features: (n, channels) or (n, channels, ...) float.

    Returns:
        Two tensors of shape (channels,), of the features' dtype, except that those of reduced precision are
        accumulated and returned in float32.
    """
    return _Moments.apply(features)


class _Moments(torch.autograd.Function):
    """Batch norm's own kernels: ``torch.var_mean`` is 4 to 16 times slower on a CPU and would round to bfloat16."""

    @staticmethod
    def forward(ctx: FunctionCtx, features: torch.Tensor) -> Moments:
        # The kernel returns the precision of the running statistics that it is given to update; these are scratch.
        precision = torch.promote_types(features.dtype, torch.float32)
        scratch = torch.zeros(2, features.shape[1], dtype=precision, device=features.device)
        mean, variance = torch.batch_norm_update_stats(features, scratch[0], scratch[1], 0.0)
        ctx.save_for_backward(features, mean)
        return mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, mean_gradient: torch.Tensor, variance_gradient: torch.Tensor) -> torch.Tensor:
        """(mean_gradient + 2 (x - mean) variance_gradient) / count: an affine map, so one pass of an eval-mode norm."""
        features, mean = ctx.saved_tensors
        count = features.numel() // features.shape[1]
        scale, shift = variance_gradient * (2 / count), mean_gradient / count
        return torch.native_batch_norm(features, scale, shift, mean, torch.ones_like(mean), False, 0.0, 0.0)[0]


class FeatureTap:
    """Reads the moments of chosen layers' inputs during forward passes of one model.

    Args:
        model: any model.
        layers: names as in ``model.named_modules()``; by default :func:`default_feature_layers`.
        per: take moments per "channel", or per "position" within each channel.

    Raises:
        ModelError: a name is no layer of the model, or there is none to match.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[str] | None = None, *, per: Literal["channel", "position"] = "channel"
    ) -> None:
        modules = dict(model.named_modules())
        names = default_feature_layers(model) if layers is None else list(layers)
        for name in names:
            if name not in modules:
                raise ModelError(
                    f"feature layer {name!r} is not in the model; it has {', '.join(filter(None, modules))}"
                )
        if not names:
            raise ModelError(
                f"{type(model).__name__} has no layer whose input could be matched: name some in model.feature_layers, "
                "or set dreaming.features = 0"
            )
        self.model = model
        self._names = names
        self.layers = [modules[name] for name in names]
        self._per = per
        self._found: dict[int, Moments] = {}

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While open, every forward pass leaves its moments for :meth:`take`."""
        handles = [
            layer.register_forward_pre_hook(lambda _, args, index=index: self._record(index, args[0]))
            for index, layer in enumerate(self.layers)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._found.clear()

    def _record(self, index: int, features: torch.Tensor) -> None:
        self._found[index] = moments(features.flatten(1) if self._per == "position" else features)

    def take(self) -> list[Moments]:
        """The moments of the latest forward pass, in the order of the layers.

        Raises:
            ModelError: a tapped layer was not reached by the forward pass.
        """
        missing = [name for index, name in enumerate(self._names) if index not in self._found]
        if missing:
            raise ModelError(
                f"feature layers {', '.join(missing)} of {type(self.model).__name__} are not run as modules: "
                "name others in model.feature_layers"
            )
        found = [self._found[index] for index in range(len(self.layers))]
        self._found.clear()
        return found

    def targets(self, images: torch.Tensor, *, batch_size: int = 512) -> list[Moments]:
        """The moments that dreams should have: running statistics where a layer keeps them, else measured on images.

        A batch norm keeps statistics per channel; per position they are always measured. The model must already be
        frozen in eval mode; it is run only if something has to be measured.

        Args:
            images: (N, C, H, W) float32, the client's private images, normalised as for training.
            batch_size: how many of them are run at once.
        """
        kept = [self._kept(layer) for layer in self.layers]
        if None not in kept:
            return [pair for pair in kept if pair is not None]
        measured = self._measure(images, batch_size)
        return [pair or found for pair, found in zip(kept, measured, strict=True)]

    def _kept(self, layer: nn.Module) -> Moments | None:
        """The layer's own running statistics, where it has them in the form that is wanted."""
        if self._per == "channel" and isinstance(layer, _BATCH_NORMS) and layer.running_mean is not None:
            assert layer.running_var is not None  # batch norms keep both or neither
            return layer.running_mean.clone(), layer.running_var.clone()
        return None

    @torch.no_grad()
    def _measure(self, images: torch.Tensor, batch_size: int) -> list[Moments]:
        """Moments over all images, pooled exactly from the batches' first and second moments."""
        first: list[torch.Tensor] = []
        second: list[torch.Tensor] = []
        with self.reading():
            for batch in images.split(batch_size):
                self.model(batch)
                share = len(batch) / len(images)
                found = self.take()
                means = [share * mean.double() for mean, _ in found]
                squares = [share * (variance.double() + mean.double().square()) for mean, variance in found]
                first = means if not first else [a + b for a, b in zip(first, means, strict=True)]
                second = squares if not second else [a + b for a, b in zip(second, squares, strict=True)]
        return [
            (mean.float(), (square - mean.square()).clamp_min(0).float())
            for mean, square in zip(first, second, strict=True)
        ]
