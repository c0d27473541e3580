"""Closed-form inversion of linear layers: exact on images, features and no more behind convolutions."""

from __future__ import annotations

import pytest
import torch

from attacks.reconstruction import PixelBounds, assess, fedsgd_gradient, invert_first_linear, invert_gradient
from attacks.reconstruction.analytic import first_linear, linear_input
from codream_secure.data import load_source
from codream_secure.errors import DataError, ModelError
from codream_secure.models import build_model

SOURCE = load_source("digits")
BOUNDS = PixelBounds.normalised(SOURCE.mean, SOURCE.std)
SHAPE = (1, 8, 8)


def _pixels(start: int, count: int) -> torch.Tensor:
    images = SOURCE.train.images[start : start + count]
    return images.float() / 255 if images.dtype == torch.uint8 else images


def _model(name: str) -> torch.nn.Module:
    torch.manual_seed(3)
    return build_model(name, channels=1, image_size=(8, 8), num_classes=10)


def test_a_digit_comes_out_of_a_perceptrons_gradient_above_100_db() -> None:
    model = _model("mlp")
    for index in range(10):
        pixels, label = _pixels(index, 1), SOURCE.train.labels[index : index + 1]
        sent = fedsgd_gradient(model, BOUNDS.from_unit(pixels), label)
        guess = invert_gradient(
            model, sent, batch_size=1, image_shape=SHAPE, bounds=BOUNDS, generator=torch.Generator()
        )
        assert guess.method == "closed form"
        assert guess.labels.tolist() == label.tolist()
        result = assess(BOUNDS.to_unit(guess.images), pixels, held_out=_pixels(200, 100))
        assert result.psnr.value is not None
        assert result.psnr.value > 100
        assert result.rank.value == 1
        assert result.held_out.value is not None
        assert result.held_out.value < 30


def test_the_update_of_one_sgd_step_serves_as_well_as_the_gradient() -> None:
    model = _model("mlp")
    image = BOUNDS.from_unit(_pixels(5, 1))
    gradients = fedsgd_gradient(model, image, SOURCE.train.labels[5:6]).gradients
    found = invert_first_linear(model, [-0.05 * gradient for gradient in gradients], image_shape=SHAPE)
    assert found is not None
    torch.testing.assert_close(found, image)


def test_a_batch_gives_a_weighted_mean_and_no_image() -> None:
    model = _model("mlp")
    pixels = _pixels(0, 4)
    sent = fedsgd_gradient(model, BOUNDS.from_unit(pixels), SOURCE.train.labels[:4])
    found = invert_first_linear(model, sent.gradients, image_shape=SHAPE)
    assert found is not None
    errors = (BOUNDS.to_unit(found) - pixels).square().mean(dim=(1, 2, 3))
    assert errors.min() > 1e-3  # below 30 dB for each of the four


def test_behind_convolutions_only_features_come_out() -> None:
    model = _model("lenet5")
    image, label = BOUNDS.from_unit(_pixels(0, 1)), SOURCE.train.labels[:1]
    gradients = fedsgd_gradient(model, image, label).gradients
    with pytest.raises(ModelError, match="features"):
        invert_first_linear(model, gradients, image_shape=SHAPE)
    weight, bias, sees_image = first_linear(model)
    assert not sees_image
    features = linear_input(gradients[weight], gradients[bias])
    assert features is not None
    with torch.no_grad():
        expected = model.features(image).flatten()  # type: ignore[operator]
    torch.testing.assert_close(features.float(), expected, atol=1e-5, rtol=1e-4)


def test_silent_units_give_nothing() -> None:
    assert linear_input(torch.zeros(3, 5), torch.zeros(3)) is None
    with pytest.raises(DataError, match="bias_gradient"):
        linear_input(torch.zeros(3, 5), torch.zeros(5))
