"""From records to what the templates show: strings, pictures, and nothing left to compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from codream_secure.config import Config
from codream_secure.report import curves
from codream_secure.report import format as fmt
from codream_secure.report.figures import Picture, draw_partition, embed_dreams, method_colours
from codream_secure.report.load import Comparison, MethodRecord, Row, RunRecord, shares
from codream_secure.runs.compare import GAP_TARGET, spread

T = TypeVar("T")

_GRIDS_OF_A_RUN = 6
_SELECTED = {
    "final": "Test accuracy is that of the final round.",
    "validation": "Test accuracy is that of the round with the best validation accuracy, the earliest of equals.",
}
MEANING = (
    "Accuracy is the mean over clients. Bytes are of the mean client and from the start of the run; seconds are of "
    "computation, all clients in turn."
)


def run_page(run: RunRecord) -> dict[str, Any]:
    """The context of ``run.html.j2``."""
    config, figures = run.config, run.figures
    name = config.method
    return {
        "title": f"{name} on {config.data.source}",
        "setup": [("Seed", str(config.run.seed)), *setup_facts(config)],
        "notices": _unfinished(run),
        "shares": shares(name),
        "figures": _headline(run, figures) if figures else [],
        "notes": ([selection(config)] if run.summary else []) + ([MEANING] if figures else []),
        "curves": curves.follow_run(run),
        "partition": _partition(run, "Images of each class that each client holds."),
        "phases": _phases({name: [run]}),
        "clients": _clients(config, {name: [run]}),
        "dreams": [embed_dreams(path, number) for number, path in spread_evenly(run.grids, _GRIDS_OF_A_RUN)],
        "config": config.to_toml(),
        "environment": _environment([run]),
        "colours": method_colours([name]),
    }


def comparison_page(comparison: Comparison) -> dict[str, Any]:
    """The context of ``comparison.html.j2``."""
    config = comparison.config
    ran = [method for method in comparison.methods if method.obstacle is None]
    groups: dict[str, Sequence[RunRecord]] = {method.name: method.runs for method in ran}
    runs = [run for group in groups.values() for run in group]
    dreamer = next((run for run in runs if run.grids), None)
    return {
        "title": f"{fmt.plural(len(comparison.methods), 'method')} on {config.data.source}",
        "setup": [("Seeds", ", ".join(map(str, comparison.seeds))), *setup_facts(config)],
        "notices": _missing(ran, comparison.seeds),
        "methods": [_method_row(method) for method in comparison.methods],
        "target": None if comparison.target is None else fmt.percent(comparison.target),
        "notes": _comparison_notes(comparison),
        "curves": curves.compare_methods(comparison),
        "partition": _partition(
            runs[0] if runs else None,
            f"Images of each class that each client holds, for seed {comparison.seeds[0]}; every seed has its own.",
        ),
        "phases": _phases(groups),
        "clients": _clients(config, groups),
        "dreamer": f"{dreamer.config.method}, seed {dreamer.config.run.seed}" if dreamer else None,
        "dreams": [embed_dreams(path, number) for number, path in spread_evenly(dreamer.grids, 2)] if dreamer else [],
        "config": config.to_toml(),
        "environment": _environment(runs),
        "colours": method_colours([method.name for method in comparison.methods]),
    }


def spread_evenly(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of the items, the first and the last among them.

    >>> spread_evenly(range(1, 101), 6)
    [1, 21, 41, 60, 80, 100]
    """
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def setup_facts(config: Config) -> list[tuple[str, str]]:
    data = config.data
    schemes = {
        "iid": "independent and identical",
        "dirichlet": f"Dirichlet, alpha = {data.alpha}",
        "label_dirichlet": f"Dirichlet over labels, alpha = {data.alpha}",
        "classes": f"{data.classes_per_client} classes per client",
    }
    images = "all images divided" if data.samples_per_client == "all" else f"with {data.samples_per_client} images each"
    facts = [
        ("Data", data.source),
        ("Clients", f"{data.clients}, {images}"),
        ("Partition", schemes[data.partition]),
        ("Validation", f"{data.validation_samples or 'no'} images held out"),
        ("Architectures", fmt.listing(config.model.clients) + (" for all" if len(config.model.clients) == 1 else "")),
        ("Rounds", f"{config.run.rounds}, after {fmt.plural(config.local.warmup_epochs, 'epoch')} of warm-up"),
        ("Protection of sums", config.protocol.protection),
    ]
    if config.model.server:
        facts.append(("Server's student", config.model.server))
    return facts


def selection(config: Config) -> str:
    return f"{_SELECTED[config.run.select]} The test set chooses nothing."


def _unfinished(run: RunRecord) -> list[str]:
    if run.summary:
        return []
    if not run.rows:
        return ["This run has not finished: nothing has been evaluated yet."]
    return [
        f"This run has not finished. The figures below are of round {run.rows[-1]['round']} of "
        f"{run.config.run.rounds}, the last one evaluated, and are no result."
    ]


def _missing(methods: Sequence[MethodRecord], seeds: Sequence[int]) -> list[str]:
    short = [
        f"{method.name} ({len(method.runs)} of {len(seeds)})" for method in methods if len(method.runs) < len(seeds)
    ]
    if not short:
        return []
    return [
        "Not all run directories of this comparison are here, so curves, clients and phases show what is left: "
        f"{', '.join(short)}. The table of results is complete."
    ]


def _headline(run: RunRecord, figures: Row) -> list[tuple[str, str]]:
    rows = [("Test accuracy", f"{fmt.percent(figures['test_accuracy'])} %")]
    if figures["validation_accuracy"] is not None:
        rows.append(("Validation accuracy", f"{fmt.percent(figures['validation_accuracy'])} %"))
    if figures.get("server_test_accuracy") is not None:
        rows.append(("Test accuracy, server's model", f"{fmt.percent(figures['server_test_accuracy'])} %"))
    rows += [
        ("Round", f"{figures['round']} of {run.config.run.rounds}"),
        ("Bytes up, per client", fmt.size(figures["bytes_up"])),
        ("Bytes down, per client", fmt.size(figures["bytes_down"])),
        ("Seconds of computation", fmt.number(figures["seconds"])),
    ]
    if "protocol_cpu" in figures:
        cpu = figures["protocol_cpu"]
        authority = f", {cpu['authority']:.2g} at the key authority" if cpu.get("authority") else ""
        parties = f"{cpu['client']:.2g} per client, {cpu['server']:.2g} at the server{authority}"
        rows.append(("CPU seconds of sums", parties))
        rows.append(("Values clipped", f"{100 * figures['clipped_fraction']:.2g} %"))
    if figures.get("retries"):
        rows.append(("Sums repeated for want of clients", str(figures["retries"])))
    goal = figures.get("to_target")
    if goal:
        reached = (
            f"round {goal['round']}, {fmt.size(goal['bytes_up'] + goal['bytes_down'])}, {fmt.number(goal['seconds'])} s"
        )
        label = f"To {fmt.percent(goal['target'])} % validation accuracy"
        rows.append((label, "not reached" if goal["round"] is None else reached))
    return rows


def _method_row(method: MethodRecord) -> dict[str, Any]:
    row: dict[str, Any] = {"name": method.name, "shares": method.shares, "obstacle": method.obstacle}
    entry = method.entry
    if not entry:
        return row
    row |= {
        "test": fmt.percent_spread(entry["test_accuracy"]),
        "gap": fmt.percent(entry["gap_closed"], decimals=0),
        "up": fmt.size_spread(entry["bytes_up"]),
        "down": fmt.size_spread(entry["bytes_down"]),
        "seconds": fmt.number_spread(entry["seconds"]),
        "sums": f"{entry['protocol_cpu_client']['mean']:.2g}",
    }
    goal = entry["to_target"]
    if goal:
        both = [up + down for up, down in zip(goal["bytes_up"]["values"], goal["bytes_down"]["values"], strict=True)]
        row |= {
            "reached": f"{goal['reached']}/{goal['runs']}",
            "target_bytes": fmt.size_spread(spread(both)),
            "target_seconds": fmt.number_spread(goal["seconds"]),
        }
    return row


def _comparison_notes(comparison: Comparison) -> list[str]:
    notes = [selection(comparison.config)]
    if len(comparison.seeds) > 1:
        notes.append(
            f"Figures are means over {len(comparison.seeds)} seeds ± the sample standard deviation; a seed decides "
            "the partition, the initial weights and every other random choice."
        )
    notes.append(MEANING)
    notes.append("Gap closed is the share of the way from isolated to centralised test accuracy.")
    if comparison.target is not None:
        origin = (
            "as configured"
            if comparison.config.run.target_accuracy
            else f"{fmt.percent(GAP_TARGET, decimals=0)} % of the way from isolated to centralised"
        )
        notes.append(
            f"The target, {fmt.percent(comparison.target)} % validation accuracy, is {origin}. Its bytes (up and down) "
            "and seconds are means over the runs that reached it."
        )
    return notes


def _partition(run: RunRecord | None, caption: str) -> Picture | None:
    return draw_partition(run.partition, caption=caption) if run and run.partition else None


def _phases(groups: dict[str, Sequence[RunRecord]]) -> list[dict[str, Any]]:
    """Per method, its phases with the most bytes first; ``share`` is of the largest method's total, 0..100."""
    totals: dict[str, dict[str, tuple[float, float]]] = {}
    seconds: dict[str, dict[str, tuple[float, float]]] = {}
    for name, runs in groups.items():
        summaries = [run.summary for run in runs if run.summary]
        totals[name] = _mean_pairs([summary["bytes_by_phase"] for summary in summaries])
        seconds[name] = _mean_pairs([summary["protocol_cpu_by_phase"] for summary in summaries])
    largest = max((sum(map(sum, phases.values())) for phases in totals.values()), default=0) or 1
    return [
        {
            "method": name,
            "rows": [
                {
                    "phase": phase.replace("_", " "),
                    "up": fmt.size(up),
                    "down": fmt.size(down),
                    "client_cpu": _milliseconds(seconds[name].get(phase), 0),
                    "server_cpu": _milliseconds(seconds[name].get(phase), 1),
                    "share": round(100 * (up + down) / largest, 2),
                }
                for phase, (up, down) in sorted(phases.items(), key=lambda item: -sum(item[1]))
            ],
        }
        for name, phases in totals.items()
        if phases
    ]


def _mean_pairs(tables: Sequence[dict[str, Sequence[float]]]) -> dict[str, tuple[float, float]]:
    """Phase to the means of a pair of figures over runs; a run without the phase counts as zeros."""
    phases = sorted({phase for table in tables for phase in table})
    return {
        phase: (
            sum(table.get(phase, (0, 0))[0] for table in tables) / len(tables),
            sum(table.get(phase, (0, 0))[1] for table in tables) / len(tables),
        )
        for phase in phases
    }


def _milliseconds(seconds: tuple[float, float] | None, place: int) -> str:
    return "-" if seconds is None else f"{1000 * seconds[place]:.1f}"


def _clients(config: Config, groups: dict[str, Sequence[RunRecord]]) -> dict[str, Any] | None:
    """Test accuracy of each client under each method, and of the server's model where one has it."""
    known = {name: [run.figures for run in runs if run.figures] for name, runs in groups.items()}
    known = {name: figures for name, figures in known.items() if figures}
    if not known:
        return None
    rows = [
        {
            "name": f"client {client}",
            "architecture": config.model.architecture(client),
            "cells": [
                fmt.percent_spread(spread([figures["client_test_accuracy"][client] for figures in group]))
                for group in known.values()
            ],
        }
        for client in range(config.data.clients)
    ]
    servers = [spread([figures.get("server_test_accuracy") for figures in group]) for group in known.values()]
    if any(server["mean"] is not None for server in servers):
        rows.append(
            {
                "name": "server's model",
                "architecture": config.model.server or "",
                "cells": [fmt.percent_spread(server) for server in servers],
            }
        )
    return {"methods": list(known), "rows": rows}


def _environment(runs: Sequence[RunRecord]) -> dict[str, Any] | None:
    """Facts about the first run, and how many of the others were made elsewhere."""
    known = [run.environment for run in runs if run.environment]
    if not known:
        return None
    first = known[0]
    facts = [
        ("Commit", first["commit"] or "unknown"),
        ("Python", first["python"]),
        *((name, version) for name, version in first["packages"].items() if version),
        ("Platform", first["platform"]),
        ("Processor", f"{first['processor']}, {fmt.plural(first['cores'], 'core')}"),
        ("Device", f"{first['device']}, {fmt.plural(first['torch_threads'], 'torch thread')}"),
    ]
    if len(runs) == 1 and runs[0].summary:
        facts.append(("Final weights", f"SHA-256 {runs[0].summary['weights_sha256']}"))
    return {"facts": facts, "differ": sum(other != first for other in known), "runs": len(known)}
