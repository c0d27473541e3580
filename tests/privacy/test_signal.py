"""Signal beside noise: the published head counts, the verdicts and the ways out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from codream_secure.errors import PrivacyError
from codream_secure.privacy import PrivacyUnit, gaussian, signal


@pytest.mark.parametrize(
    ("dimension", "clients"),
    [(256 * 3 * 32 * 32, 532), (10 * 3 * 32 * 32, 105), (256 * 64, 77), (10 * 64, 15), (64, 5)],
)
def test_how_many_clients_epsilon_8_asks_for(dimension: int, clients: int) -> None:
    mu = gaussian.mu_at(8, 1e-5)
    assert signal(mu, clients=4, dimension=dimension).clients_for_one == clients
    assert signal(mu, clients=clients, dimension=dimension).value == pytest.approx(1, abs=0.05)


def test_four_clients_cannot_carry_dreams_of_full_size() -> None:
    found = signal(gaussian.mu_at(8, 1e-5), clients=4, dimension=256 * 3 * 32 * 32)
    assert found.value < 0.01
    assert found.verdict == "noise will drown it"
    text = str(found)
    for part in ("0.0075", "drown", "532", "44 rather than 786432", "latents", "DCT", "subspace", "fewer dreams"):
        assert part in text
    assert "examples" in text


@pytest.mark.parametrize(
    ("mu", "verdict", "helps"),
    [
        (0.2, "noise will drown it", True),
        (0.21, "part of it survives", True),
        (0.99, "part of it survives", True),
        (1.0, "most survives", False),
    ],
)
def test_the_verdict_changes_where_it_was_measured_to(mu: float, verdict: str, helps: bool) -> None:
    found = signal(mu, clients=10, dimension=100)
    assert found.value == pytest.approx(mu)
    assert found.verdict == verdict
    assert bool(found.ways_out) is helps


@pytest.mark.parametrize("unit", [PrivacyUnit.CLIENT, PrivacyUnit.LOCAL])
def test_it_is_the_ratio_of_the_norms_of_a_run(unit: PrivacyUnit) -> None:
    clients, dimension, steps, z = 6, 5_000, 40, 3.0
    generator = np.random.default_rng(1)
    shares = clients if unit is PrivacyUnit.LOCAL else 1
    noise = z * generator.standard_normal((steps, shares, dimension)).sum(axis=(0, 1))
    measured = steps * clients / np.linalg.norm(noise)
    found = signal(math.sqrt(steps) / z, clients=clients, dimension=dimension, unit=unit)
    # The norm of 5000 normal values strays from its mean by 1 % (one standard deviation); the seed is fixed.
    assert found.value == pytest.approx(measured, rel=0.05)
    assert signal(
        math.sqrt(steps) / z, clients=found.clients_for_one, dimension=dimension, unit=unit
    ).value == pytest.approx(1, abs=0.05)


def test_what_cannot_carry_one_coordinate_says_so() -> None:
    found = signal(0.01, clients=4, dimension=10)
    assert found.dimension_for_one == 0
    assert "cannot carry even one" in str(found)


@pytest.mark.parametrize(
    "change", [{"clients": 0}, {"dimension": 0}, {"dimension": 1.5}, {"unit": PrivacyUnit.EXAMPLE}]
)
def test_what_has_no_signal_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(PrivacyError, match=f"{next(iter(change))} is"):
        signal(1.0, **{"clients": 4, "dimension": 10, **change})  # type: ignore[arg-type]
    with pytest.raises(PrivacyError, match="mu is 0"):
        signal(0.0, clients=4, dimension=10)
