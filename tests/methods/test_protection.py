"""Protection changes who sees what, and not one bit of what is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch

from codream_secure.channel import Channel
from codream_secure.config import make_config
from codream_secure.dreaming.updates import ServerOptimizer
from codream_secure.errors import ConfigError
from codream_secure.runs import run
from protocols import ReplicaError

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


@cache
def plain_summary(*overrides: str) -> dict[str, Any]:
    """Several protections are held to the same plain run."""
    return summary(*overrides, "protocol.protection=plain", "protocol.active=false")


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
    plain = plain_summary(*overrides)
    masked, active = (
        summary(*overrides, "protocol.protection=masked", f"protocol.active={active}") for active in ("false", "true")
    )
    for protected in (masked, active):
        assert protected["weights_sha256"] == plain["weights_sha256"]
        assert protected["client_test_accuracy"] == plain["client_test_accuracy"]
        assert protected["bytes_up"] > plain["bytes_up"]
    assert plain["bytes_by_phase"]["protocol_setup"][0] == 0
    assert masked["bytes_by_phase"]["protocol_setup"][0] > 0


ENCRYPTED = {
    "models": ('model.clients=["small_cnn", "lenet5", "small_cnn_gn", "mlp"]',),
    "weighted": ("method=fedavg", "fedavg.weighted=true"),
    "alone": ("dreaming.collaborative=false",),
    "few bits": ("dreaming.local_steps=2", "dreaming.optimizer=fedadam", "protocol.bits.dream_updates=12"),
    "midway": ("dreaming.label_midway=true", "dreaming.labels=probabilities"),
    "faults": ("data.clients=10", "data.samples_per_client=20", "faults.contribute=0.1"),
}
DEFAULT = {("ckks", "few bits"), ("bfv-authority", "models"), ("ckks-authority", "weighted")}
"""Besides all of BFV's; the rest is among the slow tests."""


@pytest.mark.parametrize(
    ("protection", "overrides"),
    [
        pytest.param(
            protection,
            overrides,
            id=f"{protection}-{kind}",
            marks=[] if protection == "bfv" or (protection, kind) in DEFAULT else [pytest.mark.slow],
        )
        for protection in ("bfv", "ckks", "bfv-authority", "ckks-authority")
        for kind, overrides in ENCRYPTED.items()
    ],
)
def test_encrypted_runs_end_with_the_weights_and_accuracies_of_plain_runs(
    protection: str, overrides: tuple[str, ...]
) -> None:
    plain, encrypted = plain_summary(*overrides), summary(*overrides, f"protocol.protection={protection}")
    assert encrypted["weights_sha256"] == plain["weights_sha256"]
    assert encrypted["client_test_accuracy"] == plain["client_test_accuracy"]
    assert encrypted["bytes_up"] > plain["bytes_up"]
    assert (encrypted["protocol_cpu"]["authority"] > 0) == protection.endswith("authority")


def test_fewer_bits_a_value_take_fewer_bytes_of_ciphertext() -> None:
    short = ("run.rounds=1", "local.warmup_epochs=1", "dreaming.steps=1")
    sizes = [
        summary("protocol.protection=bfv", "dreaming.images=256", *short, *bits)["bytes_by_phase"]["dream_updates"][0]
        for bits in ((), ("protocol.bits.dream_updates=16",), ("protocol.bits.dream_updates=8",))
    ]
    assert sizes[0] > 1.5 * sizes[1] > 2.2 * sizes[2]


def test_where_clients_open_sums_the_server_is_shown_no_dream_and_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the server ever hands out is the noise that dreams begin with, in the clear, once a round."""
    shown: list[tuple[str, torch.Tensor]] = []
    broadcast = Channel.broadcast

    def spy(channel: Channel, tensors: Sequence[torch.Tensor], *, phase: str) -> list[torch.Tensor]:
        shown.extend((phase, tensor.detach().clone()) for tensor in tensors)
        return broadcast(channel, tensors, phase=phase)

    monkeypatch.setattr(Channel, "broadcast", spy)
    summary("protocol.protection=bfv")
    assert [phase for phase, _ in shown] == ["dreams", "dreams"]
    for _, start in shown:
        # Standard normal noise: 768 values, so six standard deviations of the mean and of the variance.
        assert abs(start.mean()) < 6 / 768**0.5
        assert abs(start.var() - 1) < 6 * (2 / 768) ** 0.5
    shown.clear()
    summary("protocol.protection=plain")
    assert {phase for phase, _ in shown} == {"dreams", "soft_labels"}
    assert len(shown) > 10


def test_a_client_whose_dreams_differ_in_one_bit_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    step, seen = ServerOptimizer.step, []

    def slip(optimizer: ServerOptimizer, update: torch.Tensor) -> None:
        step(optimizer, update)
        seen.append(optimizer)
        if len(seen) == 6:
            with torch.no_grad():
                optimizer.dreams[0, 0, 0, 0] = torch.nextafter(optimizer.dreams[0, 0, 0, 0], torch.tensor(9.0))

    monkeypatch.setattr(ServerOptimizer, "step", slip)
    with pytest.raises(ReplicaError, match="holds another state"):
        summary("protocol.protection=bfv")


def test_what_needs_a_server_that_sees_dreams_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="student at the server.*under 'bfv' sees neither dreams nor labels"):
        summary("protocol.protection=bfv", "model.server=small_cnn")
    with pytest.raises(ConfigError, match="faults.setup is 0.1: under 'ckks' a client that misses the set-up"):
        summary("protocol.protection=ckks", "faults.setup=0.1")
    with pytest.raises(ConfigError, match="protocol.bits.weights is set, but with fedavg.weighted"):
        summary("method=fedavg", "fedavg.weighted=true", "protocol.bits.weights=12")


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
