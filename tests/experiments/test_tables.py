"""Committed results as Markdown: what is rendered, and that the documents hold just that."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from codream_secure.errors import ConfigError
from codream_secure.privacy import Adversary
from experiments import tables
from experiments.tables import bench_markdown, cost_markdown, fill, markdown, render

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def spread(mean: float | None, std: float | None = None) -> dict[str, Any]:
    return {"mean": mean, "std": std, "values": []}


def figures(test: float, std: float | None = None) -> dict[str, Any]:
    return {
        "test_accuracy": spread(test, std),
        "validation_accuracy": spread(test + 0.01),
        "bytes_up": spread(1234.0),
        "bytes_down": spread(5.0e6),
        "seconds": spread(12.34),
    }


def reached(round: int | None, count: float | None = None) -> dict[str, Any]:
    return {"target": 0.9, "round": round, "bytes_up": count, "bytes_down": count, "seconds": count}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results: a comparison and two ablations."""
    folder = tmp_path / "results"
    folder.mkdir()
    comparison = {
        "methods": [
            {"method": "codream", "obstacle": None, "gap_closed": 0.876, **figures(0.9123, 0.011)},
            {"method": "fedavg", "obstacle": "needs one architecture"},
            {"method": "isolated", "obstacle": None, "gap_closed": None, **figures(0.5)},
        ]
    }
    plain = {"variants": [{"name": "full", "to_reference": None, **figures(0.9, 0.02)}]}
    costs = {
        "variants": [
            {"name": "quick", "to_reference": [reached(1, 100.0), reached(None), reached(2, 200.0)], **figures(0.8)},
            {"name": "never", "to_reference": [reached(None), reached(None)], **figures(0.2)},
        ]
    }
    for name, content in (("comparison_0.1", comparison), ("plain", plain), ("costs", costs)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.setattr(tables, "RESULTS", folder)
    return folder


COMPARISON = """\
| method | test accuracy, % | gap closed | up / client | down / client | seconds |
| --- | ---: | ---: | ---: | ---: | ---: |
| codream | 91.2 ± 1.1 | 88 % | 1.23 kB | 5 MB | 12.3 |
| fedavg | needs one architecture |  |  |  |  |
| isolated | 50.0 | - | 1.23 kB | 5 MB | 12.3 |"""


def test_comparisons_have_a_row_per_method(results: Path) -> None:
    assert render("comparison_0.1") == COMPARISON


def test_ablations_have_a_row_per_variant(results: Path) -> None:
    header, _, row = render("plain").splitlines()
    assert header == "| variant | validation accuracy, % | test accuracy, % | bytes / client | seconds |"
    assert row == "| full | 91.0 | 90.0 ± 2.0 | 5 MB | 12.3 |"


def test_the_cost_to_the_reference_counts_the_seeds_that_got_there(results: Path) -> None:
    header, _, quick, never = render("costs").splitlines()
    assert header.count("|") == quick.count("|") == never.count("|") == 7
    assert quick.endswith("| 300 B, 150.0 s (2/3) |")
    assert never.endswith("| not reached (0/2) |")


def test_markdown_aligns_figures_to_the_right() -> None:
    assert markdown(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"


DOCUMENT = """\
Before.
<!-- table: comparison_0.1 -->
old
<!-- end -->
Between.
<!-- table: plain -->
<!-- end -->
After.
"""


def test_filling_replaces_what_is_between_markers_and_nothing_else(results: Path) -> None:
    filled = fill(DOCUMENT)
    assert filled == (
        f"Before.\n<!-- table: comparison_0.1 -->\n{COMPARISON}\n<!-- end -->\nBetween.\n"
        f"<!-- table: plain -->\n{render('plain')}\n<!-- end -->\nAfter.\n"
    )
    assert fill(filled) == filled
    assert fill("no marker\n") == "no marker\n"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (DOCUMENT.replace("old\n<!-- end -->\n", ""), "no <!-- end -->"),
        ("<!-- table: plain -->\n", "no <!-- end -->"),
        ("<!-- table: a b -->\n<!-- end -->", "no name"),
        ("<!-- table: nothing -->\n<!-- end -->", "no result 'nothing'.*comparison_0.1, costs, plain"),
    ],
)
def test_broken_markers_are_refused(document: str, message: str, results: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        fill(document)


def test_the_script_fills_documents_or_prints_everything(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    document = tmp_path / "README.md"
    document.write_text(DOCUMENT)

    def call(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["tables", *arguments])
        with pytest.raises(SystemExit) as stop:
            tables.script()
        return stop.value.code, capsys.readouterr().out

    assert call("--write", str(document)) == (0, "")
    assert document.read_text() == fill(DOCUMENT)
    code, out = call()
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("## ")] == [
        "## comparison_0.1",
        "## costs",
        "## plain",
    ]
    assert COMPARISON in out
    document.write_text("<!-- table: nothing -->\n<!-- end -->")
    assert call("--write", str(document)) == (2, "")
    assert document.read_text() == "<!-- table: nothing -->\n<!-- end -->"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_show_the_committed_results(path: Path) -> None:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if "<!-- table: " not in text:
        pytest.skip(f"{path.name} has no marked table")
    assert text == fill(text), f"run: python -m experiments.tables --write {path.name}"


def test_every_committed_result_can_be_rendered() -> None:
    for path in tables.RESULTS.glob("*.json"):
        assert render(path.stem).count("\n") >= 2, path.name


def bench_row(protocol: str, **changes: Any) -> dict[str, Any]:
    row = {
        "protocol": protocol,
        "clients": 10,
        "dropout": 0.2,
        "degree": 9,
        "setup_cpu_s": 0.0123,
        "client_cpu_s": 0.005,
        "floor_ratio": 1.25,
        "unmask_cpu_s": 0.0125,
        "upload_bytes_per_value": 4.0,
    }
    return row | changes


def test_masked_rows_stand_beside_flowers_of_the_same_cohort() -> None:
    rows = [
        bench_row("plain", degree=None, floor_ratio=None),
        bench_row("masked"),
        bench_row("masked", dropout=0.0),
        bench_row("flower-secagg", client_cpu_s=0.0555, unmask_cpu_s=25.0),
        bench_row("flower-secagg", degree=4, client_cpu_s=9.0),
    ]
    _, _, *found = bench_markdown(rows).splitlines()
    assert found == [
        "| masked, 10 | 20 % | 12.3 ms | 5 ms | 1.25x | 11.1x | 12.5 ms | 2000x | 4.00 |",
        "| masked, 10 | 0 % | 12.3 ms | 5 ms | 1.25x | - | 12.5 ms | - | 4.00 |",
    ]


def test_the_cost_of_protection_is_a_row_a_setting() -> None:
    cost = {"plain_cpu_s": 0.01, "masked_cpu_s": 0.05, "added": 0.0123}
    found = cost_markdown(
        {"digits": {"round_s": 3.25, **cost}, "resnet18": {"clients": 10, "images": 256, "step_s": 70.0, **cost}}
    )
    assert "| 3.25 s | 10.0 ms | 50.0 ms | 1.23 % |" in found
    assert "| 10 ResNet-18: a step of 256 dreams of 3x32x32 | 70.0 s | 10 ms | 50 ms | 1.23 % |" in found


def test_where_privacy_is_claimed_every_row_says_what_was_spent_on_whom(results: Path) -> None:
    claim = {
        "statement": {
            "unit": "client",
            "adjacency": "add_remove",
            "epsilon": 7.99,
            "delta": 1e-3,
            "adversary": Adversary.RECIPIENT.value,
            "accountant": "RDP",
            "releases": ["dream_updates"],
        },
        "signal": {"value": 1.234},
    }
    rows = [
        {"name": "no noise", "to_reference": None, "privacy": None, **figures(0.9)},
        {"name": "budget 8", "to_reference": None, "privacy": claim, **figures(0.8, 0.02)},
        {
            "name": "students",
            "to_reference": None,
            "privacy": {**claim, "signal": None},
            "server_test_accuracy": spread(0.7),
            **figures(0.8),
        },
    ]
    (results / "private.json").write_text(json.dumps({"variants": rows}))
    table = render("private").splitlines()
    assert table[0] == "| variant | spent | s | test accuracy, % | server's student, % | bytes / client |"
    assert table[2:] == [
        "| no noise | no claim |  | 90.0 |  | 5 MB |",
        "| budget 8 | ε = 7.99 at δ = 0.001, per client | 1.2 | 80.0 ± 2.0 |  | 5 MB |",
        "| students | ε = 7.99 at δ = 0.001, per client |  | 80.0 | 70.0 | 5 MB |",
    ]


@pytest.mark.parametrize("path", sorted(tables.RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_results_say_at_which_commit_they_were_measured(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, list):
        pytest.skip("rows of a bench; the document says beside them")
    commit = content["environment"]["commit"]
    assert commit
    assert "dirty" not in commit
    assert f"*Measured at commit {commit}, " in render(path.stem)
