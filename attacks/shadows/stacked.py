"""Models of one architecture as one stack: their weights in one matrix, their forward passes as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from attacks.shadows import layers
from attacks.shadows.layers import Call, Layer
from codream_secure.models.small import LeNet5, SmallCNN


def layers_of(model: nn.Module) -> list[nn.Module] | None:
    """The layers that the model applies one after the other, or None where it is no such model or one is unknown."""
    # By exact type: a subclass may do anything.
    found: list[nn.Module]
    if type(model) is SmallCNN:
        found = [*model.features, nn.Flatten(), model.classifier]
    elif type(model) is LeNet5:
        found = [*model.features, *model.classifier]
    elif type(model) is nn.Sequential:
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
class _Place:
    """A layer, and which of the stack's tensors are its own."""

    layer: Layer
    own: slice


class Stack:
    """The weights and batch-norm statistics of M models, copied out of them.

    Args:
        models: with equal :func:`signature`.

    Attributes:
        weights: (M, P) all parameters, model by model.
        running: (M, S) running means and variances of all batch norms.
        batches: (M,) batches that moved them.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.models = list(models)
        found = layers_of(self.models[0])
        if found is None:
            raise ValueError(f"models are {type(self.models[0]).__name__}, which cannot be stacked")
        self.weights = torch.stack([_joined(model.parameters()) for model in self.models])
        self.running = torch.stack([_joined(_statistics(model)) for model in self.models])
        self.batches = torch.zeros(len(self.models), dtype=torch.int64)
        self._shapes = [parameter.shape for parameter in self.models[0].parameters()]
        self._sizes = [shape.numel() for shape in self._shapes]
        self._places: list[_Place] = []
        tensors = columns = 0
        for module in found:
            own = slice(tensors, tensors + len(list(module.parameters())))
            tensors = own.stop
            self._places.append(_Place(_layer(module, columns), own))
            if isinstance(module, nn.BatchNorm2d):
                columns += 2 * module.num_features
        _move_pools_forward(self._places)

    def forward(self, weights: torch.Tensor, images: torch.Tensor, call: Call) -> tuple[torch.Tensor, list[Any]]:
        """Logits (m, classes, B) of m models in train mode, and what :meth:`backward` has to be told.

        Args:
            weights: (m, P), the rows of any m of the models.
            images: (m, C, H, W, B), padded with zeros; may be overwritten.
            call: these models' statistics, and how they are used.
        """
        pieces, values, tape = self._pieces(weights), images, []
        for place in self._places:
            values, kept = place.layer.forward(values, pieces[place.own], call)
            tape.append(kept)
        return values, tape

    def backward(self, weights: torch.Tensor, tape: list[Any], gradient: torch.Tensor) -> torch.Tensor:
        """(m, P) gradients by the weights, of a gradient by the logits. Uses up the tape."""
        found = torch.empty_like(weights)
        pieces, into = self._pieces(weights), self._pieces(found)
        current: torch.Tensor | None = gradient
        for index in reversed(range(len(self._places))):
            place = self._places[index]
            if current is None:
                break
            # Without weights before it, nobody uses what a layer's values are to be moved by.
            current = place.layer.backward(
                tape.pop(), current, pieces[place.own], into[place.own], wanted=place.own.start > 0
            )
        return found

    def _pieces(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Views of (m, P) rows, one for each parameter."""
        parts = rows.split(self._sizes, dim=1)
        return [part.view(len(rows), *shape) for part, shape in zip(parts, self._shapes, strict=True)]

    @torch.no_grad()
    def write_back(self) -> None:
        """Give every model its weights and statistics."""
        for index, model in enumerate(self.models):
            for tensors, row in ((model.parameters(), self.weights[index]), (_statistics(model), self.running[index])):
                start = 0
                for tensor in tensors:
                    tensor.copy_(row[start : start + tensor.numel()].view_as(tensor))
                    start += tensor.numel()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d) and module.num_batches_tracked is not None:
                    module.num_batches_tracked += int(self.batches[index])


def _layer(module: nn.Module, column: int) -> Layer:
    """The layer of many models that does what this does for one; ``column`` is where its statistics begin."""
    if isinstance(module, nn.Conv2d):
        return layers.Convolution(module)
    if isinstance(module, nn.BatchNorm2d):
        middle = column + module.num_features
        return layers.BatchNorm(module, mean=slice(column, middle), variance=slice(middle, 2 * middle - column))
    if isinstance(module, nn.MaxPool2d):
        return layers.MaxPool(module)
    if isinstance(module, nn.Flatten):
        return layers.Flatten()
    return layers.Linear() if isinstance(module, nn.Linear) else layers.Rectifier()


def _move_pools_forward(found: list[_Place]) -> None:
    """Pool before rectifying: the same values, the same gradients, and a quarter of the values to rectify."""
    for index in range(len(found) - 1):
        if isinstance(found[index].layer, layers.Rectifier) and isinstance(found[index + 1].layer, layers.MaxPool):
            found[index], found[index + 1] = found[index + 1], found[index]


def _joined(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    parts = [tensor.detach().reshape(-1) for tensor in tensors]
    return torch.cat(parts) if parts else torch.empty(0)


def _statistics(model: nn.Module) -> Iterator[torch.Tensor]:
    """Running mean, then variance, of each batch norm."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            yield module.running_mean
            yield module.running_var
