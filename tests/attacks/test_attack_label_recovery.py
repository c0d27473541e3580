"""Labels read off the last bias: always right for one image, close for a batch of an untrained model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attacks.reconstruction import (
    PixelBounds,
    fedsgd_gradient,
    label_counts,
    labels_from_counts,
    mean_predictions,
    single_label,
)
from attacks.reconstruction.label_recovery import last_layer_gradient
from codream_secure.data import load_source
from codream_secure.errors import DataError, ModelError
from codream_secure.models import build_model
from codream_secure.training import Optimization, cross_entropy, fit

SOURCE = load_source("digits")
BOUNDS = PixelBounds.normalised(SOURCE.mean, SOURCE.std)
PIXELS = SOURCE.train.images.float() / (255 if SOURCE.train.images.dtype == torch.uint8 else 1)
IMAGES, LABELS = BOUNDS.from_unit(PIXELS), SOURCE.train.labels
PUBLIC, PRIVATE = slice(0, 500), slice(500, None)


def _model(name: str = "small_cnn") -> nn.Module:
    torch.manual_seed(2)
    return build_model(name, channels=1, image_size=(8, 8), num_classes=10)


def _counts_right(model: nn.Module, predictions: torch.Tensor, *, batches: int, size: int) -> float:
    """Share of labels recovered, as the overlap of true and found counts."""
    right = 0
    for batch in torch.arange(500, 500 + batches * size).split(size):
        _, bias = last_layer_gradient(model, fedsgd_gradient(model, IMAGES[batch], LABELS[batch]).gradients)
        found = label_counts(bias, batch_size=size, predictions=predictions)
        right += int(torch.minimum(found, LABELS[batch].bincount(minlength=10)).sum())
    return right / (batches * size)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "small_cnn"])
def test_one_label_is_always_found(name: str) -> None:
    model = _model(name)
    for index in range(20):
        sent = fedsgd_gradient(model, IMAGES[index : index + 1], LABELS[index : index + 1])
        assert single_label(last_layer_gradient(model, sent.gradients)[1]) == int(LABELS[index])


def test_batches_of_an_untrained_model() -> None:
    model = _model()
    even = torch.full((10, 10), 0.1)
    public = mean_predictions(model, IMAGES[PUBLIC], LABELS[PUBLIC], num_classes=10)
    # Two random batches of 16 have about .63 of their labels in common.
    assert _counts_right(model, even, batches=20, size=16) > 0.8
    assert _counts_right(model, public, batches=20, size=16) > 0.9


def test_public_images_help_once_the_model_is_half_trained() -> None:
    model = _model()
    optimization = Optimization(lr=0.01, batch_size=64)
    generator = torch.Generator().manual_seed(0)
    fit(
        model,
        (IMAGES[PRIVATE], LABELS[PRIVATE]),
        cross_entropy,
        epochs=1,
        optimization=optimization,
        generator=generator,
    )
    even = torch.full((10, 10), 0.1)
    public = mean_predictions(model, IMAGES[PUBLIC], LABELS[PUBLIC], num_classes=10)
    with_public = _counts_right(model, public, batches=20, size=16)
    without = _counts_right(model, even, batches=20, size=16)
    assert with_public > 0.98
    assert without < with_public


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_counts_are_exact_where_predictions_depend_on_the_class_alone(classes: list[int]) -> None:
    generator = torch.Generator().manual_seed(4)
    predictions = torch.softmax(torch.randn(5, 5, generator=generator, dtype=torch.float64), dim=1)
    truth = torch.tensor(classes).bincount(minlength=5)
    share = truth.double() / len(classes)
    bias_gradient = predictions.T @ share - share
    assert torch.equal(label_counts(bias_gradient, batch_size=len(classes), predictions=predictions), truth)
    assert labels_from_counts(truth).tolist() == sorted(classes)


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(ModelError, match="bias"):
        last_layer_gradient(nn.Linear(3, 2, bias=False), [torch.zeros(2, 3)])
    with pytest.raises(DataError, match="batch_size=0"):
        label_counts(torch.zeros(3), batch_size=0, predictions=torch.eye(3))
    with pytest.raises(DataError, match="images is empty"):
        mean_predictions(_model(), IMAGES[:0], LABELS[:0], num_classes=10)
