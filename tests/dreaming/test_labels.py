"""Votes and their way back to probabilities."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from codream_secure.dreaming.labels import (
    class_labels,
    longest_vote,
    probabilities_from,
    project_to_simplex,
    public_classes,
    votes,
)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(2, 12), st.floats(0.01, 100))
def test_no_vote_is_longer_than_said_and_certain_ones_are_as_long(
    seed: int, images: int, classes: int, sharpness: float
) -> None:
    logits = sharpness * torch.randn(images, classes, generator=torch.Generator().manual_seed(seed))
    assert votes(logits.softmax(1)).norm().item() <= longest_vote(images, classes) * (1 + 1e-6)
    certain = torch.eye(classes)[logits.argmax(1)]
    assert votes(certain).norm().item() == pytest.approx(longest_vote(images, classes), rel=1e-5)


def test_votes_without_noise_come_back() -> None:
    probabilities = torch.randn(20, 10).softmax(1)
    assert torch.allclose(probabilities_from(votes(probabilities)), probabilities, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6))
def test_the_projection_is_the_nearest_point(values: list[float]) -> None:
    """Oracle: a general constrained minimiser."""
    point = torch.tensor([values], dtype=torch.float64)
    found = project_to_simplex(point)[0]
    start = [1 / len(values)] * len(values)
    oracle = minimize(
        lambda x: sum((a - b) ** 2 for a, b in zip(x, values, strict=True)),
        start,
        bounds=[(0, 1)] * len(values),
        constraints={"type": "eq", "fun": lambda x: sum(x) - 1},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.sum().item() == pytest.approx(1, abs=1e-12)
    assert (found >= 0).all()
    assert torch.allclose(found, torch.tensor(oracle.x), atol=1e-5)


def test_public_classes_are_balanced_and_their_labels_sure_of_them() -> None:
    classes = public_classes(25, 10)
    assert classes.bincount().tolist() == [3] * 5 + [2] * 5
    probabilities = class_labels(classes, 10).softmax(1)
    assert torch.equal(probabilities.argmax(1), classes)
    assert torch.allclose(probabilities.max(1).values, torch.full((25,), 0.91))
