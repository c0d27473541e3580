"""Pictures of dreams."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image

from codream_secure.data import ImageFacts
from codream_secure.files import write_bytes


def save_dream_grid(
    path: Path, dreams: torch.Tensor, source: ImageFacts, *, count: int = 64, columns: int = 16, side: int = 48
) -> None:
    """Write the first ``count`` dreams as a PNG of ``columns`` a row, each about ``side`` pixels high.

    Pixels are brought back from normalised space and clipped to [0, 1]; images of other than three channels show the
    mean of their channels.
    """
    tiles = to_pixels(dreams[:count], source)
    scale = max(1, side // tiles.shape[1])
    tiles = tiles.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)
    rows = -(-len(tiles) // columns)
    height, width = tiles.shape[1] + 2, tiles.shape[2] + 2
    sheet = torch.full((rows * height, min(columns, len(tiles)) * width, 3), 255, dtype=torch.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * height + 1, index % columns * width + 1
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    stream = io.BytesIO()
    Image.fromarray(sheet.numpy()).save(stream, format="PNG")
    write_bytes(path, stream.getvalue())


def to_pixels(dreams: torch.Tensor, source: ImageFacts) -> torch.Tensor:
    """Dreams (n, C, H, W) in normalised space as uint8 RGB (n, H, W, 3)."""
    shape = (1, -1, 1, 1)
    pixels = dreams.detach().cpu() * torch.tensor(source.std).reshape(shape) + torch.tensor(source.mean).reshape(shape)
    if pixels.shape[1] != 3:
        pixels = pixels.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
