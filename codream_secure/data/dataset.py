"""Labelled images, and named data sets with an official train and test part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from codream_secure.errors import DataError


class ImageFacts(Protocol):
    """What is public about images, and all that models and dreams depend on."""

    @property
    def num_classes(self) -> int:
        """How many classes there are."""

    @property
    def channels(self) -> int:
        """Colour channels of every image."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image, in pixels."""

    @property
    def mean(self) -> tuple[float, ...]:
        """One number per channel, for ``ImageSet.normalised``."""

    @property
    def std(self) -> tuple[float, ...]:
        """Likewise."""


# Comparing tensors with == has no single truth value, so the classes here compare by identity.
@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with one class label each; checked when it is made, and not to be changed afterwards.

    Attributes:
        images: Tensor (N, C, H, W), uint8 in 0..255 or float32 in [0, 1].
        labels: int64 tensor (N,), each at least 0.

    Raises:
        DataError: A shape or dtype is wrong, the lengths differ, a label is negative, or a float
            pixel is NaN, infinite or outside [0, 1]; the message names the first such image.
    """

    images: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or 0 in self.images.shape[1:]:
            raise DataError(
                f"images must have shape (N, C, H, W) with C, H and W at least 1, got {_shape(self.images)}"
            )
        if self.images.dtype not in (torch.uint8, torch.float32):
            raise DataError(f"images must be uint8 or float32, got {self.images.dtype}")
        if self.labels.ndim != 1 or self.labels.dtype != torch.int64:
            raise DataError(
                f"labels must be int64 of shape (N,), got {self.labels.dtype} of shape {_shape(self.labels)}"
            )
        if len(self.images) != len(self.labels):
            raise DataError(f"there are {len(self.images)} images but {len(self.labels)} labels")
        if len(self) == 0:
            return
        if self.labels.min() < 0:
            first = int((self.labels < 0).nonzero()[0])
            raise DataError(f"labels[{first}] is {int(self.labels[first])}, but labels count classes from 0")
        if self.images.dtype == torch.float32:
            self._check_range()

    def _check_range(self) -> None:
        low, high = torch.aminmax(self.images)  # both are NaN when any pixel is
        if low >= 0 and high <= 1:
            return
        outside = ~((self.images >= 0) & (self.images <= 1)).flatten(1).all(1)
        first = int(outside.nonzero()[0])
        pixels = self.images[first]
        kind = "is outside [0, 1]" if bool(pixels.isfinite().all()) else "holds NaN or infinity"
        raise DataError(f"images[{first}] {kind} (minimum {float(pixels.min())}, maximum {float(pixels.max())})")

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int] | torch.Tensor) -> ImageSet:
        """A copy of the images and labels at ``indices`` (each in 0..N-1), in that order.

        Raises:
            DataError: An index is not an integer or is out of range. Negative ones are refused too:
                they would quietly count from the end.
        """
        chosen = torch.as_tensor(indices)
        if chosen.numel() == 0:
            chosen = chosen.to(torch.int64).reshape(-1)
        if chosen.ndim != 1 or chosen.is_floating_point() or chosen.dtype == torch.bool:
            raise DataError(f"indices must be a 1-D list of integers, got {chosen.dtype} of shape {_shape(chosen)}")
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise DataError(f"indices span {int(chosen.min())}..{int(chosen.max())}, outside 0..{len(self) - 1}")
        chosen = chosen.to(self.images.device, torch.int64)
        return ImageSet(images=self.images[chosen], labels=self.labels[chosen])

    def class_counts(self, num_classes: int) -> torch.Tensor:
        """How many images each class has: int64 tensor (num_classes,).

        Raises:
            DataError: A label is not below ``num_classes``.
        """
        if len(self) and self.labels.max() >= num_classes:
            raise DataError(f"num_classes is {num_classes}, but there is a label {int(self.labels.max())}")
        return torch.bincount(self.labels, minlength=num_classes)

    def normalised(self, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
        """Float32 tensor (N, C, H, W): (pixels in [0, 1] - mean) / std, channel by channel.

        Args:
            mean: One number per channel, in units of the [0, 1] range.
            std: One positive number per channel, in the same units.

        Raises:
            DataError: A length is not the number of channels, or a number is not usable.
        """
        centre, scale = _channel_constants(mean, std, channels=self.images.shape[1])
        shift = torch.tensor(centre, device=self.images.device).view(1, -1, 1, 1)
        width = torch.tensor(scale, device=self.images.device).view(1, -1, 1, 1)
        pixels = self.images.float() / 255 if self.images.dtype == torch.uint8 else self.images
        return (pixels - shift) / width


@dataclass(frozen=True, eq=False)
class DataSource:
    """A named data set with its official train and test parts.

    Attributes:
        name: What ``load_source`` was asked for.
        train: Training images; every class 0..num_classes-1 occurs.
        test: Test images of the same shape and dtype; a class may be absent.
        num_classes: Number of classes, at least 2.
        mean, std: Constants for ``ImageSet.normalised``, one per channel. They are published for the
            data set or fixed in advance, never computed from what is loaded: clients would then share
            a statistic of their private images that no protocol protects and no accountant counts.
        class_names: One name per class, or empty where there are none.

    Raises:
        DataError: A part is empty, shapes or dtypes differ, labels have gaps or exceed num_classes.
    """

    name: str
    train: ImageSet
    test: ImageSet
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part, images in (("train", self.train), ("test", self.test)):
            if len(images) == 0:
                raise DataError(f"{self.name}: the {part} part is empty")
        train, test = self.train.images, self.test.images
        if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
            raise DataError(
                f"{self.name}: training images are {train.dtype} of shape {_shape(train[0])}, "
                f"but test images are {test.dtype} of shape {_shape(test[0])}"
            )
        _channel_constants(self.mean, self.std, channels=self.channels)
        self._check_labels()

    def _check_labels(self) -> None:
        highest = int(max(self.train.labels.max(), self.test.labels.max()))
        if self.num_classes < 2 or highest >= self.num_classes:
            raise DataError(
                f"{self.name}: num_classes is {self.num_classes} and the highest label {highest}; "
                "there must be at least 2 classes, and labels must lie in 0..num_classes-1"
            )
        missing = (self.train.class_counts(self.num_classes) == 0).nonzero().flatten().tolist()
        if missing:
            shown = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
            raise DataError(
                f"{self.name}: no training image has label {shown}; labels must be 0..{self.num_classes - 1} "
                "without gaps, so renumber them or add the missing images"
            )
        if self.class_names and len(self.class_names) != self.num_classes:
            raise DataError(f"{self.name}: {len(self.class_names)} class_names for {self.num_classes} classes")

    @property
    def channels(self) -> int:
        """Colour channels of every image."""
        return int(self.train.images.shape[1])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image, in pixels."""
        return int(self.train.images.shape[2]), int(self.train.images.shape[3])


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _channel_constants(
    mean: Sequence[float], std: Sequence[float], *, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if len(mean) != channels or len(std) != channels:
        raise DataError(f"mean has {len(mean)} and std {len(std)} entries, but images have {channels} channel(s)")
    limit = float("inf")
    if not all(-limit < value < limit for value in mean) or not all(0 < value < limit for value in std):
        raise DataError(f"mean must be finite and std positive and finite, got {tuple(mean)} and {tuple(std)}")
    return tuple(map(float, mean)), tuple(map(float, std))
