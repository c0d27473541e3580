"""What clients optimise jointly: pixels, or fewer numbers from which every party computes the same pixels.

A space maps points, some coordinates for each dream, to images. Clients send gradients with respect to coordinates, so
fewer of them make shorter messages, and leave more of a client's signal beside noise whose size grows with the root of
their number.

========  ========================================================  ===========================
kind      a dream's coordinates are                                 size
========  ========================================================  ===========================
pixels    its pixels                                                none
dct       its lowest frequencies, channel by channel                side of the square of these
subspace  those in a random subspace of all images                  its dimension
latents   inputs of a random network that makes smooth images       their number
========  ========================================================  ===========================

Nothing here is private: all that is random comes from the run's public seed, never from images. Standard normal points
of the linear spaces give pixels of variance 1 on average, as noise of pixels has, and a step of every coordinate by
``lr`` moves pixels by about ``lr``, so that learning rates carry over.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F

from codream_secure.errors import ConfigError
from codream_secure.seeding import generator as public_generator

SpaceKind = Literal["pixels", "dct", "subspace", "latents"]
Gradient = Callable[[torch.Tensor], torch.Tensor]
_KINDS = ("pixels", "dct", "subspace", "latents")
_FEATURES = 32
_CALIBRATION = 128
_PIXELS_AT_ONCE = 2**16
_CONTRAST = 2.5
_FAR, _BISECTIONS = 20.0, 24


class DreamSpace(ABC):
    """Points of which dreams are images.

    Attributes:
        shape: of one point; (p,), or (C, H, W) for pixels.
    """

    shape: tuple[int, ...]

    @property
    def coordinates(self) -> int:
        """p, numbers for each dream."""
        return math.prod(self.shape)

    def start(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """(count, \\*shape) float32 on the CPU: standard normal points, from a public generator."""
        return torch.randn((count, *self.shape), generator=generator)

    @abstractmethod
    def images(self, points: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) normalised images, differentiable by the (n, \\*shape) points, in their dtype and device."""

    def pull_back(self, gradient: Gradient) -> Gradient:
        """The gradient by points of what ``gradient`` gives by images, by the chain rule.

        Args:
            gradient: (n, C, H, W) images to a gradient of that shape.

        Returns:
            (n, \\*shape) points to a gradient of that shape, detached.
        """

        def by_points(points: torch.Tensor) -> torch.Tensor:
            leaf = points.detach().requires_grad_()
            with torch.enable_grad():
                images = self.images(leaf)
            (pulled,) = torch.autograd.grad(images, leaf, gradient(images.detach()))
            return pulled.contiguous()

        return by_points


class Pixels(DreamSpace):
    """The images themselves."""

    def __init__(self, channels: int, image_size: tuple[int, int]) -> None:
        self.shape = (channels, *image_size)

    def images(self, points: torch.Tensor) -> torch.Tensor:
        return points

    def pull_back(self, gradient: Gradient) -> Gradient:
        return gradient


class Dct(DreamSpace):
    """The side x side lowest frequencies of each channel's two-dimensional DCT-II.

    Points are the orthonormal transform's coefficients, row by row and channel by channel, divided by sqrt(H W) / side,
    which makes standard normal ones pixels of unit variance on average.
    """

    def __init__(
        self, side: int, *, channels: int, image_size: tuple[int, int], device: torch.device | str = "cpu"
    ) -> None:
        height, width = image_size
        self.shape = (channels * side * side,)
        self._block = (channels, side, side)
        # Half of the scale in either matrix.
        self._rows = (_dct_matrix(side, height) * math.sqrt(height / side)).float().to(device)
        self._columns = (_dct_matrix(side, width) * math.sqrt(width / side)).float().to(device)

    def images(self, points: torch.Tensor) -> torch.Tensor:
        block = points.reshape(-1, *self._block)
        return self._rows.to(points).T @ block @ self._columns.to(points)


class Subspace(DreamSpace):
    """A random subspace of the images: an orthonormal basis, uniform among all, times sqrt(C H W / dimension)."""

    def __init__(
        self,
        dimension: int,
        *,
        channels: int,
        image_size: tuple[int, int],
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.shape = (dimension,)
        self._image = (channels, *image_size)
        pixels = math.prod(self._image)
        # In double precision, so that what is rounded to single precision depends less on who computes it.
        columns, triangle = torch.linalg.qr(torch.randn(pixels, dimension, generator=generator, dtype=torch.float64))
        # Which of the two signs a column gets is the library's choice; a positive diagonal makes it unique.
        columns = columns * triangle.diagonal().sign()
        self._basis = (columns.T * math.sqrt(pixels / dimension)).float().to(device)

    def images(self, points: torch.Tensor) -> torch.Tensor:
        return (points @ self._basis.to(points)).reshape(-1, *self._image)


class Latents(DreamSpace):
    """The inputs of a random convolutional generator, whose weights nobody trains.

    A linear map to a grid of a quarter of the image's side, then twice: a smooth activation, upsampling to twice the
    side, and a convolution. What comes out is centred, pixel by pixel, and scaled by what it is for standard normal
    inputs, and a sigmoid brings it into the range of pixels. Its offset makes the mean pixel 0, as normalisation does
    for data, so that what is mostly background in the data is so in images; its slope makes a step by ``lr`` move
    pixels by about ``lr``, as in the other spaces.

    Args:
        latents: number of inputs.
        channels: of the images.
        image_size: their height and width.
        generator: of the weights.
        lowest: value of black pixels, for all channels or for each.
        highest: value of white pixels.
        device: where the weights are kept.
    """

    def __init__(
        self,
        latents: int,
        *,
        channels: int,
        image_size: tuple[int, int],
        generator: torch.Generator,
        lowest: Sequence[float] = (-1.0,),
        highest: Sequence[float] = (1.0,),
        device: torch.device | str = "cpu",
    ) -> None:
        self.shape = (latents,)
        sides = [tuple(math.ceil(side / part) for side in image_size) for part in (4, 2, 1)]
        self._grid = (_FEATURES, *sides[0])

        def normal(*shape: int, fan_in: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(fan_in)

        self._linear = normal(latents, math.prod(self._grid), fan_in=latents)
        self._kernels = [
            normal(_FEATURES, _FEATURES, 3, 3, fan_in=9 * _FEATURES),
            normal(channels, _FEATURES, 3, 3, fan_in=9 * _FEATURES),
        ]
        # Upsampling as two products with matrices: its own gradient on CUDA is not deterministic.
        self._upsampling = [
            (_bilinear(small[0], large[0]), _bilinear(small[1], large[1])) for small, large in pairwise(sides)
        ]
        self._centre, self._scale = torch.zeros(()), 1.0
        inputs = torch.randn(_CALIBRATION, latents, generator=generator, dtype=torch.float64)
        # In parts, because features in double precision are many times as large as the images.
        sample = torch.cat([self._raw(part) for part in inputs.split(max(1, _PIXELS_AT_ONCE // math.prod(image_size)))])
        self._centre = sample.mean(dim=0)
        self._scale = (sample - self._centre).square().mean().sqrt().item()
        low, high = (torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1) for values in (lowest, highest))
        self._low, self._span = low, high - low
        share = (-low / self._span).clamp(0.05, 0.95)
        self._offset = _offset_for((sample - self._centre) / self._scale, share)
        self._to(device)

    def _to(self, device: torch.device | str) -> None:
        """Everything was computed in double precision; it is kept in single precision on the device."""

        def kept(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.float().to(device)

        self._linear, self._centre = kept(self._linear), kept(self._centre)
        self._low, self._span, self._offset = kept(self._low), kept(self._span), kept(self._offset)
        self._kernels = [kept(kernel) for kernel in self._kernels]
        self._upsampling = [(kept(rows), kept(columns)) for rows, columns in self._upsampling]

    def images(self, points: torch.Tensor) -> torch.Tensor:
        standard = (self._raw(points) - self._centre.to(points)) / self._scale
        shade = torch.sigmoid(_CONTRAST * standard + self._offset.to(points))
        return self._low.to(points) + self._span.to(points) * shade

    def _raw(self, points: torch.Tensor) -> torch.Tensor:
        features = (points @ self._linear.to(points)).reshape(-1, *self._grid)
        for kernel, (rows, columns) in zip(self._kernels, self._upsampling, strict=True):
            larger = rows.to(points) @ F.silu(features) @ columns.to(points).T
            features = F.conv2d(larger, kernel.to(points), padding=1)
        return features


def coordinates_of(kind: str, size: int | None, *, channels: int, image_size: tuple[int, int]) -> int:
    """Numbers that clients exchange for each dream; what :func:`make_space` would refuse is refused here already.

    Raises:
        ConfigError: the kind is unknown; or the size is missing, too large for the images, or has no meaning.
    """
    pixels = channels * math.prod(image_size)
    if kind not in _KINDS:
        raise ConfigError(f"dreaming.space.kind is {kind!r}: choose one of {', '.join(_KINDS)}")
    if kind == "pixels":
        if size is not None:
            raise ConfigError(f"dreaming.space.size is {size}, but pixels are as many as they are: leave it out")
        return pixels
    if size is None:
        raise ConfigError(f"dreaming.space.size is missing: {kind!r} needs one, for example {_EXAMPLE_SIZES[kind]}")
    largest = min(image_size) if kind == "dct" else pixels
    if not 1 <= size <= largest:
        shape = f"{channels}x{image_size[0]}x{image_size[1]}"
        raise ConfigError(f"dreaming.space.size is {size}: for {kind!r} on images of {shape} use 1 to {largest}")
    return channels * size * size if kind == "dct" else size


_EXAMPLE_SIZES = {"dct": 4, "subspace": 32, "latents": 32}


def make_space(
    kind: str,
    size: int | None = None,
    *,
    channels: int,
    image_size: tuple[int, int],
    seed: int,
    lowest: Sequence[float] = (-1.0,),
    highest: Sequence[float] = (1.0,),
    device: torch.device | str = "cpu",
) -> DreamSpace:
    """The space that every party of a run derives alike.

    Args:
        kind: see the module's table.
        size: see the module's table.
        channels: of the images.
        image_size: their height and width.
        seed: the run's, which is public.
        lowest: normalised value of black pixels, for all channels or for each; latents have no others below.
        highest: of white ones.
        device: where images are computed.

    Raises:
        ConfigError: as for :func:`coordinates_of`.
    """
    coordinates = coordinates_of(kind, size, channels=channels, image_size=image_size)
    if kind == "pixels":
        return Pixels(channels, image_size)
    if kind == "dct":
        side = math.isqrt(coordinates // channels)
        return Dct(side, channels=channels, image_size=image_size, device=device)
    generator = public_generator(seed, "space", kind)
    if kind == "subspace":
        return Subspace(coordinates, channels=channels, image_size=image_size, generator=generator, device=device)
    return Latents(
        coordinates,
        channels=channels,
        image_size=image_size,
        generator=generator,
        lowest=lowest,
        highest=highest,
        device=device,
    )


def _dct_matrix(frequencies: int, length: int) -> torch.Tensor:
    """(frequencies, length) float64: the first rows of the orthonormal DCT-II."""
    places = (torch.arange(length, dtype=torch.float64) + 0.5) * (math.pi / length)
    rows = torch.cos(torch.arange(frequencies, dtype=torch.float64).outer(places)) * math.sqrt(2 / length)
    rows[0] /= math.sqrt(2)
    return rows


def _offset_for(standard: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """The sigmoid's offset with which a sample's mean is that share of the range, channel by channel.

    Args:
        standard: (n, C, H, W) float64, the generator's output before the sigmoid.
        share: (C, 1, 1) or (1, 1, 1) float64 in (0, 1).

    Returns:
        (C, 1, 1) float64, by bisection: the mean grows with the offset.
    """
    low = torch.full((standard.shape[1], 1, 1), -_FAR, dtype=torch.float64)
    high = -low
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        means = torch.sigmoid(_CONTRAST * standard + middle).mean(dim=(0, 2, 3)).reshape(-1, 1, 1)
        low, high = torch.where(means < share, middle, low), torch.where(means < share, high, middle)
    return (low + high) / 2


def _bilinear(small: int, large: int) -> torch.Tensor:
    """(large, small) float64: linear interpolation in one dimension, as :func:`torch.nn.functional.interpolate`'s."""
    unit = torch.eye(small, dtype=torch.float64)
    return F.interpolate(unit[None], size=large, mode="linear", align_corners=False)[0].T.contiguous()
