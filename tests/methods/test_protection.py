"""Protection changes who sees what, and not one bit of what is learnt."""

from __future__ import annotations

from typing import Any

import pytest

from codream_secure.config import make_config
from codream_secure.runs import run

SMALL = (
    "run.rounds=2",
    "local.warmup_epochs=2",
    "local.epochs=1",
    "dreaming.images=12",
    "dreaming.steps=5",
    "distillation.epochs=1",
    "data.validation_samples=20",
)


def summary(*overrides: str) -> dict[str, Any]:
    return run(make_config({}, [*SMALL, *overrides])).summary


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ('model.clients=["small_cnn", "lenet5", "small_cnn_gn", "mlp"]',),
        ("method=fedavg",),
        ("method=fedavg", "fedavg.weighted=true"),
        ("dreaming.collaborative=false",),
        ("dreaming.local_steps=2", "dreaming.optimizer=fedadam"),
        ("data.clients=10", "data.samples_per_client=20", "faults.contribute=0.1"),
    ],
)
def test_masked_runs_end_with_the_weights_and_accuracies_of_plain_runs(overrides: tuple[str, ...]) -> None:
    plain, masked, active = (
        summary(*overrides, f"protocol.protection={protection}", f"protocol.active={active}")
        for protection, active in (("plain", "false"), ("masked", "false"), ("masked", "true"))
    )
    for protected in (masked, active):
        assert protected["weights_sha256"] == plain["weights_sha256"]
        assert protected["client_test_accuracy"] == plain["client_test_accuracy"]
        assert protected["bytes_up"] > plain["bytes_up"]
    assert plain["bytes_by_phase"]["protocol_setup"][0] == 0
    assert masked["bytes_by_phase"]["protocol_setup"][0] > 0


def test_training_goes_on_with_the_survivors() -> None:
    faulty = ("data.clients=10", "data.samples_per_client=20", "protocol.protection=masked")
    whole, lossy = (
        summary(*faulty, *rates) for rates in ((), ("faults.setup=0.02", "faults.contribute=0.1", "faults.open=0.02"))
    )
    assert lossy["weights_sha256"] != whole["weights_sha256"]
    assert lossy["test_accuracy"] > 0.5 * whole["test_accuracy"]


def test_the_cost_of_protection_is_reported_by_phase() -> None:
    found = summary("protocol.protection=masked")
    by_phase = found["protocol_cpu_by_phase"]
    assert set(by_phase) == {"protocol_setup", "dream_updates", "soft_labels", "evaluation"}
    assert all(client > 0 and server > 0 and authority == 0 for client, server, authority in by_phase.values())
    assert found["protocol_cpu"]["client"] == pytest.approx(sum(client for client, *_ in by_phase.values()))
    assert found["clipped_fraction"] == 0
    assert found["retries"] == 0
