"""Work for several processes, each with one torch thread, that ends cleanly whatever happens."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")
Stop = Callable[[], bool]


class Task(ABC, Generic[T]):
    """Something to do for each of several numbers; it is pickled once for each worker."""

    @abstractmethod
    def __call__(self, number: int, stop: Stop) -> T:
        """Do it. Long tasks look at ``stop`` now and then, and raise :class:`StoppedError` once it says so."""


class StoppedError(BaseException):
    """Nobody has a use for the result any more."""


def in_workers(task: Task[T], numbers: Iterable[int], *, workers: int) -> Iterator[tuple[int, T]]:
    """Do a task for each number, and give the results as they come.

    Args:
        task: picklable, with picklable results.
        numbers: what it is done for.
        workers: processes; 1 does everything in this one.

    Raises:
        BaseException: whatever a task raises; the other tasks are stopped then, as after Ctrl-C.
    """
    wanted = list(numbers)
    if workers == 1 or len(wanted) < 2:
        with one_thread():
            for number in wanted:
                yield number, task(number, lambda: False)
        return
    context = _context()
    stop = context.Event()
    executor = ProcessPoolExecutor(
        max_workers=min(workers, len(wanted)),
        mp_context=context,
        initializer=_begin,
        # As bytes: by itself, every tensor would go as an open file of its own.
        initargs=(pickle.dumps(task), stop),
    )
    try:
        futures: dict[Future[T], int] = {executor.submit(_do, number): number for number in wanted}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        # Also after an error or Ctrl-C, which workers ignore: they look at the event.
        stop.set()
        executor.shutdown(wait=True, cancel_futures=True)


def _context() -> multiprocessing.context.BaseContext:
    """How processes start: as forks of one that has done nothing but the imports, which take seconds.

    An audit starts workers for every stage. Where the system cannot fork, each imports anew.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED_ONCE)
    return context


_IMPORTED_ONCE = ["attacks.shadows.train", "attacks.auditing.trial_task"]


@contextmanager
def one_thread() -> Iterator[None]:
    """torch with one thread inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_worker: list[Any] = []
"""A worker's task and the event that stops it."""


def _begin(task: bytes, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _worker[:] = [pickle.loads(task), stop]  # noqa: S301 - from the process that started this one


def _do(number: int) -> Any:
    task, stop = _worker
    return task(number, stop.is_set)
