"""The yardstick computes the published formula, and this package's dream step the same gradient, only faster."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from codream_secure.bench.published import PublishedStep
from codream_secure.dreaming import Coefficients, DreamObjective, ServerOptimizer
from codream_secure.dreaming.features import moments
from codream_secure.models import build_model

# Larger weights than the defaults, so that every term shows in the gradient.
COEFFICIENTS = Coefficients(entropy=1.0, features=0.7, tv=0.5, l2=0.3)


def model_of(name: str, shape: tuple[int, int, int]) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(name, channels=shape[0], image_size=shape[1:], num_classes=10)
    with torch.no_grad():
        model(0.5 * noise(30, shape, seed=3) + 0.3)  # moves the batch norms' statistics off their initial values
    return model


def noise(count: int, shape: tuple[int, int, int], *, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 8)])
@pytest.mark.parametrize("name", ["small_cnn", "wrn_16_1", "resnet18"])
def test_ours_and_the_published_gradient_agree_in_float64(name: str, shape: tuple[int, int, int]) -> None:
    """In float64 no rounding is left to hide behind: the formulas are the same, and so are the dreams."""
    model = model_of(name, shape).double()
    published = PublishedStep(model, COEFFICIENTS)
    with DreamObjective(model, noise(4, shape), coefficients=COEFFICIENTS) as ours:
        dreamt = []
        for gradient in (published.gradient, ours.gradient):
            server = ServerOptimizer(noise(4, shape).double(), lr=0.05)
            first = gradient(server.dreams)
            for _ in range(3):
                server.step(gradient(server.dreams))
            dreamt.append((first, server.dreams))
    (expected, expected_dreams), (found, found_dreams) = dreamt
    assert relative_error(found, expected) < 1e-11
    torch.testing.assert_close(found_dreams, expected_dreams, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["small_cnn", "wrn_16_1"])
def test_ours_and_the_published_gradient_agree_in_float32(name: str) -> None:
    shape = (3, 16, 16)
    model = model_of(name, shape)
    expected = PublishedStep(model, COEFFICIENTS).gradient(noise(8, shape))
    with DreamObjective(model, noise(8, shape), coefficients=COEFFICIENTS) as ours:
        found = ours.gradient(noise(8, shape))
    assert torch.isfinite(expected).all()
    # A rectifier whose input is within rounding of zero may open in one and not in the other.
    assert relative_error(found, expected) < 1e-3


def test_without_batch_norm_the_published_step_has_no_feature_term() -> None:
    model, dreams = model_of("lenet5", (1, 8, 8)), noise(4, (1, 8, 8))
    with_features = PublishedStep(model, Coefficients(features=10.0)).gradient(dreams)
    without = PublishedStep(model, Coefficients(features=0.0)).gradient(dreams)
    assert torch.equal(with_features, without)


def test_the_published_step_leaves_weights_differentiable_and_fills_their_gradients() -> None:
    model = model_of("small_cnn", (1, 8, 8))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    published, dreams = PublishedStep(model), noise(4, (1, 8, 8))
    published.gradient(dreams)
    once = [parameter.grad for parameter in published.model.parameters() if parameter.grad is not None]
    assert once[0].abs().max() > 0
    published.gradient(dreams)
    for parameter, gradient in zip(published.model.parameters(), once, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)  # cleared at every step, not summed
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_published_step_has_no_adaptive_teaching() -> None:
    with pytest.raises(ValueError, match=r"coefficients\.jsd is 1\.0"):
        PublishedStep(model_of("small_cnn", (1, 8, 8)), Coefficients(jsd=1.0))


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (4, 3, 5, 2), (3, 1, 2, 2), (1, 4, 1, 1)])
def test_moments_have_the_gradient_of_finite_differences(shape: tuple[int, ...]) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(moments, features)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moments_of_bfloat16_features_are_accumulated_in_float32(layout: torch.memory_format) -> None:
    features = (noise(64, (4, 16, 16)) + 3).bfloat16().to(memory_format=layout)
    mean, variance = moments(features)
    assert mean.dtype == variance.dtype == torch.float32
    # One bfloat16 rounding would be off by up to 4e-3.
    torch.testing.assert_close(mean.double(), features.double().mean((0, 2, 3)), rtol=1e-5, atol=0)
    torch.testing.assert_close(variance.double(), features.double().var((0, 2, 3), correction=0), rtol=1e-4, atol=0)


class Viewing(nn.Module):
    """Flattens by ``view``, as many models do, which takes no channels-last maps."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.linear = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 36, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = F.relu(self.norm(self.convolution(images)))
        return self.linear(maps.view(len(maps), -1))


def test_models_that_cannot_take_channels_last_images_dream_all_the_same() -> None:
    torch.manual_seed(0)
    model, dreams = Viewing(), noise(4, (3, 8, 8))
    with pytest.raises(RuntimeError, match="view"):
        model(dreams.to(memory_format=torch.channels_last))
    expected = PublishedStep(model, COEFFICIENTS).gradient(dreams)
    with DreamObjective(model, dreams, coefficients=COEFFICIENTS) as ours:
        for _ in range(2):
            assert relative_error(ours.gradient(dreams), expected) < 1e-4


def test_the_gradient_comes_in_the_usual_layout() -> None:
    shape = (3, 8, 8)
    with DreamObjective(model_of("small_cnn", shape), noise(4, shape)) as ours:
        assert ours.gradient(noise(4, shape)).is_contiguous()
