"""Progress on standard error: a live bar with an ETA on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_QUIET_SECONDS = 2.0
_LINE_EVERY_SECONDS = 15.0


class Watch:
    """Shows how far one or several runs have got; pass :meth:`observe` to them.

    Nothing is shown for work that is over within two seconds.

    Args:
        runs: how many runs there will be.
        rounds: rounds per run, not counting the warm-up.
        enabled: false shows nothing.
    """

    def __init__(self, *, runs: int, rounds: int, enabled: bool = True) -> None:
        self._total = runs * (rounds + 1)
        self._rounds = rounds
        self._title = ""
        self._before = 0
        self._done = 0
        self._round = 0
        self._enabled = enabled
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
        self._title = f"{method}, seed {seed} ({done + 1}/{total})"
        self._before = done * (self._rounds + 1)
        self._done = self._before
        self._show("starting")

    def observe(self, phase: str, done: int, total: int) -> None:
        """Called by a run as it goes on."""
        if phase == "round":
            self._round = done
            self._done = self._before + done
            self._show("")
        else:
            self._show(f"{phase} {done}/{total}")

    def _show(self, detail: str) -> None:
        now = time.monotonic()
        if not self._enabled or now - self._started < _QUIET_SECONDS:
            return
        text = f"{self._title} round {self._round}/{self._rounds} {detail}".strip()
        if self._live:
            self._show_bar(text)
        elif now - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = now
            left = (now - self._started) / max(self._done, 1) * (self._total - self._done)
            eta = f", about {left:.0f} s left" if self._done else ""
            print(f"{text} [{now - self._started:.0f} s{eta}]", file=sys.stderr, flush=True)

    def _show_bar(self, text: str) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(text, total=self._total)
            self._bar.start()
        assert self._task is not None
        self._bar.update(self._task, description=text, completed=self._done)
