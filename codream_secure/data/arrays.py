"""From numpy arrays as they lie in files to checked image sets."""

from __future__ import annotations

import numpy as np
import torch

from codream_secure.data.dataset import DataSource, ImageSet
from codream_secure.errors import DataError

# For data sets without published constants: fixed, and about right for pixels spread over [0, 1].
UNKNOWN_MEAN = 0.5
UNKNOWN_STD = 0.25


def image_sets(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], *, name: str
) -> tuple[ImageSet, ImageSet]:
    """Train and test part from (images, labels) arrays.

    Images may be NHW, NHWC or NCHW with 1 or 3 channels. Uint8 stays as it is. Floats become float32 in
    [0, 1]: a highest pixel of at most 1, over both parts, means that they are in [0, 1] already, and one
    from 2 to 255 that they are in [0, 255]. In between, pixels slightly beyond 1 (from interpolation,
    say) cannot be told from nearly black pictures, so that is an error and not a guess.

    Labels may be any integers of shape (N,) or (N, 1).

    Raises:
        DataError: Anything else; the message starts with ``name`` and tells the part.
    """
    images = {part: array for part, (array, _) in (("train", train), ("test", test))}
    for part, array in images.items():
        if array.size == 0:
            raise DataError(f"{name}: the {part} part is empty (its images have shape {array.shape})")
    scale = _float_scale(images, name=name) if any(array.dtype.kind == "f" for array in images.values()) else 1.0
    sets = []
    for part, (array, labels) in (("train", train), ("test", test)):
        where = f"{name}, {part} part"
        pixels = channels_first(array, name=where)
        if pixels.dtype.kind == "f":
            pixels = (pixels / scale).astype(np.float32)
        elif pixels.dtype != np.uint8:
            raise DataError(f"{where}: images must be uint8 or float, got {pixels.dtype}")
        classes = integer_labels(labels, name=where)
        try:
            sets.append(ImageSet(images=_tensor(pixels), labels=_tensor(classes)))
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
    return sets[0], sets[1]


def source_without_constants(
    name: str, train: ImageSet, test: ImageSet, *, class_names: tuple[str, ...] = ()
) -> DataSource:
    """A source about which nothing is published: classes from the labels, fixed mean 0.5 and std 0.25."""
    channels = train.images.shape[1]
    return DataSource(
        name=name,
        train=train,
        test=test,
        num_classes=len(class_names) or int(max(train.labels.max(), test.labels.max())) + 1,
        mean=(UNKNOWN_MEAN,) * channels,
        std=(UNKNOWN_STD,) * channels,
        class_names=class_names,
    )


def channels_first(images: np.ndarray, *, name: str) -> np.ndarray:
    """NHW, NHWC or NCHW images, 1 or 3 channels, as a view of shape (N, C, H, W).

    Raises:
        DataError: Another shape, or one that reads both ways.
    """
    if images.ndim == 3:
        return images[:, None]
    first, last = (images.ndim == 4 and images.shape[axis] in (1, 3) for axis in (1, -1))
    if first and last:
        raise DataError(f"{name}: images of shape {images.shape} read as NCHW and as NHWC; store NHW or larger images")
    if not first and not last:
        raise DataError(f"{name}: images must be NHW, NHWC or NCHW with 1 or 3 channels, got shape {images.shape}")
    return images if first else images.transpose(0, 3, 1, 2)


def integer_labels(labels: np.ndarray, *, name: str) -> np.ndarray:
    """Integer labels of shape (N,) or (N, 1) as int64 (N,).

    Raises:
        DataError: The dtype is not an integer, one image has several labels, or a label exceeds int64.
    """
    if labels.dtype.kind not in "iu":
        raise DataError(f"{name}: labels must be integers, got {labels.dtype}")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{name}: labels must have shape (N,) or (N, 1), one class per image, got {labels.shape}")
    if len(labels) and labels.max() > np.iinfo(np.int64).max:
        raise DataError(f"{name}: label {labels.max()} is beyond int64")
    return labels.astype(np.int64)


def _float_scale(images: dict[str, np.ndarray], *, name: str) -> float:
    floats = {part: array for part, array in images.items() if array.dtype.kind == "f"}
    for part, array in floats.items():
        unusable = ~np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        if unusable.any():
            raise DataError(f"{name}, {part} part: image {int(unusable.argmax())} holds NaN or infinity")
    low = min(float(array.min()) for array in floats.values())
    high = max(float(array.max()) for array in floats.values())
    if low < 0 or high > 255 or 1 < high < 2:
        raise DataError(f"{name}: float pixels must span [0, 1] or [0, 255], but theirs span [{low:g}, {high:g}]")
    return 1.0 if high <= 1 else 255.0


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
