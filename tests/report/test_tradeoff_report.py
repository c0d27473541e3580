"""The page about a trade-off: its figures, its statements, and that it stands alone."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from codream_secure.config import make_config
from codream_secure.errors import ConfigError
from codream_secure.report.tradeoff import build_tradeoff_report
from codream_secure.tradeoff import sweep


@pytest.fixture(scope="module")
def tradeoff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tradeoff")
    config = make_config(
        {
            "data": {"clients": 3, "samples_per_client": 10, "validation_samples": 20},
            "model": {"clients": ["mlp"], "server": "mlp"},
            "local": {"warmup_epochs": 1, "epochs": 1},
            "dreaming": {"images": 8, "steps": 2, "labels": "probabilities"},
            "distillation": {"epochs": 1},
            "dp": {"unit": "client", "epsilon": 2, "delta": 1e-3},
            "run": {"rounds": 1},
        }
    )
    sweep(config, budgets=(2.0, 8.0, math.inf), protections=("plain", "masked", "ckks"), seeds=2, out=out)
    return out


def contents(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "tradeoff.json").read_text())
    return found


def words(page: str) -> str:
    body = re.sub(r"(?s)<style.*?</style>", "", page)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).replace("\N{NO-BREAK SPACE}", " ").split())


def changed(tradeoff: Path, place: Path, **changes: Any) -> str:
    """The page of this trade-off with other contents."""
    (place / "tradeoff.json").write_text(json.dumps(contents(tradeoff) | changes))
    return build_tradeoff_report(place).read_text(encoding="utf-8")


def test_the_page_stands_alone(tradeoff: Path) -> None:
    path = build_tradeoff_report(tradeoff)
    page = path.read_text(encoding="utf-8")
    assert path == tradeoff / "tradeoff.html"
    links = re.findall(r'(?:src|href|action)="([^"]*)"', page)
    assert len(links) == 3
    assert all(link.startswith("data:image/svg+xml;base64,") for link in links)
    assert not re.search(r"<(script|link|iframe|object)\b|url\(|@import", page)
    assert path.stat().st_size < 500_000
    assert build_tradeoff_report(tradeoff).read_text(encoding="utf-8") == page, "a second one is the same"


def test_every_setting_has_its_figures_and_its_statement(tradeoff: Path) -> None:
    text = words(build_tradeoff_report(tradeoff).read_text(encoding="utf-8"))
    assert "at delta = 0.001 for the unit client under add_remove" in text
    for row in contents(tradeoff)["rows"]:
        if row["obstacle"]:
            assert f"Not run: {row['obstacle']}" in text
            continue
        for spread in (row["test_accuracy"], row["server_test_accuracy"]):
            assert spread or row["method"] == "isolated", "isolated training has no student"
            assert not spread or f"{100 * spread['mean']:.1f} ± {100 * spread['std']:.1f}" in text
        if row["text"]:
            assert row["text"] in text
            assert row["name"] in text
        if row["signal"]:
            assert row["signal"]["verdict"] in text


def test_charts_show_accuracy_bytes_and_seconds_with_no_noise_apart(tradeoff: Path) -> None:
    page = build_tradeoff_report(tradeoff).read_text(encoding="utf-8")
    charts = [base64.b64decode(part).decode() for part in re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', page)]
    for chart, label in zip(charts, ("test accuracy (%)", "bytes per client, up and down", "seconds"), strict=True):
        assert label in chart
        assert "no noise" in chart
        assert "Pareto-optimal" in chart
        assert "delta = 0.001, unit client" in chart
    alts = re.findall(r'alt="([^"]*)"', page)
    rows = {row["name"]: row for row in contents(tradeoff)["rows"]}
    assert f"masked: {100 * rows['budget 2, masked']['test_accuracy']['mean']:.1f} at budget 2, " in alts[0]
    assert f"{100 * rows['no noise, masked']['test_accuracy']['mean']:.1f} without noise" in alts[0]


def test_runs_that_ended_early_are_announced(tradeoff: Path, tmp_path: Path) -> None:
    rows = contents(tradeoff)["rows"]
    rows[1]["stopped"] = ["seed 1: before the end of round 4: <the budget is gone>"]
    text = words(changed(tradeoff, tmp_path, rows=rows).replace("&lt;the budget is gone&gt;", "[gone]"))
    assert "budget 2, plain ended early, seed 1: before the end of round 4: [gone]" in text


def test_hostile_texts_stay_text(tradeoff: Path, tmp_path: Path) -> None:
    rows = contents(tradeoff)["rows"]
    for row in rows:
        if row["obstacle"]:
            row["obstacle"] = "<script>obstacle()</script>"
        else:
            row["texts"] = ['"><script>statement()</script>']
    page = changed(tradeoff, tmp_path, rows=rows)
    assert "<script" not in page
    assert "<script>obstacle()</script>" in html.unescape(page)
    assert "<script>statement()</script>" in html.unescape(page)


@pytest.mark.parametrize("kept", ["no noise", "budget 8", "isolated"])
def test_a_page_of_few_settings_has_no_empty_parts(kept: str, tradeoff: Path, tmp_path: Path) -> None:
    rows = [row for row in contents(tradeoff)["rows"] if row["name"].startswith(kept)]
    page = changed(tradeoff, tmp_path, rows=rows)
    assert len(re.findall("<img", page)) == (0 if kept == "isolated" else 3)
    assert ("What is claimed" in page) == (kept != "no noise")


def test_what_is_no_trade_off_is_named(tradeoff: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tradeoff\.json.*cannot be read"):
        build_tradeoff_report(tmp_path)
    for damaged in ("{", "[]", '{"config": ""}'):
        (tmp_path / "tradeoff.json").write_text(damaged)
        with pytest.raises(ConfigError, match=r"tradeoff\.json.*is no trade-off"):
            build_tradeoff_report(tmp_path)
    assert not (tmp_path / "tradeoff.html").exists()
