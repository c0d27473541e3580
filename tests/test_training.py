"""Fitting, distillation in log space, and the awkward batch sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy as kullback_leibler
from torch import nn

from codream_secure import training
from codream_secure.errors import NumericalError
from codream_secure.models import build_model
from codream_secure.training import Optimization, distillation_loss, fit


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def order(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_distillation_loss_equals_scipys_divergence(temperature: float) -> None:
    student, teacher = 3 * random(6, 5, seed=1).double(), 3 * random(6, 5, seed=2).double()
    p, q = (softmax(x.numpy() / temperature, axis=1) for x in (teacher, student))
    expected = temperature**2 * np.mean([kullback_leibler(a, b) for a, b in zip(p, q, strict=True)])
    assert distillation_loss(student, teacher, temperature=temperature).item() == pytest.approx(expected, rel=1e-9)


def test_distillation_gradient_is_the_closed_form() -> None:
    student, teacher = random(4, 6, seed=1).double().requires_grad_(), random(4, 6, seed=2).double()
    distillation_loss(student, teacher, temperature=3.0).backward()
    p, q = (softmax(x.detach().numpy() / 3.0, axis=1) for x in (teacher, student))
    np.testing.assert_allclose(student.grad.numpy(), 3.0 * (q - p) / 4, rtol=1e-9)


@given(scale=st.floats(1, 1e5), seed=st.integers(0, 50))
def test_distillation_stays_finite_where_soft_labels_underflow(scale: float, seed: int) -> None:
    """In the published code the target was not detached and its log underflowed: NaN under every label skew."""
    student = (scale * random(3, 10, seed=seed)).requires_grad_()
    teacher = (scale * random(3, 10, seed=seed + 1)).requires_grad_()
    loss = distillation_loss(student, teacher, temperature=1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()
    assert teacher.grad is None


def test_fit_takes_the_steps_that_plain_sgd_takes() -> None:
    model = nn.Linear(3, 2)
    expected = [parameter.detach().clone().numpy().astype(np.float64) for parameter in model.parameters()]
    x, y = random(8, 3), torch.arange(8) % 2
    fit(
        model,
        (x, y),
        training.cross_entropy,
        epochs=3,
        optimization=Optimization(lr=0.1, momentum=0.0, weight_decay=0.0, batch_size=8),
        generator=order(),
    )
    weight, bias = expected
    onehot = np.eye(2)[y.numpy()]
    for _ in range(3):
        error = (softmax(x.numpy() @ weight.T + bias, axis=1) - onehot) / 8
        weight, bias = weight - 0.1 * error.T @ x.numpy(), bias - 0.1 * error.sum(axis=0)
    np.testing.assert_allclose(model.weight.detach().numpy(), weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.bias.detach().numpy(), bias, rtol=1e-5, atol=1e-6)


def test_fit_is_a_function_of_its_generator() -> None:
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(7)
        model = nn.Linear(3, 2)
        fit(
            model,
            (random(10, 3), torch.arange(10) % 2),
            training.cross_entropy,
            epochs=2,
            optimization=Optimization(batch_size=3),
            generator=order(seed),
        )
        results.append(model.weight.detach().clone())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_batches_of_one_image_train_and_leave_statistics_alone(name: str) -> None:
    """ResNet-18 reaches one value per channel on 8x8 images, which a batch norm in train mode refuses."""
    torch.manual_seed(0)
    model = build_model(name, channels=1, image_size=(8, 8), num_classes=10)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    loss = fit(
        model,
        (random(1, 1, 8, 8), torch.tensor([3])),
        training.cross_entropy,
        epochs=2,
        optimization=Optimization(lr=0.01),
        generator=order(),
    )
    after = model.state_dict()
    assert np.isfinite(loss)
    assert all(torch.equal(before[key], after[key]) for key in before if "running" in key)
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_divergence_is_an_error_that_names_the_learning_rate() -> None:
    with pytest.raises(NumericalError, match="lr = 1e"):
        fit(
            nn.Linear(3, 2),
            (1e30 * random(10, 3), torch.arange(10) % 2),
            training.cross_entropy,
            epochs=5,
            optimization=Optimization(lr=1e30),
            generator=order(),
        )


def test_predict_is_in_eval_mode_and_restores_the_mode() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout(0.5)).train()
    images = random(700, 1, 2, 2)
    assert torch.equal(training.predict(model, images), training.predict(model, images, batch_size=700))
    assert model.training
    labels = training.predict(model, images).argmax(dim=1)
    assert training.count_correct(model, images, labels) == 700
    assert training.count_correct(model, images, (labels + 1) % 3) == 0


def test_recalibration_gives_the_images_own_statistics_and_touches_nothing_else() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=0.3)).train()
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    images = random(30, 1, 5, 5)
    training.recalibrate(model, images)
    with torch.no_grad():
        features = model[1](images)  # dropout is off while statistics are measured
    norm = model[2]
    torch.testing.assert_close(norm.running_mean, features.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, features.var(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert all(module.training for module in model.modules())
    assert norm.momentum == 0.3
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_recalibration_with_one_image_changes_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    training.recalibrate(model, random(1, 1, 5, 5))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_long_gradients_are_clipped_to_the_given_norm() -> None:
    moved = []
    for limit in (None, 0.5):
        model = nn.Linear(3, 2, bias=False)
        nn.init.zeros_(model.weight)
        fit(
            model,
            (100 * random(8, 3), torch.arange(8) % 2),
            training.cross_entropy,
            epochs=1,
            optimization=Optimization(lr=1.0, momentum=0.0, weight_decay=0.0, batch_size=8, max_grad_norm=limit),
            generator=order(),
        )
        moved.append(model.weight.norm().item())
    assert moved[0] > 1
    assert moved[1] == pytest.approx(0.5, rel=1e-4)


def test_the_cosine_schedule_ends_at_a_standstill() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    steps: list[float] = []

    def constant_slope(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        steps.append(model.weight.item())
        return model(x).mean()

    fit(
        model,
        (torch.ones(4, 1),),
        constant_slope,
        epochs=5,
        optimization=Optimization(
            lr=0.1, momentum=0.0, weight_decay=0.0, batch_size=2, max_grad_norm=None, schedule="cosine"
        ),
        generator=order(),
    )
    moved = -np.diff([*steps, model.weight.item()])
    expected = 0.1 * (1 + np.cos(np.pi * np.arange(10) / 10)) / 2
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-6)
