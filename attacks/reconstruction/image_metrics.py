"""How close two images are: pixel bounds, PSNR, one-to-one matching, and a distance of local features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import nn

from codream_secure.errors import DataError

Features = Callable[[torch.Tensor], Sequence[torch.Tensor]]


@dataclass(frozen=True, eq=False)
class PixelBounds:
    """The values that a pixel can take, as a model sees it: public, since the normalisation constants are.

    Attributes:
        low, high: (C, 1, 1) float tensors, what pixels 0 and 1 become.

    Raises:
        DataError: the shapes differ or are not (C, 1, 1), or ``low`` is not below ``high``.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __post_init__(self) -> None:
        if self.low.shape != self.high.shape or self.low.ndim != 3 or self.low.shape[1:] != (1, 1):
            raise DataError(
                f"low and high must both be of shape (C, 1, 1), got {tuple(self.low.shape)} and "
                f"{tuple(self.high.shape)}"
            )
        if not bool((self.low < self.high).all()):
            raise DataError(f"low={self.low.flatten().tolist()} must be below high={self.high.flatten().tolist()}")

    @classmethod
    def normalised(cls, mean: Sequence[float], std: Sequence[float]) -> PixelBounds:
        """Bounds of (pixel - mean) / std for pixels in [0, 1], one constant per channel."""
        centre, scale = (torch.tensor(list(values)).reshape(-1, 1, 1) for values in (mean, std))
        return cls(low=-centre / scale, high=(1 - centre) / scale)

    def to_unit(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, C, H, W) in the model's units as pixels, [0, 1] where they are within the bounds."""
        return (images - self.low) / (self.high - self.low)

    def from_unit(self, pixels: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`to_unit`."""
        return self.low + pixels * (self.high - self.low)


def squared_errors(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of every image of one set to every one of the other.

    Args:
        first: (N, C, H, W) float.
        second: (M, C, H, W) float.

    Returns:
        (N, M) float64, computed from differences: exact zeros for equal images.

    Raises:
        DataError: the images differ in shape.
    """
    if first.shape[1:] != second.shape[1:]:
        raise DataError(f"images of shapes {tuple(first.shape[1:])} and {tuple(second.shape[1:])} cannot be compared")
    left, right = first.detach().flatten(1).double(), second.detach().flatten(1).double()
    rows = [(row - right).square().mean(dim=1) for row in left]
    return torch.stack(rows) if rows else torch.zeros(0, len(right), dtype=torch.float64)


def psnr_from_error(error: torch.Tensor, *, data_range: float = 1.0) -> torch.Tensor:
    """Peak signal-to-noise ratio, 10 log10(range^2 / error), in dB; infinite for an error of 0.

    Args:
        error: mean squared errors, any shape.
        data_range: largest minus smallest value that a pixel can take.
    """
    return 10 * torch.log10(data_range**2 / error)


def psnr(reconstructions: torch.Tensor, targets: torch.Tensor, *, data_range: float = 1.0) -> torch.Tensor:
    """PSNR in dB of each reconstruction to the target at its own place; (N,) float64.

    Args:
        reconstructions: (N, C, H, W) float.
        targets: (N, C, H, W) float.
        data_range: as for :func:`psnr_from_error`; 1 for pixels in [0, 1].

    Raises:
        DataError: the shapes differ.
    """
    if reconstructions.shape != targets.shape:
        raise DataError(f"reconstructions {tuple(reconstructions.shape)} and targets {tuple(targets.shape)} differ")
    difference = (reconstructions.detach().double() - targets.detach().double()).flatten(1)
    return psnr_from_error(difference.square().mean(dim=1), data_range=data_range)


def match(candidates: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Give every target a candidate of its own so that the mean squared errors' sum is least (Hungarian method).

    A gradient does not say in which order the images of a batch stood, so a batch is compared up to order. With more
    candidates than targets the best are taken: give a control the same chance as the attack.

    Args:
        candidates: (N, C, H, W) float, N at least M.
        targets: (M, C, H, W) float.

    Returns:
        (M,) int64: ``candidates[match]`` stands beside ``targets``.

    Raises:
        DataError: there are fewer candidates than targets, or the shapes differ.
    """
    if len(candidates) < len(targets):
        raise DataError(f"{len(candidates)} candidates cannot be matched to {len(targets)} targets one to one")
    rows, columns = linear_sum_assignment(squared_errors(targets, candidates).numpy())
    order = torch.empty(len(targets), dtype=torch.int64)
    order[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return order


@dataclass(frozen=True)
class FeatureDistance:
    """A distance of local features, in the manner of LPIPS (Zhang et al. 2018) but with no learned weights on top.

    At every place of every map the features are brought to length 1 over the channels; the distance is the squared
    difference, averaged over places and then over maps. LPIPS itself needs weights that cannot be assumed present,
    and the two must not be compared: report ``name`` with every number.

    Attributes:
        name: which features, for the report.
        features: (N, C, H, W) to one or more maps (N, c, h, w).
    """

    name: str
    features: Features

    @torch.no_grad()
    def __call__(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Distances in [0, 4] of images at the same places, (N,) float32; 0 for equal ones."""
        layers = [
            (F.normalize(left, dim=1) - F.normalize(right, dim=1)).square().sum(dim=1).flatten(1).mean(dim=1)
            for left, right in zip(self.features(first), self.features(second), strict=True)
        ]
        return torch.stack(layers).mean(dim=0)


def derivative_distance() -> FeatureDistance:
    """Slopes along four directions at full, half and quarter size: fixed filters, no weights."""
    return FeatureDistance("Sobel slopes in 4 directions at 3 scales", _slopes)


def network_distance(model: nn.Module, name: str) -> FeatureDistance:
    """The maps that a network's convolutions put out, in evaluation mode.

    Args:
        model: trained on PUBLIC images only; one that saw the targets would find them close to anything it learned.
        name: for the report, the network and what it was trained on.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]

    def features(images: torch.Tensor) -> list[torch.Tensor]:
        maps: list[torch.Tensor] = []
        hooks = [layer.register_forward_hook(lambda _, __, output: maps.append(output)) for layer in convolutions]
        was_training = model.training
        model.eval()
        try:
            model(images)
        finally:
            model.train(was_training)
            for hook in hooks:
                hook.remove()
        return maps

    return FeatureDistance(name, features)


def _slopes(images: torch.Tensor) -> list[torch.Tensor]:
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    rising = torch.tensor([[0.0, 1, 2], [-1, 0, 1], [-2, -1, 0]])
    bank = torch.stack([across, across.T, rising, rising.flip(1)]).unsqueeze(1) / 8
    maps, scaled = [], images
    for _ in range(3):
        channels = scaled.shape[1]
        padded = F.pad(scaled, (1, 1, 1, 1), mode="replicate")
        # The constant keeps flat places flat: without it the length-1 rule would blow up their rounding.
        slopes = F.conv2d(padded, bank.to(images).repeat(channels, 1, 1, 1), groups=channels)
        maps.append(torch.cat([slopes, torch.full_like(slopes[:, :1], 0.02)], dim=1))
        if min(scaled.shape[2:]) < 4:
            break
        scaled = F.avg_pool2d(scaled, 2)
    return maps
