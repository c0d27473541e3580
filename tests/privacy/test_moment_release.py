"""Noised moments: near the true ones with little noise, never beyond their bound, and of the form dreaming needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2
from torch import nn

from codream_secure.dreaming.features import FeatureTap
from codream_secure.dreaming.losses import moment_distance
from codream_secure.errors import DataError, ModelError, PrivacyError
from codream_secure.models import build_model
from codream_secure.privacy import GaussianRelease, moment_release
from codream_secure.privacy.moment_release import moment_event, release_moments, shortened
from codream_secure.privacy.secure_normal import UNITS


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_model("small_cnn_gn", channels=1, image_size=(8, 8), num_classes=3)


def images(count: int = 300) -> torch.Tensor:
    return 0.5 + 0.7 * torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def nothing(_: object) -> None:
    pass


def test_with_hardly_any_noise_they_are_the_moments_that_dreaming_would_measure(model: nn.Module) -> None:
    found = release_moments(model, images(), noise_multiplier=2.0**-10, record=nothing, bound=50.0)
    with torch.no_grad():
        wanted = FeatureTap(model.eval())._measure(images(), 512)
    for (mean, variance), (true_mean, true_variance) in zip(found, wanted, strict=True):
        assert mean.dtype == variance.dtype == torch.float32
        assert torch.allclose(mean, true_mean, atol=0.02)
        assert torch.allclose(variance, true_variance, atol=0.05)


def test_more_noise_is_further_away_and_variances_stay_positive(model: nn.Module) -> None:
    wanted = FeatureTap(model.eval())._measure(images(), 512)
    distances = []
    for multiplier in (0.01, 3.0, 3000.0):
        found = [release_moments(model, images(), noise_multiplier=multiplier, record=nothing) for _ in range(5)]
        assert all(bool((variance > 0).all()) for moments in found for _, variance in moments)
        distances.append(sum(float(moment_distance(moments, wanted)) for moments in found))
    assert distances[0] < distances[1] < distances[2]


@given(
    st.lists(st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1e-300, 1e150]), min_size=1, max_size=8),
    st.sampled_from([0.1, 0.5, 3.0]),
)
def test_no_vector_is_longer_than_its_bound_in_exact_integers(values: list[float], bound: float) -> None:
    units = [int(value) for value in shortened(torch.tensor([values], dtype=torch.float64), bound)[0]]
    assert sum(value * value for value in units) <= UNITS**2
    for value, unit in zip(values, units, strict=True):
        assert abs(unit) * bound <= abs(value) * UNITS  # toward zero


def test_a_vector_that_is_not_finite_counts_as_none() -> None:
    vectors = torch.tensor([[float("nan"), 1.0], [float("inf"), 0.0]], dtype=torch.float64)
    assert not shortened(vectors, 1.0).any()


def test_one_image_moves_the_noiseless_sum_by_no_more_than_the_bound(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen at the very place where noise is added: the sum over images with and without one outlier."""
    sums: list[torch.Tensor] = []

    def spy(self: Any, mean: torch.Tensor, *, noise: float) -> list[Any]:
        sums.append(mean)
        return []

    monkeypatch.setattr(moment_release, "grid_noise", lambda count, *_: np.zeros(count))
    monkeypatch.setattr(moment_release._Frame, "moments", spy)
    outlier = torch.cat([images(9), 1e4 * images(1)])
    for chosen in (outlier, outlier[:9]):
        release_moments(model, chosen, noise_multiplier=1.0, record=nothing)
    moved = float((10 * sums[0] - 9 * sums[1]).norm())
    assert 0.99 * moment_release.BOUND < moved <= moment_release.BOUND * (1 + 1e-12)


def test_the_noise_is_the_one_accounted_for(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """z R / N in every coordinate of the mean. False alarms: 1e-6."""
    seen: list[tuple[torch.Tensor, float]] = []

    def spy(self: Any, mean: torch.Tensor, *, noise: float) -> list[Any]:
        seen.append((mean, noise))
        return []

    monkeypatch.setattr(moment_release._Frame, "moments", spy)
    chosen = images(20)
    for _ in range(40):
        release_moments(model, chosen, noise_multiplier=5.0, record=nothing, bound=0.5)
    means = torch.stack([mean for mean, _ in seen])
    assert seen[0][1] == pytest.approx(5.0 * 0.5 / 20)
    scatter = float(((means - means.mean(0)) / seen[0][1]).square().sum())
    low, high = chi2.interval(1 - 1e-6, 39 * means.shape[1])
    assert low < scatter < high


def test_the_release_is_recorded_before_the_images_are_looked_at(model: nn.Module) -> None:
    class StopError(Exception):
        pass

    def stop(release: object) -> None:
        assert release == moment_event(7.0) == GaussianRelease(moment_release.NAME, 7.0)
        raise StopError

    runs: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, args: runs.append(len(args[0])))
    with pytest.raises(StopError):
        release_moments(model, images(17), noise_multiplier=7.0, record=stop)
    handle.remove()
    assert 17 not in runs
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(weight.requires_grad for weight in model.parameters())


def test_what_cannot_be_released_is_refused(model: nn.Module) -> None:
    with pytest.raises(PrivacyError, match="noise_multiplier is 0"):
        release_moments(model, images(), noise_multiplier=0.0, record=nothing)
    with pytest.raises(PrivacyError, match="bound is 0"):
        release_moments(model, images(), noise_multiplier=1.0, record=nothing, bound=0.0)
    with pytest.raises(DataError, match="N at least 1"):
        release_moments(model, images()[:0], noise_multiplier=1.0, record=nothing)
    with pytest.raises(ModelError, match="feature layer 'nowhere'"):
        release_moments(model, images(), noise_multiplier=1.0, record=nothing, layers=["nowhere"])
