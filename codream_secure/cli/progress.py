"""Progress on standard error: a live bar on a terminal, a line now and then elsewhere, both with the time left."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

_QUIET_SECONDS = 2.0
_LINE_EVERY_SECONDS = 15.0


class Watch:
    """Shows how far one or several runs have got; pass :meth:`observe` to them.

    Nothing is shown for work that is over within two seconds. The time left is that of the rounds to come at the pace
    of the rounds seen; rounds of an earlier process, from which this one goes on, do not count as seen.

    Args:
        runs: how many runs there will be.
        rounds: rounds per run, not counting the warm-up; of the longest, if they differ.
    """

    def __init__(self, *, runs: int, rounds: int) -> None:
        self._total = runs * (rounds + 1)
        self._per_run = rounds + 1
        self._title = ""
        self._before = 0
        self._done = 0
        self._unseen = 0
        self._silent = True
        self._round = ""
        self._started = self._last_line = time.monotonic()
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start_run(self, method: str, seed: int, done: int, total: int) -> None:
        """A new run begins; ``done`` of ``total`` are over."""
        before = done * self._per_run
        if self._silent:  # the run before this one was over from the start
            self._unseen += before - self._before
        self._silent = True
        self._before = self._done = before
        self._title = f"{method}, seed {seed} ({done + 1}/{total})"
        self._round = "starting"
        self._show("")

    def tell(self, title: str, done: int) -> None:
        """For work that is no run: what is being done, and how many of all rounds' worth of it is over."""
        self._title, self._round, self._done = title, "", done
        self._show("")

    def observe(self, phase: str, done: int, total: int) -> None:
        """Called by a run as it goes on; phase ``round`` begins round ``done``, round 0 being the warm-up."""
        if phase == "round":
            if self._silent:
                self._unseen += done
                self._silent = False
            self._done = self._before + done
            self._round = f"round {done}/{total}"
            self._show("")
        else:
            self._show(f"{phase} {done}/{total}")

    def _show(self, detail: str) -> None:
        now = time.monotonic()
        passed = now - self._started
        if passed < _QUIET_SECONDS:
            return
        text = f"{self._title} {self._round} {detail}".strip()
        seen = self._done - self._unseen
        left = f"ETA {_clock(passed / seen * (self._total - self._done))}" if seen > 0 else ""
        if self._live:
            self._show_bar(text, left)
        elif now - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = now
            print(f"{text} [{', '.join(filter(None, (_clock(passed), left)))}]", file=sys.stderr, flush=True)

    def _show_bar(self, text: str, left: str) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),  # what the other columns leave
                TimeElapsedColumn(table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[left]}"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(text, total=self._total, left=left)
            self._bar.start()
        assert self._task is not None
        self._bar.update(self._task, description=text, completed=self._done, left=left)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
