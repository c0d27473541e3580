"""DP-SGD against a loop over single images, its noise against its law, and what it leaves behind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from opacus import GradSampleModule
from scipy.stats import chi2
from torch import nn

from codream_secure.dreaming.objective import DreamObjective
from codream_secure.errors import BudgetExceededError, DataError, ModelError, NumericalError, PrivacyError
from codream_secure.models import build_model
from codream_secure.privacy import (
    Adjacency,
    Adversary,
    Budget,
    PrivacyLedger,
    PrivacyUnit,
    SampledGaussianRelease,
    dpsgd,
)
from codream_secure.privacy.dpsgd import DpSgd, Gradients, GridOptimizer, _training, train_privately
from codream_secure.privacy.secure_normal import UNITS

ALARM = 1e-6


def net(seed: int = 0, *, name: str = "small_cnn_gn") -> nn.Module:
    torch.manual_seed(seed)
    return build_model(name, channels=1, image_size=(8, 8), num_classes=3)


def data(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 8, 8, generator=generator), torch.randint(3, (count,), generator=generator)


def settings(**changes: Any) -> DpSgd:
    values = {"steps": 1, "sample_rate": 1.0, "noise_multiplier": 1.0, "lr": 1.0, "momentum": 0.0}
    return DpSgd(**{**values, **changes})


def nothing(_: object) -> None:
    pass


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().double().flatten() for weight in model.parameters()])


def clipped_sum(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, bound: float) -> torch.Tensor:
    """The oracle: one backward pass an image."""
    total = torch.zeros_like(flat(model))
    for image, label in zip(images, labels, strict=True):
        loss = F.cross_entropy(model(image[None]), label[None])
        found = torch.cat([g.double().flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
        total += found * min(1.0, bound / float(found.norm()))
    return total


@pytest.fixture
def without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpsgd, "grid_noise", lambda count, *_: np.zeros(count))


@pytest.mark.parametrize("bound", [0.05, 1.0, 100.0])
@pytest.mark.parametrize("chunk", [512, 5])
@pytest.mark.usefixtures("without_noise")
def test_an_update_is_the_sum_of_shortened_gradients_over_the_expected_batch(
    bound: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = data()
    chosen = np.array([0, 2, 3, 5, 6, 7, 11])
    monkeypatch.setattr(dpsgd, "poisson_sample", lambda *_: chosen)
    monkeypatch.setattr(dpsgd, "_LARGEST_CHUNK", chunk)
    model = net()
    before = flat(model)
    expected = clipped_sum(model, images[chosen], labels[chosen], bound) / (0.25 * 12)
    train_privately(model, images, labels, settings=settings(sample_rate=0.25, max_grad_norm=bound), record=nothing)
    assert torch.allclose(before - flat(model), expected, atol=4e-6 * max(1, bound), rtol=1e-4)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_single_gradients_are_those_of_opacus() -> None:
    images, labels = data()
    model, twin = net(), net()
    found = Gradients(model).of(images, labels)
    wrapped = GradSampleModule(twin, loss_reduction="sum")
    F.cross_entropy(wrapped(images), labels, reduction="sum").backward()
    for sample, weight in zip(found, twin.parameters(), strict=True):
        assert torch.allclose(sample, weight.grad_sample, atol=1e-5)


def test_a_weight_that_two_layers_share_gets_both_gradients() -> None:
    first = nn.Linear(64, 64)
    second = nn.Linear(64, 64)
    second.weight = first.weight
    model = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second)
    images, labels = data(4)
    found = Gradients(model).of(images, labels)
    for index in range(4):
        loss = F.cross_entropy(model(images[index : index + 1]), labels[index : index + 1])
        for sample, alone in zip(found, torch.autograd.grad(loss, list(model.parameters())), strict=True):
            assert torch.allclose(sample[index], alone, atol=1e-6)


def grid_optimizer(weight: nn.Parameter, *, bound: float, noise: float = 1.0) -> GridOptimizer:
    optimizer = torch.optim.SGD([weight], lr=1.0)
    return GridOptimizer(optimizer, noise_multiplier=noise, max_grad_norm=bound, expected_batch_size=1)


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 1e6, 1e30])
def test_no_image_contributes_more_than_its_units_in_exact_integers(scale: float) -> None:
    weight = nn.Parameter(torch.zeros(2000))
    for bound in (0.3, 1.0, 7.0):
        optimizer = grid_optimizer(weight, bound=bound)
        weight.grad_sample = scale * torch.randn(1, 2000)  # type: ignore[attr-defined]
        optimizer.clip_and_accumulate()
        units = [int(value) for value in weight.summed_grad]  # type: ignore[attr-defined]
        assert sum(value * value for value in units) <= UNITS**2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_counts_as_none(bad: float) -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimizer = grid_optimizer(weight, bound=1.0)
    weight.grad_sample = torch.tensor([[3.0, 0, 4], [1, bad, 0]])  # type: ignore[attr-defined]
    optimizer.clip_and_accumulate()
    kept = weight.summed_grad / UNITS  # type: ignore[attr-defined]
    assert kept.tolist() == pytest.approx([0.6, 0, 0.8], abs=1e-5)


def test_the_noise_of_an_update_has_the_variance_that_is_accounted_for() -> None:
    """z C in every coordinate, when nobody is in the sample. False alarms: 1e-6."""
    weight = nn.Parameter(torch.zeros(100_000))
    optimizer = grid_optimizer(weight, bound=2.0, noise=3.0)
    weight.grad_sample = torch.zeros(0, 100_000)  # type: ignore[attr-defined]
    optimizer.step()
    low, high = chi2.interval(1 - ALARM, weight.numel())
    assert low < float((weight.detach().double() / 6.0).square().sum()) < high


def test_an_empty_sample_is_a_step_of_noise_alone() -> None:
    images, labels = data()
    model = net()
    before = flat(model)
    train_privately(model, images, labels, settings=settings(sample_rate=2.0**-60, lr=1e-18), record=nothing)
    # z C / (q N) lr: of the size of 0.1.
    assert 0.05 < float((flat(model) - before).std()) < 0.2


def test_no_seed_makes_two_trainings_alike() -> None:
    images, labels = data()
    found = []
    for _ in range(2):
        model = net()
        torch.manual_seed(0)
        train_privately(model, images, labels, settings=settings(steps=2, sample_rate=0.5), record=nothing)
        found.append(flat(model))
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_plain_model_is_handed_back_and_can_dream(optimizer: Any) -> None:
    images, labels = data()
    model = net().eval()
    attributes = {id(module): set(vars(module)) for module in model.modules()}
    steps: list[int] = []
    train_privately(
        model,
        images,
        labels,
        settings=settings(steps=3, sample_rate=0.5, optimizer=optimizer, lr=0.01),
        record=nothing,
        observe=steps.append,
    )
    assert steps == [1, 2, 3]
    assert not model.training
    for module in model.modules():
        assert set(vars(module)) == attributes[id(module)]
        assert not module._forward_hooks
        assert not module._backward_hooks
    for weight in model.parameters():
        assert weight.grad is None
        assert weight.requires_grad
        assert not hasattr(weight, "grad_sample")
        assert not hasattr(weight, "summed_grad")
    dreams = torch.randn(4, 1, 8, 8, requires_grad=True)
    with DreamObjective(model, images) as objective:
        (gradient,) = torch.autograd.grad(sum(objective.terms(dreams).values()), dreams)
    assert gradient.abs().sum() > 0


def test_frozen_weights_stay() -> None:
    images, labels = data()
    model = net()
    model.features.requires_grad_(False)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    train_privately(model, images, labels, settings=settings(), record=nothing)
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_averaged_weights_are_the_mean_over_the_last_part() -> None:
    images, labels = data()
    model = net()
    seen: list[torch.Tensor] = []
    train_privately(
        model,
        images,
        labels,
        settings=settings(steps=10, average=0.5, lr=0.01),
        record=nothing,
        observe=lambda _: seen.append(flat(model)),
    )
    assert torch.allclose(flat(model), torch.stack(seen[-5:]).mean(0), atol=1e-6)


def test_the_release_is_recorded_before_the_first_step_and_a_spent_budget_stops_it() -> None:
    images, labels = data()
    ledger = PrivacyLedger(
        Budget(epsilon=3, delta=1e-5),
        PrivacyUnit.EXAMPLE,
        adjacency=Adjacency.ADD_REMOVE,
        adversary=Adversary.SUM_SERVER,
    )
    chosen = settings(steps=4, sample_rate=0.5, noise_multiplier=4.0)
    model = net()
    before = flat(model)
    at_record: list[torch.Tensor] = []

    def record(release: Any) -> None:
        at_record.append(flat(model))
        ledger.record(release)

    release = train_privately(model, images, labels, settings=chosen, record=record)
    assert torch.equal(at_record[0], before)
    assert ledger.events == (release,) == (chosen.event(),)
    assert release == SampledGaussianRelease(dpsgd.NAME, 4.0, sample_rate=0.5, steps=4)
    after = flat(model)
    with pytest.raises(BudgetExceededError):
        train_privately(model, images, labels, settings=settings(steps=50), record=ledger.record)
    assert torch.equal(flat(model), after)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_multiplier": 0.0}, "without noise no finite epsilon"),
        ({"noise_multiplier": 1e-9}, "noise is drawn for"),
        ({"sample_rate": 0.0}, "sample_rate is 0.0"),
        ({"sample_rate": 1.5}, "sample_rate is 1.5"),
        ({"steps": 0}, "steps is 0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0"),
        ({"lr": math.inf}, "lr is inf"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"average": -0.1}, "average is -0.1"),
        ({"optimizer": "lbfgs"}, "optimizer is 'lbfgs'"),
    ],
)
def test_settings_that_make_no_claim_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PrivacyError, match=message):
        settings(**changes)


class ByValue(nn.Module):
    """Its forward pass depends on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.layer(images.flatten(1))
        return logits if logits.sum().item() > 0 else -logits


class Counting(ByValue):
    """It counts its runs in a buffer, which it replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.runs = self.runs + 1
        return self.layer(images.flatten(1))


class Keeping(Counting):
    """It keeps a mean of what it has seen, in place."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.runs.mul_(0.9).add_(images.mean())
        return self.layer(images.flatten(1))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Keeping(), "gives no gradients of single images"),
        (ByValue(), "gives no gradients of single images"),
        (Counting(), "changes its buffers runs"),
        (net(name="small_cnn"), "BatchNorm2d mixes"),
    ],
)
def test_unfit_models_are_refused_before_anything_is_recorded(model: nn.Module, message: str) -> None:
    recorded: list[object] = []
    with pytest.raises(ModelError, match=message):
        train_privately(model, *data(), settings=settings(), record=recorded.append)
    assert not recorded
    assert all(not buffer.any() for name, buffer in model.named_buffers() if name == "runs")


def test_data_that_do_not_fit_and_weights_that_explode_are_told() -> None:
    images, labels = data()
    with pytest.raises(DataError, match="are needed"):
        train_privately(net(), images, labels[:-1], settings=settings(), record=nothing)
    with pytest.raises(DataError, match="are needed"):
        train_privately(net(), images[:0], labels[:0], settings=settings(), record=nothing)
    with pytest.raises(NumericalError, match="lower the learning rate"):
        train_privately(net(), images, labels, settings=settings(noise_multiplier=1e4, lr=1e38), record=nothing)


def test_dropout_is_off_for_its_masks_would_tie_images_together() -> None:
    """With a known seed of torch, and one image less, no other image's gradient may change."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.5), nn.Linear(16, 10))
    images, labels = torch.randn(6, 1, 8, 8), torch.arange(6)
    with _training(model) as gradients:
        torch.manual_seed(0)
        whole = gradients.of(images, labels)
        torch.manual_seed(0)
        less = gradients.of(images[1:], labels[1:])
    assert all(torch.allclose(a[1:], b) for a, b in zip(whole, less, strict=True))
    assert all(module.training for module in model.modules())
