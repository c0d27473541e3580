"""Layers of many models at once, each model with its own weights and its own images, forward and backward.

Activations are (M, C, H, W, B): model, channel, position, and the image last. Convolutions are then one batched matrix
product, a batch norm works along contiguous rows, and every element-wise operation runs along the images, which is what
makes small images fast; ``torch.func.vmap`` turns the same layers into grouped convolutions, which are slower.
Gradients are written out, because for small models automatic ones cost as much time as the arithmetic.

Batches of different lengths are padded with zeros to the longest; a :class:`Padding` says what is image and what not.
Only a batch norm mixes images, so nothing else has to know of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Padding:
    """Which columns of a padded batch are images.

    Attributes:
        mask: (M, 1, B), 1 for an image and 0 for padding, of the activations' dtype.
        counts: (M,) number of images, of the same dtype, each at least 2.
    """

    mask: torch.Tensor
    counts: torch.Tensor


@dataclass(frozen=True)
class Call:
    """What a forward pass is told beside values and weights.

    Attributes:
        running: (M, S) running means and variances of all batch norms, which move in place.
        padding: of batches that are padded.
        stored: batch norms take their stored statistics and leave them.
    """

    running: torch.Tensor
    padding: Padding | None = None
    stored: bool = False


class Layer(ABC):
    """One layer of M models."""

    @abstractmethod
    def forward(self, values: torch.Tensor, own: Tensors, call: Call) -> tuple[torch.Tensor, Any]:
        """The layer's values, and what its backward pass has to be told. May overwrite ``values``, unless it kept it.

        Args:
            values: (M, C, H, W, B), or (M, D, B) after a flattening.
            own: the layer's weights, (M, ...) each.
            call: the rest.
        """

    @abstractmethod
    def backward(
        self, kept: Any, gradient: torch.Tensor, own: Tensors, into: Tensors, *, wanted: bool
    ) -> torch.Tensor | None:
        """The gradient by the values that came in, if it is wanted. May overwrite ``gradient``.

        Args:
            kept: what the forward pass left.
            gradient: by the values that went out.
            own: the layer's weights.
            into: where the gradients by the weights are written, of their shapes.
            wanted: whether somebody uses what is returned.
        """


class Convolution(Layer):
    """Square kernels, stride 1, zero padding on all sides: patches, then one product per model."""

    def __init__(self, module: nn.Conv2d) -> None:
        self._size = module.kernel_size[0]
        self._padding = int(module.padding[0])

    def forward(self, values: torch.Tensor, own: Tensors, call: Call) -> tuple[torch.Tensor, Any]:
        models, channels, height, width, batch = values.shape
        size, pad = self._size, self._padding
        padded = F.pad(values, (0, 0, pad, pad, pad, pad)) if pad else values.contiguous()
        by_model, by_channel, by_row, by_column, _ = padded.stride()
        sides = (height + 2 * pad - size + 1, width + 2 * pad - size + 1)
        windows = padded.as_strided(
            (models, channels, size, size, sides[0], sides[1] * batch),
            (by_model, by_channel, by_row, by_column, by_row, 1),
        )
        patches = windows.reshape(models, channels * size * size, -1)
        kernels = own[0].view(models, -1, channels * size * size)
        out = torch.bmm(kernels, patches)
        if len(own) > 1:
            out.add_(own[1][:, :, None])
        return out.view(models, -1, *sides, batch), (patches, values.shape, sides)

    def backward(
        self, kept: Any, gradient: torch.Tensor, own: Tensors, into: Tensors, *, wanted: bool
    ) -> torch.Tensor | None:
        patches, shape, sides = kept
        models, channels, height, width, batch = shape
        size, pad = self._size, self._padding
        flat = gradient.view(models, gradient.shape[1], -1)
        kernels = own[0].view(models, flat.shape[1], -1)
        into[0].copy_(torch.bmm(flat, patches.transpose(1, 2)).view(into[0].shape))
        if len(own) > 1:
            torch.sum(flat, dim=2, out=into[1])
        if not wanted:
            return None
        parts = torch.bmm(kernels.transpose(1, 2), flat).view(models, channels, size, size, *sides, batch)
        total = parts.new_zeros(models, channels, height + 2 * pad, width + 2 * pad, batch)
        for row in range(size):
            for column in range(size):
                place = total[:, :, row : row + sides[0], column : column + sides[1]]
                place.add_(parts[:, :, row, column])
        return total[:, :, pad : pad + height, pad : pad + width]


class BatchNorm(Layer):
    """Batch norm in train mode, or with its stored statistics.

    The operations are those that are vectorised on a processor along rows: torch's own kernels for this layout, a
    broadcast ``addcmul`` and dot products by ``bmm`` are 4 to 10 times slower.

    Args:
        module: says momentum and epsilon.
        mean, variance: its columns of :attr:`Call.running`.
    """

    def __init__(self, module: nn.BatchNorm2d, *, mean: slice, variance: slice) -> None:
        self._momentum = float(module.momentum or 0.0)
        self._eps = module.eps
        self._mean, self._variance = mean, variance

    def forward(self, values: torch.Tensor, own: Tensors, call: Call) -> tuple[torch.Tensor, Any]:
        shape, padding = values.shape, call.padding
        models, channels, batch = shape[0], shape[1], shape[-1]
        rows = values.reshape(models * channels, -1)
        count: float | torch.Tensor = float(rows.shape[1])
        means, variances = call.running[:, self._mean], call.running[:, self._variance]
        if padding is not None:
            rows = _masked(rows, padding)
            count = (padding.counts * (rows.shape[1] // batch)).repeat_interleave(channels)
        if call.stored:
            mean, variance = means.reshape(-1), variances.reshape(-1)
            centred = rows.sub_(mean[:, None])
        else:
            mean = rows.sum(dim=1).div_(count)
            centred = rows.sub_(mean[:, None])
            if padding is not None:
                centred = _masked(centred, padding)
            variance = torch.linalg.vector_norm(centred, dim=1).square_().div_(count)
            means.lerp_(mean.view_as(means), self._momentum)
            variances.lerp_((variance * (count / (count - 1))).view_as(variances), self._momentum)
        inverse = (variance + self._eps).rsqrt_()
        factor = inverse * own[0].reshape(-1)
        out = (centred * factor[:, None]).add_(own[1].reshape(-1)[:, None])
        if padding is not None:
            out = _masked(out, padding)
        return out.view(shape), (centred, inverse, factor, count, padding, call.stored)

    def backward(
        self, kept: Any, gradient: torch.Tensor, own: Tensors, into: Tensors, *, wanted: bool
    ) -> torch.Tensor | None:
        centred, inverse, factor, count, padding, stored = kept
        rows = gradient.reshape(centred.shape)
        if padding is not None:
            rows = _masked(rows, padding)
        by_shift = rows.sum(dim=1)
        along = torch.linalg.vecdot(rows, centred)
        into[0].copy_((along * inverse).view(into[0].shape))
        into[1].copy_(by_shift.view(into[1].shape))
        if not stored:
            centred.mul_((along * inverse.square()).div_(count).neg_()[:, None])
            rows = centred.add_(rows).sub_(by_shift.div_(count)[:, None])
        rows = rows.mul_(factor[:, None])
        if padding is not None:
            rows = _masked(rows, padding)
        return rows.view(gradient.shape)


def _masked(rows: torch.Tensor, padding: Padding) -> torch.Tensor:
    """(M C, H W B) rows with zeros for the padding."""
    mask = padding.mask
    return (rows.view(len(mask), -1, mask.shape[-1]) * mask).view(rows.shape)


class MaxPool(Layer):
    """Largest values of squares that do not overlap. Images last is what torch calls channels last."""

    def __init__(self, module: nn.MaxPool2d) -> None:
        self._size = [int(module.kernel_size)] * 2  # type: ignore[arg-type]

    def forward(self, values: torch.Tensor, own: Tensors, call: Call) -> tuple[torch.Tensor, Any]:
        models, channels, height, width, batch = values.shape
        images = values.reshape(models * channels, height, width, batch).permute(0, 3, 1, 2)
        pooled, places = torch.ops.aten.max_pool2d_with_indices(images, self._size, self._size)
        sides = pooled.shape[2:]
        return pooled.permute(0, 2, 3, 1).reshape(models, channels, *sides, batch), (images, places)

    def backward(
        self, kept: Any, gradient: torch.Tensor, own: Tensors, into: Tensors, *, wanted: bool
    ) -> torch.Tensor | None:
        images, places = kept
        models, channels, height, width, batch = gradient.shape
        pooled = gradient.reshape(models * channels, height, width, batch).permute(0, 3, 1, 2)
        found = torch.ops.aten.max_pool2d_with_indices_backward(
            pooled, images, self._size, self._size, [0, 0], [1, 1], False, places
        )
        return found.permute(0, 2, 3, 1).reshape(models, channels, *images.shape[2:], batch)


class Rectifier(Layer):
    """ReLU."""

    def forward(self, values: torch.Tensor, own: Tensors, call: Call) -> tuple[torch.Tensor, Any]:
        out = values.relu_()
        return out, out

    def backward(
        self, kept: Any, gradient: torch.Tensor, own: Tensors, into: Tensors, *, wanted: bool
    ) -> torch.Tensor | None:
        return torch.ops.aten.threshold_backward(gradient, kept, 0)


class Flatten(Layer):
    """(M, C, H, W, B) to (M, C H W, B)."""

    def forward(self, values: torch.Tensor, own: Tensors, call: Call) -> tuple[torch.Tensor, Any]:
        return values.reshape(len(values), -1, values.shape[-1]), values.shape

    def backward(
        self, kept: Any, gradient: torch.Tensor, own: Tensors, into: Tensors, *, wanted: bool
    ) -> torch.Tensor | None:
        return gradient.view(kept)


class Linear(Layer):
    """(M, D, B) to (M, O, B)."""

    def forward(self, values: torch.Tensor, own: Tensors, call: Call) -> tuple[torch.Tensor, Any]:
        out = torch.bmm(own[0], values)
        if len(own) > 1:
            out.add_(own[1][:, :, None])
        return out, values

    def backward(
        self, kept: Any, gradient: torch.Tensor, own: Tensors, into: Tensors, *, wanted: bool
    ) -> torch.Tensor | None:
        into[0].copy_(torch.bmm(gradient, kept.transpose(1, 2)))
        if len(own) > 1:
            torch.sum(gradient, dim=2, out=into[1])
        return torch.bmm(own[0].transpose(1, 2), gradient) if wanted else None
