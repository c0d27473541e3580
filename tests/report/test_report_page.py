"""The page itself: what it says, that it stands alone, and that nothing in it is taken for markup."""

from __future__ import annotations

import base64
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from codream_secure.errors import ConfigError
from codream_secure.report import build_report
from codream_secure.report.figures import embed_dreams
from codream_secure.report.page import spread_evenly

VOID = {"meta", "img", "br", "link", "hr", "input"}
HOSTILE = "<script>alert('1')&"


class Page(HTMLParser):
    """A strict reader: every element is closed in order; text, images and tables are kept."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            assert "url(" not in data
            assert "@import" not in data
            return
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def row(self, start: str) -> list[str]:
        found = next(row for row in self.rows if row[0].startswith(start) and len(row) > 6)
        return [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in found]


def report(directory: Path) -> Page:
    path = build_report(directory)
    assert path == directory / "report.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def own_run(comparison: Path, tmp_path: Path) -> Path:
    """A CoDream run's directory that the test may change."""
    return shutil.copytree(comparison / "codream" / "seed_0", tmp_path / "run")


@pytest.fixture
def own_comparison(comparison: Path, tmp_path: Path) -> Path:
    """A comparison's directory that the test may change, without its runs: there is little to draw."""
    out = tmp_path / "comparison"
    out.mkdir()
    return Path(shutil.copy(comparison / "comparison.json", out)).parent


@pytest.fixture(scope="module")
def run_page(comparison: Path) -> Page:
    return report(comparison / "codream" / "seed_0")


@pytest.fixture(scope="module")
def comparison_page(comparison: Path) -> Page:
    return report(comparison)


def test_both_kinds_stand_alone_and_are_light(run_page: Page, comparison_page: Page, comparison: Path) -> None:
    for page, directory in ((run_page, comparison / "codream" / "seed_0"), (comparison_page, comparison)):
        assert page.links
        assert all(link.startswith("data:image/") for link in page.links)
        assert page.tags.isdisjoint({"script", "link", "iframe", "object"})
        assert all(image["alt"] for image in page.images)
        assert (directory / "report.html").stat().st_size < 1_500_000


def test_a_run_shows_the_figures_of_its_summary(run_page: Page, comparison: Path) -> None:
    page = run_page
    summary = json.loads((comparison / "codream" / "seed_0" / "summary.json").read_text())
    assert f"Test accuracy {100 * summary['test_accuracy']:.1f} %" in page.text
    assert f"Validation accuracy {100 * summary['validation_accuracy']:.1f} %" in page.text
    assert f"server's model {100 * summary['server_test_accuracy']:.1f} %" in page.text
    assert f"Seconds of computation {summary['seconds']:.2f}" in page.text
    assert f"Bytes up, per client {summary['bytes_up'] / 1000:.1f} kB" in page.text
    assert f"Bytes down, per client {summary['bytes_down'] / 1000:.1f} kB" in page.text
    assert "To 1.0 % validation accuracy round 0," in page.text
    assert "final round" in page.text
    assert summary["weights_sha256"] in page.text
    for phase in summary["bytes_by_phase"]:
        assert phase.replace("_", " ") in page.text
    clients = [row for row in page.rows if row[0].startswith("client ")]
    expected = [f"{100 * share:.1f}" for share in summary["client_test_accuracy"]]
    assert [row[1:] for row in clients] == [["mlp", expected[0]], ["small_cnn", expected[1]]]


def test_a_run_shows_its_curves_dreams_and_partition(run_page: Page, comparison: Path) -> None:
    alts = [image["alt"] or "" for image in run_page.images]
    assert sum("against round" in alt for alt in alts) == 2
    assert any(alt.startswith("Training losses") and "distillation" in alt for alt in alts)
    assert any("against bytes" in alt for alt in alts)
    assert any("against seconds" in alt for alt in alts)
    assert any("2 clients" in alt and "20 to 20 images" in alt for alt in alts)
    shown = [image["src"] or "" for image in run_page.images if "dreams" in (image["alt"] or "")]
    files = sorted((comparison / "codream" / "seed_0" / "dreams").glob("*.png"))
    assert [base64.b64decode(source.partition(",")[2]) for source in shown] == [path.read_bytes() for path in files]
    assert len(shown) == 2


def test_a_comparison_shows_means_deviations_and_obstacles(comparison_page: Page, comparison: Path) -> None:
    page = comparison_page
    assert "made in another" not in page.text
    assert "Not all run directories" not in page.text
    content = json.loads((comparison / "comparison.json").read_text())
    for entry in content["methods"]:
        if entry["obstacle"]:
            continue
        accuracy, cost = entry["test_accuracy"], entry["to_target"]
        row = page.row(entry["method"])
        assert row[0].endswith(entry["summary"])
        assert row[1] == f"{100 * accuracy['mean']:.1f} ± {100 * accuracy['std']:.1f}"
        assert row[6] == f"{entry['protocol_cpu_client']['mean']:.2g}"
        assert row[7] == f"{cost['reached']}/{cost['runs']}"
        assert row[9] == f"{cost['seconds']['mean']:.2f} ± {cost['seconds']['std']:.2f}"
    assert next(row for row in page.rows if row[0].startswith("fedavg"))[1] == (
        "Not run: needs one architecture, the clients have 2."
    )
    assert "1.0 % validation accuracy, is as configured" in page.text
    assert "Dreams of codream, seed 0" in page.text
    alts = [image["alt"] or "" for image in page.images]
    assert sum("one line per method" in alt for alt in alts) == 4
    ends = [alt for alt in alts if alt.startswith("Test accuracy against round")]
    assert "isolated" in ends[0]
    assert "fedavg" not in ends[0]


def test_the_gap_stands_between_isolated_and_centralised(own_comparison: Path) -> None:
    path = own_comparison / "comparison.json"
    content = json.loads(path.read_text())
    for entry in content["methods"]:
        if entry["method"] == "codream":
            entry["gap_closed"] = -0.614
        elif not entry["obstacle"]:
            entry["gap_closed"] = None
    path.write_text(json.dumps(content))
    page = report(own_comparison)
    assert page.row("codream")[2] == "\N{MINUS SIGN}61"
    assert page.row("isolated")[2] == "\N{EN DASH}"


def test_without_a_target_its_columns_go(own_comparison: Path) -> None:
    path = own_comparison / "comparison.json"
    content = json.loads(path.read_text())
    content["target"] = None
    for entry in content["methods"]:
        entry["to_target"] = None
    path.write_text(json.dumps(content))
    page = report(own_comparison)
    assert len(page.row("codream")) == 7
    assert "reach it" not in page.text


def test_a_comparison_whose_runs_went_away_says_so_and_keeps_its_table(own_comparison: Path) -> None:
    page = report(own_comparison)
    assert "isolated (0 of 2), codream (0 of 2), centralised (0 of 2)" in page.text
    assert "Learning curves" not in page.text
    assert "±" in page.row("isolated")[1]


def test_runs_in_different_environments_are_told_apart(own_comparison: Path, comparison: Path) -> None:
    for seed in ("seed_0", "seed_1"):
        place = own_comparison / "codream" / seed
        place.mkdir(parents=True)
        shutil.copy(comparison / "codream" / seed / "config.toml", place)
        found = json.loads((comparison / "codream" / seed / "environment.json").read_text())
        (place / "environment.json").write_text(json.dumps(found | {"commit": f"0123abc-{seed}"}))
    page = report(own_comparison)
    assert "1 of 2 runs were made in another" in page.text
    assert "Commit 0123abc-seed_0" in page.text
    assert "codream (" not in page.text


def test_a_run_chosen_by_validation_says_so(own_run: Path) -> None:
    path = own_run / "config.toml"
    path.write_text(path.read_text().replace('select = "final"', 'select = "validation"'))
    assert "best validation accuracy" in report(own_run).text


def test_hostile_names_stay_text(hostile_run: Path) -> None:
    page = report(hostile_run)
    assert HOSTILE in page.text
    assert "script" not in page.tags


def test_hostile_results_stay_text(own_comparison: Path, comparison: Path) -> None:
    path = own_comparison / "comparison.json"
    content = json.loads(path.read_text())
    for entry in content["methods"]:
        entry["summary"] = '"><script>summary()</script>'
        if entry["obstacle"]:
            entry["method"], entry["obstacle"] = "<b>mine</b>", "<script>obstacle()</script>"
    path.write_text(json.dumps(content))
    place = own_comparison / "isolated" / "seed_0"
    place.mkdir(parents=True)
    shutil.copy(comparison / "isolated" / "seed_0" / "config.toml", place)
    environment = json.loads((comparison / "isolated" / "seed_0" / "environment.json").read_text())
    (place / "environment.json").write_text(json.dumps(environment | {"platform": "<img src=x onerror=y()>"}))
    page = report(own_comparison)
    for hostile in ("<script>summary()</script>", "<script>obstacle()</script>", "<b>mine</b>", "<img src=x onerror"):
        assert hostile in page.text
    assert page.tags.isdisjoint({"script", "b"})


def test_a_run_without_validation_images_or_dream_files_has_no_empty_parts(hostile_run: Path, tmp_path: Path) -> None:
    own = shutil.copytree(hostile_run, tmp_path / "run")
    shutil.rmtree(own / "dreams")
    (own / "partition.json").unlink()
    page = report(own)
    assert "no images held out" in page.text
    assert "Validation accuracy" not in page.text
    assert "Dreams" not in page.text
    assert "Images of each class" not in page.text


def test_an_unfinished_run_says_so(own_run: Path) -> None:
    (own_run / "summary.json").unlink()
    metrics = own_run / "metrics.jsonl"
    rows = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(rows[:2]))
    page = report(own_run)
    assert "has not finished" in page.text
    assert "round 1 of 2" in page.text
    assert f"Test accuracy {100 * json.loads(rows[1])['test_accuracy']:.1f} %" in page.text
    assert "final round" not in page.text


@pytest.mark.parametrize("left", ["", None])
def test_a_run_that_has_only_begun_says_so(own_run: Path, left: str | None) -> None:
    for name in ("summary.json", "environment.json", "metrics.jsonl"):
        (own_run / name).unlink()
    if left is not None:
        (own_run / "metrics.jsonl").write_text(left)
    assert "nothing has been evaluated yet" in report(own_run).text


def test_a_second_report_replaces_the_first_and_is_the_same(own_run: Path) -> None:
    first = build_report(own_run).read_bytes()
    assert build_report(own_run).read_bytes() == first
    assert not [path for path in own_run.iterdir() if path.name.startswith(".report")]


def test_a_directory_with_neither_is_refused(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ConfigError, match=r"comparison\.json.*config\.toml") as error:
            build_report(directory)
        assert str(directory) in str(error.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl", "partition.json"])
def test_a_damaged_file_is_named(own_run: Path, name: str) -> None:
    (own_run / name).write_text('{"round": ')
    with pytest.raises(ConfigError, match=name):
        build_report(own_run)


def test_a_damaged_comparison_is_named(own_comparison: Path) -> None:
    path = own_comparison / "comparison.json"
    path.write_text('{"config": "", "methods": []}')
    with pytest.raises(ConfigError, match=r"comparison\.json.*seeds"):
        build_report(own_comparison)


def test_heavy_dreams_are_made_lighter(tmp_path: Path) -> None:
    path = tmp_path / "round_0007.png"
    Image.effect_noise((1800, 450), 120).convert("RGB").save(path)
    picture = embed_dreams(path, 7)
    assert path.stat().st_size > 500_000
    assert len(picture.source) < 250_000
    assert picture.source.startswith("data:image/jpeg;base64,")
    assert picture.caption == "Round 7"


def test_at_most_so_many_grids_with_the_first_and_last() -> None:
    assert spread_evenly(range(1, 4), 6) == [1, 2, 3]
    assert spread_evenly(range(1, 101), 2) == [1, 100]
    assert len(set(spread_evenly(range(1, 8), 6))) == 6
