"""A summary of a loaded data set, for looking at before training on it."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from codream_secure.data.dataset import DataSource, ImageSet

_CHUNK = 4096


def check_source(source: DataSource) -> dict[str, Any]:
    """Summarise a data set as plain, JSON-ready values.

    The pixel statistics are those of the data at hand, for comparison with the fixed constants. They are
    for whoever holds all of it: on private data, do not pass them on.

    Returns:
        name, num_classes, channels, image_size (height, width), class_names, ``constants`` (mean, std);
        for ``train`` and ``test`` each: images (count), dtype, class_counts, minimum, maximum, mean and std
        (per channel, population, pixels in [0, 1]); ``duplicates``: train_in_train (training images equal,
        byte by byte, to an earlier one) and test_in_train (test images equal to a training image);
        ``notes``: sentences on what deserves attention.
    """
    train_hashes = _image_hashes(source.train)
    distinct = set(train_hashes)
    test_in_train = sum(digest in distinct for digest in _image_hashes(source.test))
    train, test = _part(source.train, source.num_classes), _part(source.test, source.num_classes)
    absent = [label for label, count in enumerate(test["class_counts"]) if count == 0]
    notes = []
    if test_in_train:
        notes.append(f"{test_in_train} of {len(source.test)} test images also occur in the training part.")
    if absent:
        notes.append(f"The test part has no image of class {', '.join(map(str, absent))}.")
    if train["minimum"] == train["maximum"]:
        notes.append("Every training pixel has the same value.")
    return {
        "name": source.name,
        "num_classes": source.num_classes,
        "channels": source.channels,
        "image_size": list(source.image_size),
        "class_names": list(source.class_names),
        "constants": {"mean": list(source.mean), "std": list(source.std)},
        "train": train,
        "test": test,
        "duplicates": {"train_in_train": len(train_hashes) - len(distinct), "test_in_train": test_in_train},
        "notes": notes,
    }


def _part(images: ImageSet, num_classes: int) -> dict[str, Any]:
    mean, std = _pixel_statistics(images.images)
    return {
        "images": len(images),
        "dtype": str(images.images.dtype).removeprefix("torch."),
        "class_counts": images.class_counts(num_classes).tolist(),
        "minimum": images.images.min().item(),
        "maximum": images.images.max().item(),
        "mean": mean,
        "std": std,
    }


def _pixel_statistics(images: torch.Tensor) -> tuple[list[float], list[float]]:
    """Mean and population standard deviation per channel, in [0, 1] units; in pieces, as float64 takes much room."""
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    total = torch.zeros(images.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for chunk in torch.split(images.cpu(), _CHUNK):
        pixels = chunk.double() / scale
        total += pixels.sum((0, 2, 3))
        squares += pixels.square().sum((0, 2, 3))
    count = images.numel() // images.shape[1]
    mean = total / count
    return mean.tolist(), (squares / count - mean.square()).clamp(min=0).sqrt().tolist()


def _image_hashes(images: ImageSet) -> list[bytes]:
    return [hashlib.sha256(pixels.tobytes()).digest() for pixels in images.images.cpu().numpy()]
