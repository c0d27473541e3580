"""Findings of one or several seeds as one document: means, what is missing in some seeds, and its verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from attacks.auditing.document import document, over_seeds
from attacks.auditing.findings import Findings
from attacks.report import check_audit
from attacks.rows import Check, Row

PASSED = Check(name="blind classifier", passed=True, detail="AUC 0.500")
FAILED = Check(name="blind classifier", passed=False, detail="AUC 0.900")


def row(value: float | None, *, metric: str = "AUC", probe: str = "weights sent, LiRA", note: str = "") -> Row:
    return Row(
        method="codream",
        protection="plain",
        adversary="server",
        active=False,
        probe=probe,
        metric=metric,
        value=value,
        low=None if value is None else value - 0.01,
        high=None if value is None else value + 0.01,
        control=0.5,
        n=100,
        note=note,
    )


def made(found: Mapping[int, Findings]) -> dict[str, Any]:
    return document(
        found,
        title="What leaks",
        command="codream-secure audit",
        config="[run]\nrounds = 1\n",
        adversaries=["server", "public"],
        active=True,
    )


def test_the_interval_over_seeds_covers_as_often_as_students_t_promises() -> None:
    """400 audits of 3 seeds with normal values; coverage lies outside of the 1e-6 points below once in 500 000 runs."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        mean, *_ = over_seeds({seed: [row(float(value))] for seed, value in enumerate(rng.normal(0.6, 0.05, 3))})
        assert mean.low is not None
        assert mean.high is not None
        covered += mean.low <= 0.6 <= mean.high
    assert stats.binom.ppf(1e-6, 400, 0.95) <= covered <= stats.binom.isf(1e-6, 400, 0.95)


def test_a_mean_pools_numbers_and_says_what_it_is() -> None:
    mean, *own = over_seeds({7: [row(0.59)], 9: [row(0.61)]})
    reach = stats.t.ppf(0.975, 1) * np.std([0.59, 0.61], ddof=1) / 2**0.5
    assert (mean.low, mean.high) == pytest.approx((0.6 - reach, 0.6 + reach))
    assert (mean.n, mean.seed, mean.control) == (200, None, 0.5)
    assert "mean of 2 seeds" in mean.note
    assert "Student's t" in mean.note
    assert own == [replace(row(0.59), seed=7), replace(row(0.61), seed=9)]


def test_an_interval_of_a_share_ends_at_0_and_1_and_that_of_decibels_does_not() -> None:
    share, *_ = over_seeds({7: [row(0.5)], 9: [row(0.7)]})
    assert (share.low, share.high) == (0.0, 1.0)
    decibels, *_ = over_seeds({7: [row(0.5, metric="PSNR, dB")], 9: [row(0.7, metric="PSNR, dB")]})
    assert decibels.low is not None
    assert decibels.low < 0


def test_the_control_of_a_mean_is_the_mean_of_the_controls() -> None:
    mean, *_ = over_seeds({0: [replace(row(20.0), control=10.0)], 1: [replace(row(22.0), control=14.0)]})
    assert mean.control == pytest.approx(12.0)


def test_rows_of_different_measures_and_probes_are_not_mixed() -> None:
    kinds = [("AUC", "a"), ("advantage", "a"), ("AUC", "b")]
    rows = {
        seed: [row(seed + place, metric=metric, probe=probe) for place, (metric, probe) in enumerate(kinds)]
        for seed in (0, 2)
    }
    means = [each for each in over_seeds(rows) if each.seed is None]
    assert [(each.metric, each.probe) for each in means] == kinds
    assert [each.value for each in means] == [1.0, 2.0, 3.0]


def test_what_one_seed_could_not_resolve_has_no_mean() -> None:
    mean, *_ = over_seeds({0: [row(0.5)], 1: [row(None, note="not resolvable: too few")]})
    assert (mean.value, mean.low, mean.high, mean.seed) == (None, None, None, None)
    assert mean.note == "not resolvable: too few"


def test_a_row_that_only_one_seed_has_does_not_break_the_document() -> None:
    """Canaries have a row where an adversary asks about 10 or more, which for one client's depends on the seed."""
    few = "models at clients, LiRA, mislabelled canaries"
    found = {
        0: Findings(rows=[row(0.5), row(0.8, probe=few)], checks=[PASSED]),
        1: Findings(rows=[row(0.6)], checks=[PASSED]),
    }
    rows = made(found)["rows"]
    assert any(each["probe"] == few and each["seed"] == 0 and each["value"] == 0.8 for each in rows)
    # A mean of fewer seeds than the others would not say so.
    assert not any(each["probe"] == few and each["seed"] is None for each in rows)


def test_documents_of_one_and_several_seeds_pass_through_json_and_are_accepted() -> None:
    one = Findings(
        rows=[row(0.5), row(None, metric="TPR@0.1%FPR", note="not resolvable")], checks=[PASSED], seconds=2.0
    )
    for found in ({3: one}, {0: one, 1: one, 2: one}):
        audited = made(found)
        again = json.loads(json.dumps(audited, allow_nan=False))
        assert check_audit(again) == again
        assert again["valid"] is True
        assert again["seeds"] == list(found)
        assert again["seconds"] == 2.0 * len(found)
        assert set(again["rows"][0]) == {
            *("method", "protection", "adversary", "active", "probe", "metric", "value", "low", "high"),
            *("control", "n", "seed", "assumptions", "note"),
        }
        assert set(again["checks"][0]) == {"name", "passed", "detail"}


def test_a_check_that_failed_in_any_seed_makes_all_invalid_and_names_the_seed() -> None:
    found = {
        0: Findings(rows=[row(0.5)], checks=[PASSED]),
        4: Findings(rows=[row(0.5)], checks=[FAILED]),
    }
    audited = made(found)
    assert audited["valid"] is False
    assert [(check["name"], check["passed"]) for check in audited["checks"]] == [
        ("blind classifier, seed 0", True),
        ("blind classifier, seed 4", False),
    ]
    alone = made({4: found[4]})
    assert not alone["valid"]
    assert alone["checks"][0]["name"] == "blind classifier"


def test_epsilons_of_all_seeds_and_pictures_of_the_first_are_kept() -> None:
    def line(lower: float) -> dict[str, Any]:
        return {
            "method": "codream",
            "protection": "plain",
            "adversary": "server",
            "probe": "weights sent",
            "lower": lower,
            "ceiling": 3.0,
            "confidence": 0.95,
            "n": 100,
            "ledger": None,
            "violated": False,
            "text": "nothing is claimed",
        }

    victims = [
        {
            "method": "codream",
            "protection": name,
            "clients": 4,
            "rounds": 1,
            "images": 20,
            "train_accuracy": [1.0, 0.0],
            "test_accuracy": [0.9, 0.01],
            "trials": 6,
        }
        for name in ("first", "second")
    ]
    found = {
        seed: Findings(rows=[row(0.5)], checks=[PASSED], epsilons=[line(seed)], victims=[victims[seed]])
        for seed in (0, 1)
    }
    audited = made(found)
    assert [each["lower"] for each in audited["epsilons"]] == [0, 1]
    assert [each["protection"] for each in audited["victims"]] == ["first"]
