"""Local steps, unrolled: the simulation is the toolkit's own training, and it can be inverted."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from attacks.reconstruction import (
    COSINE_TV,
    LocalTraining,
    Observation,
    PixelBounds,
    assess,
    fedsgd_gradient,
    invert_update,
    local_update,
    match_gradients,
)
from codream_secure.data import load_source
from codream_secure.errors import DataError
from codream_secure.models import build_model
from codream_secure.training import Optimization, cross_entropy, fit

SOURCE = load_source("digits")
BOUNDS = PixelBounds.normalised(SOURCE.mean, SOURCE.std)
PIXELS = SOURCE.train.images.float() / (255 if SOURCE.train.images.dtype == torch.uint8 else 1)
LABELS = SOURCE.train.labels
PLAIN = Optimization(lr=0.05, momentum=0.0, weight_decay=0.0, max_grad_norm=None)


def _model(name: str = "lenet5") -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, channels=1, image_size=(8, 8), num_classes=10)


@pytest.mark.parametrize(
    "optimization",
    [
        PLAIN,
        Optimization(),  # momentum, weight decay and clipping, the toolkit's defaults
        replace(Optimization(), lr=0.3, max_grad_norm=0.5),
    ],
)
def test_the_simulated_update_is_that_of_the_toolkits_training(optimization: Optimization) -> None:
    images, labels = BOUNDS.from_unit(PIXELS[:6]), LABELS[:6]
    model = _model()
    trained = copy.deepcopy(model)
    fit(
        trained,
        (images, labels),
        cross_entropy,
        epochs=4,
        optimization=optimization,
        generator=torch.Generator().manual_seed(0),
    )
    expected = [before - after for before, after in zip(model.parameters(), trained.parameters(), strict=True)]
    training = LocalTraining(epochs=4, optimization=optimization)
    for create_graph in (False, True):
        found = local_update(model, images, labels, training=training, create_graph=create_graph)
        for part, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(part.detach(), wanted.detach(), atol=2e-6, rtol=1e-4)


def test_one_plain_step_is_the_gradient_times_the_rate() -> None:
    images, labels = BOUNDS.from_unit(PIXELS[:3]), LABELS[:3]
    found = local_update(_model(), images, labels, training=LocalTraining(epochs=1, optimization=PLAIN))
    for part, gradient in zip(found, fedsgd_gradient(_model(), images, labels).gradients, strict=True):
        torch.testing.assert_close(part, 0.05 * gradient, atol=1e-6, rtol=1e-4)


def test_the_update_can_be_differentiated_by_the_images() -> None:
    # Against differences, in double precision: the second of two steps depends on the images through the first.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    training = LocalTraining(epochs=3, optimization=replace(Optimization(), lr=0.5, max_grad_norm=0.3))
    images = torch.randn(2, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2])
    assert torch.autograd.gradcheck(
        lambda guess: local_update(model, guess, labels, training=training, create_graph=True), (images,)
    )


def test_a_digit_from_three_local_steps_where_a_single_gradient_is_assumed_in_vain() -> None:
    model = _model("small_cnn")
    training = LocalTraining(epochs=3, optimization=replace(PLAIN, lr=0.1))
    target = PIXELS[7:8]
    update = local_update(model, BOUNDS.from_unit(target), LABELS[7:8], training=training)
    settings = replace(COSINE_TV, steps=250)
    held_out = PIXELS[700:800]
    guess = invert_update(
        model,
        update,
        labels=LABELS[7:8],
        image_shape=(1, 8, 8),
        training=training,
        bounds=BOUNDS,
        generator=torch.Generator().manual_seed(0),
        settings=settings,
    )
    unrolled = assess(BOUNDS.to_unit(guess.images), target, held_out=held_out)
    naive_guess = match_gradients(
        model,
        Observation(update),
        labels=LABELS[7:8],
        image_shape=(1, 8, 8),
        bounds=BOUNDS,
        generator=torch.Generator().manual_seed(0),
        settings=settings,
    )
    naive = assess(BOUNDS.to_unit(naive_guess.images), target, held_out=held_out)
    assert unrolled.psnr.value is not None
    assert naive.psnr.value is not None
    assert unrolled.psnr.value > max(18, naive.psnr.value + 3)
    assert unrolled.rank.value == 1
    assert guess.loss < naive_guess.loss


def test_training_that_cannot_be_unrolled_is_refused() -> None:
    with pytest.raises(DataError, match="adam"):
        LocalTraining(epochs=1, optimization=Optimization(optimizer="adam"))
    with pytest.raises(DataError, match="epochs=0"):
        LocalTraining(epochs=0, optimization=PLAIN)
    with pytest.raises(DataError, match="update"):
        invert_update(
            _model(),
            [],
            labels=LABELS[:1],
            image_shape=(1, 8, 8),
            training=LocalTraining(epochs=1, optimization=PLAIN),
            bounds=BOUNDS,
            generator=torch.Generator(),
        )
