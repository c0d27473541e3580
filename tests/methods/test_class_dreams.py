"""Dreams that are made for public classes: what they become, and what is no longer asked."""

from __future__ import annotations

import pytest
import torch

from codream_secure.config import Config, make_config
from codream_secure.dreaming import Coefficients, DreamObjective
from codream_secure.dreaming.labels import class_labels, public_classes
from codream_secure.errors import ConfigError
from codream_secure.federation import Federation
from codream_secure.methods.codream import CoDream
from codream_secure.runs import run

CLASSES = (
    "dreaming.classes=10",
    "dreaming.entropy=0",
    "dreaming.labels=classes",
    "dreaming.images=20",
    "distillation.cutmix=0",
    "distillation.epochs=1",
    "data.validation_samples=20",
)


def settings(*overrides: str) -> Config:
    return make_config({}, [*CLASSES, *overrides])


def test_the_term_is_the_cross_entropy_of_the_predictions() -> None:
    federation = Federation.create(settings())
    client = federation.clients[0]
    classes, dreams = public_classes(7, 10), torch.randn(7, 1, 8, 8)
    coefficients = Coefficients(entropy=0, features=0, tv=0, l2=0, classes=2.0)
    with DreamObjective(client.model, client.images, coefficients=coefficients, classes=classes) as objective:
        (term,) = objective.terms(dreams).values()
        probabilities = client.model(dreams).softmax(1)
    expected = -2.0 * sum(probabilities[row, classes[row]].log() for row in range(7)) / 7
    assert term.item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(ValueError, match="no classes are given"):
        DreamObjective(client.model, client.images, coefficients=coefficients)


def test_dreams_become_what_they_are_made_for_and_nobody_is_asked_for_labels() -> None:
    method = CoDream(Federation.create(settings("local.warmup_epochs=20", "local.epochs=0", "dreaming.steps=20")))
    method.warm_up()
    method.federation.channel.begin_round(1)
    method.run_round(1)
    dreams = method.dreams()
    assert dreams is not None
    classes = public_classes(20, 10)
    agree = [(model(dreams).argmax(1) == classes).float().mean().item() for model in method.models()]
    assert sum(agree) / len(agree) > 0.8
    assert torch.equal(method.state_dict()["buffer"]["labels"], class_labels(classes, 10))
    assert "soft_labels" not in method.federation.channel.ledger.by_phase(0)


def test_updates_of_unit_norm_weigh_alike() -> None:
    """Under plain averaging, a mean of unit vectors moves the dreams by at most lr."""
    method = CoDream(
        Federation.create(
            settings("dreaming.unit_updates=true", "dreaming.optimizer=fedavg", "dreaming.lr=0.5", "dreaming.steps=1")
        )
    )
    method.federation.channel.begin_round(1)
    method.run_round(1)
    start = torch.randn((20, 1, 8, 8), generator=method.federation.generator("dreams", 1, 0))
    dreams = method.dreams()
    assert dreams is not None
    moved = (dreams - start).norm().item()
    assert 0.05 < moved <= 0.5 * (1 + 1e-3)


def test_under_a_budget_all_of_it_goes_to_the_dreams() -> None:
    config = settings("run.rounds=1", "dp.unit=client", "dp.epsilon=8", "dp.delta=1e-3", "local.epochs=0")
    privacy = run(config).summary["privacy"]
    assert privacy["statement"]["releases"] == ["dream_updates"]
    assert 7.9 < privacy["statement"]["epsilon"] <= 8


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("dreaming.classes=0",), "labels dreams by the classes"),
        (("dreaming.steps=0",), "labels dreams by the classes"),
        (("distillation.cutmix=1",), "asks clients for labels"),
        (("dreaming.collaborative=false",), "classes are those of the whole batch"),
    ],
)
def test_settings_that_contradict_are_refused(overrides: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        settings(*overrides)
