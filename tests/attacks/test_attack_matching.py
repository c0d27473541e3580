"""Gradient matching: digits come back, noise and other images do not, and nothing true reaches the attacker."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from attacks.reconstruction import (
    COSINE_TV,
    DEEP_LEAKAGE,
    Guess,
    Matching,
    Observation,
    PixelBounds,
    assess,
    choose_settings,
    fedsgd_gradient,
    invert_gradient,
    match_gradients,
    mean_predictions,
)
from attacks.reconstruction.matching import search, total_variation
from codream_secure.data import load_source
from codream_secure.errors import DataError
from codream_secure.models import build_model

SOURCE = load_source("digits")
BOUNDS = PixelBounds.normalised(SOURCE.mean, SOURCE.std)
PIXELS = SOURCE.train.images.float() / (255 if SOURCE.train.images.dtype == torch.uint8 else 1)
LABELS = SOURCE.train.labels
SHAPE = (1, 8, 8)
QUICK = replace(COSINE_TV, steps=300)


def _model(name: str = "small_cnn") -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, channels=1, image_size=(8, 8), num_classes=10)


def _smooth() -> nn.Sequential:
    """Convolutions with sigmoids and wide weights, the network of Zhu et al. 2019."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 12, 5, padding=2, stride=2),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, padding=2),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(12 * 4 * 4, 10),
    )
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return model


def _sent(model: nn.Module, start: int, count: int = 1) -> Observation:
    return fedsgd_gradient(model, BOUNDS.from_unit(PIXELS[start : start + count]), LABELS[start : start + count])


def _decibels(guess: Guess, start: int, count: int = 1) -> tuple[float, float, float]:
    """Median PSNR, median rank among 100 draws of held-out images, and the held-out images' own PSNR."""
    targets = PIXELS[start : start + count]
    result = assess(BOUNDS.to_unit(guess.images), targets, held_out=PIXELS[700 : 700 + 100 * count])
    assert result.psnr.value is not None
    assert result.rank.value is not None
    assert result.held_out.value is not None
    return result.psnr.value, result.rank.value, result.held_out.value


def test_one_digit_from_its_gradient_alone() -> None:
    guess = invert_gradient(
        _model(),
        _sent(_model(), 3),
        batch_size=1,
        image_shape=SHAPE,
        bounds=BOUNDS,
        generator=torch.Generator().manual_seed(0),
        settings=QUICK,
    )
    decibels, rank, held_out = _decibels(guess, 3)
    assert guess.labels.tolist() == [int(LABELS[3])]
    assert decibels > 20
    assert decibels > held_out + 3
    assert rank == 1


def test_a_small_batch_with_labels_of_its_own_finding() -> None:
    model = _model()
    predictions = mean_predictions(model, BOUNDS.from_unit(PIXELS[400:700]), LABELS[400:700], num_classes=10)
    guess = invert_gradient(
        model,
        _sent(model, 10, 3),
        batch_size=3,
        image_shape=SHAPE,
        bounds=BOUNDS,
        generator=torch.Generator().manual_seed(0),
        predictions=predictions,
        settings=QUICK,
    )
    decibels, rank, _ = _decibels(guess, 10, 3)
    assert decibels > 15
    assert rank == 1


def test_another_images_gradient_gives_that_image_and_not_the_target() -> None:
    guess = match_gradients(
        _model(),
        _sent(_model(), 30),
        labels=LABELS[30:31],
        image_shape=SHAPE,
        bounds=BOUNDS,
        generator=torch.Generator().manual_seed(0),
        settings=QUICK,
    )
    assert _decibels(guess, 30)[0] > _decibels(guess, 3)[0] + 5
    assert _decibels(guess, 3)[1] > 1


def test_deep_leakage_from_smooth_activations() -> None:
    guess = match_gradients(
        _smooth(),
        _sent(_smooth(), 4),
        labels=LABELS[4:5],
        image_shape=SHAPE,
        bounds=BOUNDS,
        generator=torch.Generator().manual_seed(1),
        settings=replace(DEEP_LEAKAGE, steps=20, restarts=2),
    )
    assert len(guess.losses) == 2
    assert guess.loss == min(guess.losses)
    assert _decibels(guess, 4)[0] > 40


def test_noise_on_the_gradient_costs_decibels() -> None:
    model = _model()
    sent = _sent(model, 3)
    reached = []
    for sigma in (0.0, 0.1, 1.0):
        generator = torch.Generator().manual_seed(7)
        noisy = tuple(part + sigma * torch.randn(part.shape, generator=generator) for part in sent.gradients)
        guess = match_gradients(
            model,
            Observation(noisy),
            labels=LABELS[3:4],
            image_shape=SHAPE,
            bounds=BOUNDS,
            generator=torch.Generator().manual_seed(0),
            settings=replace(QUICK, steps=150),
        )
        reached.append(_decibels(guess, 3)[0])
    assert reached[0] > reached[1] > reached[2]
    assert reached[2] < 15


def test_the_restart_is_chosen_by_the_attackers_own_loss() -> None:
    # The simulated "gradient" is the image itself; the observed one is all ones, so that loss has nothing to do with
    # any target, and the kept try must be the one with the least of the reported losses.
    least: dict[int, float] = {}

    def watch(attempt: int, step: int, loss: float) -> None:
        assert 1 <= step <= 5
        least[attempt] = min(least.get(attempt, math.inf), loss)

    settings = Matching(steps=5, lr=0.01, restarts=4)
    unit = PixelBounds(low=torch.zeros(1, 1, 1), high=torch.ones(1, 1, 1))
    wanted = Observation((torch.ones(1, 1, 4, 4),))
    images, losses = search(
        lambda guess: Observation((guess,)),
        wanted,
        shape=(1, 1, 4, 4),
        bounds=unit,
        generator=torch.Generator().manual_seed(0),
        settings=settings,
        after_step=watch,
    )
    assert list(losses) == pytest.approx([least[attempt] for attempt in range(4)])
    ones = torch.ones(16)
    own = 1 - torch.cosine_similarity(images.flatten(), ones, dim=0) + settings.tv * total_variation(images)
    assert float(own) == pytest.approx(min(losses), abs=1e-6)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1


def test_guesses_are_reproducible_and_leave_the_model_alone() -> None:
    model = _model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sent = _sent(model, 2)
    guesses = [
        match_gradients(
            model,
            sent,
            labels=LABELS[2:3],
            image_shape=SHAPE,
            bounds=BOUNDS,
            generator=torch.Generator().manual_seed(3),
            settings=replace(QUICK, steps=5),
        )
        for _ in range(2)
    ]
    assert torch.equal(guesses[0].images, guesses[1].images)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_settings_are_chosen_on_public_images() -> None:
    blurring, sound = replace(QUICK, steps=60, tv=100.0), replace(QUICK, steps=60)
    chosen = choose_settings(
        _model(),
        BOUNDS.from_unit(PIXELS[500:502]),
        LABELS[500:502],
        candidates=[blurring, sound],
        bounds=BOUNDS,
        generator=torch.Generator().manual_seed(0),
    )
    assert chosen is sound


def test_what_cannot_be_matched_is_refused() -> None:
    sent = _sent(_model(), 0)
    with pytest.raises(DataError, match="one per parameter"):
        match_gradients(
            _model(),
            replace(sent, gradients=sent.gradients[:-1]),
            labels=LABELS[:1],
            image_shape=SHAPE,
            bounds=BOUNDS,
            generator=torch.Generator(),
        )
    with pytest.raises(DataError, match="restarts=0"):
        Matching(restarts=0)
    with pytest.raises(DataError, match="tv=-1"):
        Matching(tv=-1)
    with pytest.raises(DataError, match="0 candidates"):
        choose_settings(_model(), PIXELS[:1], LABELS[:1], candidates=[], bounds=BOUNDS, generator=torch.Generator())


@pytest.mark.slow
@pytest.mark.parametrize(("index", "least"), [(0, 20.0), (1, 20.0), (2, 16.0)])
def test_lenet_on_mnist(index: int, least: float) -> None:
    root = os.environ.get("CODREAM_DATA_ROOT", "")
    if not (Path(root) / "MNIST").is_dir():
        pytest.skip("set CODREAM_DATA_ROOT to a folder with MNIST")
    mnist = load_source("mnist", root=root)
    bounds = PixelBounds.normalised(mnist.mean, mnist.std)
    targets = mnist.train.images[index : index + 1].float() / 255
    torch.manual_seed(0)
    model = build_model("lenet5", channels=1, image_size=(28, 28), num_classes=10)
    sent = fedsgd_gradient(model, bounds.from_unit(targets), mnist.train.labels[index : index + 1])
    guess = invert_gradient(
        model,
        sent,
        batch_size=1,
        image_shape=(1, 28, 28),
        bounds=bounds,
        generator=torch.Generator().manual_seed(1),
    )
    result = assess(bounds.to_unit(guess.images), targets, held_out=mnist.test.images[:100].float() / 255)
    assert result.psnr.value is not None
    assert result.psnr.value > least
    assert result.rank.value == 1
