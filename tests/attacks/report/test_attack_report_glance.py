"""One figure a probe: whatever leaks in the tables in full is seen there, too."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from attacks.auditing.membership_rows import SCORES
from attacks.report import print_audit, write_report
from attacks.report.findings import Finding, finding
from attacks.report.glance import Cell, Kind, at_a_glance, base, is_canary

Audit = dict[str, Any]
MakeRow = Callable[..., Audit]

PROBES = ("logits", "weights, all of them", "nearest, threshold")
SUFFIXES = ("", ", LiRA", ", threshold", ", LiRA, mislabelled canaries", ", threshold, mislabelled canaries")
METRICS = ("AUC", "TPR@1%FPR", "advantage", "PSNR, dB", "rank 1 of 100", "total variation", "something new")


def only(rows: list[Audit]) -> Cell:
    """The one cell of rows of one probe and victim."""
    (part,) = at_a_glance(rows).parts
    (line,) = part.lines
    (cell,) = line.cells.values()
    return cell


def random_rows(draw: np.random.Generator, row: MakeRow, *, count: int = 150) -> list[Audit]:
    """Rows of every kind in any order: with and without intervals, values, means over seeds."""
    found = {}
    for _ in range(count):
        value = float(draw.uniform())
        wide = float(draw.uniform(0, 0.4))
        figures: Audit = {"value": value, "low": max(0.0, value - wide), "high": value + wide}
        kind = draw.integers(5)
        if kind == 0:
            figures = {"value": None, "low": None, "high": None, "note": str(draw.choice(["not in view", "too few"]))}
        elif kind == 1:
            figures |= {"low": None, "high": None}
        made = row(
            method=str(draw.choice(["codream", "fedavg"])),
            protection=str(draw.choice(["plain", "masked"])),
            adversary=str(draw.choice(["server", "client"])),
            active=bool(draw.integers(2)),
            probe=str(draw.choice(PROBES)) + str(draw.choice(SUFFIXES)),
            metric=str(draw.choice(METRICS)),
            seed=[0, 1, None][draw.integers(3)],
            control=0.2 if draw.integers(2) else None,
            **figures,
        )
        found[
            tuple(made[key] for key in ("method", "protection", "adversary", "active", "probe", "metric", "seed"))
        ] = made
    return list(found.values())


@pytest.mark.parametrize("seed", range(60))
def test_a_leak_in_the_tables_is_never_absent_from_the_glance(seed: int, row: MakeRow) -> None:
    rows = random_rows(np.random.default_rng(seed), row)
    glance = at_a_glance(rows)
    cells = {
        (part.title.startswith("active"), part.title.split()[-1], line.probe, victim): cell
        for part in glance.parts
        for line in part.lines
        for victim, cell in line.cells.items()
    }
    leaking = [each for each in rows if finding(each) in (Finding.ABOVE, Finding.BELOW)]
    for each in leaking:
        place = (each["active"], each["adversary"], base(each["probe"]), (each["method"], each["protection"]))
        cell = cells[place]
        assert any(each is shown for shown in (*cell.headline, *cell.rest))
        assert cell.leaks or cell.understated or each in cell.headline, each
    silent = [cell for cell in cells.values() if not (cell.leaks or cell.understated)]
    marked = {id(each) for each in leaking}
    assert not [each for cell in silent for each in cell.rest if id(each) in marked]


@pytest.mark.parametrize("seed", range(6))
def test_every_cell_that_leaks_has_its_sign_on_the_page_and_in_the_terminal(
    seed: int, row: MakeRow, empty_audit: Audit, tmp_path: Path
) -> None:
    rows = random_rows(np.random.default_rng(seed), row)
    cells = [cell for part in at_a_glance(rows).parts for line in part.lines for cell in line.cells.values()]
    headlines = [finding(each) for cell in cells for each in cell.headline]
    hinted = sum(cell.understated for cell in cells)
    assert hinted
    write_report(empty_audit | {"rows": rows}, tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    table = page[page.index('class="matrix glance') : page.index("</table>")]
    assert table.count("\N{BLACK UP-POINTING TRIANGLE}") == headlines.count(Finding.ABOVE)
    assert table.count("\N{BLACK DOWN-POINTING TRIANGLE}") == headlines.count(Finding.BELOW)
    assert table.count('class="small hint"') == hinted
    stream = io.StringIO()
    print_audit(empty_audit | {"rows": rows}, Console(file=stream, width=200, color_system=None))
    printed = stream.getvalue()
    printed = printed[: printed.index("* the 95 %")]
    assert printed.count("*") == headlines.count(Finding.ABOVE)
    assert printed.count("!") == headlines.count(Finding.BELOW)
    assert len(re.findall(r"\+\d+ of \d+", printed)) == hinted


def test_the_headline_is_the_strongest_score_over_all_candidates(row: MakeRow) -> None:
    rows = [
        row(probe="p, LiRA, mislabelled canaries", value=0.9),
        row(probe="p, threshold", value=0.7),
        row(probe="p, LiRA", metric="TPR@1%FPR", value=0.2),
        row(probe="p, LiRA", value=0.6),
    ]
    cell = only(rows)
    assert [each["value"] for each in cell.headline] == [0.6]
    assert len(cell.rest) == 3
    assert [each["value"] for each in only(rows[:2]).headline] == [0.7]


def test_a_psnr_stands_for_a_reconstruction_and_a_rank_says_what_it_does_not(row: MakeRow) -> None:
    rank = row(metric="rank 1 of 100", value=1.0, low=0.4, high=1.0, control=0.01)
    psnr = row(metric="PSNR, dB", value=27.0, low=None, high=None, control=14.3)
    cell = only([rank, psnr])
    assert cell.headline == (psnr,)
    assert (cell.leaks, cell.understated, cell.above, cell.judged) == (False, True, 1, 1)
    assert cell.main == (psnr, rank) or cell.main == (rank, psnr)


def test_a_mean_stands_for_its_seeds_and_one_seed_above_chance_is_counted(row: MakeRow) -> None:
    seeds = [row(seed=0, value=0.6, low=0.53, high=0.67), row(seed=1, value=0.48, low=0.41, high=0.55)]
    mean = row(seed=None, value=0.54, low=0.46, high=0.62)
    cell = only([mean, *seeds])
    assert cell.headline == (mean,)
    assert (cell.understated, cell.above, cell.judged) == (True, 1, 2)
    assert only(seeds).headline == tuple(seeds)
    assert only(seeds).leaks


def test_a_score_that_points_the_wrong_way_is_counted_apart(row: MakeRow) -> None:
    weak = row(probe="p, LiRA", value=0.51, low=0.48, high=0.54)
    cell = only([weak, row(probe="p, threshold", value=0.4, low=0.3, high=0.49)])
    assert (cell.above, cell.below, cell.judged, cell.understated) == (0, 1, 1, True)


def test_names_are_cut_at_scores_and_candidates_alone() -> None:
    """The names are those that an audit gives: one that is unknown here would be a probe of its own."""
    for score in SCORES:
        assert base(f"released student, {score}") == "released student"
        assert base(f"released student, {score}, mislabelled canaries") == "released student"
    assert base("released student, RMIA") == "released student, RMIA"
    assert base("imprint layer, 256 bins") == "imprint layer, 256 bins"


def test_canaries_are_known_by_their_name(row: MakeRow) -> None:
    assert is_canary(row(probe="p, LiRA, mislabelled canaries"))
    assert not is_canary(row(probe="p, LiRA"))


def test_kinds_follow_the_headline(row: MakeRow) -> None:
    for metric, kind in (
        ("AUC", Kind.MEMBERS),
        ("TPR@1%FPR", Kind.MEMBERS),
        ("PSNR, dB", Kind.IMAGES),
        ("rank 1 of 28", Kind.IMAGES),
        ("total variation", Kind.LABELS),
        ("something new", Kind.OTHER),
    ):
        assert at_a_glance([row(metric=metric)]).parts[0].lines[0].kind is kind


def test_only_what_was_tried_on_some_victims_is_kept(row: MakeRow) -> None:
    glance = at_a_glance([row(), row(method="fedavg", probe="other"), row(method="fedavg", adversary="client")])
    assert glance.victims == (("codream", "plain"), ("fedavg", "plain"))
    kept = glance.of([("codream", "plain")])
    assert [part.title for part in kept.parts] == ["passive server"]
    assert [line.probe for line in kept.parts[0].lines] == ["a probe"]
