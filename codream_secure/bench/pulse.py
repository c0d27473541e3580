"""Progress of measurements that are single long calls, and so cannot report it themselves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

Observer = Callable[[str], None]


class Pulse:
    """Says what is going on once that has taken a while, and again from time to time.

    It speaks from a thread of its own, which sleeps nearly all the time and takes next to nothing from what is timed.

    Args:
        observe: told a line of text.
        quiet: seconds that something may take before it is spoken of.
        again: seconds between two lines about the same.
    """

    def __init__(self, observe: Observer, *, quiet: float = 2.0, again: float = 15.0) -> None:
        self._observe, self._quiet, self._again = observe, quiet, again
        self._now: tuple[str, float] | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def say(self, text: str) -> None:
        """Something else begins now."""
        self._now = text, time.monotonic()

    def _run(self) -> None:
        spoken, next_line = None, 0.0
        while not self._over.wait(self._quiet / 4):
            now = self._now
            if now is None:
                continue
            if now is not spoken:
                spoken, next_line = now, now[1] + self._quiet
            if time.monotonic() >= next_line:
                self._observe(f"{now[0]} ({time.monotonic() - now[1]:.0f} s)")
                next_line = time.monotonic() + self._again
