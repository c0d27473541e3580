"""Long runs under the hardest label skew: nothing may leave the finite numbers."""

from __future__ import annotations

import math

import pytest
import torch

from codream_secure.config import make_config
from codream_secure.federation import Federation
from codream_secure.methods import find_method
from codream_secure.methods.fedavg import averaged_tensors

SKEWED = ("data.partition=dirichlet", "data.alpha=0.1", "data.validation_samples=50", "local.epochs=2")


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("dreaming.moments=channel", "distillation.temperature=20", "distillation.rehearsal=0"),
        ('model.clients=["small_cnn", "lenet5", "small_cnn_gn", "mlp"]', "model.server=mlp", "dreaming.adaptive=jsd"),
        ("model.server=mlp", "dreaming.adaptive=server_entropy", "dreaming.adaptive_weight=10"),
    ],
    ids=["default", "published losses", "four architectures, JSD", "server entropy"],
)
def test_a_hundred_rounds_of_dirichlet_skew_stay_finite(overrides: tuple[str, ...]) -> None:
    settings = make_config(
        {},
        [
            *SKEWED,
            "dreaming.images=32",
            "dreaming.steps=5",
            "distillation.epochs=2",
            "distillation.buffer=256",
            *overrides,
        ],
    )
    method = find_method("codream")(Federation.create(settings))
    method.warm_up()
    for number in range(1, 101):
        figures = method.run_round(number)
        assert all(math.isfinite(value) for value in figures.values()), (number, figures)
        dreams = method.dreams()
        assert dreams is not None
        assert torch.isfinite(dreams).all(), number
    state = method.state_dict()
    assert torch.isfinite(state["buffer"]["images"]).all()
    assert torch.isfinite(state["buffer"]["labels"]).all()
    for model in method.models():
        assert all(torch.isfinite(tensor).all() for tensor in averaged_tensors(model))
