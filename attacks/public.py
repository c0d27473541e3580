"""What every adversary knows: the public side of a federation, and the candidates that it asks about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from codream_secure.dreaming.spaces import DreamSpace, Latents, Pixels
from codream_secure.errors import ConfigError


@dataclass(frozen=True, kw_only=True, eq=False)
class Public:
    """Public knowledge. Nothing here says which candidates were trained on.

    Attributes:
        images: (N, C, H, W) float32, the candidates, normalised as for training.
        labels: (N,) int64, with which they would be trained on.
        owners: (N,) int64, the client that would hold each.
        reserve: (R, C, H, W) float32, images of the same distribution that no federation holds.
        reserve_labels: (R,) int64.
        num_classes: how many.
        lowest: (C, 1, 1) float32, black in normalised pixels.
        highest: (C, 1, 1) float32, white.
        architectures: one registry name per client.
        new_model: architecture to a freshly initialised model; the same every time.
        settings: the public configuration, as plain values by section, but for the run's, whose seed is secret here.
        vote_norm: where sums of labels have noise, the L2 norm that the longest vote has as it is sent, in ring units.
        space: where clients' dreams lie; None for methods without dreams.
        dreams: how many dreams clients expect at a time.
        seed: of the adversary's own random choices.
    """

    images: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)
    owners: torch.Tensor = field(repr=False)
    reserve: torch.Tensor = field(repr=False)
    reserve_labels: torch.Tensor = field(repr=False)
    num_classes: int
    lowest: torch.Tensor = field(repr=False)
    highest: torch.Tensor = field(repr=False)
    architectures: tuple[str, ...]
    new_model: Callable[[str], nn.Module] = field(repr=False)
    settings: dict[str, Any] = field(repr=False)
    space: DreamSpace | None = None
    dreams: int = 0
    vote_norm: int | None = None
    seed: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def generator(self, offset: int = 0) -> torch.Generator:
        """The adversary's own random numbers."""
        return torch.Generator().manual_seed(self.seed + offset)


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """Dreams that a malicious server names, and what it asks clients for.

    Attributes:
        images: (dreams, C, H, W) float32, of the number that clients expect.
        stream: "dream_updates" or "soft_labels".
    """

    images: torch.Tensor
    stream: Literal["dream_updates", "soft_labels"]


def nearest_points(space: DreamSpace, images: torch.Tensor) -> torch.Tensor:
    """The points of a linear space whose images are nearest to these.

    Args:
        space: pixels, a DCT basis or a random subspace.
        images: (n, C, H, W) float32.

    Returns:
        (n, \\*space.shape) float32.

    Raises:
        ConfigError: the space is not linear.
    """
    if isinstance(space, Pixels):
        return images
    if isinstance(space, Latents):
        raise ConfigError("dreaming.space.kind is 'latents': images that a server would name have no latents")
    basis = space.images(torch.eye(space.coordinates)).flatten(1).double()
    solved = torch.linalg.lstsq(basis.T, images.flatten(1).double().T).solution.T
    return solved.float().reshape(len(images), *space.shape).contiguous()
