"""Feature moments against numpy, on models with and without batch norm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from codream_secure.dreaming import FeatureTap, default_feature_layers, frozen
from codream_secure.dreaming.features import moments
from codream_secure.errors import ModelError
from codream_secure.models import build_model


def model_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, channels=1, image_size=(8, 8), num_classes=10)


def images(count: int = 20) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_moments_are_means_and_biased_variances_over_all_axes_but_the_channels() -> None:
    features = torch.randn(4, 3, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, variance = moments(features)
    np.testing.assert_allclose(mean, features.numpy().mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(variance, features.numpy().var(axis=(0, 2, 3), ddof=0), rtol=1e-12)


def test_batch_norm_models_match_the_running_statistics_of_every_batch_norm() -> None:
    model = model_of("small_cnn")
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for index, norm in enumerate(norms):
        norm.running_mean.fill_(index)
    tap = FeatureTap(model)
    assert tap.layers == norms
    for index, (mean, variance) in enumerate(tap.targets(images())):
        assert torch.equal(mean, torch.full_like(mean, index))
        assert torch.equal(variance, torch.ones_like(variance))


@pytest.mark.parametrize(("name", "kind"), [("small_cnn_gn", nn.GroupNorm), ("lenet5", (nn.Conv2d, nn.Linear))])
def test_models_without_batch_norm_are_measured_on_private_images(name: str, kind: type) -> None:
    model = model_of(name)
    tap = FeatureTap(model)
    assert tap.layers
    assert all(isinstance(layer, kind) for layer in tap.layers)
    with frozen(model):
        # Batches of unequal size must pool to the moments of all images at once.
        pooled = tap.targets(images(20), batch_size=7)
        with tap.reading():
            model(images(20))
            at_once = tap.take()
    for (mean, variance), (expected_mean, expected_variance) in zip(pooled, at_once, strict=True):
        torch.testing.assert_close(mean, expected_mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(variance, expected_variance, rtol=1e-4, atol=1e-5)


def test_the_image_itself_is_never_a_matched_layer_by_default() -> None:
    names = default_feature_layers(model_of("lenet5"))
    first = next(name for name, module in model_of("lenet5").named_modules() if isinstance(module, nn.Conv2d))
    assert first not in names


def test_chosen_layers_are_found_by_name_and_unknown_ones_refused() -> None:
    model = model_of("lenet5")
    name = default_feature_layers(model)[0]
    assert FeatureTap(model, [name]).layers == [dict(model.named_modules())[name]]
    with pytest.raises(ModelError, match="'nowhere' is not in the model"):
        FeatureTap(model, ["nowhere"])


def test_hooks_are_gone_afterwards() -> None:
    model = model_of("small_cnn")
    tap = FeatureTap(model)
    with pytest.raises(ValueError, match="interrupted"), tap.reading():
        raise ValueError("interrupted")
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_layer_that_does_not_run_is_an_error() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    model = Unused()
    tap = FeatureTap(model, ["used", "unused"])
    with tap.reading():
        model(torch.zeros(1, 4))
        with pytest.raises(ModelError, match="feature layers unused of Unused are not run"):
            tap.take()


@pytest.mark.parametrize("name", ["small_cnn", "small_cnn_gn", "lenet5", "mlp"])
def test_moments_per_position_are_those_of_each_pixel_of_each_channel(name: str) -> None:
    model = model_of(name)
    tap = FeatureTap(model, per="position")
    inputs: list[np.ndarray] = []
    handles = [layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].numpy())) for layer in tap.layers]
    with frozen(model), torch.no_grad():
        model(images(20))
        for handle in handles:
            handle.remove()
        found = tap.targets(images(20), batch_size=7)
    for (mean, variance), features in zip(found, inputs, strict=True):
        flat = features.reshape(len(features), -1).astype(np.float64)
        np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(variance, flat.var(axis=0), rtol=1e-4, atol=1e-5)


def test_a_model_with_nothing_to_match_says_so() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ModelError, match="no layer whose input could be matched"):
        FeatureTap(model)
