"""Image sets and data sources: what they accept, and what they compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from codream_secure.data import DataSource, ImageSet
from codream_secure.errors import DataError


def grey(labels: list[int], *, size: tuple[int, int] = (2, 3), dtype: torch.dtype = torch.uint8) -> ImageSet:
    images = torch.arange(len(labels), dtype=dtype).view(-1, 1, 1, 1).expand(-1, 1, *size).contiguous()
    return ImageSet(
        images=images / max(len(labels), 1) if dtype.is_floating_point else images,
        labels=torch.tensor(labels, dtype=torch.int64),
    )


def source(**changes: Any) -> DataSource:
    parts: dict[str, Any] = {"name": "set", "train": grey([0, 1, 2]), "test": grey([1]), "num_classes": 3}
    return DataSource(**{**parts, "mean": (0.5,), "std": (0.25,), **changes})


def test_subset_copies_in_the_order_asked() -> None:
    whole = grey([0, 1, 2, 1])
    part = whole.subset([3, 0])
    assert part.labels.tolist() == [1, 0]
    assert part.images[:, 0, 0, 0].tolist() == [3, 0]
    part.images.fill_(0)
    assert bool((whole.images[3] == 3).all())
    assert len(whole.subset([])) == 0
    assert whole.subset(torch.tensor([2], dtype=torch.int32)).labels.tolist() == [2]


@pytest.mark.parametrize(
    ("indices", "message"),
    [([4], r"outside 0\.\.3"), ([-1], r"-1\.\.-1"), ([0.5], "float32"), ([True, False], "bool"), ([[0]], r"\(1, 1\)")],
)
def test_subset_refuses_other_indices(indices: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        grey([0, 1, 2, 1]).subset(indices)


def test_class_counts() -> None:
    counts = grey([0, 2, 2]).class_counts(4)
    assert counts.dtype == torch.int64
    assert counts.tolist() == [1, 0, 2, 0]
    with pytest.raises(DataError, match=r"num_classes is 2.*label 2"):
        grey([0, 2]).class_counts(2)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_normalised_agrees_with_numpy(kind: type) -> None:
    rng = np.random.default_rng(1)
    raw = rng.integers(0, 256, size=(5, 3, 4, 6)).astype(np.uint8)
    stored = raw if kind is np.uint8 else (raw / 255).astype(np.float32)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 1.5)
    got = ImageSet(images=torch.from_numpy(stored), labels=torch.zeros(5, dtype=torch.int64)).normalised(mean, std)
    expected = (raw / 255.0 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5, 0.5), (1.0,), "mean has 2"),
        ((0.5,), (), "std 0"),
        ((0.5,), (0.0,), "positive"),
        ((0.5,), (-1.0,), "positive"),
        ((float("nan"),), (1.0,), "finite"),
        ((0.5,), (float("inf"),), "finite"),
    ],
)
def test_unusable_constants_are_refused(mean: tuple[float, ...], std: tuple[float, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        grey([0, 1]).normalised(mean, std)
    with pytest.raises(DataError, match=message):
        source(mean=mean, std=std)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"\(2, 4, 4\)"),
        (torch.zeros(2, 1, 0, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "at least 1"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.float64), torch.zeros(2, dtype=torch.int64), "float64"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2), "int64"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, dtype=torch.int64), r"\(2, 1\)"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(3, dtype=torch.int64), "2 images but 3 labels"),
        (torch.zeros(2, 1, 4, 4), torch.tensor([0, -1]), r"labels\[1\] is -1"),
    ],
)
def test_malformed_sets_are_refused(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageSet(images=images, labels=labels)


@pytest.mark.parametrize(
    ("value", "message"),
    [(float("nan"), "NaN or infinity"), (float("inf"), "NaN or infinity"), (1.5, "outside"), (-0.1, "outside")],
)
def test_the_first_unusable_float_image_is_named(value: float, message: str) -> None:
    images = torch.zeros(6, 1, 2, 2)
    images[3:5, 0, 1, 1] = value
    with pytest.raises(DataError, match=rf"images\[3\].*{message}"):
        ImageSet(images=images, labels=torch.zeros(6, dtype=torch.int64))


def test_source_properties() -> None:
    made = source(class_names=("a", "b", "c"))
    assert made.channels == 1
    assert made.image_size == (2, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": grey([])}, "train part is empty"),
        ({"test": grey([])}, "test part is empty"),
        ({"test": grey([1], size=(3, 3))}, r"\(1, 2, 3\).*\(1, 3, 3\)"),
        ({"test": grey([1], dtype=torch.float32)}, r"uint8.*float32"),
        ({"train": grey([0, 2]), "test": grey([1])}, "no training image has label 1"),
        ({"num_classes": 5}, "label 3, 4"),
        ({"num_classes": 60}, r"label 3, .*, 22, \.\.\.;"),
        ({"test": grey([3])}, "num_classes is 3 and the highest label 3"),
        ({"train": grey([0]), "test": grey([0]), "num_classes": 1}, "at least 2"),
        ({"class_names": ("a",)}, "1 class_names for 3"),
    ],
)
def test_inconsistent_sources_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        source(**changes)
