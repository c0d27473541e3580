"""A client-level claim against an adversary who knows everything else; and a mechanism that adds no noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from attacks.auditing.client_level import bound_from_draws, client_level_epsilon
from attacks.auditing.epsilons import claims_check, entry
from attacks.public import Query
from codream_secure.config import make_config
from codream_secure.data import load_source
from codream_secure.errors import ConfigError
from codream_secure.federation import Federation
from codream_secure.methods.codream import CoDream
from codream_secure.privacy import PrivacyStatement, PrivacyUnit
from protocols import DiscreteGaussianNoise

SOURCE = load_source("digits")
SMALL = (
    "data.samples_per_client=12",
    "data.validation_samples=0",
    "dreaming.images=4",
    "dreaming.steps=2",
    "dreaming.space={kind='dct', size=2}",
    "dreaming.labels=probabilities",
    "dreaming.features=0",
    "distillation.cutmix=0",
    "distillation.relabel=false",
    "protocol.dropout=0.0",
    "run.rounds=1",
    "dp.unit=client",
    "dp.epsilon=0.5",
    "dp.delta=0.001",
)
QUERY = Query(images=torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), stream="dream_updates")


def make(*overrides: str) -> CoDream:
    return CoDream(Federation.create(make_config({}, [*SMALL, *overrides]), source=SOURCE))


def line(bound: Any, statement: PrivacyStatement) -> dict[str, Any]:
    return entry(
        bound,
        statement,
        method="codream",
        protection="client-dp",
        adversary="server",
        probe="presence",
        unit=PrivacyUnit.CLIENT,
    )


@pytest.mark.parametrize("protection", ["masked", "plain"])
def test_a_mechanism_that_adds_its_noise_is_not_refuted(protection: str) -> None:
    """False alarm below 5 %, and far below it, because discrete noise is accounted for with slack."""
    method = make(f"protocol.protection={protection}")
    for _ in range(2):  # the run has spent its budget
        method.federation.channel.releases.before_sum("dream_updates", values=16)
    before = len(method.federation.channel.releases.ledger.events)  # type: ignore[union-attr]
    bound, statement = client_level_epsilon(method, QUERY, repeats=400)
    assert statement.unit is PrivacyUnit.CLIENT
    assert bound.lower <= statement.epsilon < bound.ceiling
    found = line(bound, statement)
    assert not found["violated"]
    assert claims_check([found]).passed
    # The run's own account is untouched.
    assert len(method.federation.channel.releases.ledger.events) == before  # type: ignore[union-attr]


@pytest.mark.parametrize("protection", ["masked", "plain"])
def test_a_mechanism_that_adds_no_noise_is_refuted_loudly(protection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiscreteGaussianNoise, "add", lambda self, ring: ring)
    bound, statement = client_level_epsilon(make(f"protocol.protection={protection}"), QUERY, repeats=400)
    assert bound.lower == pytest.approx(bound.ceiling)
    found = line(bound, statement)
    assert found["violated"]
    assert "REFUTED" in found["text"]
    check = claims_check([found])
    assert not check.passed
    assert "does not do what its ledger says" in check.detail


def test_sums_without_noise_have_nothing_to_be_held_against() -> None:
    with pytest.raises(ConfigError, match="dp.unit is 'none'"):
        client_level_epsilon(make("dp={unit='none'}"), QUERY, repeats=10)


def test_the_bound_stays_below_the_gaussian_mechanisms_epsilon() -> None:
    """mu = 1 is epsilon = 4.38 at delta = 1e-5 (Dong et al. 2022). 40 audits at 95 %: above 7 in one of a thousand."""
    rng = np.random.default_rng(0)
    present = np.arange(400) % 2 == 1
    bounds = [
        bound_from_draws(rng.standard_normal(400) + present, present, delta=1e-5, confidence=0.95).lower
        for _ in range(40)
    ]
    assert sum(bound > 4.38 for bound in bounds) <= 7
    assert np.mean(bounds) > 0.2
