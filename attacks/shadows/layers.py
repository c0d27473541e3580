"""Layers of many models at once, each model with its own weights and its own images.

Activations are (M, C, H, W, B): model, channel, position, and the image last. Convolutions are then one batched matrix
product, a batch norm works along contiguous rows, and every element-wise operation runs along the images, which is what
makes small images fast; ``torch.func.vmap`` turns the same layers into grouped convolutions, which are slower.

Batches of different lengths are padded with zeros to the longest; a :class:`Padding` says what is image and what not.
Only a batch norm mixes images, so nothing else has to know of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Padding:
    """Which columns of a padded batch are images.

    Attributes:
        mask: (M, 1, B), 1 for an image and 0 for padding, of the activations' dtype.
        counts: (M,) number of images, of the same dtype, each at least 2.
    """

    mask: torch.Tensor
    counts: torch.Tensor


class Convolution(torch.autograd.Function):
    """Square kernels, stride 1, zero padding on all sides: patches, then one product per model."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, kernels: torch.Tensor, padding: int) -> torch.Tensor:
        """(M, C, H, W, B) and (M, O, C, k, k) to (M, O, H', W', B)."""
        patches, sides = _patches(images, kernels.shape[-1], padding)
        ctx.save_for_backward(patches, kernels)
        ctx.places = (images.shape, padding, sides)
        models, outputs = kernels.shape[:2]
        return torch.bmm(kernels.reshape(models, outputs, -1), patches).view(models, outputs, *sides, images.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, None]:
        patches, kernels = ctx.saved_tensors
        models, outputs = kernels.shape[:2]
        gradient = gradients[0].reshape(models, outputs, -1)
        by_kernels = torch.bmm(gradient, patches.transpose(1, 2)).view(kernels.shape)
        if not ctx.needs_input_grad[0]:
            return None, by_kernels, None
        by_patches = torch.bmm(kernels.reshape(models, outputs, -1).transpose(1, 2), gradient)
        return _unpatched(by_patches, kernels.shape[-1], *ctx.places), by_kernels, None


def _patches(images: torch.Tensor, size: int, padding: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """(M, C k k, H' W' B): a row for each input of a kernel, and H' and W'."""
    models, channels, height, width, batch = images.shape
    if padding:
        padded = images.new_zeros(models, channels, height + 2 * padding, width + 2 * padding, batch)
        padded[:, :, padding : padding + height, padding : padding + width] = images
    else:
        padded = images.contiguous()
    by_model, by_channel, by_row, by_column, _ = padded.stride()
    sides = (padded.shape[2] - size + 1, padded.shape[3] - size + 1)
    shape = (models, channels, size, size, sides[0], sides[1] * batch)
    windows = padded.as_strided(shape, (by_model, by_channel, by_row, by_column, by_row, 1))
    return windows.reshape(models, channels * size * size, -1), sides


def _unpatched(
    patches: torch.Tensor, size: int, shape: tuple[int, ...], padding: int, sides: tuple[int, int]
) -> torch.Tensor:
    """The transpose of :func:`_patches`: every patch added up where it was read."""
    models, channels, height, width, batch = shape
    parts = patches.view(models, channels, size, size, *sides, batch)
    total = patches.new_zeros(models, channels, height + 2 * padding, width + 2 * padding, batch)
    for row in range(size):
        for column in range(size):
            total[:, :, row : row + sides[0], column : column + sides[1]] += parts[:, :, row, column]
    return total[:, :, padding : padding + height, padding : padding + width]


class BatchNorm(torch.autograd.Function):
    """Batch norm in train mode, of float32 sums as long as a batch; running statistics move in place.

    The operations are those that are vectorised on a processor along rows: torch's own kernels for this layout, a
    broadcast ``addcmul`` and dot products by ``bmm`` are 4 to 10 times slower.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: torch.Tensor,
        scale: torch.Tensor,
        shift: torch.Tensor,
        running: tuple[torch.Tensor, torch.Tensor],
        momentum: float,
        eps: float,
        padding: Padding | None,
    ) -> torch.Tensor:
        """(M, C, H, W, B), (M, C), (M, C) to (M, C, H, W, B); padding comes out as zeros, whatever came in."""
        models, channels = features.shape[:2]
        rows = features.reshape(models * channels, -1)
        if padding is not None:
            rows = rows.clone()
            _mask(rows, padding, features.shape)
        length = rows.shape[1]
        count = _row_counts(rows, padding, channels, features.shape[-1])
        mean = rows.sum(dim=1) / count
        centred = rows - mean[:, None]
        _mask(centred, padding, features.shape)
        variance = torch.linalg.vector_norm(centred, dim=1).square_() / count
        running_mean, running_variance = running
        running_mean.mul_(1 - momentum).add_(mean.view_as(running_mean), alpha=momentum)
        unbiased = (variance * (count / (count - 1))).view_as(running_variance)
        running_variance.mul_(1 - momentum).add_(unbiased, alpha=momentum)
        inverse = (variance + eps).rsqrt_()
        normalised = (centred * (inverse * scale.reshape(-1))[:, None]).add_(shift.reshape(-1)[:, None])
        _mask(normalised, padding, features.shape)
        ctx.save_for_backward(centred, inverse, scale)
        ctx.rest = (count, padding, length)
        return normalised.view(features.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        centred, inverse, scale = ctx.saved_tensors
        count, padding, length = ctx.rest
        shape = gradients[0].shape
        gradient = gradients[0].reshape(-1, length)
        if padding is not None:
            gradient = gradient.clone()
            _mask(gradient, padding, shape)
        by_shift = gradient.sum(dim=1)
        along = torch.linalg.vecdot(gradient, centred)
        by_features = centred * (-inverse.square() * along / count)[:, None]
        by_features.add_(gradient).sub_((by_shift / count)[:, None]).mul_((inverse * scale.reshape(-1))[:, None])
        _mask(by_features, padding, shape)
        by_scale = (along * inverse).view_as(scale)
        return by_features.view(shape), by_scale, by_shift.view_as(scale), None, None, None, None


def _row_counts(rows: torch.Tensor, padding: Padding | None, channels: int, batch: int) -> torch.Tensor:
    """(M C,) values of each row that belong to images."""
    positions = rows.shape[1] // batch
    if padding is None:
        return torch.full((len(rows),), float(rows.shape[1]), dtype=rows.dtype, device=rows.device)
    return (padding.counts * positions).repeat_interleave(channels)


def _mask(rows: torch.Tensor, padding: Padding | None, shape: torch.Size) -> None:
    """Zero the padding of (M C, H W B) rows, in place."""
    if padding is not None:
        rows.view(shape[0], -1, shape[-1]).mul_(padding.mask)


def stored_norm(
    features: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    running: tuple[torch.Tensor, torch.Tensor],
    eps: float,
) -> torch.Tensor:
    """Batch norm with stored statistics, as in eval mode."""
    mean, variance = running
    factor = scale * (variance + eps).rsqrt()
    places = (slice(None), slice(None), None, None, None)
    return features * factor[places] + (shift - mean * factor)[places]


def max_pool(features: torch.Tensor, size: int) -> torch.Tensor:
    """Largest values of squares of that side, which are also that far apart.

    Images last is what torch calls channels last, so its own kernel runs along them.
    """
    models, channels, height, width, batch = features.shape
    images = features.reshape(models * channels, height, width, batch).permute(0, 3, 1, 2)
    pooled = F.max_pool2d(images, size).permute(0, 2, 3, 1)
    return pooled.reshape(models, channels, height // size, width // size, batch)


def linear(features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """(M, D, B) and (M, O, D) to (M, O, B)."""
    if bias is None:
        return torch.bmm(weight, features)
    return torch.baddbmm(bias[:, :, None], weight, features)
