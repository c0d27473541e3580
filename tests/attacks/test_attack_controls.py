"""PSNR, matching, feature distances, and controls that noise does not pass."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch

from attacks.reconstruction import (
    FeatureDistance,
    PixelBounds,
    assess,
    derivative_distance,
    match,
    network_distance,
    psnr,
)
from attacks.reconstruction.controls import median, target_ranks
from attacks.reconstruction.image_metrics import squared_errors
from codream_secure.compat import ensure_torchvision_operators
from codream_secure.data import load_source
from codream_secure.errors import DataError
from codream_secure.models import build_model

PIXELS = load_source("digits").train.images
PIXELS = PIXELS.float() / 255 if PIXELS.dtype == torch.uint8 else PIXELS


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_agrees_with_torchmetrics() -> None:
    ensure_torchvision_operators()
    from torchmetrics.image import PeakSignalNoiseRatio

    first, second = _noise(5, 3, 8, 9), _noise(5, 3, 8, 9, seed=1)
    found = psnr(first * 4, second * 4, data_range=4.0)
    for index in range(5):
        expected = PeakSignalNoiseRatio(data_range=4.0)(first[index] * 4, second[index] * 4)
        assert float(found[index]) == pytest.approx(float(expected), abs=1e-3)
    assert float(psnr(first, first)[0]) == math.inf
    with pytest.raises(DataError, match="differ"):
        psnr(first, second[:4])


def test_matching_agrees_with_trying_every_order() -> None:
    candidates, targets = _noise(6, 1, 3, 3), _noise(4, 1, 3, 3, seed=1)
    errors = squared_errors(targets, candidates)
    least = min(
        sum(float(errors[row, column]) for row, column in enumerate(order)) for order in permutations(range(6), 4)
    )
    order = match(candidates, targets)
    assert float(errors[torch.arange(4), order].sum()) == pytest.approx(least)
    shuffled = torch.tensor([2, 0, 3, 1])
    assert torch.equal(targets[shuffled][match(targets[shuffled], targets)], targets)
    with pytest.raises(DataError, match="one to one"):
        match(candidates[:3], targets)


def test_pixel_bounds_are_the_normalised_ends_of_the_range() -> None:
    bounds = PixelBounds.normalised((0.4, 0.5, 0.6), (0.2, 0.25, 0.5))
    pixels = _noise(2, 3, 4, 4)
    normalised = (pixels - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, 0.25, 0.5])[:, None, None]
    torch.testing.assert_close(bounds.from_unit(pixels), normalised)
    torch.testing.assert_close(bounds.to_unit(normalised), pixels)
    with pytest.raises(DataError, match="below"):
        PixelBounds(low=torch.ones(1, 1, 1), high=torch.ones(1, 1, 1))
    with pytest.raises(DataError, match="shape"):
        PixelBounds(low=torch.zeros(1), high=torch.ones(1))


@pytest.mark.parametrize("batch_size", [1, 8])
def test_reconstructions_that_know_nothing_are_ranked_at_chance(batch_size: int) -> None:
    # Digits for other digits: 96 answers, each first with probability 1/11. Bin(96, 1/11) exceeds 19 or falls below 1
    # with probability 1e-3; within a batch of 8 the ranks are dependent, which is left out of the account.
    order = torch.randperm(len(PIXELS), generator=torch.Generator().manual_seed(5))
    guesses, targets, held_out = PIXELS[order[:96]], PIXELS[order[96:192]], PIXELS[order[192 : 192 + 10 * batch_size]]
    result = assess(guesses, targets, held_out=held_out, batch_size=batch_size)
    assert result.chance == pytest.approx(1 / 11)
    assert result.first.value is not None
    assert 1 / 96 <= result.first.value <= 19 / 96
    assert result.rank.value is not None
    assert 4 <= result.rank.value <= 8


def test_being_matched_to_the_best_target_alone_would_look_like_success() -> None:
    # The flaw that the batch-wise control avoids: noise-like guesses, matched to targets, against single images.
    order = torch.randperm(len(PIXELS), generator=torch.Generator().manual_seed(6))
    guesses, targets, held_out = PIXELS[order[:64]], PIXELS[order[64:128]], PIXELS[order[128:192]]
    matched = guesses[match(guesses, targets)]
    naive = torch.stack(
        [
            target_ranks(guess[None], target[None], held_out=other[None])[0]
            for guess, target, other in zip(matched, targets, held_out, strict=True)
        ]
    )
    fair = target_ranks(matched, targets, held_out=held_out)
    assert (naive == 1).double().mean() > 0.8
    assert 0.25 < (fair == 1).double().mean() < 0.75


def test_perfect_reconstructions_in_another_order() -> None:
    targets = PIXELS[:16]
    result = assess(targets.flip(0), targets, held_out=PIXELS[100:400])
    assert result.psnr.value == math.inf
    assert result.first.value == 1.0
    assert result.above_30.value == 1.0
    assert result.rank.value == 1
    assert result.held_out.value is not None
    assert 10 < result.held_out.value < 25
    assert result.grey.value is not None
    assert 7 < result.grey.value < 13


def test_ties_and_broken_images_count_against_the_attack() -> None:
    target = PIXELS[:1]
    assert assess(target, target, held_out=target.repeat(3, 1, 1, 1)).rank.value == 4
    nothing = torch.full_like(target, math.nan)
    assert assess(nothing, target, held_out=PIXELS[1:5]).psnr.value is not None
    with pytest.raises(DataError, match="must divide"):
        assess(PIXELS[:3], PIXELS[:3], held_out=PIXELS[3:9], batch_size=2)
    with pytest.raises(DataError, match="held_out has 2"):
        assess(PIXELS[:3], PIXELS[:3], held_out=PIXELS[3:5])


def test_the_medians_interval_covers_as_often_as_it_says() -> None:
    # 1,000 samples of 15 uniform values. True coverage is 96.5 %; Bin(1000, .95) falls below 927 with probability 1e-3.
    samples = _noise(1000, 15, seed=3)
    covered = 0
    for sample in samples:
        found = median(sample)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.5 <= found.high
    assert 927 <= covered < 1000
    few = median(torch.tensor([1.0, 4.0]))
    assert (few.value, few.low) == (2.5, None)
    assert "too few" in few.note


def _distances() -> list[FeatureDistance]:
    torch.manual_seed(0)
    model = build_model("small_cnn", channels=1, image_size=(8, 8), num_classes=10)
    return [derivative_distance(), network_distance(model, "small_cnn, untrained")]


@pytest.mark.parametrize("distance", _distances(), ids=lambda distance: distance.name)
def test_feature_distances_grow_with_the_noise(distance: FeatureDistance) -> None:
    images = PIXELS[:20]
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    means = [float(distance(images, images + scale * noise).mean()) for scale in (0.0, 0.02, 0.1, 0.4)]
    assert means[0] == pytest.approx(0.0, abs=1e-6)
    assert means == sorted(means)
    assert means[3] > 5 * means[1]
    assert distance.name


def test_slopes_see_shape_where_pixels_see_brightness() -> None:
    # A brighter copy is farther in pixels than a blurred one; in slopes it is the nearer of the two.
    images = PIXELS[:20] * 0.6
    brighter, blurred = images + 0.3, torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    assert psnr(brighter, images).mean() < psnr(blurred, images).mean()
    distance = derivative_distance()
    assert distance(brighter, images).mean() < distance(blurred, images).mean()
