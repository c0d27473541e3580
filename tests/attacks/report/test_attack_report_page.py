"""The page: it stands alone, says what the audit says, and takes no text for markup."""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from attacks.report import write_report
from attacks.report.epsilon_figure import draw_epsilons
from attacks.report.page import audit_page
from attacks.report.roc_figure import draw_rocs, styles
from codream_secure.errors import ConfigError

Audit = dict[str, Any]

VOID = {"meta", "img", "br"}
HOSTILE = "<script>alert('1')</script>\"&"
SECTIONS = (
    "In plain words",
    "Probes",
    "ROC curves",
    "Reconstructions",
    "Dreams",
    "Epsilon: what attacks prove against what the ledger claims",
    "Checks of the audit itself",
    "Victims",
    "Who learns what, by protection",
    "What each adversary is assumed to know and do",
    "All rows",
    "Configuration",
    "Environment",
)


class Page(HTMLParser):
    """A strict reader: every element is closed in order, none is a script, and links are kept."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self.style = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "object", "base", "form")
        assert not [name for name, _ in attrs if name.startswith("on")]
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag == "img":
            assert dict(attrs)["alt"]
        if tag == "h2":
            self.headings.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.style += data
            return
        if "h2" in self.open:
            self.headings[-1] += data
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())


@pytest.fixture(scope="module")
def written_page(built_audit: Audit, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(built_audit, tmp_path_factory.mktemp("page"))


def written(audit: Audit, place: Path) -> str:
    write_report(audit, place / "audit.html")
    return (place / "audit.html").read_text(encoding="utf-8")


def test_the_page_stands_alone_and_has_every_section(written_page: str) -> None:
    page = Page(written_page)
    assert page.headings == ["At a glance", *SECTIONS]
    assert page.links
    assert all(re.match(r"data:image/(png|svg\+xml);base64,", link) for link in page.links)
    assert not re.search(r"url\(|@import", page.style)
    assert "prefers-color-scheme: dark" in page.style
    assert ".verdict" in page.style, "base.html.j2 has no block named style"
    assert len(written_page) < 600_000


def test_equal_audits_make_equal_pages(audit: Audit, tmp_path: Path) -> None:
    audit["rocs"] = audit["rocs"][:1]
    assert written(audit, tmp_path) == written(audit, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["audit.html"]


def test_the_verdict_and_refuted_claims_stand_above_everything(written_page: str) -> None:
    text = Page(written_page).text
    assert "NOT VALID This audit is not valid, and no figure of it is a result. Failed: victims overfit" in text
    top = text[: text.index("Adversaries")]
    assert "A claim is refuted. codream, example-dp, server, one-run audit" in top
    assert "epsilon = 1.5 at delta = 1e-05 for the unit example" in top


def test_a_valid_page_says_what_that_means_and_no_more(valid_audit: Audit, tmp_path: Path) -> None:
    valid_audit |= {"threats": {}, "command": "", "rocs": valid_audit["rocs"][:1]}
    text = Page(written(valid_audit, tmp_path)).text
    assert "NOT VALID" not in text
    assert "VALID All 4 checks passed: the figures can be read as measured, which is no statement that nothing" in text
    assert "refuted" not in text.lower()
    assert not re.search(r"\b(un)?safe|\b(in)?secure", text, re.IGNORECASE)


def test_figures_have_intervals_marks_and_reasons(written_page: str) -> None:
    text = Page(written_page).text
    for words in (
        "AUC chance 0.5",
        "▲ 0.724 0.685 to 0.763",
        "\N{EN DASH} not in view",
        "\N{EN DASH} not resolvable",
        "PSNR, dB control 13.2 ▲ 24.6 23.0 to 26.2",
        "▲ 0.241 seed 1: 0.221 to 0.261",
        "advantage no control 0.026",
        "not in the view: the server holds ciphertexts and no key",
        "codream plain 4 5 400 16 99.9 ± 0.1 95.8 ± 0.6",
        "blind classifier passed AUC 0.503",
        "plain, client-dp, example-dp Passive server Everything: each client's vector",
        "codream-secure audit --config audit.toml",
        "Example CPU @ 2.40GHz",
    ):
        assert words in text, words
    assert "▲ 0.508" not in text


def test_the_first_screen_holds_verdict_glance_and_words_before_all_tables(written_page: str) -> None:
    text = Page(written_page).text
    order = ("NOT VALID", "A claim is refuted", "Adversaries", "At a glance", "In plain words", "How to read this")
    places = [text.index(words) for words in (*order, "Probes A figure, and below it")]
    assert places == sorted(places)
    first = text[: places[-1]]
    for words in (
        "loss under the update AUC by threshold; chance 0.5",
        "▲ 0.790 0.751 to 0.829",
        "gradient matching PSNR, dB; control 13.2",
        "▲ 0.235 seed 0 0.215 to 0.255 ▲ 0.241 seed 1",
        "codream Tells which images were trained on: 72 in 100 under plain, 63 in 100 under masked",
        "Active server client-dp codream 0.508 0.470 to 0.547 logits on candidates as dreams, LiRA 0.565",
        "masked: the server sees sums over clients only",
    ):
        assert words in first, words
    assert "TPR@" not in first


def test_what_the_headline_does_not_show_is_counted_below_it(
    audit: Audit, row: Callable[..., Audit], tmp_path: Path
) -> None:
    weak = {"value": 0.51, "low": 0.48, "high": 0.54}
    rows = [
        row(probe="logits, LiRA", **weak),
        row(probe="logits, threshold", **weak),
        row(probe="logits, LiRA, mislabelled canaries", value=0.9, low=0.8, high=0.95),
        row(probe="logits, threshold, mislabelled canaries", value=0.3, low=0.2, high=0.4),
    ]
    text = Page(written(audit | {"rows": rows, "rocs": [], "pictures": []}, tmp_path)).text
    assert "0.510 0.480 to 0.540 △ 1, ▽ 1 of 3" in text


def test_what_was_not_tried_is_called_so_and_keeps_its_columns(written_page: str) -> None:
    table = written_page[written_page.index('class="matrix glance') :]
    lines = [line for line in table[: table.index("</table>")].splitlines() if line.startswith("<tr><th>")]
    assert len(lines) == 7
    for line in lines:
        spans = [int(span) for span in re.findall(r'<td class="untried" colspan="(\d+)">not tried</td>', line)]
        assert sum(spans) + len(re.findall(r"<td class", line)) - len(spans) == 10, line
    labels = next(line for line in lines if "label distribution" in line)
    assert re.findall(r'colspan="(\d+)"', labels) == ["4", "5"]


def test_hostile_texts_stay_text(audit: Audit, tmp_path: Path) -> None:
    def poison(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: part if name == "ledger" else poison(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [poison(part, key) for part in value]
        kept = key in ("target", "reconstruction", "control", "image", "metric") or not isinstance(value, str)
        return value if kept else value + HOSTILE

    audit["rocs"] = audit["rocs"][:2]
    text = written(poison(audit), tmp_path)
    Page(text)
    assert "<script" not in text
    # Every figure as well: an SVG may hold a script.
    for part in re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', text):
        assert b"<script" not in base64.b64decode(part)
    assert html.unescape(text).count(HOSTILE) > 300


def test_missing_parts_vanish(empty_audit: Audit, tmp_path: Path) -> None:
    page = Page(written(empty_audit, tmp_path))
    assert page.headings == ["Results", "In plain words", "Configuration"]
    assert page.links == []
    assert "NOT VALID" in page.text


@pytest.mark.parametrize("kept", ["rows", "rocs", "pictures", "dreams", "epsilons", "checks", "victims", "threats"])
def test_each_part_stands_without_the_others(kept: str, audit: Audit, empty_audit: Audit, tmp_path: Path) -> None:
    page = Page(written(empty_audit | {kept: audit[kept][:2] if kept == "rocs" else audit[kept]}, tmp_path))
    assert 4 <= len(page.headings) <= 6


def test_a_damaged_audit_writes_nothing(audit: Audit, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rows\.0\.n"):
        write_report(audit | {"rows": [audit["rows"][0] | {"n": "many"}]}, tmp_path / "audit.html")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_keeps_the_old_page(
    empty_audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.html"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_report(empty_audit, path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["audit.html"]


def test_roc_figures_are_one_for_each_adversary_and_probe(audit: Audit) -> None:
    pictures = draw_rocs(audit["rocs"])
    keys = {(roc["adversary"], roc["active"], roc["probe"]) for roc in audit["rocs"]}
    assert len(pictures) == len(keys)
    active = next(picture for picture in pictures if "active server" in picture.caption)
    assert "codream, plain: 6.8 % at 1 %" in active.alt
    assert "not resolvable at 1 %" in next(p for p in pictures if "passive client" in p.caption).alt
    drawing = base64.b64decode(active.source.partition(",")[2]).decode()
    for text in ("codream, plain", "fedavg, masked", "false positives", "true positives", "10 %"):
        assert text in drawing


def test_curves_share_colours_by_protection_and_dashes_by_method(audit: Audit) -> None:
    look = styles(audit["rocs"])
    assert look["codream", "plain"]["color"] == look["fedavg", "plain"]["color"]
    assert look["codream", "plain"]["linestyle"] != look["fedavg", "plain"]["linestyle"]
    assert len({style["color"] for style in look.values()}) == 5


def test_a_curve_of_zeros_and_one_of_two_points_are_drawn(audit: Audit) -> None:
    roc = audit["rocs"][0]
    flat = roc | {"fpr": [0.0, 0.5, 1.0], "tpr": [0.0, 0.0, 1.0]}
    assert len(draw_rocs([flat, roc | {"fpr": [0.0, 1.0], "tpr": [0.0, 1.0], "nonmembers": 1}])) == 1
    many = [index / 5000 for index in range(5001)]
    big = draw_rocs([roc | {"fpr": many, "tpr": many, "nonmembers": 5000}])[0]
    assert len(big.source) < 60_000


def test_the_epsilon_figure_tells_every_bound(audit: Audit) -> None:
    picture = draw_epsilons(audit["epsilons"])
    assert picture is not None
    assert "codream, client-dp, one-run audit: at least 0.31, ceiling 6.45, ledger 4;" in picture.alt
    assert "ledger inf;" in picture.alt
    assert "at least 2.17, ceiling 6.45, ledger 1.5, refuted" in picture.alt
    drawing = base64.b64decode(picture.source.partition(",")[2]).decode()
    for text in ("ledger: infinite", "no ledger", "most a perfect attack could prove"):
        assert text in drawing, text
    assert draw_epsilons([]) is None


def test_line_controls_that_differ_stand_in_their_cells(audit: Audit) -> None:
    rows = [row for row in audit["rows"] if row["metric"] == "PSNR, dB"]
    rows[1]["control"] = 12.0
    line = audit_page(audit | {"rows": rows, "rocs": [], "epsilons": []})["blocks"][0]["grids"][0]["probes"][0][
        "lines"
    ][0]
    assert line["guess"] == ""
    assert [cell["small"] for cells in line["cells"] for cell in cells] == [
        "23.0 to 26.2; control 13.2",
        "9.1 to 10.6; control 12.0",
    ]
    assert math.isclose(rows[0]["control"], 13.2)
