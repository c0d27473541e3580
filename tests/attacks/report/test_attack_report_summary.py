"""The sentences: nothing is called what it is not, and nothing unlike is put side by side."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from attacks.report import summarise
from attacks.report.findings import Finding, chance, finding
from attacks.report.matrix import arrange

Audit = dict[str, Any]
MakeRow = Callable[..., Audit]

FORBIDDEN = re.compile(r"\b(un)?safe|\b(in)?secure|\bproven private|no leak\b", re.IGNORECASE)


def sentence(audit: Audit, start: str) -> str:
    found = [line for line in summarise(audit) if line.startswith(start)]
    assert len(found) == 1, (start, found)
    return found[0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"low": 0.51, "high": 0.7}, Finding.ABOVE),
        ({"low": 0.5, "high": 0.7}, Finding.INDISTINCT),
        ({"value": 0.4, "low": 0.3, "high": 0.49}, Finding.BELOW),
        ({"low": None, "high": None}, Finding.UNJUDGED),
        ({"metric": "TPR@1%FPR", "value": 0.02, "low": 0.011, "high": 0.03}, Finding.ABOVE),
        ({"metric": "TPR@1%FPR", "value": 0.02, "low": 0.009, "high": 0.03}, Finding.INDISTINCT),
        ({"metric": "TPR@0.1%FPR", "value": 0.002, "low": 0.0011, "high": 0.03}, Finding.ABOVE),
        ({"metric": "TNR@1%FNR", "value": 0.02, "low": 0.011, "high": 0.03}, Finding.ABOVE),
        ({"metric": "TPR@1%FPR", "value": 0.0, "low": 0.0, "high": 0.005}, Finding.INDISTINCT),
        ({"metric": "advantage", "value": 0.2, "low": 0.1, "high": 0.3}, Finding.UNJUDGED),
        ({"metric": "advantage", "value": 0.2, "low": 0.1, "high": 0.3, "control": 0.0}, Finding.UNJUDGED),
        ({"metric": "advantage", "value": 0.2, "low": 0.1, "high": 0.3, "control": 0.08}, Finding.ABOVE),
        ({"metric": "PSNR, dB", "value": 20.0, "low": 19.0, "high": 21.0}, Finding.UNJUDGED),
        ({"metric": "PSNR, dB", "value": 20.0, "low": 19.0, "high": 21.0, "control": 13.0}, Finding.ABOVE),
        ({"metric": "PSNR, dB", "value": 9.0, "low": 8.0, "high": 10.0, "control": 13.0}, Finding.INDISTINCT),
        ({"metric": "rank 1 of 100", "value": 0.5, "low": 0.2, "high": 0.8}, Finding.ABOVE),
        ({"metric": "relative error", "value": 0.1, "low": 0.05, "high": 0.2, "control": 0.9}, Finding.ABOVE),
        ({"metric": "total variation", "value": 0.4, "low": 0.3, "high": 0.5, "control": 0.44}, Finding.INDISTINCT),
        ({"metric": "something new", "value": 0.4, "low": 0.3, "high": 0.5, "control": 0.2}, Finding.UNJUDGED),
        ({"value": None, "low": None, "high": None, "note": "not in the view: ciphertexts"}, Finding.UNSEEN),
        ({"value": None, "low": None, "high": None, "note": "not resolvable: 50 negatives"}, Finding.UNRESOLVED),
    ],
)
def test_a_row_is_judged_by_its_interval_alone(changes: Audit, expected: Finding, row: MakeRow) -> None:
    assert finding(row(**changes)) is expected


def test_a_control_does_not_move_chance_where_that_is_known(row: MakeRow) -> None:
    assert chance(row(control=0.3)) == 0.5
    assert chance(row(metric="TPR@0.1%FPR", control=0.3)) == 0.001


def test_the_verdict_comes_first_and_names_what_failed(valid_audit: Audit, empty_audit: Audit) -> None:
    failed = valid_audit | {"valid": False, "checks": [{"name": "blind", "passed": False, "detail": "AUC 0.7"}]}
    assert summarise(failed)[0] == (
        "This audit is not valid, and no figure of it is a result. Failed: blind (AUC 0.7)."
    )
    assert summarise(valid_audit)[0].startswith("All 4 checks passed")
    assert summarise(valid_audit | {"valid": False})[0].startswith("This audit is not valid")
    assert summarise(empty_audit | {"valid": True})[0].endswith("no check was made.")


def test_no_sentence_calls_anything_what_it_is_not(audit: Audit, empty_audit: Audit) -> None:
    for line in [*summarise(audit), *summarise(empty_audit), *(kind.value for kind in Finding)]:
        assert not FORBIDDEN.search(line), line
    assert "this attack, with this power and this n" in summarise(empty_audit)[-1]


def test_refuted_claims_follow_the_verdict_with_the_whole_statement(audit: Audit) -> None:
    line = summarise(audit)[1]
    assert line.startswith("Refuted claim: codream, example-dp, server, one-run audit")
    assert "at least 2.17 (95 % confidence, n = 1000); a perfect attack could show 6.45" in line
    assert "epsilon = 1.5 at delta = 1e-05 for the unit example under add_remove" in line


def test_every_epsilon_has_its_ceiling_and_its_ledger(audit: Audit) -> None:
    lines = [line for line in summarise(audit) if line.startswith(("Epsilon:", "Refuted"))]
    assert len(lines) == len(audit["epsilons"])
    assert all("a perfect attack could show 6.45" in line and "edger claims" in line for line in lines)
    assert any("No guarantee, epsilon is infinite" in line for line in lines)


def test_every_adversary_is_told_apart_passive_from_active(audit: Audit) -> None:
    above = sentence(audit, "Active server: Above chance")
    assert "codream under plain: AUC 0.724 (0.685 to 0.763, n = 800)" in above
    assert "client-dp: AUC 0.565" in above
    assert "codream under client-dp" not in above
    assert "codream under client-dp: AUC 0.508" in sentence(audit, "Active server: Not distinguishable from chance at")
    assert "codream under ckks, fedavg under ckks" in sentence(audit, "Active server: Not in view")
    assert "under plain, masked and ckks: AUC 0.567" in sentence(audit, "Public: Above chance")


def test_one_exposed_tail_is_enough(audit: Audit, row: MakeRow) -> None:
    tail = row(metric="TPR@1%FPR", value=0.05, low=0.03, high=0.08)
    found = audit | {"rows": [row(value=0.51, low=0.48, high=0.54), tail]}
    assert "TPR@1%FPR 5.0 % (3.0 to 8.0, n = 800)" in sentence(found, "Passive server: Above chance")
    assert not [line for line in summarise(found) if "Not distinguishable" in line]


def test_seeds_are_counted_and_not_pooled(audit: Audit, row: MakeRow) -> None:
    rows = [row(seed=0, value=0.6), row(seed=1, value=0.52, low=0.47, high=0.57), row(seed=2, value=0.58)]
    text = sentence(audit | {"rows": rows}, "Passive server: Above chance")
    assert "AUC 0.520 to 0.600 over 3 seeds, so in 2 of them" in text


def test_a_mean_over_seeds_is_no_further_seed(audit: Audit, row: MakeRow) -> None:
    single = [row(seed=seed, value=value) for seed, value in enumerate((0.6, 0.52, 0.58))]
    mean = row(seed=None, value=0.567, low=0.53, high=0.61, n=2400)
    text = sentence(audit | {"rows": [mean, *single]}, "Passive server: Above chance")
    assert "AUC 0.567 (0.530 to 0.610, n = 2400)" in text
    assert "seeds" not in text


def test_strongest_probes_keep_passive_and_active_apart(audit: Audit) -> None:
    text = sentence(audit, "Strongest probes: Membership against codream")
    assert re.search(r"public, .*AUC 0\.567.*; active server, .*AUC 0\.724", text)
    assert "hindsight" in " ".join(line for line in summarise(audit) if line.startswith("Strongest probes"))


def test_fedavg_stands_beside_codream_only_where_training_and_adversary_match(audit: Audit) -> None:
    beside = [line for line in summarise(audit) if line.startswith("Beside fedavg")]
    active = next(line for line in beside if "Active server, codream:" in line)
    assert "under plain AUC 0.724 (0.685 to 0.763; logits on candidates as dreams, LiRA) against AUC 0.769" in active
    assert "intervals overlap" in active
    assert "example-dp" not in active
    refused = next(line for line in beside if "Not compared" in line)
    assert "they differ in rounds (5 and 3)" in refused
    assert "example-dp" in refused
    for victim in audit["victims"]:
        victim["rounds"] = 7 if victim["method"] == "fedavg" else 5
    assert all("Not compared" in line for line in summarise(audit) if line.startswith("Beside fedavg"))


@pytest.mark.parametrize("key", ["clients", "images"])
def test_other_data_or_cohorts_are_not_compared_either(key: str, audit: Audit) -> None:
    for victim in audit["victims"]:
        victim[key] += victim["method"] == "fedavg"
    lines = [line for line in summarise(audit) if line.startswith("Beside fedavg")]
    assert lines
    assert all("Not compared" in line and key in line for line in lines)


def test_a_passive_row_is_never_beside_an_active_one(audit: Audit, row: MakeRow) -> None:
    rows = [row(), row(method="fedavg", active=True, value=0.8, low=0.7, high=0.9)]
    assert not [line for line in summarise(audit | {"rows": rows}) if line.startswith("Beside")]
    rows = [row(), row(method="fedavg", adversary="client")]
    assert not [line for line in summarise(audit | {"rows": rows}) if line.startswith("Beside")]


def test_unlike_accuracies_and_unknown_victims_are_said(audit: Audit, row: MakeRow) -> None:
    found = audit | {"rows": [row(), row(method="fedavg")]}
    for victim in found["victims"]:
        victim["test_accuracy"] = [0.95 if victim["method"] == "codream" else 0.90, 0.01]
    assert "test accuracies of 95.0 % and 90.0 %" in sentence(found, "Beside fedavg")
    assert "training of one is not known" in sentence(found | {"victims": []}, "Beside fedavg")


def test_the_number_of_looks_is_told(audit: Audit, row: MakeRow) -> None:
    rows = [row(), row(metric="advantage"), row(value=None, low=None, high=None, note="not resolvable")]
    assert "taken alone, and 1 were compared" in " ".join(summarise(audit | {"rows": rows}))


def test_tables_hold_only_victims_that_were_tried(row: MakeRow) -> None:
    rows = [
        row(probe="a"),
        row(probe="b", method="fedavg"),
        row(probe="c"),
        row(probe="c", metric="TPR@1%FPR"),
        row(probe="c", metric="AUC", active=True),
    ]
    passive, active = arrange(rows)
    assert (passive.title, active.title) == ("passive server", "active server")
    assert [[line.probe for line in grid.lines] for grid in passive.grids] == [["a", "c", "c"], ["b"]]
    assert [grid.victims for grid in passive.grids] == [(("codream", "plain"),), (("fedavg", "plain"),)]
