"""The terminal: everything fits, and no text becomes a command or markup."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from attacks.report import print_audit

Audit = dict[str, Any]


def printed(audit: Audit, width: int = 80, *, details: bool = False) -> str:
    stream = io.StringIO()
    print_audit(audit, Console(file=stream, width=width, color_system=None), details=details)
    return stream.getvalue()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_nothing_is_wider_than_the_terminal_and_no_figure_is_cut(width: int, audit: Audit) -> None:
    glance, details = printed(audit, width), printed(audit, width, details=True)
    assert max(map(len, details.splitlines())) <= width
    assert "…" not in details
    for figures in ("0.724*", "0.685..0.763", "24.6*", "0.235*"):
        assert figures in glance
    for figures in ("94.0 %*", "11.8 %*"):
        assert figures in details
        assert figures not in glance


def test_one_table_where_it_fits_otherwise_one_a_method_with_what_was_tried_on_it(audit: Audit) -> None:
    wide = printed(audit, 200)
    assert wide.count("probe  ") == 1
    narrow = printed(audit, 100)
    assert narrow.count("probe  ") == 2
    dreaming, averaging = narrow[: narrow.index("In plain")].split("probe  ")[1:]
    assert "label distribution from" in dreaming
    assert "gradient matching" not in dreaming
    assert "gradient matching" in averaging
    assert "Public" not in averaging


def test_what_the_headline_does_not_show_is_counted_below_it(audit: Audit, row: Callable[..., Audit]) -> None:
    rows = [
        row(probe="logits, LiRA", value=0.51, low=0.48, high=0.54),
        row(probe="logits, LiRA", metric="TPR@1%FPR", value=0.05, low=0.03, high=0.08),
        row(probe="logits, threshold", value=0.52, low=0.49, high=0.55),
    ]
    lines = printed(audit | {"rows": rows}).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("logits"))
    assert [line.split() for line in lines[start : start + 3]] == [
        ["logits", "0.510"],
        ["AUC", "by", "LiRA;", "chance", "0.5", "0.480..0.540"],
        ["+1", "of", "2"],
    ]


def test_controls_that_differ_stand_with_their_figures(audit: Audit, row: Callable[..., Audit]) -> None:
    rows = [
        row(metric="PSNR, dB", value=20.0, low=18.0, high=22.0, control=14.3),
        row(metric="PSNR, dB", value=9.0, low=8.0, high=10.0, control=13.0, protection="masked"),
    ]
    text = printed(audit | {"rows": rows})
    assert "control 14.3" in text
    assert "control 13.0" in text


def test_the_words_are_there_and_refuted_claims_before_them(audit: Audit) -> None:
    text = " ".join(printed(audit).split())
    assert text.index("A claim is refuted. codream, example-dp") < text.index("At a glance")
    assert "In plain words This audit is not valid: nothing that follows is a result." in text
    assert "Tells which images were trained on: 72 in 100 under plain, 63 in 100 under masked" in text
    assert "about one in forty still lies above it" in text
    assert "passive server plain codream 0.503 0.790 apart" in text


def test_reasons_stand_where_figures_are_missing(audit: Audit) -> None:
    assert "not in view" in printed(audit)
    text = printed(audit, details=True)
    assert "resolvable" in text
    assert "advantage" not in text
    assert "TPR@0.1%FPR" not in text


def test_the_verdict_is_first_and_last(audit: Audit) -> None:
    lines = printed(audit).strip().splitlines()
    assert lines[0].startswith("NOT VALID: This audit is not valid")
    assert lines[-1] == "NOT VALID"


def test_a_valid_audit_is_called_so(valid_audit: Audit) -> None:
    lines = printed(valid_audit).strip().splitlines()
    assert lines[0].startswith("VALID: All 4 checks passed")
    assert lines[-1] == "VALID"


def test_only_failed_checks_are_listed_and_all_with_details(audit: Audit) -> None:
    text, details = (" ".join(printed(audit, 140, details=chosen).split()) for chosen in (False, True))
    for found in (text, details):
        assert "victims overfit FAILED example-dp: training 0.81" in found
    assert "blind classifier" not in text
    assert "epsilon is at least 0.31" not in text
    assert "blind classifier passed" in details
    assert "epsilon is at least 0.31" in details


def test_without_failed_checks_none_are_listed(valid_audit: Audit) -> None:
    assert "Failed checks" not in printed(valid_audit)


@pytest.mark.parametrize("details", [False, True])
def test_nothing_is_called_what_it_is_not(details: bool, audit: Audit, valid_audit: Audit, empty_audit: Audit) -> None:
    for each in (audit, valid_audit, empty_audit):
        assert not re.search(r"\b(un)?safe|\b(in)?secure", printed(each, details=details), re.IGNORECASE)


def test_markup_is_not_interpreted(audit: Audit, row: Callable[..., Audit]) -> None:
    hostile = "[bold red]x[/] :bomb:"
    audit["rows"] = [row(probe=hostile, method="[m]", protection="[p]")]
    audit["checks"][0] |= {"name": hostile, "passed": False, "detail": "[/]"}
    text = printed(audit, 140, details=True)
    assert "[/]" in printed(audit, 140)
    for kept in ("[bold red]x[/]", ":bomb:", "[m]", "[p]"):
        assert kept in text


def test_an_empty_audit_prints(empty_audit: Audit) -> None:
    assert printed(empty_audit).startswith("NOT VALID")
