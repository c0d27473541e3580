"""Designs of trials, and that references tell nothing about the target's membership.

Chance alarms: each chi-square below is compared with its 1e-6 point.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from attacks.membership import balanced_memberships, references, score_all

ALARM = 1e-6


@settings(max_examples=40, deadline=None)
@given(candidates=st.integers(1, 60), half=st.integers(2, 9), seed=st.integers(0, 2**32 - 1))
def test_each_candidate_is_in_half_of_the_trials_and_references_are_equal(
    candidates: int, half: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    members = balanced_memberships(candidates, 2 * half, generator=generator)
    assert members.dtype == bool
    assert members.shape == (2 * half, candidates)
    assert (members.sum(axis=0) == half).all()
    target = seed % (2 * half)
    ins, outs = references(members, target, generator=generator)
    assert ins.shape == outs.shape == (candidates, half - 1)
    columns = np.arange(candidates)[:, None]
    assert members[ins, columns].all()
    assert not members[outs, columns].any()
    assert not (ins == target).any()
    assert not (outs == target).any()
    assert all(len(set(row)) == half - 1 for row in np.concatenate([ins, outs]).tolist())


def test_memberships_within_a_trial_are_fair_independent_coins() -> None:
    members = balanced_memberships(40_000, 6, generator=np.random.default_rng(1))
    for trial in members:
        assert stats.binomtest(int(trial.sum()), len(trial)).pvalue > ALARM
        pairs = 2 * trial[0::2].astype(int) + trial[1::2]
        assert stats.chisquare(np.bincount(pairs, minlength=4)).pvalue > ALARM


def test_the_same_seed_gives_the_same_design() -> None:
    first, second = (balanced_memberships(30, 8, generator=np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_counts_of_references_tell_nothing_here_and_everything_when_one_is_left_out_naively() -> None:
    generator = np.random.default_rng(2)
    members = balanced_memberships(300, 8, generator=generator)
    ours, naive = np.zeros(members.shape), np.zeros(members.shape)
    for target in range(len(members)):
        ins, outs = references(members, target, generator=generator)
        ours[target] = outs.shape[1] - ins.shape[1]
        others = np.delete(members, target, axis=0)
        naive[target] = (~others).sum(axis=0) - others.sum(axis=0)
    assert roc_auc_score(members.ravel(), ours.ravel()) == 0.5
    assert roc_auc_score(members.ravel(), naive.ravel()) == 1.0


def test_which_trials_are_references_is_independent_of_the_targets_membership() -> None:
    generator = np.random.default_rng(3)
    members = balanced_memberships(60_000, 4, generator=generator)
    ins, outs = references(members, 0, generator=generator)
    pair = 4 * ins[:, 0] + outs[:, 0]
    table = [np.bincount(pair[members[0] == side], minlength=16) for side in (False, True)]
    used = np.array(table)[:, np.sum(table, axis=0) > 0]
    assert used.shape == (2, 6)
    assert stats.chi2_contingency(used).pvalue > ALARM
    assert stats.chisquare(used.sum(axis=0)).pvalue > ALARM


@pytest.mark.parametrize("kind", ["lira_online", "lira_offline", "rmia_online", "rmia_offline", "threshold"])
def test_signals_that_do_not_depend_on_membership_score_at_chance(kind: str) -> None:
    # Designs are independent of each other: their AUCs' mean is compared with .5 at six standard errors (2e-9).
    areas = []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        members = balanced_memberships(150, 8, generator=generator)
        signals = 3 * generator.normal(size=150) + generator.normal(size=members.shape)
        scores = score_all(signals, members, kind=kind, generator=generator)  # type: ignore[arg-type]
        areas.append(roc_auc_score(members.ravel(), scores.ravel()))
    # Pooled rows are dependent: the standard error is that of the designs, but no less than of 1200 independent rows.
    error = max(np.std(areas, ddof=1), 1 / np.sqrt(6 * 1200)) / np.sqrt(len(areas))
    assert abs(np.mean(areas) - 0.5) < 6 * error


@pytest.mark.parametrize(("candidates", "trials"), [(0, 4), (5, 2), (5, 5), (5, 0)])
def test_impossible_designs_are_refused(candidates: int, trials: int) -> None:
    with pytest.raises(ValueError, match="candidates is|trials is"):
        balanced_memberships(candidates, trials, generator=np.random.default_rng(0))


def test_unbalanced_memberships_are_refused() -> None:
    generator = np.random.default_rng(0)
    members = balanced_memberships(5, 4, generator=generator)
    with pytest.raises(ValueError, match="numbered from 0"):
        references(members, 4, generator=generator)
    with pytest.raises(ValueError, match="int64"):
        references(members.astype(int), 0, generator=generator)
    members[:, 3] = [True, True, True, False]
    with pytest.raises(ValueError, match="candidate 3 in 3 of 4 trials"):
        references(members, 0, generator=generator)
