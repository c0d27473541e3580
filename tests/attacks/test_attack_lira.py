"""Signals, LiRA and thresholds against implementations written anew: loops, and scipy's normal distribution."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
import torch
from scipy import stats

from attacks.membership import (
    antithetic,
    balanced_memberships,
    gradient_signal,
    lira_offline,
    lira_online,
    logit_confidence,
    score_all,
    threshold_at,
)
from attacks.metrics import auc

getcontext().prec = 60


# Signals


def exact_confidence(logits: list[float], label: int) -> float:
    """phi by its definition, with 60 digits."""
    powers = [Decimal(value).exp() for value in logits]
    total = sum(powers)
    own = powers[label] / total
    return float(own.ln() - sum((power / total for j, power in enumerate(powers) if j != label), Decimal(0)).ln())


def test_confidence_agrees_with_sixty_digits() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(40, 7)) * generator.choice([0.1, 3.0, 60.0], size=(40, 1))
    labels = generator.integers(0, 7, size=40)
    expected = [exact_confidence(list(row), int(label)) for row, label in zip(logits, labels, strict=True)]
    np.testing.assert_allclose(logit_confidence(logits, labels), expected, rtol=1e-9, atol=1e-12)


def test_confidence_does_not_saturate() -> None:
    logits = torch.tensor([[1e4, -1e4, -1e4], [-1e4, 1e4, 1e4], [0.0, 0.0, 0.0]])
    found = logit_confidence(logits, torch.tensor([0, 0, 0]))
    np.testing.assert_allclose(found, [2e4 - math.log(2), -2e4 - math.log(2), -math.log(2)])
    assert found.dtype == np.float64
    # In float32 both of these probabilities are 1.
    steep = torch.tensor([[30.0, 0.0], [40.0, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    np.testing.assert_allclose(logit_confidence(steep, torch.tensor([0, 0])), [30, 40])


def test_a_shift_of_all_logits_changes_nothing() -> None:
    logits = np.random.default_rng(1).normal(size=(10, 4))
    labels = np.arange(10) % 4
    np.testing.assert_allclose(logit_confidence(logits + 100, labels), logit_confidence(logits, labels), atol=1e-11)


@pytest.mark.parametrize(
    ("logits", "labels", "match"),
    [
        (np.zeros(3), np.zeros(3, dtype=int), "logits has shape"),
        (np.zeros((3, 1)), np.zeros(3, dtype=int), "2 classes or more"),
        (np.zeros((3, 2)), np.zeros(2, dtype=int), "labels is"),
        (np.zeros((3, 2)), np.zeros(3), "labels is float64"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), "0 to 1"),
        (np.array([[0.0, np.nan]]), np.array([0]), "not finite"),
    ],
)
def test_wrong_answers_are_refused(logits: np.ndarray, labels: np.ndarray, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        logit_confidence(logits, labels)


def test_gradients_are_scored_by_their_length() -> None:
    gradients = torch.zeros(3, 1, 2, 2)
    gradients[0, 0, 0, 0], gradients[1, 0] = 2.0, 0.5
    found = gradient_signal(gradients)
    np.testing.assert_allclose(found, [-math.log(2), 0.0, 30 * math.log(10)])


def test_opposite_contexts_leave_what_is_the_candidates_own() -> None:
    generator = np.random.default_rng(2)
    own = generator.normal(size=(20, 3, 4, 4)) * np.linspace(0.1, 2, 20)[:, None, None, None]
    disturbance = 50 * generator.normal(size=own.shape)
    common = 20 * generator.normal(size=own.shape[1:])
    found = antithetic(own / 2 + disturbance + common, own / 2 - disturbance + common)
    np.testing.assert_allclose(found, gradient_signal(own - own.mean(axis=0)), atol=1e-9)
    with pytest.raises(ValueError, match="same candidates"):
        antithetic(own, own[:3])


# LiRA


def loops_online(phi: np.ndarray, ins: np.ndarray, outs: np.ndarray, *, pooled: bool) -> np.ndarray:
    """Algorithm 1 of Carlini et al., candidate by candidate."""

    def deviation(references: np.ndarray, candidate: int) -> float:
        if pooled:
            return math.sqrt(np.mean([np.var(row, ddof=1) for row in references]))
        return float(np.std(references[candidate], ddof=1))

    scores = []
    for i in range(len(phi)):
        inside = stats.norm(np.mean(ins[i]), deviation(ins, i)).logpdf(phi[i])
        outside = stats.norm(np.mean(outs[i]), deviation(outs, i)).logpdf(phi[i])
        scores.append(inside - outside)
    return np.array(scores)


def fixed_signals(observations: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    tail = () if observations is None else (observations,)
    return (
        2 * generator.normal(size=(25, *tail)),
        1 + generator.normal(size=(25, 9, *tail)),
        generator.normal(size=(25, 9, *tail)) * 1.4,
    )


@pytest.mark.parametrize("variance", ["pooled", "per_candidate", "auto"])
def test_online_agrees_with_loops(variance: str) -> None:
    phi, ins, outs = fixed_signals()
    expected = loops_online(phi, ins, outs, pooled=variance != "per_candidate")
    np.testing.assert_allclose(lira_online(phi, ins, outs, variance=variance), expected, rtol=0, atol=1e-6)  # type: ignore[arg-type]


def test_auto_trusts_many_references() -> None:
    generator = np.random.default_rng(4)
    phi, outs = generator.normal(size=8), generator.normal(size=(8, 32)) * np.arange(1, 9)[:, None]
    np.testing.assert_array_equal(lira_offline(phi, outs), lira_offline(phi, outs, variance="per_candidate"))
    assert not np.array_equal(lira_offline(phi, outs), lira_offline(phi, outs, variance="pooled"))


def test_offline_is_one_sided_and_agrees_with_the_normal_distribution() -> None:
    phi, _, outs = fixed_signals()
    probability = [stats.norm.cdf(phi[i], np.mean(outs[i]), np.std(outs[i], ddof=1)) for i in range(len(phi))]
    found = lira_offline(phi, outs, variance="per_candidate")
    np.testing.assert_allclose(found, [math.log(p / (1 - p)) for p in probability], rtol=0, atol=1e-6)


def test_offline_keeps_the_order_far_out() -> None:
    outs = np.tile(np.array([-1.0, 0.0, 1.0]), (6, 1))
    found = lira_offline(np.array([-1e4, -50.0, 0.0, 20.0, 50.0, 1e4]), outs)
    assert (np.diff(found) > 0).all()
    assert np.isfinite(found).all()


def test_observations_are_summed_as_independent() -> None:
    phi, ins, outs = fixed_signals(3)
    each = [lira_online(phi[:, j], ins[:, :, j], outs[:, :, j]) for j in range(3)]
    np.testing.assert_allclose(lira_online(phi, ins, outs), np.sum(each, axis=0), atol=1e-9)


def test_equal_references_give_finite_scores() -> None:
    assert np.isfinite(lira_online(np.zeros(2), np.ones((2, 3)), np.zeros((2, 3)))).all()


def test_wrong_shapes_are_refused() -> None:
    phi, ins, outs = fixed_signals()
    with pytest.raises(ValueError, match="does not fit"):
        lira_online(phi, ins[:5], outs)
    with pytest.raises(ValueError, match="needs 2"):
        lira_online(phi, ins[:, :1], outs)
    with pytest.raises(ValueError, match="not finite"):
        lira_offline(phi + np.inf, outs)
    with pytest.raises(ValueError, match="variance is 'none'"):
        lira_offline(phi, outs, variance="none")  # type: ignore[arg-type]


# Whole designs


@pytest.mark.parametrize("kind", ["lira_online", "lira_offline", "rmia_online"])
def test_the_area_on_gaussians_is_the_theoretical_one(kind: str) -> None:
    """With known means the likelihood ratio of N(mu, 1) against N(0, 1) has the area Phi(mu / sqrt 2).

    Many references stand for known means. Scores of one trial are independent but for these; the alarm is at six
    deviations of the interval (2e-9) plus what 63 references a side cost.
    """
    generator = np.random.default_rng(5)
    members = balanced_memberships(600, 128, generator=generator)
    shift = 1.0
    signals = 4 * generator.normal(size=600) + shift * members + generator.normal(size=members.shape)
    scores = score_all(signals[:], members, kind=kind, generator=generator, variance="pooled")  # type: ignore[arg-type]
    expected = stats.norm.cdf(shift / math.sqrt(2))
    found = auc(scores[:8], members[:8], generator=generator, resamples=200)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    if kind.startswith("lira"):
        assert found.low - 0.01 < expected < found.high + 0.01
    assert found.value <= expected + 6 * (found.high - found.low) / 4  # nothing beats the likelihood ratio
    plain = auc(signals[:8], members[:8], generator=generator, resamples=200)
    assert plain.value is not None
    assert plain.value < found.value  # references are of use where candidates differ


def test_a_design_is_scored_trial_by_trial_without_the_targets_own_row() -> None:
    generator = np.random.default_rng(6)
    members = balanced_memberships(40, 8, generator=generator)
    signals = generator.normal(size=members.shape)
    before = score_all(signals, members, kind="lira_online", generator=np.random.default_rng(1))
    changed = signals.copy()
    changed[2, 5] += 1.0
    after = score_all(changed, members, kind="lira_online", generator=np.random.default_rng(1))
    assert before[2, 5] != after[2, 5]
    fixed = np.ones(40, dtype=bool)
    fixed[5] = False
    # Pooled variances come from references, of which the target's row is none.
    np.testing.assert_array_equal(before[2, fixed], after[2, fixed])
    with pytest.raises(ValueError, match="kind is 'oracle'"):
        score_all(signals, members, kind="oracle", generator=generator)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="signals has shape"):
        score_all(signals[:, :5], members, kind="threshold", generator=generator)


# Thresholds


def test_a_held_out_threshold_keeps_its_rate_also_with_ties() -> None:
    generator = np.random.default_rng(7)
    scores, members = generator.integers(0, 12, size=500).astype(float), generator.random(500) < 0.5
    for rate in (0.0, 0.01, 0.07, 0.29, 0.5):
        chosen = threshold_at(scores, members, rate)
        wrong = np.mean(scores[~members] > chosen)
        lower = np.mean(scores[~members] > np.nextafter(chosen, -np.inf))
        assert wrong <= rate < lower
    assert threshold_at(scores, members, 1.0) == -math.inf


def test_a_threshold_needs_non_members() -> None:
    with pytest.raises(ValueError, match="no non-member"):
        threshold_at(np.zeros(3), np.ones(3, dtype=bool), 0.1)
    with pytest.raises(ValueError, match="fpr is 2"):
        threshold_at(np.zeros(3), np.zeros(3, dtype=bool), 2)
