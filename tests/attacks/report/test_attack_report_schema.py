"""What is read as an audit, and how everything else is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attacks.report import check_audit, load_audit
from codream_secure.errors import ConfigError

Audit = dict[str, Any]


def test_a_file_or_its_directory_is_read(audit: Audit, tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(audit))
    assert load_audit(path) == load_audit(tmp_path) == audit
    path.write_text(json.dumps(audit | {"seconds": 12}))
    assert load_audit(path)["seconds"] == 12, "a whole number is a number"


def test_what_is_no_file_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"audit '.*audit\.json' cannot be read"):
        load_audit(tmp_path)
    for damaged in (b"{", b"\xff\xfe"):
        (tmp_path / "audit.json").write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"audit\.json' is no JSON .* run the audit again"):
            load_audit(tmp_path)


@pytest.mark.parametrize("version", [0, 2, "1", True, None])
def test_another_version_is_refused_before_anything_else(version: Any, audit: Audit) -> None:
    with pytest.raises(ConfigError, match=r"audit is .*version 1 is needed"):
        check_audit(audit | {"version": version, "rows": "nonsense"})


@pytest.mark.parametrize("content", [[], "text", None, 3])
def test_what_is_no_object_is_no_audit(content: Any) -> None:
    with pytest.raises(ConfigError, match=r"is no audit"):
        check_audit(content)


def test_every_key_is_needed_and_no_other_is_taken(audit: Audit) -> None:
    for key in audit:
        if key != "version":
            with pytest.raises(ConfigError, match=rf"audit is damaged: {key}: Field required"):
                check_audit({name: value for name, value in audit.items() if name != key})
    with pytest.raises(ConfigError, match=r"extra: Extra inputs are not permitted"):
        check_audit(audit | {"extra": 1})


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("rows", {"value": "0.6"}, "rows.0.value: Input should be a valid number"),
        ("rows", {"value": float("nan")}, "rows.0.value: Input should be a finite number"),
        ("rows", {"active": 1}, "rows.0.active: Input should be a valid boolean"),
        ("rows", {"n": -1}, "rows.0.n: Input should be greater than or equal to 0"),
        ("rows", {"extra": 1}, "rows.0.extra: Extra inputs"),
        ("rows", {"probe": ""}, "rows.0.probe: String should have at least 1 character"),
        ("rows", {"probe": "\x1b[2J"}, "rows.0.probe: holds control characters"),
        ("rows", {"value": None, "low": None, "high": None, "note": " "}, "rows.0: value is null and note is empty"),
        ("rows", {"value": None, "note": "why"}, "rows.0: value is null beside an interval"),
        ("rows", {"low": 0.9, "high": 0.1}, "rows.0: low is 0.9, above high, 0.1"),
        ("victims", {"test_accuracy": [0.9]}, "victims.0.test_accuracy: List should have at least 2 items"),
        ("rocs", {"fpr": [0.0, 1.0]}, "rocs.0: fpr has 2 points and tpr 121"),
        ("rocs", {"fpr": [0.0, 1.5], "tpr": [0.0, 1.0]}, "rocs.0.fpr.1: Input should be less than or equal to 1"),
        ("rocs", {"fpr": [0.5, 0.1], "tpr": [0.0, 1.0]}, "rocs.0: fpr or tpr falls"),
        ("rocs", {"nonmembers": 0}, "rocs.0.nonmembers: Input should be greater than or equal to 1"),
        ("pictures", {"target": "PHN2Zz4="}, "pictures.0.target: is no PNG"),
        ("pictures", {"target": "<svg>"}, "pictures.0.target: is no base64"),
        ("dreams", {"image": 'x" onload="'}, "dreams.0.image: is no base64"),
        ("epsilons", {"ledger": {"epsilon": 1}}, "epsilons.0: ledger is no privacy statement"),
        (
            "epsilons",
            {"violated": True},
            "epsilons.0: violated is True for a lower bound of 0.31 against the ledger's 4",
        ),
        ("epsilons", {"lower": 4.1}, "epsilons.0: violated is False for a lower bound of 4.1"),
        ("epsilons", {"ledger": None, "violated": True}, "epsilons.0: violated is True .* against no ledger"),
    ],
)
def test_a_damaged_part_is_named_with_its_place(part: str, changes: Audit, message: str, audit: Audit) -> None:
    audit[part][0] |= changes
    with pytest.raises(ConfigError, match=re.escape(message).replace(r"\.\*", ".*")):
        check_audit(audit)


def test_a_verdict_that_contradicts_its_checks_is_refused(audit: Audit) -> None:
    with pytest.raises(ConfigError, match=r"valid is true although 'victims overfit' failed"):
        check_audit(audit | {"valid": True})
    for check in audit["checks"]:
        check["passed"] = True
    assert not check_audit(audit)["valid"], "an audit may know better than its checks, downwards"


def test_only_the_first_faults_are_listed(audit: Audit, row: Callable[..., Audit]) -> None:
    audit["rows"] = [row(value="x") for _ in range(40)]
    with pytest.raises(ConfigError, match=r"rows\.4\.value: [^;]*; and 35 more\. Run the audit again"):
        check_audit(audit)
