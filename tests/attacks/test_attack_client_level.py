"""A client-level claim against an adversary who knows everything else; and a mechanism that adds no noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from attacks.auditing.client_level import client_level_epsilon
from attacks.auditing.epsilons import claims_check, entry
from attacks.public import Query
from codream_secure.config import make_config
from codream_secure.data import load_source
from codream_secure.errors import ConfigError
from codream_secure.federation import Federation
from codream_secure.methods.codream import CoDream
from codream_secure.privacy import PrivacyStatement, PrivacyUnit
from protocols import DiscreteGaussianNoise, SkellamNoise

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


@pytest.mark.parametrize(
    ("mechanism", "noise"), [("discrete_gaussian", DiscreteGaussianNoise), ("skellam", SkellamNoise)]
)
@pytest.mark.parametrize("protection", ["masked", "plain"])
def test_noise_of_a_hundredth_of_what_is_accounted_for_refutes_the_claim(
    protection: str, mechanism: str, noise: type[DiscreteGaussianNoise | SkellamNoise], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients add it under masks, the server to plain sums. Two sums at epsilon .5 have mu = .16, so this has mu = 16.

    Nothing is then confused, and the threshold lies half way between what the first half says of presence and absence.
    """
    method = make(f"protocol.protection={protection}", f"dp.mechanism={mechanism}")
    honest = noise.add

    def meagre(self: Any, ring: npt.NDArray[Any]) -> npt.NDArray[Any]:
        drawn = honest(self, np.zeros_like(ring)).view(np.dtype(f"i{ring.itemsize}"))
        return ring + (drawn // 100).view(ring.dtype)

    monkeypatch.setattr(noise, "add", meagre)
    found, statement = client_level_epsilon(method, QUERY, repeats=100)
    assert statement.epsilon <= 0.5
    assert found.lower > statement.epsilon
    told = line(found, statement)
    assert told["violated"]
    assert not claims_check([told]).passed
