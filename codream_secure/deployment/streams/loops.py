"""An event loop in a thread of its own, for callers that have none: one for all of them.

``grpc.aio`` has one queue of events a process, which wakes every event loop that ever used it; whichever is first takes
the event and passes it on if it was another's. So a second loop makes the first slower.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class _Running:
    """The loop, its thread, and how many use it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="streams", daemon=True)
        self.thread.start()
        self.users = 0


_LOCK = threading.Lock()
_running: _Running | None = None


def _join() -> _Running:
    global _running
    with _LOCK:
        # In a fork's child there is no thread any more.
        if _running is None or not _running.thread.is_alive():
            _running = _Running()
        _running.users += 1
        return _running


def _leave(running: _Running) -> bool:
    """Whether that was the last user."""
    global _running
    with _LOCK:
        running.users -= 1
        if running.users:
            return False
        if _running is running:
            _running = None
        return True


class LoopThread:
    """One user's share of the loop, until :meth:`close`."""

    def __init__(self) -> None:
        self._running = _join()
        self._loop = self._running.loop
        self._closed = False

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What a coroutine returns or raises there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def soon(self, function: Callable[..., object], *arguments: object) -> None:
        """Have a function called there; the order of calls is kept."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def close(self) -> None:
        """Leave; the last one out cancels what still runs there, and ends the thread."""
        if self._closed:
            return
        self._closed = True
        if not _leave(self._running):
            return
        self.call(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._running.thread.join()
        self._loop.close()

    @staticmethod
    async def _cancel_all() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
