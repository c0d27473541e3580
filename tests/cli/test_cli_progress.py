"""Progress: nothing for short work, then a bar or lines on standard error, with the time left."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codream_secure.cli import progress
from codream_secure.cli.progress import Watch

LINE = re.compile(r"(?P<text>.*) \[(?P<passed>\d+:\d\d:\d\d)(, ETA (?P<left>.*))?\]")


class Clock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    found = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=found.monotonic))
    return found


def seconds(text: str) -> int:
    hours, minutes, rest = map(int, text.split(":"))
    return 3600 * hours + 60 * minutes + rest


@pytest.mark.parametrize("live", [True, False])
def test_short_work_shows_nothing(
    live: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if live:
        monkeypatch.setenv("FORCE_COLOR", "1")
    with Watch(runs=1, rounds=1) as watch:
        watch.start_run("codream", 0, 0, 1)
        clock.now += 1.9
        watch.observe("round", 1, 1)
        watch.observe("dreaming", 3, 30)
    assert capsys.readouterr() == ("", "")


def test_lines_count_all_runs_and_are_rare(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Watch(runs=2, rounds=3) as watch:
        for number, method in enumerate(("isolated", "codream")):
            watch.start_run(method, 7, number, 2)
            for done in range(4):
                watch.observe("round", done, 3)
                for step in range(10):
                    watch.observe("dreaming", step, 10)
                    clock.now += 1
    assert capsys.readouterr().err.splitlines() == [
        "isolated, seed 7 (1/2) round 1/3 dreaming 5/10 [0:00:15, ETA 0:01:45]",
        "isolated, seed 7 (1/2) round 3/3 [0:00:30, ETA 0:00:50]",
        "codream, seed 7 (2/2) round 0/3 dreaming 5/10 [0:00:45, ETA 0:00:45]",
        "codream, seed 7 (2/2) round 2/3 [0:01:00, ETA 0:00:20]",
        "codream, seed 7 (2/2) round 3/3 dreaming 5/10 [0:01:15, ETA 0:00:11]",
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(runs=st.integers(1, 4), rounds=st.integers(0, 5), pace=st.integers(16, 500), share=st.floats(0, 0.99))
def test_the_time_left_is_exact_at_a_steady_pace_also_after_an_interruption(
    clock: Clock, capsys: pytest.CaptureFixture[str], runs: int, rounds: int, pace: int, share: float
) -> None:
    total = runs * (rounds + 1)
    finished = int(share * total)  # rounds of an earlier process
    capsys.readouterr()
    expected = []
    with Watch(runs=runs, rounds=rounds) as watch:
        for run in range(runs):
            watch.start_run("codream", 0, run, runs)
            for done in range(max(0, finished - run * (rounds + 1)), rounds + 1):
                watch.observe("round", done, rounds)
                clock.now += pace
                watch.observe("dreaming", 1, 1)
                at = run * (rounds + 1) + done
                expected.append((at - finished + 1, at - finished, total - at))
    lines = [LINE.fullmatch(line) for line in capsys.readouterr().err.splitlines()]
    # Each round ends with one line, from which the round itself does not count as over yet.
    assert len(lines) == len(expected)
    for line, (begun, over, left) in zip(lines, expected, strict=True):
        assert line is not None
        assert seconds(line["passed"]) == begun * pace
        if over == 0:
            assert line["left"] is None, "nothing is known before a round is over"
        else:
            assert seconds(line["left"]) == pytest.approx(begun * pace / over * left, abs=0.5)


def test_a_new_run_does_not_show_the_round_of_the_one_before(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Watch(runs=2, rounds=8) as watch:
        watch.start_run("isolated", 0, 0, 2)
        watch.observe("round", 8, 8)
        clock.now += 20
        watch.start_run("codream", 0, 1, 2)
        clock.now += 20
        watch.observe("round", 2, 4)  # a shorter run than the longest
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("codream, seed 0 (2/2) starting [")
    assert second.startswith("codream, seed 0 (2/2) round 2/4 [")


def test_a_terminal_gets_a_bar_that_fits_80_columns(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with Watch(runs=4, rounds=12) as watch:
        watch.start_run("centralised", 0, 3, 4)
        watch.observe("round", 11, 12)
        clock.now += 100
        watch.observe("round", 12, 12)
        watch.observe("local training", 3, 4)
    out, err = capsys.readouterr()
    assert out == ""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", err)
    assert "centralised, seed 0 (4/4) round 12/12 local training 3/4" in text
    assert "ETA 0:01:40" in text
    assert "…" not in text
    assert "\x1b[2K" in err, "the bar is wiped when the work is over"


def test_with_json_progress_stays_off_standard_output(
    command: Callable[..., Any], config: Path, small: list[str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Watch.observe

    def slowly(self: Watch, phase: str, done: int, total: int) -> None:
        clock.now += 20
        shown(self, phase, done, total)

    monkeypatch.setattr(Watch, "observe", slowly)
    done = command("compare", config, *small, "--methods", "isolated,codream", "--json")
    assert done.code == 0
    assert [entry["method"] for entry in json.loads(done.out)["methods"]] == ["isolated", "codream"]
    assert "isolated, seed 0 (1/2) round 1/1" in done.err
    assert "codream, seed 0 (2/2) round 1/1 dreaming" in done.err
