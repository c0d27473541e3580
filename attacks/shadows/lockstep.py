"""Run many tasks side by side so that what they fit is fitted together.

Each task has a thread, but only one thread runs at a time. A task runs until it wants a model fitted and waits; when
all tasks wait, the models are fitted as ensembles, and the tasks go on. So methods need not know of it: their code is
the one that runs alone.

Tasks take turns with torch's global generator, which is as :func:`codream_secure.seeding.seeded` left it only until
the next wait. What is drawn from it after a wait differs from a run alone; methods draw there nothing but dropout, and
a model with dropout is fitted by its task itself, without waiting.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

from attacks.shadows.ensemble import Result, fit_together
from attacks.shadows.lessons import Lesson, lesson_of
from codream_secure import training
from codream_secure.training import Fit

T = TypeVar("T")


class _Abandoned(BaseException):
    """Another task has failed, or the run was interrupted: end without a result."""


@dataclass(eq=False)
class _Task(Generic[T]):
    """One task, its thread, and what it waits for."""

    work: Callable[[], T]
    go: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    wanted: tuple[Fit, Lesson] | None = None
    answer: Result | None = None
    outcome: T | None = None
    error: BaseException | None = None
    over: bool = False


def run_together(works: Sequence[Callable[[], T]]) -> list[T]:
    """The results of all tasks, in their order.

    Args:
        works: functions that fit models by :func:`codream_secure.training.fit`.

    Raises:
        BaseException: the first error of a task, once all others have been abandoned.
    """
    conductor = _Conductor([_Task(work) for work in works])
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        return conductor.run()


class _Conductor(Generic[T]):
    def __init__(self, tasks: list[_Task[T]]) -> None:
        self._tasks = tasks
        self._back = threading.Semaphore(0)
        """Released by a thread that has come to a wait or to its end."""
        self._abandon = False

    def run(self) -> list[T]:
        try:
            for task in self._tasks:
                task.thread = threading.Thread(target=self._live, args=(task,), daemon=True)
                task.thread.start()
            while any(not task.over for task in self._tasks):
                for task in self._tasks:
                    if not task.over:
                        self._let_run(task)
                        if task.error is not None:
                            raise task.error
                self._fit_all()
        finally:
            self._end()
        return [task.outcome for task in self._tasks]  # type: ignore[misc]

    def _let_run(self, task: _Task[T]) -> None:
        task.go.set()
        self._back.acquire()

    def _live(self, task: _Task[T]) -> None:
        """What a task's thread does."""
        task.go.wait()
        task.go.clear()
        try:
            if not self._abandon:
                with training.fitted_by(lambda fit: self._fit(task, fit)):
                    task.outcome = task.work()
        except _Abandoned:
            pass
        except BaseException as error:
            task.error = error
        finally:
            task.over = True
            self._back.release()

    def _fit(self, task: _Task[T], fit: Fit) -> float:
        """A task's call of ``training.fit``, in its thread."""
        lesson = lesson_of(fit)
        if lesson is None:
            with training.fitted_by(None):
                return training.fit(
                    fit.model,
                    fit.tensors,
                    fit.loss,
                    epochs=fit.epochs,
                    optimization=fit.optimization,
                    generator=fit.generator,
                )
        task.wanted = (fit, lesson)
        self._back.release()
        task.go.wait()
        task.go.clear()
        if self._abandon:
            raise _Abandoned
        answer, task.answer = task.answer, None
        if isinstance(answer, BaseException):
            raise answer
        assert answer is not None  # the conductor answers before it lets a task go on
        return answer

    def _fit_all(self) -> None:
        """Fit what the tasks wait for, in as few ensembles as there are kinds of it."""
        groups = defaultdict(list)
        for task in self._tasks:
            if task.wanted is not None:
                fit, lesson = task.wanted
                groups[lesson.key, fit.optimization, fit.epochs].append(task)
        for (_, optimization, epochs), tasks in groups.items():
            lessons = [task.wanted[1] for task in tasks if task.wanted is not None]
            for task, answer in zip(tasks, fit_together(lessons, optimization, epochs=epochs), strict=True):
                task.wanted, task.answer = None, answer

    def _end(self) -> None:
        """Have every thread end; none is left behind, whatever happened."""
        self._abandon = True
        for task in self._tasks:
            if task.thread is not None:
                task.go.set()
                task.thread.join()
