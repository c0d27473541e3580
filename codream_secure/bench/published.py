"""One dream step as the published code forms it: the yardstick for this package's own.

Source: CoDream (arXiv 2402.15968) and its public code, whose feature matching is DeepInversion's (Yin et al. 2020): a
forward hook on every batch norm, in eval mode; the mean over three axes; the variance of a permuted, contiguous copy;
norms that are not squared. The weights stay differentiable, so ``backward`` computes their gradients, too. Everything
is float32 in torch's default memory layout.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from codream_secure.dreaming import Coefficients
from codream_secure.errors import ConfigError


class PublishedStep:
    """The published dreaming loss of one model, with the gradient by ``loss.backward()``.

    Args:
        model: copied. Its 2-d batch norms are matched; a model without any has no feature term.
        coefficients: the weights of the terms; adaptive teaching is not part of it, so ``jsd`` must be 0.

    Raises:
        ConfigError: ``coefficients.jsd`` is not 0.
    """

    def __init__(self, model: nn.Module, coefficients: Coefficients | None = None) -> None:
        self.coefficients = coefficients or Coefficients()
        if self.coefficients.jsd:
            raise ConfigError(f"coefficients.jsd is {self.coefficients.jsd}; it must be 0 here: there is no student")
        self.model = copy.deepcopy(model).eval().requires_grad_()
        self._distances: list[torch.Tensor] = []
        for layer in self.model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.register_forward_hook(self._record)

    def _record(self, layer: nn.BatchNorm2d, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        features, running_mean, running_var = inputs[0], layer.running_mean, layer.running_var
        assert running_mean is not None
        assert running_var is not None
        mean = features.mean([0, 2, 3])
        variance = features.permute(1, 0, 2, 3).contiguous().view(features.shape[1], -1).var(1, unbiased=False)
        self._distances.append(torch.norm(running_var - variance, 2) + torch.norm(running_mean - mean, 2))

    def gradient(self, dreams: torch.Tensor) -> torch.Tensor:
        """Gradient of the loss with respect to the dreams.

        Args:
            dreams: (n, C, H, W) float32; left unchanged.

        Returns:
            A tensor of the dreams' shape.
        """
        weights, leaf = self.coefficients, dreams.detach().clone().requires_grad_()
        self.model.zero_grad()
        self._distances.clear()
        logits = self.model(leaf)
        loss = -weights.entropy * (F.softmax(logits, dim=1) * F.log_softmax(logits, dim=1)).sum(1).mean()
        if self._distances:
            loss = loss + weights.features * sum(self._distances)
        down = leaf[:, :, 1:, :] - leaf[:, :, :-1, :]
        right = leaf[:, :, :, 1:] - leaf[:, :, :, :-1]
        loss = loss + weights.tv * (down.pow(2).sum() + right.pow(2).sum()) / leaf.numel()
        loss = loss + weights.l2 * torch.norm(leaf, 2)
        loss.backward()
        assert leaf.grad is not None
        return leaf.grad
