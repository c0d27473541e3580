"""The dreaming gradient as a function of what a client keeps to itself, so that an attacker can fit it.

:class:`~codream_secure.dreaming.objective.DreamObjective` computes d l_k / d dreams with kernels that cannot be
differentiated again, nor by the batch norms' statistics. This is the same function in plain arithmetic and float64:
differentiable by the running statistics, by the moments that dreams are matched to, and by images that those moments
are measured on. Nothing here is secret; what is fitted is handed in.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, TypeGuard

import torch
from torch import nn
from torch.func import functional_call, grad

from codream_secure.dreaming import losses
from codream_secure.dreaming.features import default_feature_layers
from codream_secure.dreaming.losses import Moments
from codream_secure.dreaming.objective import Coefficients
from codream_secure.errors import ModelError

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


class DreamGradient:
    """One model's dreaming gradient, given its weights.

    Args:
        model: its weights are copied; its batch-norm buffers are copied too, as the default of ``buffers`` below. An
            attacker that does not know them hands in its own.
        coefficients: of the loss terms, which are public. The JSD term is not offered.
        feature_layers: names of the matched layers; by default as in dreaming.
        moments: per "channel" or per "position", as in dreaming.
        classes: (n,) int64, public; needed with that coefficient.

    Attributes:
        norms: names of the batch norms that keep statistics, in the order of ``model.named_modules()``.
        layers: names of the matched layers.

    Raises:
        ModelError: a feature layer is not in the model.
        ValueError: the JSD term is on, or that of classes is and there are none.
    """

    def __init__(
        self,
        model: nn.Module,
        coefficients: Coefficients,
        *,
        feature_layers: Sequence[str] | None = None,
        moments: Literal["channel", "position"] = "channel",
        classes: torch.Tensor | None = None,
    ) -> None:
        if coefficients.jsd:
            raise ValueError(f"coefficients.jsd is {coefficients.jsd}: only gradients without that term can be fitted")
        if coefficients.classes and classes is None:
            raise ValueError(f"coefficients.classes is {coefficients.classes} but no classes are given")
        self.norms = [name for name, layer in model.named_modules() if _keeps_statistics(layer)]
        self.layers = default_feature_layers(model) if feature_layers is None else list(feature_layers)
        self._coefficients, self._per, self._classes = coefficients, moments, classes
        self._model = _plain_copy(model)
        modules = dict(self._model.named_modules())
        self._seen: dict[str, torch.Tensor] = {}
        for name in self.layers:
            if name not in modules:
                raise ModelError(
                    f"feature layer {name!r} is not in the model; it has {', '.join(filter(None, modules))}"
                )
            modules[name].register_forward_pre_hook(lambda _, args, name=name: self._seen.update({name: args[0]}))
        self._gradient = grad(self._loss)

    def __call__(
        self, dreams: torch.Tensor, targets: Sequence[Moments], *, buffers: Sequence[Moments] | None = None
    ) -> torch.Tensor:
        """d l / d dreams, (n, C, H, W) float64.

        Args:
            dreams: (n, C, H, W) float64.
            targets: per matched layer the moments (mean, variance) to match, flat per position.
            buffers: per batch norm its running (mean, variance); None takes those that came with the model.
        """
        return self._gradient(dreams, targets, buffers)

    def measure(self, images: torch.Tensor, *, buffers: Sequence[Moments] | None = None) -> list[Moments]:
        """Moments of the matched layers' inputs on images (N, C, H, W) float64, in the form that dreaming matches."""
        return self._run(images, buffers)[1]

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The matched layers' inputs themselves, each flat: (N, d) float64."""
        self._seen.clear()
        self._model(images)
        found = [self._seen[name].flatten(1) for name in self.layers]
        self._seen.clear()
        return found

    def kept(self) -> list[Moments]:
        """The running (mean, variance) of each batch norm that came with the model, float64."""
        layers = [self._model.get_submodule(name) for name in self.norms]
        return [(layer.get_buffer("running_mean"), layer.get_buffer("running_var")) for layer in layers]

    def _run(self, images: torch.Tensor, buffers: Sequence[Moments] | None) -> tuple[torch.Tensor, list[Moments]]:
        replaced: dict[str, torch.Tensor] = {}
        for name, (mean, variance) in zip(self.norms, buffers or (), strict=buffers is not None):
            replaced |= {f"{name}.running_mean": mean, f"{name}.running_var": variance}
        self._seen.clear()
        logits = functional_call(self._model, replaced, (images,))
        moments = [_moments(self._seen[name], per=self._per) for name in self.layers]
        self._seen.clear()  # they hold the graph of this pass
        return logits, moments

    def _loss(
        self, dreams: torch.Tensor, targets: Sequence[Moments], buffers: Sequence[Moments] | None
    ) -> torch.Tensor:
        weights = self._coefficients
        logits, found = self._run(dreams, buffers)
        total = weights.tv * losses.total_variation(dreams) + weights.l2 * losses.l2_norm(dreams)
        if weights.entropy:
            total = total + weights.entropy * losses.entropy(logits)
        if weights.classes and self._classes is not None:
            total = total + weights.classes * losses.class_distance(logits, self._classes)
        if weights.features:
            total = total + weights.features * losses.moment_distance(found, targets)
        return total


class _PlainNorm(nn.Module):
    """An eval-mode batch norm in plain arithmetic: torch's own passes no gradient to the running statistics."""

    running_mean: torch.Tensor
    running_var: torch.Tensor
    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, norm: BatchNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        self.register_buffer("running_mean", norm.get_buffer("running_mean").clone())
        self.register_buffer("running_var", norm.get_buffer("running_var").clone())
        self.weight = norm.weight
        self.bias = norm.bias

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        scale = (self.running_var + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -self.running_mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        shape = (1, -1) + (1,) * (features.ndim - 2)
        return features * scale.view(shape) + shift.view(shape)


def _keeps_statistics(layer: nn.Module) -> TypeGuard[BatchNorm]:
    return isinstance(layer, _BATCH_NORMS) and layer.running_mean is not None


def _plain_copy(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model).double().eval().requires_grad_(False)
    for name, layer in list(twin.named_modules()):
        if name and _keeps_statistics(layer):
            parent, _, child = name.rpartition(".")
            setattr(twin.get_submodule(parent), child, _PlainNorm(layer))
    return twin


def _moments(features: torch.Tensor, *, per: Literal["channel", "position"]) -> Moments:
    if per == "position":
        features = features.flatten(1)
    dims = (0, *range(2, features.ndim))
    mean = features.mean(dims)
    centred = features - mean.view((1, -1) + (1,) * (features.ndim - 2))
    return mean, centred.square().mean(dims)
