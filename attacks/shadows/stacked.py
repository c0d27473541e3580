"""Models of one architecture as one stack: their weights in one matrix, their forward passes as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from attacks.shadows import layers
from attacks.shadows.layers import Padding
from codream_secure.models.small import LeNet5, SmallCNN


def layers_of(model: nn.Module) -> list[nn.Module] | None:
    """The layers that the model applies one after the other, or None where it is no such model or one is unknown."""
    if isinstance(model, SmallCNN | LeNet5):
        head = model.classifier
        found = [*model.features, *(head if isinstance(head, nn.Sequential) else [nn.Flatten(), head])]
    elif isinstance(model, nn.Sequential):
        found = list(model)
    else:
        return None
    known = all(_known(layer) for layer in found)
    registered = sum(len(list(layer.parameters())) for layer in found)
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    same = registered == len(list(model.parameters()))
    return found if known and same and not hooked and all(p.requires_grad for p in model.parameters()) else None


def _known(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return (
            layer.kernel_size[0] == layer.kernel_size[1]
            and layer.stride == (1, 1)
            and layer.dilation == (1, 1)
            and layer.groups == 1
            and layer.padding_mode == "zeros"
            and isinstance(layer.padding, tuple)
            and layer.padding[0] == layer.padding[1]
        )
    if isinstance(layer, nn.BatchNorm2d):
        return layer.affine and layer.track_running_stats and layer.momentum is not None
    if isinstance(layer, nn.MaxPool2d):
        size = layer.kernel_size
        plain = layer.padding == 0 and layer.dilation == 1 and not layer.ceil_mode and not layer.return_indices
        return isinstance(size, int) and layer.stride == size and plain
    if isinstance(layer, nn.Flatten):
        return layer.start_dim == 1 and layer.end_dim == -1
    return isinstance(layer, nn.ReLU | nn.Linear)


def signature(model: nn.Module) -> str | None:
    """Equal for models that can be stacked on each other; None for one that cannot be stacked."""
    found = layers_of(model)
    if found is None:
        return None
    first = next(model.parameters(), None)
    return None if first is None else f"{found} {first.dtype} {first.device}"


@dataclass(frozen=True)
class _Layer:
    """A layer of the first model, and where its tensors are in the stack."""

    module: nn.Module
    parameters: tuple[int, ...]
    norm: int


class Stack:
    """The weights and batch-norm statistics of M models, copied out of them.

    Args:
        models: with equal :func:`signature`.

    Attributes:
        weights: (M, P) all parameters, model by model.
        running: for each batch norm the (M, C) running means and variances.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.models = list(models)
        found = layers_of(self.models[0])
        if found is None:
            raise ValueError(f"models are {type(self.models[0]).__name__}, which cannot be stacked")
        self.weights = torch.stack([_flat(model) for model in self.models])
        self._shapes: list[torch.Size] = []
        self._layers: list[_Layer] = []
        norms = 0
        for module in found:
            own = list(module.parameters())
            start = len(self._shapes)
            self._shapes += [parameter.shape for parameter in own]
            self._layers.append(_Layer(module, tuple(range(start, start + len(own))), norms))
            norms += isinstance(module, nn.BatchNorm2d)
        _move_pools_forward(self._layers)
        self._sizes = [shape.numel() for shape in self._shapes]
        stacked = [list(_norms(model)) for model in self.models]
        self.running = [
            (
                torch.stack([norm.running_mean for norm in column if norm.running_mean is not None]),
                torch.stack([norm.running_var for norm in column if norm.running_var is not None]),
            )
            for column in zip(*stacked, strict=True)
        ]
        self.batches = torch.zeros(len(self.models), dtype=torch.int64)
        """Batches that moved the running statistics of each model."""

    def forward(
        self,
        weights: torch.Tensor,
        images: torch.Tensor,
        running: Sequence[tuple[torch.Tensor, torch.Tensor]],
        *,
        padding: Padding | None = None,
        stored: bool = False,
    ) -> torch.Tensor:
        """Logits (m, classes, B) of m models in train mode, differentiable by weights.

        Args:
            weights: (m, P), the rows of any m of the models.
            images: (m, C, H, W, B), padded with zeros.
            running: these models' statistics, which move in place.
            padding: of batches that are padded.
            stored: batch norms take their stored statistics and leave them.
        """
        count = len(weights)
        pieces = [
            piece.view(count, *shape)
            for piece, shape in zip(weights.split(self._sizes, dim=1), self._shapes, strict=True)
        ]
        values = images
        for layer in self._layers:
            module, own = layer.module, [pieces[index] for index in layer.parameters]
            if isinstance(module, nn.Conv2d):
                values = layers.Convolution.apply(values, own[0], module.padding[0])
                if len(own) > 1:
                    values = values + own[1][:, :, None, None, None]
            elif isinstance(module, nn.BatchNorm2d):
                if stored:
                    values = layers.stored_norm(values, own[0], own[1], running[layer.norm], module.eps)
                else:
                    rest = (running[layer.norm], module.momentum, module.eps, padding)
                    values = layers.BatchNorm.apply(values, own[0], own[1], *rest)
            elif isinstance(module, nn.MaxPool2d):
                values = layers.max_pool(values, int(module.kernel_size))  # type: ignore[arg-type]
            elif isinstance(module, nn.ReLU):
                values = F.relu(values)
            elif isinstance(module, nn.Flatten):
                values = values.reshape(count, -1, values.shape[-1])
            else:
                values = layers.linear(values, own[0], own[1] if len(own) > 1 else None)
        return values

    @torch.no_grad()
    def write_back(self) -> None:
        """Give every model its weights and statistics."""
        for index, model in enumerate(self.models):
            parts = self.weights[index].split(self._sizes)
            for parameter, part in zip(model.parameters(), parts, strict=True):
                parameter.copy_(part.view_as(parameter))
            for norm, (mean, variance) in zip(_norms(model), self.running, strict=True):
                if norm.running_mean is not None and norm.running_var is not None:
                    norm.running_mean.copy_(mean[index])
                    norm.running_var.copy_(variance[index])
                if norm.num_batches_tracked is not None:
                    norm.num_batches_tracked += int(self.batches[index])


def _move_pools_forward(found: list[_Layer]) -> None:
    """Pool before rectifying: the same values, the same gradients, and a quarter of the values to rectify."""
    for index in range(len(found) - 1):
        if isinstance(found[index].module, nn.ReLU) and isinstance(found[index + 1].module, nn.MaxPool2d):
            found[index], found[index + 1] = found[index + 1], found[index]


def _flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


def _norms(model: nn.Module) -> Iterator[nn.BatchNorm2d]:
    return (module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
