"""The summary of a data set."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from codream_secure.data import DataSource, ImageSet, check_source


def make(train: torch.Tensor, test: torch.Tensor, *, test_label: int = 0) -> DataSource:
    labels = torch.arange(len(train)) % 2
    return DataSource(
        name="set",
        train=ImageSet(images=train, labels=labels),
        test=ImageSet(images=test, labels=torch.full((len(test),), test_label)),
        num_classes=2,
        mean=(0.5,) * train.shape[1],
        std=(0.25,) * train.shape[1],
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_statistics_agree_with_numpy_across_pieces(dtype: torch.dtype) -> None:
    raw = torch.randint(0, 256, (5000, 3, 2, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = raw if dtype == torch.uint8 else raw / 255
    found = check_source(make(images, images[:1]))
    unit = raw.numpy() / 255.0
    np.testing.assert_allclose(found["train"]["mean"], unit.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(found["train"]["std"], unit.std((0, 2, 3)), rtol=1e-6)
    assert found["train"]["maximum"] == (255 if dtype == torch.uint8 else 1.0)
    assert found["train"]["dtype"] == str(dtype).removeprefix("torch.")
    assert found["train"]["class_counts"] == [2500, 2500]
    assert found["image_size"] == [2, 3]
    assert json.loads(json.dumps(found)) == found


def test_duplicates_are_counted_by_exact_bytes() -> None:
    train = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).repeat(1, 1, 2, 2)
    train[5] = train[0]
    test = torch.stack([train[1], train[1], train[2] + 100])
    found = check_source(make(train, test))
    assert found["duplicates"] == {"train_in_train": 1, "test_in_train": 2}
    assert "2 of 3 test images also occur in the training part." in found["notes"]
    assert "The test part has no image of class 1." in found["notes"]
    clean = check_source(make(train[:4], test[2:], test_label=1))
    assert clean["duplicates"] == {"train_in_train": 0, "test_in_train": 0}
    assert clean["notes"] == ["The test part has no image of class 0."]


def test_constant_images_are_noted() -> None:
    blank = torch.zeros(4, 1, 2, 2)
    assert "Every training pixel has the same value." in check_source(make(blank, blank))["notes"]
