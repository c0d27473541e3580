"""Several methods on several seeds, in one table.

A comparison directory holds ``METHOD/seed_N/``, each a run directory, and ``comparison.json``. Interrupted, it goes on
where it stopped; finished runs are not run again.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from codream_secure import files
from codream_secure.config import Config
from codream_secure.data import load_source
from codream_secure.federation import Observer, resolve_device
from codream_secure.methods import find_method
from codream_secure.releases import Releases
from codream_secure.runs.environment import describe_environment
from codream_secure.runs.loop import RunResult, run
from codream_secure.runs.summary import to_target

DEFAULT_METHODS = ("isolated", "codream", "fedavg", "centralised")
GAP_TARGET = 0.85


def compare(
    config: Config,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    seeds: int = 1,
    out: Path | None = None,
    observe: Observer | None = None,
    on_run: Callable[[str, int, int, int], None] | None = None,
    on_privacy: Callable[[Releases], None] | None = None,
) -> dict[str, Any]:
    """Run every method on every seed and summarise.

    Args:
        config: what all methods have in common; its ``method`` is ignored.
        methods: names; one that cannot run the configuration is listed with the reason and not run.
        seeds: how many, from ``config.run.seed`` upwards. A seed decides partition, initial weights, everything.
        out: the comparison directory, or None.
        observe: told (phase, done, total) within each run.
        on_run: told (method, seed, runs done, runs in all) before each run.
        on_privacy: told, before each method's first run, how values will leave clients, where privacy is claimed.

    Returns:
        ``config`` (as TOML), ``environment``, ``seeds``, ``selected_by``, ``target`` (validation accuracy, or null) and
        ``methods``: one entry each, see :func:`_entry`. The same is written to ``comparison.json``.

    Raises:
        ConfigError: a method is unknown.
        ValueError: ``seeds`` is not positive.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}: at least one is needed")
    methods = list(dict.fromkeys(methods))
    obstacles = {name: find_method(name).obstacle(config) for name in methods}
    possible = [name for name in methods if obstacles[name] is None]
    environment = describe_environment(resolve_device(config.run.device), threads=config.run.threads)
    source = load_source(config.data.source, root=config.data.root, download=config.data.download)
    results: dict[str, list[RunResult]] = {name: [] for name in possible}
    total = len(possible) * seeds
    for offset in range(seeds):
        seed = config.run.seed + offset
        for name in possible:
            if on_run:
                on_run(name, seed, sum(map(len, results.values())), total)
            one = config.model_copy(update={"method": name, "run": config.run.model_copy(update={"seed": seed})})
            place = out / name / f"seed_{seed}" if out else None
            announce = None if offset else on_privacy
            results[name].append(run(one, out=place, resume=True, source=source, observe=observe, on_privacy=announce))
    target = config.run.target_accuracy or _gap_target(results)
    comparison = {
        # Where the data lie on this machine is no part of the result.
        "config": config.model_copy(update={"data": config.data.model_copy(update={"root": None})}).to_toml(),
        "environment": environment,
        "seeds": [config.run.seed + offset for offset in range(seeds)],
        "selected_by": config.run.select,
        "target": target,
        "methods": [
            {"method": name, "summary": find_method(name).summary, "obstacle": obstacles[name]}
            | (_entry(results[name], target, results) if name in results else {})
            for name in methods
        ],
    }
    if out:
        files.write_json(out / "comparison.json", comparison)
    return comparison


def _entry(runs: list[RunResult], target: float | None, results: dict[str, list[RunResult]]) -> dict[str, Any]:
    """One method's figures over seeds.

    ``test_accuracy``, ``validation_accuracy``, ``bytes_up``, ``bytes_down``, ``seconds`` and the CPU seconds of the
    sums, ``protocol_cpu_client`` (mean client) and ``protocol_cpu_server``, as :func:`spread`; the gap
    between isolated and centralised that it closes, from the mean test accuracies (``gap_closed``, null where either is
    not in the table or there is no gap); bytes and seconds to the target over the seeds that reached it.
    """
    summaries = [result.summary for result in runs]
    entry: dict[str, Any] = {
        key: spread([summary[key] for summary in summaries])
        for key in ("test_accuracy", "validation_accuracy", "bytes_up", "bytes_down", "seconds")
    }
    for party in ("client", "server"):
        entry[f"protocol_cpu_{party}"] = spread([summary["protocol_cpu"][party] for summary in summaries])
    entry["gap_closed"] = _gap_closed(runs, results)
    entry["to_target"] = None
    if target is not None:
        reached = [found for result in runs if (found := to_target(result.rows, target))["round"] is not None]
        entry["to_target"] = {"reached": len(reached), "runs": len(runs)} | {
            key: spread([found[key] for found in reached]) for key in ("round", "bytes_up", "bytes_down", "seconds")
        }
    return entry


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """``mean``, sample deviation ``std`` (null for fewer than two) and all ``values``, of which nulls do not count."""
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "values": list(values),
    }


def _mean(runs: list[RunResult], key: str) -> float | None:
    mean: float | None = spread([result.summary[key] for result in runs])["mean"]
    return mean


def _gap_closed(runs: list[RunResult], results: dict[str, list[RunResult]]) -> float | None:
    if "isolated" not in results or "centralised" not in results:
        return None
    floor, ceiling, here = (
        _mean(group, "test_accuracy") for group in (results["isolated"], results["centralised"], runs)
    )
    if floor is None or ceiling is None or here is None or ceiling <= floor:
        return None
    return (here - floor) / (ceiling - floor)


def _gap_target(results: dict[str, list[RunResult]]) -> float | None:
    """The validation accuracy at :data:`GAP_TARGET` of the way from isolated to centralised."""
    if "isolated" not in results or "centralised" not in results:
        return None
    floor, ceiling = (_mean(results[name], "validation_accuracy") for name in ("isolated", "centralised"))
    if floor is None or ceiling is None or ceiling <= floor:
        return None
    return floor + GAP_TARGET * (ceiling - floor)
