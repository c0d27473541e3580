"""The blind classifier sits at .5 for random splits, and sees splits that are not random.

False alarms: sums over random splits are compared at six standard errors (2e-9); single intervals are not judged.
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from attacks.blind import blind_auc, duplicates


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return data.images[:count, None] / 16, data.target[:count]


def test_random_splits_are_at_chance() -> None:
    images, _ = digits(200)
    generator = np.random.default_rng(0)
    values, held = [], 0
    for _ in range(30):
        found = blind_auc(images, generator.random(200) < 0.5, generator=generator)
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        values.append(found.value)
        held += found.low <= 0.5 <= found.high
    assert abs(np.mean(values) - 0.5) < 6 * max(float(np.std(values, ddof=1)), 0.041) / np.sqrt(len(values))
    assert held >= 18  # of 30 at 95 %: fewer has a probability below 1e-8


@pytest.mark.parametrize("shift", ["brightness", "classes", "smoothing", "one pixel"])
def test_splits_that_are_not_random_are_seen(shift: str) -> None:
    images, labels = digits(400)
    generator = np.random.default_rng(1)
    members = generator.random(400) < 0.5
    if shift == "brightness":
        images = images + 0.05 * members[:, None, None, None]
    elif shift == "classes":
        members = labels < 5
    elif shift == "smoothing":
        smooth = (images + np.roll(images, 1, axis=3)) / 2
        images = np.where(members[:, None, None, None], smooth, images)
    else:
        images = images.copy()
        images[members, 0, 0, 0] = 1.0
    found = blind_auc(images, members, generator=generator)
    assert found.low is not None
    assert found.low > 0.55


def test_copies_across_the_split_do_not_leak() -> None:
    """Ten images, many times each, all on one side: a classifier that has seen a copy knows the side."""
    generator = np.random.default_rng(2)
    values = []
    for _ in range(20):
        originals = generator.normal(size=(40, 1, 4, 4))
        side = generator.permutation(np.arange(40) < 20)
        images, members = np.repeat(originals, 5, axis=0), np.repeat(side, 5)
        found = blind_auc(images, members, generator=generator)
        assert found.value is not None
        values.append(found.value)
    assert abs(np.mean(values) - 0.5) < 6 * np.std(values, ddof=1) / np.sqrt(len(values))


def test_duplicates_are_counted() -> None:
    images = np.random.default_rng(3).normal(size=(10, 1, 3, 3))
    members = np.arange(10) < 5
    assert duplicates(images, members) == 0
    images[7], images[8], images[9] = images[2], images[2], images[6]
    assert duplicates(images, members) == 2
    images[0, 0, 0, 0], images[5] = -0.0, images[0]
    images[5, 0, 0, 0] = 0.0
    assert duplicates(images, members) == 3
    found = blind_auc(np.tile(images, (4, 1, 1, 1)), np.tile(members, 4), generator=np.random.default_rng(4))
    assert "12 images of members among non-members" in found.note


def test_large_images_are_averaged() -> None:
    generator = np.random.default_rng(5)
    images = generator.random((60, 3, 64, 64))
    members = generator.random(60) < 0.5
    images[members] += 0.05
    found = blind_auc(images, members, generator=generator)
    assert found.low is not None
    assert found.low > 0.7


def test_what_cannot_be_judged_is_refused() -> None:
    images, _ = digits(30)
    members = np.arange(30) < 15
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="folds is 1"):
        blind_auc(images, members, generator=generator, folds=1)
    with pytest.raises(ValueError, match="3 members"):
        blind_auc(images, np.arange(30) < 3, generator=generator)
    with pytest.raises(ValueError, match="images has shape"):
        blind_auc(images, members[:4], generator=generator)
    with pytest.raises(ValueError, match="not finite"):
        duplicates(np.where(np.isnan(images), 0, np.nan), members)
