"""Every loss term and its input gradient, in float64, against formulas written independently and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy

from codream_secure.dreaming import losses


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_entropy_equals_scipys() -> None:
    logits = 3 * random(7, 5)
    expected = scipy_entropy(softmax(logits.numpy(), axis=1), axis=1).mean()
    assert losses.entropy(logits).item() == pytest.approx(expected, rel=1e-12)


def test_entropy_gradient_is_the_closed_form() -> None:
    logits = random(4, 6).requires_grad_()
    losses.entropy(logits).backward()
    p = softmax(logits.detach().numpy(), axis=1)
    each = -(p * np.log(p)).sum(axis=1, keepdims=True)
    expected = -p * (np.log(p) + each) / len(p)
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-10)


@given(scale=st.floats(0, 1e4), seed=st.integers(0, 100))
def test_entropy_stays_finite_and_in_range_where_probabilities_underflow(scale: float, seed: int) -> None:
    logits = (scale * random(3, 10, seed=seed)).float().requires_grad_()
    value = losses.entropy(logits)
    value.backward()
    assert -1e-6 <= value.item() <= math.log(10) + 1e-5
    assert torch.isfinite(logits.grad).all()


def test_total_variation_is_the_sum_of_squared_neighbour_differences_over_all_values() -> None:
    images = random(2, 3, 4, 5)
    array = images.numpy()
    expected = 0.0
    for n, c, i, j in np.ndindex(array.shape):
        if i + 1 < array.shape[2]:
            expected += (array[n, c, i + 1, j] - array[n, c, i, j]) ** 2
        if j + 1 < array.shape[3]:
            expected += (array[n, c, i, j + 1] - array[n, c, i, j]) ** 2
    assert losses.total_variation(images).item() == pytest.approx(expected / array.size, rel=1e-12)


def test_total_variation_of_one_pixel_is_zero() -> None:
    assert losses.total_variation(random(3, 1, 1, 1)).item() == 0


def test_l2_is_the_norm_of_the_whole_batch_and_flat_at_zero() -> None:
    images = random(3, 1, 4, 4)
    assert losses.l2_norm(images).item() == pytest.approx(math.sqrt(float((images.numpy() ** 2).sum())), rel=1e-12)
    zero = torch.zeros(2, 1, 3, 3, requires_grad=True)
    losses.l2_norm(zero).backward()
    assert torch.equal(zero.grad, torch.zeros_like(zero))


def test_moment_distance_adds_unsquared_norms_of_all_layers() -> None:
    found = [(random(3, seed=1), random(3, seed=2)), (random(5, seed=3), random(5, seed=4))]
    wanted = [(random(3, seed=5), random(3, seed=6)), (random(5, seed=7), random(5, seed=8))]
    expected = sum(
        np.linalg.norm(a.numpy() - b.numpy())
        for pair, target in zip(found, wanted, strict=True)
        for a, b in zip(pair, target, strict=True)
    )
    assert losses.moment_distance(found, wanted).item() == pytest.approx(expected, rel=1e-12)


def test_moment_distance_has_a_finite_gradient_where_moments_agree() -> None:
    mean, variance = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    losses.moment_distance([(mean, variance)], [(torch.zeros(3), torch.ones(3))]).backward()
    assert torch.isfinite(mean.grad).all()
    assert torch.isfinite(variance.grad).all()


def test_jensen_shannon_equals_scipys() -> None:
    a, b = 2 * random(6, 4, seed=1), 2 * random(6, 4, seed=2)
    p, q = softmax(a.numpy(), axis=1), softmax(b.numpy(), axis=1)
    expected = (jensenshannon(p, q, axis=1) ** 2).mean()
    assert losses.jensen_shannon(a, b).item() == pytest.approx(expected, rel=1e-10)


@given(scale=st.floats(0, 1e4), seed=st.integers(0, 100))
def test_jensen_shannon_stays_finite_and_in_range(scale: float, seed: int) -> None:
    a = (scale * random(3, 10, seed=seed)).float().requires_grad_()
    b = (scale * random(3, 10, seed=seed + 1)).float().requires_grad_()
    value = losses.jensen_shannon(a, b)
    value.backward()
    assert -1e-6 <= value.item() <= math.log(2) + 1e-5
    assert torch.isfinite(a.grad).all()
    assert torch.isfinite(b.grad).all()


@pytest.mark.parametrize(
    ("term", "shape"),
    [
        (losses.entropy, (3, 4)),
        (losses.total_variation, (2, 2, 3, 4)),
        (losses.l2_norm, (2, 1, 3, 3)),
        (lambda x: losses.jensen_shannon(x, random(3, 4, seed=9)), (3, 4)),
        (lambda x: losses.jensen_shannon(random(3, 4, seed=9), x), (3, 4)),
        (lambda x: losses.moment_distance([(x[0], x[1])], [(random(4, seed=3), random(4, seed=4))]), (2, 4)),
    ],
)
def test_gradients_agree_with_finite_differences(term: object, shape: tuple[int, ...]) -> None:
    assert torch.autograd.gradcheck(term, random(*shape, seed=5).requires_grad_())
