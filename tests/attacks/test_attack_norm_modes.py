"""The three treatments of batch normalisation: each is what a client computes, and each is attacked as such."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attacks.reconstruction import (
    COSINE_TV,
    NORM_MODES,
    NormMode,
    PixelBounds,
    assess,
    fedsgd_gradient,
    match_gradients,
)
from attacks.reconstruction.norm_modes import simulate, statistics_from_buffers
from codream_secure.data import load_source
from codream_secure.errors import DataError, ModelError
from codream_secure.models import build_model

SOURCE = load_source("digits")
BOUNDS = PixelBounds.normalised(SOURCE.mean, SOURCE.std)
PIXELS = SOURCE.train.images.float() / (255 if SOURCE.train.images.dtype == torch.uint8 else 1)
LABELS = SOURCE.train.labels


def _model() -> nn.Module:
    torch.manual_seed(0)
    model = build_model("small_cnn", channels=1, image_size=(8, 8), num_classes=10)
    with torch.no_grad():  # running averages unlike any batch's
        for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return model


@pytest.mark.parametrize("mode", NORM_MODES)
def test_gradients_are_those_of_plain_torch(mode: NormMode) -> None:
    model, images, labels = _model(), BOUNDS.from_unit(PIXELS[:5]), LABELS[:5]
    plain = copy.deepcopy(model).train(mode != "eval")
    F.cross_entropy(plain(images), labels).backward()
    before = copy.deepcopy(model.state_dict())
    model.train()
    sent = fedsgd_gradient(model, images, labels, mode=mode)
    for gradient, parameter in zip(sent.gradients, plain.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(gradient, parameter.grad)
    assert (sent.statistics is not None) == (mode == "train_sent")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_statistics_are_read_off_the_buffers_that_fedavg_sends() -> None:
    model, images, labels = _model(), BOUNDS.from_unit(PIXELS[:5]), LABELS[:5]
    client = copy.deepcopy(model).train()
    client(images)
    found = statistics_from_buffers(model, client.state_dict(), batch_size=5, image_shape=(1, 8, 8))
    sent = fedsgd_gradient(model, images, labels, mode="train_sent").statistics
    assert sent is not None
    assert len(found) == len(sent) == 3
    for (mean, variance), (true_mean, true_variance) in zip(found, sent, strict=True):
        torch.testing.assert_close(mean, true_mean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(variance, true_variance, atol=1e-5, rtol=1e-4)
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    norm.momentum = None
    with pytest.raises(ModelError, match="momentum None"):
        statistics_from_buffers(model, client.state_dict(), batch_size=5, image_shape=(1, 8, 8))


@pytest.mark.parametrize("mode", NORM_MODES)
def test_at_the_truth_the_attackers_loss_is_zero_in_every_mode(mode: NormMode) -> None:
    # The attacker has the statistics of its own guess, never the client's: at the true images they are the same.
    model, images, labels = _model(), BOUNDS.from_unit(PIXELS[:4]), LABELS[:4]
    sent = fedsgd_gradient(model, images, labels, mode=mode)
    found = simulate(model, images.clone().requires_grad_(), labels, mode=mode, create_graph=True)
    for gradient, wanted in zip(found.gradients, sent.gradients, strict=True):
        torch.testing.assert_close(gradient.detach(), wanted)


def test_sent_statistics_pull_the_guess_towards_them() -> None:
    model, images, labels = _model(), BOUNDS.from_unit(PIXELS[:4]), LABELS[:4]
    sent = fedsgd_gradient(model, images, labels, mode="train_sent")
    assert sent.statistics is not None
    distances = []
    for weight in (0.0, 1.0):
        guess = match_gradients(
            model,
            sent,
            labels=labels,
            image_shape=(1, 8, 8),
            bounds=BOUNDS,
            generator=torch.Generator().manual_seed(0),
            settings=replace(COSINE_TV, steps=60, statistics=weight),
        )
        found = simulate(model, guess.images, labels, mode="train_sent").statistics
        assert found is not None
        distances.append(float((found[0][0] - sent.statistics[0][0]).detach().norm()))
    assert distances[1] < 0.5 * distances[0]


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "least"), [("eval", 20.0), ("train_sent", 16.0), ("train_hidden", 10.0)])
def test_digits_in_each_mode(mode: NormMode, least: float) -> None:
    model, targets = _model(), PIXELS[20:22]
    sent = fedsgd_gradient(model, BOUNDS.from_unit(targets), LABELS[20:22], mode=mode)
    guess = match_gradients(
        model,
        sent,
        labels=LABELS[20:22].sort().values,
        image_shape=(1, 8, 8),
        bounds=BOUNDS,
        generator=torch.Generator().manual_seed(0),
        settings=replace(COSINE_TV, restarts=2, steps=1000),
    )
    result = assess(BOUNDS.to_unit(guess.images), targets, held_out=PIXELS[600:800])
    assert result.psnr.value is not None
    assert result.psnr.value > least


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(DataError, match="eval, train_sent, train_hidden"):
        fedsgd_gradient(_model(), PIXELS[:1], LABELS[:1], mode="test")  # type: ignore[arg-type]
