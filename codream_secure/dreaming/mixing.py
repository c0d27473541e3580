"""More dreams for the price of their labels: CutMix (Yun et al. 2019) of dreams that every client already holds.

A dream costs a client hundreds of times the bytes of its label. Mixing is public and seeded, so all parties make the
same mixes by themselves, and only their soft labels pass the channel. Labels are asked for, not interpolated: the
clients say what they see in the mix.
"""

from __future__ import annotations

import torch


def cutmix(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image with a random box taken from another one of the batch.

    The box's share of the area is uniform in [0, 1] before it is clipped at the border, as in the paper with alpha = 1.

    Args:
        images: (n, C, H, W) float.
        generator: CPU generator; the same state gives the same mixes.

    Returns:
        New images of the same shape; the originals are unchanged.
    """
    count, _, height, width = images.shape
    partners = torch.randperm(count, generator=generator)
    half_side = torch.rand(count, 1, generator=generator).sqrt() / 2
    rows = _inside(height, torch.rand(count, 1, generator=generator), half_side)
    columns = _inside(width, torch.rand(count, 1, generator=generator), half_side)
    box = (rows[:, None, :, None] & columns[:, None, None, :]).to(images.device)
    return torch.where(box, images[partners.to(images.device)], images)


def _inside(size: int, centre: torch.Tensor, half_side: torch.Tensor) -> torch.Tensor:
    """Which of ``size`` pixels lie within ``half_side`` of ``centre``, both as shares of the side: (n, size) bool."""
    pixels = (torch.arange(size) + 0.5) / size
    return (pixels - centre).abs() < half_side
