"""The sentences: nothing is called what it is not, and nothing unlike is put side by side."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from attacks.report import summarise
from attacks.report.findings import Finding, chance, finding
from attacks.report.matrix import arrange
from attacks.report.summary import epsilon_sentence

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
    assert line.startswith("A claim is refuted. codream, example-dp, server, one-run audit")
    assert "at least 2.17 (95 % confidence, n = 1000); a perfect attack could show 6.45" in line
    assert "epsilon = 1.5 at delta = 1e-05 for the unit example under add_remove" in line


def test_the_highest_bound_stands_for_all_and_is_held_against_its_ceiling(audit: Audit) -> None:
    assert sentence(audit, "Lower bounds") == (
        "Lower bounds on epsilon: 1 of 3 are above what a ledger claims; the highest is 3.90 (codream, plain, server, "
        "one-run audit; 95 % confidence, n = 1000), where a perfect attack could show 6.45, so a small bound does not "
        "mean a small epsilon."
    )
    unclaimed = [part | {"ledger": None, "violated": False} for part in audit["epsilons"]]
    assert "no ledger claims anything; the highest" in sentence(audit | {"epsilons": unclaimed}, "Lower bounds")
    assert not [line for line in summarise(audit | {"epsilons": []}) if "epsilon" in line]


def test_every_bound_has_its_ceiling_and_its_ledger(audit: Audit) -> None:
    lines = [epsilon_sentence(part) for part in audit["epsilons"]]
    assert all("a perfect attack could show 6.45" in line and "edger claims" in line for line in lines)
    assert any("No guarantee, epsilon is infinite" in line for line in lines)


def test_words_on_an_invalid_audit_are_called_no_results(audit: Audit, valid_audit: Audit) -> None:
    assert "This audit is not valid: nothing that follows is a result." in summarise(audit)[:3]
    assert not [line for line in summarise(valid_audit) if "no result" in line or "nothing that follows" in line]


def test_fedavg_stands_beside_codream_only_where_training_and_adversary_match(audit: Audit) -> None:
    beside = [line for line in summarise(audit) if line.startswith("Beside fedavg")]
    assert (
        "Beside fedavg: active server, under plain: codream AUC 0.724 (0.685 to 0.763; logits on candidates as dreams, "
        "LiRA), fedavg AUC 0.769 (0.730 to 0.808; logits on candidates as dreams, LiRA); intervals overlap."
    ) in beside
    assert not [line for line in beside if "under example-dp:" in line]
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


def test_unlike_accuracies_are_said_once_and_of_whom_where_not_of_all(audit: Audit, row: MakeRow) -> None:
    rows = [row(method=method, protection=name) for method in ("codream", "fedavg") for name in ("plain", "masked")]
    caveat = "Test accuracies differ, which alone can make a difference: codream 95.0 % and fedavg 90.0 %"
    for victim in audit["victims"]:
        victim["test_accuracy"] = [0.95 if victim["method"] == "codream" else 0.90, 0.01]
    lines = [line for line in summarise(audit | {"rows": rows}) if "Test accuracies" in line]
    assert lines == [f"Beside fedavg: {caveat}."]
    for victim in audit["victims"]:
        if victim["protection"] == "masked":
            victim["test_accuracy"] = [0.9, 0.01]
    lines = [line for line in summarise(audit | {"rows": rows}) if "Test accuracies" in line]
    assert lines == [f"Beside fedavg: {caveat} (passive server, codream under plain)."]


def test_unknown_victims_are_not_compared(audit: Audit, row: MakeRow) -> None:
    found = audit | {"rows": [row(), row(method="fedavg")], "victims": []}
    assert "training of one is not known" in sentence(found, "Beside fedavg")


def test_the_number_of_looks_and_hindsight_are_told(audit: Audit, row: MakeRow) -> None:
    rows = [row(), row(metric="advantage"), row(value=None, low=None, high=None, note="not resolvable")]
    text = " ".join(summarise(audit | {"rows": rows}))
    assert "taken alone, and 1 were compared with chance or a control. Where nothing leaks, about one in forty" in text
    assert "chosen in hindsight, so their intervals are too narrow" in text
    assert "chosen in hindsight" not in " ".join(summarise(audit | {"rows": rows[1:]}))


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
