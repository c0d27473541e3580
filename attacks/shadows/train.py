"""Train many trials: what is on disk already is read, the rest goes to worker processes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from attacks.shadows.lockstep import run_together
from attacks.shadows.memory import keep_freed_memory
from attacks.shadows.pool import Pool
from attacks.shadows.store import load_trained, save_trained, trial_key
from attacks.shadows.trial import Trained, advance, make_method, measured
from attacks.workers import Stop, StoppedError, Task, in_workers
from codream_secure.config import Config
from codream_secure.data import DataSource
from codream_secure.errors import ConfigError
from codream_secure.federation import Observer
from codream_secure.methods import Method


def train_trials(
    config: Config,
    source: DataSource,
    pool: Pool,
    members: npt.NDArray[np.bool_] | torch.Tensor,
    *,
    seed: int,
    workers: int = 1,
    together: int = 32,
    rounds: int | None = None,
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
        together: the most trials that one process trains side by side, fitting their models as ensembles. Their weights
            are those of trials trained one by one, up to rounding, which grows over many steps as it does between
            machines. 1 trains one by one, to the very bits of a run.
        rounds: how many of the configuration's rounds; None for all. What depends on their number, such as noise, is
            planned for all of them in either case.
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
    for name, value in (("workers", workers), ("together", together)):
        if value < 1:
            raise ConfigError(f"{name} is {value}, but it must be at least 1")
    digest = pool.digest()
    if rounds is None:
        rounds = config.run.rounds
    job = _Job(config=config, source=source, pool=pool, rows=rows, seed=seed, rounds=rounds)
    found: dict[int, Trained] = {}
    paths: dict[int, Path] = {}
    for trial, row in enumerate(rows):
        if cache is not None:
            key = trial_key(
                config, source, row, pool_digest=digest, seed=seed + trial, rounds=rounds, ensemble=together > 1
            )
            paths[trial] = cache / f"{key}.pt"
            known = load_trained(paths[trial])
            if known is not None:
                found[trial] = replace(known, trial=trial)
    missing = [trial for trial in range(len(rows)) if trial not in found]
    if observe is not None:
        observe("shadow federations", len(found), len(rows))
    for trained in _trained(job, missing, workers=workers, together=together):
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
    rounds: int

    def train(self, trials: Sequence[int], *, observe: Observer | None = None) -> list[Trained]:
        """These trials, side by side."""
        if len(trials) == 1:
            return [self._alone(trials[0], observe)]
        keep_freed_memory()
        started = time.perf_counter()
        methods = run_together([partial(self._through, trial, observe) for trial in trials])
        seconds = (time.perf_counter() - started) / len(trials)
        return [measured(method, trial=trial, seconds=seconds) for trial, method in zip(trials, methods, strict=True)]

    def _alone(self, trial: int, observe: Observer | None) -> Trained:
        started = time.perf_counter()
        method = self._through(trial, observe)
        return measured(method, trial=trial, seconds=time.perf_counter() - started)

    def _through(self, trial: int, observe: Observer | None) -> Method:
        seed = self.seed + trial
        try:
            method = make_method(self.config, self.source, self.pool, self.rows[trial], seed=seed)
            advance(method, rounds=self.rounds, observe=observe)
        except BaseException as error:
            error.add_note(f"in trial {trial} (run.seed = {seed})")
            raise
        return method


def _groups(trials: list[int], *, workers: int, together: int) -> list[list[int]]:
    """Nearly equal groups, as few as there may be and at least one for each worker."""
    if not trials:
        return []
    count = min(len(trials), max(workers, -(-len(trials) // together)))
    return [chunk.tolist() for chunk in np.array_split(np.asarray(trials), count)]


@dataclass(frozen=True)
class _Groups(Task[list[Trained]]):
    job: _Job
    groups: list[list[int]]

    def __call__(self, number: int, stop: Stop) -> list[Trained]:
        def watch(phase: str, done: int, total: int) -> None:
            if stop():
                raise StoppedError

        return self.job.train(self.groups[number], observe=watch)


def _trained(job: _Job, trials: list[int], *, workers: int, together: int) -> Iterator[Trained]:
    groups = _groups(trials, workers=workers, together=together)
    for _, found in in_workers(_Groups(job, groups), range(len(groups)), workers=workers):
        yield from found
