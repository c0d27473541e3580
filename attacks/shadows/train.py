"""Train many trials: what is on disk already is read, the rest goes to worker processes."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from attacks.shadows.pool import Pool
from attacks.shadows.store import load_trained, save_trained, trial_key
from attacks.shadows.trial import Trained, train_alone
from codream_secure.config import Config
from codream_secure.data import DataSource
from codream_secure.errors import ConfigError
from codream_secure.federation import Observer


def train_trials(
    config: Config,
    source: DataSource,
    pool: Pool,
    members: npt.NDArray[np.bool_] | torch.Tensor,
    *,
    seed: int,
    workers: int = 1,
    cache: Path | None = None,
    observe: Observer | None = None,
) -> list[Trained]:
    """Train one federation for each row of the memberships.

    Trial number t is what a run of the configuration with seed ``seed + t`` trains, on its members of the pool, without
    images for validation and evaluation between rounds.

    A worker is a process of its own with one torch thread. It takes about 300 MB for Python, torch and this package,
    and beside them its copy of pool and test images and the models of the trials that it trains at a time.

    Args:
        config: of every trial, but for its seed.
        source: test images and constants for normalising.
        pool: candidates and their owners.
        members: (M, N) bool, which candidates each trial trains on.
        seed: of trial 0.
        workers: processes; 1 trains in this one.
        cache: folder of finished trials, which are read and not trained again; made if missing. None keeps none.
        observe: told ("shadow federations", done, all) as trials end.

    Returns:
        In the order of the rows.

    Raises:
        ConfigError: ``members`` or ``workers`` is unusable, or the method cannot run the configuration.
        PartitionError: a trial leaves a client without an image.
        NumericalError: training left the finite numbers. Every error of a trial has a note that names it.
    """
    rows = torch.as_tensor(members)
    if rows.dtype != torch.bool or rows.ndim != 2 or rows.shape[1] != len(pool):
        raise ConfigError(
            f"members must be bool of shape (trials, {len(pool)}), got {rows.dtype} of shape {tuple(rows.shape)}"
        )
    if workers < 1:
        raise ConfigError(f"workers is {workers}, but it must be at least 1")
    digest = pool.digest()
    job = _Job(config=config, source=source, pool=pool, rows=rows, seed=seed)
    found: dict[int, Trained] = {}
    paths: dict[int, Path] = {}
    for trial, row in enumerate(rows):
        if cache is not None:
            key = trial_key(config, source, row, pool_digest=digest, seed=seed + trial, ensemble=False)
            paths[trial] = cache / f"{key}.pt"
            known = load_trained(paths[trial])
            if known is not None:
                found[trial] = replace(known, trial=trial)
    missing = [trial for trial in range(len(rows)) if trial not in found]
    if observe is not None:
        observe("shadow federations", len(found), len(rows))
    for trained in _trained(job, missing, workers=workers):
        found[trained.trial] = trained
        if trained.trial in paths:
            save_trained(paths[trained.trial], trained)
        if observe is not None:
            observe("shadow federations", len(found), len(rows))
    return [found[trial] for trial in range(len(rows))]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """All that a worker needs to train any trial."""

    config: Config
    source: DataSource
    pool: Pool
    rows: torch.Tensor
    seed: int

    def train(self, trial: int, *, observe: Observer | None = None) -> Trained:
        try:
            return train_alone(
                self.config,
                self.source,
                self.pool,
                self.rows[trial],
                trial=trial,
                seed=self.seed + trial,
                observe=observe,
            )
        except BaseException as error:
            error.add_note(f"in trial {trial} (run.seed = {self.seed + trial})")
            raise


def _trained(job: _Job, trials: list[int], *, workers: int) -> Iterator[Trained]:
    if workers == 1 or len(trials) < 2:
        with _one_thread():
            for trial in trials:
                yield job.train(trial)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    executor = ProcessPoolExecutor(
        max_workers=min(workers, len(trials)), mp_context=context, initializer=_begin, initargs=(job, stop)
    )
    try:
        futures: list[Future[Trained]] = [executor.submit(_train, trial) for trial in trials]
        for future in as_completed(futures):
            yield future.result()
    finally:
        # Also after an error or Ctrl-C, which workers ignore: they look at the event wherever a method reports.
        stop.set()
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Stopped(BaseException):
    """The parent has no use for the result any more."""


_worker: list[Any] = []
"""A worker's job and the event that stops it."""


def _begin(job: _Job, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _worker[:] = [job, stop]


def _train(trial: int) -> Trained:
    job, stop = _worker

    def watch(phase: str, done: int, total: int) -> None:
        if stop.is_set():
            raise _Stopped

    return job.train(trial, observe=watch)
