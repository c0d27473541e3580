"""RMIA against plain loops over probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest

from attacks.membership import balanced_memberships, log_ratio_offline, log_ratio_online, references, rmia, score_all


def logistic(phi: float) -> float:
    return 1 / (1 + math.exp(-phi))


def loops_score(ratios: list[float], i: int, others: list[float] | None, gamma: float) -> float:
    compared = [r for j, r in enumerate(ratios) if j != i] if others is None else others
    return sum(ratios[i] / ratio > gamma for ratio in compared) / len(compared)


@pytest.mark.parametrize("gamma", [0.8, 1.0, 1.3])
@pytest.mark.parametrize("kind", ["rmia_online", "rmia_offline"])
@pytest.mark.parametrize("public", [False, True])
def test_a_design_agrees_with_loops(gamma: float, kind: str, public: bool) -> None:
    generator = np.random.default_rng(0)
    members = balanced_memberships(30, 8, generator=generator)
    signals = 2 + generator.normal(size=30) + members + 0.7 * generator.normal(size=members.shape)
    population = 2 + generator.normal(size=(8, 23)) if public else None
    a = 0.4
    found = score_all(
        signals,
        members,
        kind=kind,  # type: ignore[arg-type]
        generator=np.random.default_rng(5),
        a=a,
        gamma=gamma,
        population=population,
    )
    draws = np.random.default_rng(5)
    for target in range(8):
        ins, outs = references(members, target, generator=draws)
        ratios = []
        for i in range(30):
            inside = float(np.mean([logistic(signals[m, i]) for m in ins[i]]))
            outside = float(np.mean([logistic(signals[m, i]) for m in outs[i]]))
            mean = (inside + outside) / 2 if kind == "rmia_online" else 0.5 * ((1 + a) * outside + (1 - a))
            ratios.append(logistic(signals[target, i]) / mean)
        others = None
        if population is not None:
            others = [
                logistic(population[target, z])
                / float(np.mean([logistic(population[m, z]) for m in range(8) if m != target]))
                for z in range(23)
            ]
        expected = [loops_score(ratios, i, others, gamma) for i in range(30)]
        np.testing.assert_allclose(found[target], expected, rtol=0, atol=1e-12)


def test_certain_models_are_still_told_apart() -> None:
    # All these probabilities are 1 in double precision.
    phi, outs = np.array([40.0, 45.0, 50.0]), np.full((3, 4), 44.0)
    ratios = log_ratio_online(phi, outs, outs)
    assert (np.diff(ratios) > 0).all()
    np.testing.assert_allclose(rmia(ratios), [0.0, 0.5, 1.0])
    assert np.isfinite(log_ratio_offline(np.array([-1e4]), np.full((1, 4), -1e4), a=1.0)).all()


def test_observations_are_averaged() -> None:
    generator = np.random.default_rng(1)
    members = balanced_memberships(20, 6, generator=generator)
    signals = generator.normal(size=(6, 20))
    once, twice = (
        score_all(values, members, kind="rmia_online", generator=np.random.default_rng(2))
        for values in (signals, np.stack([signals, signals], axis=2))
    )
    np.testing.assert_allclose(once, twice)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="gamma is 0"):
        rmia(np.zeros(3), gamma=0)
    with pytest.raises(ValueError, match="a is 2"):
        log_ratio_offline(np.zeros(3), np.zeros((3, 2)), a=2)
    with pytest.raises(ValueError, match="Z above 0"):
        rmia(np.zeros(1))
    members = balanced_memberships(5, 4, generator=np.random.default_rng(0))
    with pytest.raises(ValueError, match="population has shape"):
        score_all(
            np.zeros((4, 5)),
            members,
            kind="rmia_online",
            generator=np.random.default_rng(0),
            population=np.zeros((3, 7)),
        )
