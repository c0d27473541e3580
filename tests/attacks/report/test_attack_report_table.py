"""The terminal: everything fits, and no text becomes a command or markup."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from attacks.report import print_audit

Audit = dict[str, Any]


def printed(audit: Audit, width: int = 80) -> str:
    stream = io.StringIO()
    print_audit(audit, Console(file=stream, width=width, color_system=None))
    return stream.getvalue()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_nothing_is_wider_than_the_terminal_and_no_figure_is_cut(width: int, audit: Audit) -> None:
    text = printed(audit, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for figures in ("0.724*", "0.685..0.763", "94.0 %*", "24.6*", "0.235*", "11.8 %*"):
        assert figures in text


def test_reasons_stand_where_figures_are_missing(audit: Audit) -> None:
    text = printed(audit)
    assert "not in view" in text
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


def test_checks_and_bounds_are_listed(audit: Audit) -> None:
    text = " ".join(printed(audit, 140).split())
    assert "victims overfit FAILED example-dp: training 0.81" in text
    assert "epsilon is at least 0.31" in text


def test_markup_is_not_interpreted(audit: Audit, row: Callable[..., Audit]) -> None:
    hostile = "[bold red]x[/] :bomb:"
    audit["rows"] = [row(probe=hostile, method="[m]", protection="[p]")]
    audit["checks"][0] |= {"name": hostile, "detail": "[/]"}
    text = printed(audit, 140)
    for kept in ("[bold red]x[/]", ":bomb:", "[m]", "[p]"):
        assert kept in text


def test_an_empty_audit_prints(empty_audit: Audit) -> None:
    assert printed(empty_audit).startswith("NOT VALID")
