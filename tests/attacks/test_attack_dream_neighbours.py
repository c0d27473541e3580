from __future__ import annotations

import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from attacks.reconstruction.dream_neighbours import (
    assess_dreams,
    mean_image,
    membership_signal,
    nearest_candidates,
    nearest_dreams,
)
from attacks.reconstruction.image_metrics import PixelBounds
from codream_secure.errors import DataError

BOUNDS = PixelBounds.normalised([0.5], [0.25])


def pixels(count: int, *, seed: int) -> torch.Tensor:
    return torch.rand((count, 1, 8, 8), generator=torch.Generator().manual_seed(seed))


def normalised(images: torch.Tensor) -> torch.Tensor:
    return BOUNDS.from_unit(images)


def test_distances_are_rms_over_pixels_both_ways() -> None:
    images, dreams = pixels(12, seed=0), pixels(7, seed=1)
    table = cdist(images.flatten(1).double().numpy(), dreams.flatten(1).double().numpy()) / 8
    there = nearest_dreams(normalised(images), normalised(dreams), bounds=BOUNDS)
    back = nearest_candidates(normalised(dreams), normalised(images), bounds=BOUNDS)
    torch.testing.assert_close(there, torch.from_numpy(table.min(1)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(back, torch.from_numpy(table.min(0)), rtol=1e-5, atol=1e-6)


def test_copies_are_found_and_strangers_are_not() -> None:
    images, noise = pixels(200, seed=2), torch.randn((100, 1, 8, 8), generator=torch.Generator().manual_seed(3))
    members = torch.arange(200) < 100
    copied = normalised(images[:100] + 0.05 * noise)
    unrelated = normalised(pixels(100, seed=4))
    assert roc_auc_score(members, membership_signal(normalised(images), copied, bounds=BOUNDS)) > 0.99
    # Under no signal the area's standard deviation is .041 here: outside 4 of them about once in 16,000 seeds.
    assert abs(roc_auc_score(members, membership_signal(normalised(images), unrelated, bounds=BOUNDS)) - 0.5) < 0.165


@pytest.mark.parametrize("dreams", [8, 30, 90])
def test_private_and_held_out_images_are_treated_alike(dreams: int) -> None:
    """Independent dreams come as near to the one as to the other, whatever the numbers; copies do not."""
    private, held_out = pixels(30, seed=5), pixels(40, seed=6)
    unrelated = assess_dreams(
        normalised(pixels(dreams, seed=7)), normalised(private), held_out=normalised(held_out), bounds=BOUNDS
    )
    assert unrelated.private.value == pytest.approx(unrelated.held_out.value, abs=0.5)
    copied = assess_dreams(normalised(private), normalised(private), held_out=normalised(held_out), bounds=BOUNDS)
    assert copied.private.value is not None
    assert copied.held_out.value is not None
    assert copied.private.value > copied.held_out.value + 20


def test_fewer_held_out_images_than_private_ones_are_refused() -> None:
    with pytest.raises(DataError, match="5 images for 6"):
        assess_dreams(pixels(6, seed=0), pixels(6, seed=1), held_out=pixels(5, seed=2), bounds=BOUNDS)


def test_mean_images_are_correlated() -> None:
    private, held_out = pixels(10, seed=8), pixels(10, seed=9)
    found = mean_image(3 * private + 1, private, held_out=held_out)
    assert found.private == pytest.approx(1)
    assert found.held_out is not None
    assert abs(found.held_out) < 0.5
    assert mean_image(private, torch.ones_like(private), held_out=held_out).private is None
