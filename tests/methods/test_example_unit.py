"""Example-level privacy: dreamers are trained privately, and nothing that leaves a client comes from anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from codream_secure.channel import Channel, Tensors
from codream_secure.config import Config, make_config
from codream_secure.dreamers import plan_training_noise
from codream_secure.federation import Federation
from codream_secure.methods.codream import CoDream
from codream_secure.privacy import (
    Adjacency,
    Adversary,
    GaussianRelease,
    PrivacyStatement,
    PrivacyUnit,
    SampledGaussianRelease,
    spent,
)
from codream_secure.runs import run

SMALL = (
    "model.clients=small_cnn",
    "model.server=small_cnn_gn",
    "data.clients=3",
    "data.samples_per_client=20",
    "data.validation_samples=20",
    "local.warmup_epochs=1",
    "local.epochs=1",
    "dreaming.images=8",
    "dreaming.steps=3",
    "dreaming.moments=channel",
    "distillation.epochs=1",
    "run.rounds=1",
    "dp.unit=example",
    "dp.delta=1e-3",
    "dp.training.steps=4",
)


def settings(*overrides: str) -> Config:
    return make_config({}, [*SMALL, "dp.epsilon=4", *overrides])


def test_a_run_spends_its_budget_on_training_and_moments_and_the_rest_is_free() -> None:
    result = run(settings("run.rounds=2"))
    privacy = result.summary["privacy"]
    statement = PrivacyStatement.from_json(privacy["statement"])
    assert 3.99 < statement.epsilon <= 4
    assert statement.unit is PrivacyUnit.EXAMPLE
    assert set(statement.releases) == {
        "gradients of local training",
        "moments of features",
        "dream_updates",
        "soft_labels",
    }
    assert "evaluation" not in result.summary["bytes_by_phase"]
    assert 0 <= result.rows[0]["dreamer_test_accuracy"] <= 1


@pytest.mark.parametrize(
    "overrides", [(), ("dp.training.sample_rate=0.5", "dp.training.steps=1"), ("dreaming.features=0",)]
)
def test_the_noise_of_training_and_moments_makes_up_the_budget(overrides: tuple[str, ...]) -> None:
    config = settings(*overrides)
    noise = plan_training_noise(config)
    training = config.dp.training
    events: list[Any] = [
        SampledGaussianRelease("g", noise.gradients, sample_rate=training.sample_rate, steps=training.steps)
    ]
    if noise.moments is not None:
        events.append(GaussianRelease("m", noise.moments))
    assert (noise.moments is None) == (not config.dreaming.features)
    statement = spent(
        events, delta=1e-3, unit=PrivacyUnit.EXAMPLE, adjacency=Adjacency.ADD_REMOVE, adversary=Adversary.SERVER
    )
    assert 3.99 < statement.epsilon <= 4


def sent(method: CoDream, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """All that clients hand over in one round, and what the student becomes."""
    found: list[torch.Tensor] = []
    take = Channel._sum

    def watched(self: Channel, contributions: dict[int, Tensors], *args: Any, **kwargs: Any) -> Any:
        found.extend(tensor.clone() for tensors in contributions.values() for tensor in tensors)
        return take(self, contributions, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Channel, "_sum", watched)
        method.federation.channel.begin_round(1)
        method.run_round(1)
    student = method.server_model()
    assert student is not None
    return [*found, *(weight.detach().clone() for weight in student.parameters()), *_weights(method.dreamers())]


def _weights(models: list[Any]) -> list[torch.Tensor]:
    return [weight.detach().clone() for model in models for weight in model.parameters()]


@pytest.mark.parametrize("adaptive", ["none", "jsd", "server_entropy"])
def test_what_leaves_clients_knows_nothing_of_their_own_models_and_images(
    adaptive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other images and other models of the clients' own, the same dreamers: the same messages, to the bit."""
    config = settings(f"dreaming.adaptive={adaptive}", "dreaming.adaptive_from_round=1")
    method = CoDream(Federation.create(config))
    method.warm_up()
    state = method.state_dict()
    kept = {"dreamers": {**state["dreamers"], "models": [dict(m) for m in state["dreamers"]["models"]]}}
    kept["dreamers"]["models"] = [{k: v.clone() for k, v in m.items()} for m in kept["dreamers"]["models"]]
    first = sent(method, monkeypatch)
    other = CoDream(Federation.create(config))
    other._dreamers.load_state_dict(kept["dreamers"])  # type: ignore[union-attr]
    for client in other.federation.clients:
        client.images = torch.randn_like(client.images)
        with torch.no_grad():
            for weight in client.model.parameters():
                weight.normal_()
    second = sent(other, monkeypatch)
    assert len(first) == len(second) > 3
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_dreamers_differ_from_run_to_run_of_the_same_seed() -> None:
    models = []
    for _ in range(2):
        method = CoDream(Federation.create(settings()))
        method.warm_up()
        models.append(_weights(method.dreamers()))
    assert not any(torch.equal(a, b) for a, b in zip(*models, strict=True) if a.ndim > 1)


def test_a_resumed_run_trains_no_dreamer_again(tmp_path: Path) -> None:
    config = settings("run.rounds=2")

    class Stop(Exception):
        pass

    def stop(row: dict[str, Any]) -> None:
        if row["round"] == 1:
            raise Stop

    with pytest.raises(Stop):
        run(config, out=tmp_path, on_round=stop)
    resumed = run(config, out=tmp_path, resume=True)
    assert resumed.summary["privacy"]["stopped"] is None
    assert resumed.summary["privacy"]["statement"]["epsilon"] <= 4


def test_dreamers_have_no_batch_norm_whatever_the_clients_have() -> None:
    method = CoDream(Federation.create(settings()))
    kinds = {type(layer).__name__ for model in method.dreamers() for layer in model.modules()}
    assert "GroupNorm" in kinds
    assert not any("BatchNorm" in kind for kind in kinds)
