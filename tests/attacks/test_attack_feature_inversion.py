"""From dreaming gradients to moments per position, the mean image, and a tiny client's images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attacks.reconstruction.batchnorm_statistics import DreamStep
from attacks.reconstruction.dream_gradient import DreamGradient
from attacks.reconstruction.feature_inversion import invert_moments, starts_from_public
from attacks.reconstruction.image_metrics import PixelBounds, match, psnr
from attacks.reconstruction.position_moments import RecoveredMoments, recover_position_moments
from codream_secure import training
from codream_secure.data import load_source
from codream_secure.dreaming.objective import Coefficients, DreamObjective
from codream_secure.models import build_model
from codream_secure.models.small import SmallCNN

COEFFICIENTS = Coefficients()
DIGITS = load_source("digits")
BOUNDS = PixelBounds.normalised(DIGITS.mean, DIGITS.std)
OTHERS = DIGITS.test.normalised(DIGITS.mean, DIGITS.std)
PUBLIC, HELD_OUT = OTHERS[:150], OTHERS[150:350]


def client(seed: int, count: int) -> tuple[nn.Module, torch.Tensor]:
    images = DIGITS.train.normalised(DIGITS.mean, DIGITS.std)
    torch.manual_seed(seed)
    model = SmallCNN(channels=1, image_size=(8, 8), num_classes=10, widths=(6, 8, 8))
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(images), generator=generator)[:count]
    own = images[rows], DIGITS.train.labels[rows]
    settings = training.Optimization(batch_size=64, lr=0.05)
    training.fit(model, own, training.cross_entropy, epochs=10, optimization=settings, generator=generator)
    training.recalibrate(model, own[0])
    return model.eval(), own[0]


def watch(model: nn.Module, images: torch.Tensor, *, steps: tuple[int, ...] = (0, 10, 20, 29)) -> list[DreamStep]:
    dreams = torch.randn((16, 1, 8, 8), generator=torch.Generator().manual_seed(5))
    optimizer = torch.optim.Adam([dreams], lr=0.05)
    seen = []
    with DreamObjective(model, images, coefficients=COEFFICIENTS, moments="position") as objective:
        for step in range(max(steps) + 1):
            dreams.grad = objective.gradient(dreams)
            if step in steps:
                seen.append(DreamStep(dreams=dreams.clone(), gradient=dreams.grad.clone()))
            optimizer.step()
    return seen


def recover(model: nn.Module, seen: list[DreamStep], *, single: bool = False, restarts: int = 8) -> RecoveredMoments:
    return recover_position_moments(
        model, seen, public=PUBLIC, coefficients=COEFFICIENTS, single=single, restarts=restarts
    )


def decibels(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    guesses, truth = BOUNDS.to_unit(images).clamp(0, 1), BOUNDS.to_unit(targets)
    return psnr(guesses[match(guesses, truth)], truth)


def test_one_private_image_lies_open_in_its_gradients() -> None:
    model, image = client(2, 1)
    found = recover(model, watch(model, image), single=True)
    assert found.residual < 1e-4
    assert found.mean_image is not None
    assert decibels(found.mean_image[None], image) > 60
    assert decibels(HELD_OUT, image) < 25  # the best of 200 images of the kind


def test_the_residual_refutes_a_wrong_number_of_images() -> None:
    model, images = client(2, 8)
    assert recover(model, watch(model, images), single=True, restarts=1).residual > 0.1


def test_the_mean_image_of_fifty_is_recovered() -> None:
    model, images = client(1, 50)
    found = recover(model, watch(model, images, steps=(0, 15, 29)))
    assert found.mean_image is not None
    mean = images.mean(0, keepdim=True)
    assert decibels(found.mean_image[None], mean) > 60
    assert decibels(PUBLIC.mean(0, keepdim=True), mean) < 35
    true = DreamGradient(model, COEFFICIENTS, moments="position").measure(images.double())
    for (mean_found, variance_found), (mean_true, variance_true) in zip(found.moments, true, strict=True):
        assert (mean_found - mean_true).norm() < 1e-2 * mean_true.norm()
        assert (variance_found - variance_true).norm() < 1e-2 * variance_true.norm()


@pytest.mark.slow
def test_two_private_images_follow_from_recovered_moments() -> None:
    model, images = client(1, 2)
    moments = recover(model, watch(model, images)).moments
    starts = starts_from_public(PUBLIC, 2, restarts=8, generator=torch.Generator().manual_seed(0))
    found = invert_moments(model, moments, starts=starts, bounds=BOUNDS)
    assert decibels(found.images, images).min() > 40
    assert decibels(HELD_OUT, images).max() < 25


def test_images_follow_from_true_moments() -> None:
    """The inversion alone, without the errors of the recovery; starts know nothing of the images."""
    model, images = client(1, 2)
    moments = DreamGradient(model, COEFFICIENTS, moments="position").measure(images.double())
    starts = starts_from_public(PUBLIC, 2, restarts=4, generator=torch.Generator().manual_seed(0))
    found = invert_moments(model, moments, starts=starts, bounds=BOUNDS, steps=200)
    assert decibels(found.images, images).mean() > decibels(HELD_OUT, images).mean() + 6


def test_starts_do_not_repeat_an_image() -> None:
    starts = starts_from_public(PUBLIC, 4, restarts=3, generator=torch.Generator().manual_seed(0))
    assert starts.shape == (3, 4, 1, 8, 8)
    assert all(len(start.flatten(1).unique(dim=0)) == 4 for start in starts)


def test_a_model_without_batch_norm_has_moments_but_no_linear_view_of_the_mean_image() -> None:
    torch.manual_seed(0)
    model = build_model("mlp", channels=1, image_size=(8, 8), num_classes=10).eval()
    images = client(0, 8)[1]
    found = recover_position_moments(model, watch(model, images), public=PUBLIC, coefficients=COEFFICIENTS)
    assert found.mean_image is None
    assert found.residual < 0.1


def test_too_little_is_refused() -> None:
    model, images = client(0, 4)
    seen = watch(model, images, steps=(0,))
    with pytest.raises(ValueError, match="observations has 1 steps"):
        recover(model, seen)
    with pytest.raises(ValueError, match="coefficients.features is 0"):
        recover_position_moments(model, seen * 2, public=PUBLIC, coefficients=Coefficients(features=0.0))
