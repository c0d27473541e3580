"""Figures against scikit-learn, torchmetrics, scipy and loops; intervals by how often they hold the truth.

False alarms: a test of coverage fails by chance less than once in a million runs, if the interval holds the truth as
often as the test says it must.
"""

from __future__ import annotations

import math
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_curve

from attacks.estimates import Estimate, clopper_pearson, unresolvable
from attacks.membership import balanced_memberships
from attacks.metrics import advantage, auc, roc_curve, summarise, tnr_at_fnr, tpr_at_fpr
from attacks.ranking import Ranking, area
from codream_secure.compat import ensure_torchvision_operators

ALARM = 1e-6


def gaussians(shift: float, each: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    members = np.arange(2 * each) < each
    return shift * members + generator.normal(size=2 * each), members


def pooled(shift: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """8 models, 60 candidates: each candidate has an effect of its own, and each model a smaller one."""
    members = balanced_memberships(60, 8, generator=generator)
    effects = generator.normal(size=60) + 0.5 * generator.normal(size=(8, 1))
    return shift * members + effects + generator.normal(size=(8, 60)), members


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


# Values


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_values_agree_with_scikit_learn_also_with_ties(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 40))
    members = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    scores = np.array(data.draw(st.lists(st.integers(-4, 4), min_size=size, max_size=size)), dtype=float)
    if members.all() or not members.any():
        members[0] = not members[0]
    found = auc(scores, members)
    assert found.value == pytest.approx(roc_auc_score(members, scores))
    assert found.n == size
    fpr, tpr, _ = sklearn_curve(members, scores, drop_intermediate=False)
    assert advantage(scores, members).value == pytest.approx(np.max(tpr - fpr))
    rate = data.draw(st.sampled_from([0.3, 0.5, 0.7]))
    at = tpr_at_fpr(scores, members, fpr=rate)
    cleared = tnr_at_fnr(scores, members, fnr=rate)
    if (~members).sum() * rate >= 1:
        assert at.value == pytest.approx(np.max(tpr[fpr <= rate + 1e-9]))
    else:
        assert at.value is None
    if members.sum() * rate >= 1:
        assert cleared.value == pytest.approx(np.max(1 - fpr[1 - tpr <= rate + 1e-9]))
    else:
        assert cleared.value is None


def test_values_agree_with_torchmetrics() -> None:
    ensure_torchvision_operators()
    from torchmetrics.functional.classification import binary_auroc, binary_sensitivity_at_specificity

    scores, members = gaussians(1.5, 400, np.random.default_rng(0))
    # torchmetrics wants probabilities, in float32: ranks keep the order and are exact.
    ranks = torch.from_numpy(stats.rankdata(scores) / 1024).float()
    target = torch.from_numpy(members).int()
    assert auc(scores, members).value == pytest.approx(float(binary_auroc(ranks, target)), abs=1e-6)
    for rate in (0.01, 0.05):
        expected, _ = binary_sensitivity_at_specificity(ranks, target, min_specificity=1 - rate - 1e-6)
        assert tpr_at_fpr(scores, members, fpr=rate).value == pytest.approx(float(expected))


def test_resamples_agree_with_weights_given_to_scikit_learn() -> None:
    scores, members = pooled(1.0, np.random.default_rng(1))
    scores = np.round(scores, 1)
    ((found, wrong),) = Ranking(scores, members).resampled(5, generator=np.random.default_rng(2))
    draws = np.random.default_rng(2)
    models = draws.multinomial(8, np.full(8, 1 / 8), size=5)
    candidates = draws.multinomial(60, np.full(60, 1 / 60), size=5)
    for r, value in enumerate(area(found, wrong)):
        weights = np.outer(models[r], candidates[r]).ravel()
        expected = roc_auc_score(members.ravel(), scores.ravel(), sample_weight=weights)
        assert value == pytest.approx(expected)


# Intervals of one model


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (7, 7), (3, 50), (999, 1000)])
@pytest.mark.parametrize("confidence", [0.95, 0.9])
def test_clopper_pearson_agrees_with_scipy(successes: int, trials: int, confidence: float) -> None:
    expected = stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
    assert clopper_pearson(successes, trials, confidence=confidence) == pytest.approx((expected.low, expected.high))


def test_delong_agrees_with_loops() -> None:
    scores, members = gaussians(0.8, 25, np.random.default_rng(3))
    scores = np.round(scores, 1)
    ours, theirs = scores[members], scores[~members]
    wins = np.array([[1.0 if o > t else 0.5 if o == t else 0.0 for t in theirs] for o in ours])
    value = wins.mean()
    variance = np.var(wins.mean(axis=1), ddof=1) / len(ours) + np.var(wins.mean(axis=0), ddof=1) / len(theirs)
    reach = stats.norm.ppf(0.975) * math.sqrt(variance) / (value * (1 - value))
    found = auc(scores, members)
    assert found.value == pytest.approx(value)
    logit = math.log(value / (1 - value))
    assert found.low == pytest.approx(1 / (1 + math.exp(reach - logit)))
    assert found.high == pytest.approx(1 / (1 + math.exp(-reach - logit)))


def test_a_perfect_attack_on_few_is_not_certain() -> None:
    members = np.arange(40) < 20
    found = auc(members.astype(float), members)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(clopper_pearson(20, 20)[0])
    turned = auc(-members.astype(float), members)
    assert (turned.low, turned.value) == (0.0, 0.0)
    assert turned.high == pytest.approx(clopper_pearson(0, 20)[1])


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_one_models_intervals_hold_the_truth(shift: float) -> None:
    generator = np.random.default_rng(4)
    runs, area_held, advantage_held, rate_held = 500, 0, 0, 0
    for _ in range(runs):
        scores, members = gaussians(shift, 60, generator)
        found = auc(scores, members)
        area_held += found.low <= stats.norm.cdf(shift / math.sqrt(2)) <= found.high
        gap = advantage(scores, members)
        advantage_held += gap.low <= 2 * stats.norm.cdf(shift / 2) - 1 <= gap.high
        # Its threshold is set by non-members alone: the 7th largest, below which nothing is called a member.
        at = tpr_at_fpr(scores, members, fpr=0.1)
        threshold = np.sort(scores[~members])[-7]
        rate_held += at.low <= stats.norm.sf(threshold - shift) <= at.high
    assert area_held >= stats.binom.ppf(ALARM, runs, 0.94)  # DeLong's is asymptotic
    assert advantage_held >= stats.binom.ppf(ALARM, runs, 0.95)
    assert rate_held >= stats.binom.ppf(ALARM, runs, 0.95)


# Intervals of pooled scores


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_pooled_intervals_hold_the_truth(shift: float) -> None:
    generator = np.random.default_rng(5)
    spread = 1.5  # of effects and noise together: sqrt(1 + .25 + 1)
    truths = {
        "AUC": stats.norm.cdf(shift / spread / math.sqrt(2)),
        "advantage": 2 * stats.norm.cdf(shift / spread / 2) - 1,
        "TNR@1%FNR": stats.norm.sf(stats.norm.isf(0.01) - shift / spread),
    }
    runs, held = 150, dict.fromkeys(truths, 0)
    for _ in range(runs):
        found = summarise(*pooled(shift, generator), generator=generator, resamples=120)
        for name, truth in truths.items():
            held[name] += found[name].low <= truth <= found[name].high
    for name, count in held.items():
        assert count >= stats.binom.ppf(ALARM, runs, 0.92), name


def test_rows_of_models_that_leak_unequally_are_not_taken_as_independent() -> None:
    generator = np.random.default_rng(6)
    members = balanced_memberships(400, 8, generator=generator)
    leak = generator.normal(1.0, 1.0, size=(8, 1))
    scores = generator.normal(size=members.shape) + leak * members
    found = auc(scores, members, generator=generator)
    naive = auc(scores.ravel(), members.ravel())
    assert found.value == naive.value
    assert width(found) > 3 * width(naive)


def test_one_row_is_one_model() -> None:
    scores, members = gaussians(1.0, 30, np.random.default_rng(7))
    assert auc(scores[None], members[None]) == auc(scores, members)


def test_pooled_perfect_scores_are_not_certain() -> None:
    generator = np.random.default_rng(8)
    members = balanced_memberships(50, 8, generator=generator)
    found = summarise(members.astype(float), members, generator=generator)
    for name in ("AUC", "advantage", "TPR@1%FPR"):
        assert (found[name].value, found[name].high) == (1.0, 1.0)
        assert found[name].low == pytest.approx(clopper_pearson(50, 50)[0])


# What is said beside them


def test_rates_that_the_sample_cannot_resolve_are_not_given() -> None:
    scores, members = gaussians(2.0, 99, np.random.default_rng(9))
    found = tpr_at_fpr(scores, members, fpr=0.01)
    assert (found.value, found.low, found.high) == (None, None, None)
    assert "99 non-members cannot resolve a rate of 0.01: 100 are needed" in found.note
    assert "99 members" in tnr_at_fnr(scores, members, fnr=0.01).note
    scores, members = gaussians(2.0, 100, np.random.default_rng(9))
    assert tpr_at_fpr(scores, members, fpr=0.01).value is not None


def test_the_note_of_an_advantage_says_what_chance_gives() -> None:
    generator = np.random.default_rng(10)
    runs, above = 600, 0
    for _ in range(runs):
        found = advantage(*gaussians(0.0, 100, generator))
        above += found.value > float(found.note.split()[5])  # type: ignore[operator]
    assert found.note == "chance alone gives up to 0.173 in 95 % of such samples"
    # The Smirnov statistic is discrete and its law asymptotic: 2.5 % to 6 % must lie above.
    assert stats.binom.ppf(ALARM, runs, 0.025) <= above <= stats.binom.isf(ALARM, runs, 0.06)


def test_the_curve_is_thinned_and_reaches_its_ends() -> None:
    generator = np.random.default_rng(11)
    members = balanced_memberships(700, 16, generator=generator)
    scores = generator.normal(size=members.shape) + 2 * members
    curve = roc_curve(scores, members, points=100)
    assert 50 < len(curve.fpr) <= 103
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
    assert all(a <= b for a, b in pairwise(curve.fpr))
    assert all(a <= b for a, b in pairwise(curve.tpr))
    fpr, tpr, _ = sklearn_curve(members.ravel(), scores.ravel(), drop_intermediate=False)
    full = {(round(f, 9), round(t, 9)) for f, t in zip(fpr, tpr, strict=True)}
    assert {(round(f, 9), round(t, 9)) for f, t in zip(curve.fpr, curve.tpr, strict=True)} <= full
    assert np.sum(curve.fpr < 0.01) > 10  # enough for a logarithmic axis


def test_it_is_fast() -> None:
    generator = np.random.default_rng(12)
    members = balanced_memberships(800, 16, generator=generator)
    begin = time.perf_counter()
    summarise(generator.normal(size=members.shape), members, generator=generator, resamples=300)
    assert time.perf_counter() - begin < 10  # about .4 s alone on a core


def test_the_same_generator_gives_the_same_intervals() -> None:
    scores, members = pooled(1.0, np.random.default_rng(13))
    first, second = (summarise(scores, members, generator=np.random.default_rng(14)) for _ in range(2))
    assert first == second


# Refusals


def test_scores_that_cannot_be_judged_are_refused() -> None:
    scores, members = gaussians(1.0, 10, np.random.default_rng(15))
    with pytest.raises(ValueError, match="scores has shape"):
        auc(scores[:5], members)
    with pytest.raises(ValueError, match="members is int64"):
        auc(scores, members.astype(int))
    with pytest.raises(ValueError, match="not finite"):
        auc(np.where(members, np.nan, scores), members)
    with pytest.raises(ValueError, match="members has 20 of 20"):
        auc(scores, np.ones(20, dtype=bool))
    with pytest.raises(ValueError, match="generator is missing"):
        auc(*pooled(1.0, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="resamples is 3"):
        auc(*pooled(1.0, np.random.default_rng(0)), generator=np.random.default_rng(0), resamples=3)
    with pytest.raises(ValueError, match="fpr is 0"):
        tpr_at_fpr(scores, members, fpr=0)
    with pytest.raises(ValueError, match="points is 1"):
        roc_curve(scores, members, points=1)


def test_an_estimate_is_whole() -> None:
    assert str(Estimate(value=0.5, low=0.4, high=0.6, n=10)) == "0.500 [0.400, 0.600]"
    assert str(Estimate(value=0.5, low=None, high=None, n=10)) == "0.500"
    assert str(unresolvable(3, "too few")) == "not resolvable (too few)"
    for wrong in (
        {"value": math.nan, "low": None, "high": None},
        {"value": 0.5, "low": 0.4, "high": None},
        {"value": 0.5, "low": 0.6, "high": 0.4},
        {"value": None, "low": None, "high": None},
        {"value": None, "low": 0.1, "high": 0.2, "note": "why"},
    ):
        with pytest.raises(ValueError, match="value|low"):
            Estimate(n=3, **wrong)
    for successes, trials in ((1, 0), (-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="successes is"):
            clopper_pearson(successes, trials)
    with pytest.raises(ValueError, match="confidence is 95"):
        clopper_pearson(1, 3, confidence=95)
