"""Recovery of batch-norm statistics, against DreamObjective itself: the attack shares no code with it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack

import pytest
import torch
from torch import nn

from attacks.reconstruction.batchnorm_statistics import (
    DreamStep,
    mean_statistics,
    public_statistics,
    recover_statistics,
    relative_errors,
)
from attacks.reconstruction.dream_gradient import DreamGradient
from codream_secure import training
from codream_secure.data import load_source
from codream_secure.dreaming.losses import Moments
from codream_secure.dreaming.objective import Coefficients, DreamObjective
from codream_secure.errors import ModelError
from codream_secure.models import build_model
from codream_secure.models.small import SmallCNN

COEFFICIENTS = Coefficients()
DIGITS = load_source("digits")
PUBLIC = DIGITS.test.normalised(DIGITS.mean, DIGITS.std)[:150]


def client(seed: int, count: int, *, widths: tuple[int, int, int] = (4, 6, 6)) -> tuple[nn.Module, torch.Tensor]:
    """A trained model and its private images."""
    images = DIGITS.train.normalised(DIGITS.mean, DIGITS.std)
    torch.manual_seed(seed)
    model = SmallCNN(channels=1, image_size=(8, 8), num_classes=10, widths=widths)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(images), generator=generator)[:count]
    own = images[rows], DIGITS.train.labels[rows]
    settings = training.Optimization(batch_size=64, lr=0.05)
    training.fit(model, own, training.cross_entropy, epochs=10, optimization=settings, generator=generator)
    training.recalibrate(model, own[0])
    return model.eval(), own[0]


def kept(model: nn.Module) -> list[Moments]:
    return DreamGradient(model, COEFFICIENTS).kept()


def watch(clients: Sequence[tuple[nn.Module, torch.Tensor]], *, count: int, steps: Sequence[int]) -> list[DreamStep]:
    """What a server sees of dreams that Adam moves by the clients' mean gradient."""
    dreams = torch.randn((count, 1, 8, 8), generator=torch.Generator().manual_seed(5))
    optimizer = torch.optim.Adam([dreams], lr=0.05)
    seen = []
    with ExitStack() as stack:
        objectives = [
            stack.enter_context(DreamObjective(model, images, coefficients=COEFFICIENTS)) for model, images in clients
        ]
        for step in range(max(steps) + 1):
            gradient = torch.stack([objective.gradient(dreams) for objective in objectives]).mean(0)
            if step in steps:
                seen.append(DreamStep(dreams=dreams.clone(), gradient=gradient.clone()))
            dreams.grad = gradient
            optimizer.step()
    return seen


@pytest.mark.parametrize("moments", ["channel", "position"])
def test_the_plain_gradient_is_the_objectives(moments: str) -> None:
    model, images = client(0, 50)
    dreams = torch.randn((8, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    with DreamObjective(model, images, coefficients=COEFFICIENTS, moments=moments) as objective:
        true = objective.gradient(dreams)
    function = DreamGradient(model, COEFFICIENTS, moments=moments)
    targets = function.kept() if moments == "channel" else function.measure(images.double())
    found = function(dreams.double(), targets)
    assert (found - true).norm() < 3e-5 * true.norm()


@pytest.mark.parametrize("count", [8, 50])
def test_two_gradients_give_one_clients_statistics(count: int) -> None:
    model, images = client(1, count)
    blind = copy.deepcopy(model)
    for layer in blind.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()  # the attacker is never given the truth
    start = public_statistics(blind, PUBLIC)
    seen = watch([(model, images)], count=12, steps=(0, 25))
    found = recover_statistics([blind], seen, start=[start], coefficients=COEFFICIENTS)
    assert found.converged
    assert max(relative_errors(found.statistics[0], kept(model))) < 1e-3
    assert max(relative_errors(start, kept(model))) > 2e-2  # what strangers' images would have told


def test_a_sum_over_clients_of_known_different_weights_hides_no_ones_statistics() -> None:
    """Not the sum but the weights, where they are secret, stand in the way."""
    clients = [client(seed, 40, widths=(3, 4, 4)) for seed in range(4)]
    models = [model for model, _ in clients]
    starts = [public_statistics(model, PUBLIC) for model in models]
    seen = watch(clients, count=16, steps=(0, 25))
    found = recover_statistics(models, seen, start=starts, coefficients=COEFFICIENTS, iterations=40)
    errors = [max(relative_errors(each, kept(model))) for each, model in zip(found.statistics, models, strict=True)]
    assert found.converged
    assert max(errors) < 1e-3


def test_fewer_equations_than_unknowns_do_not_single_out_statistics() -> None:
    clients = [client(seed, 40, widths=(3, 4, 4)) for seed in range(4)]
    models = [model for model, _ in clients]
    starts = [public_statistics(model, PUBLIC) for model in models]
    seen = watch(clients, count=1, steps=(25,))  # 64 equations, 88 unknowns
    found = recover_statistics(models, seen, start=starts, coefficients=COEFFICIENTS)
    errors = [max(relative_errors(each, kept(model))) for each, model in zip(found.statistics, models, strict=True)]
    assert min(errors) > 1e-2


def test_means_over_clients() -> None:
    first, second = [(torch.tensor([1.0]), torch.tensor([2.0]))], [(torch.tensor([3.0]), torch.tensor([6.0]))]
    assert mean_statistics([first, second]) == [(torch.tensor([2.0]), torch.tensor([4.0]))]


def test_what_cannot_be_fitted_is_refused() -> None:
    model, images = client(0, 8)
    seen = watch([(model, images)], count=2, steps=(0,))
    start = public_statistics(model, PUBLIC)
    with pytest.raises(ValueError, match="1 models, 2 starts"):
        recover_statistics([model], seen, start=[start, start], coefficients=COEFFICIENTS)
    with pytest.raises(ValueError, match="observations is empty"):
        recover_statistics([model], [], start=[start], coefficients=COEFFICIENTS)
    lenet = build_model("lenet5", channels=1, image_size=(8, 8), num_classes=10)
    with pytest.raises(ModelError, match="keep no statistics"):
        recover_statistics([lenet], seen, start=[[]], coefficients=COEFFICIENTS)
    with pytest.raises(ValueError, match="coefficients.jsd"):
        DreamGradient(model, Coefficients(jsd=1.0))
