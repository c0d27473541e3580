"""How much faster many trials train side by side than one by one, measured in one go.

    python -m attacks.shadows.bench --method codream --trials 16

Wall-clock time means something only where nothing else wants the cores; processor time of one process does nearly
always, and is printed beside it. Processes of workers include their start, some five seconds of imports.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from attacks.shadows.pool import make_pool
from attacks.shadows.train import train_trials
from codream_secure.bench.hardware import native_bfloat16, threads
from codream_secure.config import make_config
from codream_secure.data import load_source
from codream_secure.runs.loop import run


def measure(
    method: str,
    *,
    trials: int,
    rounds: int,
    workers: int,
    alone: int = 2,
    seed: int = 0,
    overrides: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Seconds per trial on digits with four clients of a hundred images each, of several ways to train them.

    "run" is a run of :func:`codream_secure.runs.loop.run` in this process, evaluated after the warm-up and the last
    round only; "one by one" is a trial alone; "together" is an ensemble in this process; "workers" is ensembles in that
    many processes, which have a core each only if there are as many.

    Args:
        method: of the registry.
        trials: that are trained together.
        rounds: after the warm-up.
        workers: processes; 1 leaves that part out.
        alone: trials and runs that are trained one by one, for the mean.
        seed: of pool and memberships.
        overrides: of the configuration.
    """
    settings = ("data.samples_per_client=100", f"run.rounds={rounds}", f"run.evaluate_every={max(1, rounds)}")
    config = make_config({"method": method}, [*settings, *overrides])
    source = load_source(config.data.source, root=config.data.root)
    pool, _ = make_pool(source, config, seed=seed)
    members = np.random.default_rng(seed).random((trials, len(pool))) < 0.5

    def train(count: int, *, together: int, workers: int = 1) -> None:
        train_trials(config, source, pool, members[:count], seed=seed, together=together, workers=workers)

    def runs() -> None:
        for number in range(alone):
            run(config.model_copy(update={"run": config.run.model_copy(update={"seed": seed + number})}), source=source)

    found: dict[str, Any] = {}
    with threads(1):
        found["run"] = _per_trial(runs, alone)
        found["one by one"] = _per_trial(lambda: train(alone, together=1), alone)
        found["together"] = _per_trial(lambda: train(trials, together=trials), trials)
        if workers > 1:
            found["workers"] = _per_trial(lambda: train(trials, together=trials, workers=workers), trials)
    return {
        "method": method,
        "trials": trials,
        "rounds": rounds,
        "workers": workers,
        "seconds": found,
        "ratio_together_wall": found["run"]["wall"] / found["together"]["wall"],
        "ratio_together_cpu": found["run"]["cpu"] / found["together"]["cpu"],
        "ratio_workers_wall": found["run"]["wall"] / found["workers"]["wall"] if workers > 1 else None,
        "hardware": {
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads_per_process": 1,
            "native_bfloat16": native_bfloat16(torch.device("cpu")),
            "torch": torch.__version__,
            "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        },
    }


def _per_trial(work: Callable[[], None], trials: int) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"wall": (time.perf_counter() - wall) / trials, "cpu": (time.process_time() - cpu) / trials}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--method", default="fedavg")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--alone", type=int, default=2, help="trials that are trained one by one, for the mean")
    given = parser.parse_args()
    found = measure(given.method, trials=given.trials, rounds=given.rounds, workers=given.workers, alone=given.alone)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
