"""``codream-secure tradeoff``: what a budget of privacy costs in accuracy, bytes and seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from codream_secure.cli.progress import Watch
from codream_secure.cli.tables import accuracy, show, size
from codream_secure.config import load_config


def tradeoff(
    config: Annotated[Path, typer.Argument(help="TOML configuration, with dp.unit.", show_default=False)],
    epsilons: Annotated[str, typer.Option("--epsilons", help="Comma-separated budgets; inf: no noise.")] = "1,3,8,inf",
    protections: Annotated[str, typer.Option("--protections", help="Comma-separated names.")] = "plain,masked,bfv",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many, from run.seed upwards.")] = 3,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override: section.key=value. Repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", file_okay=False, writable=True, help="Directory for results.")
    ] = None,
    control: Annotated[bool, typer.Option(help="Measure dreaming by dreams that stay random.")] = True,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda or auto.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Accuracy, bytes and seconds under several privacy budgets and protections. With --out it can be interrupted."""
    from codream_secure.report.tradeoff import build_tradeoff_report
    from codream_secure.tradeoff import parse_budgets, parse_protections, plan_cells, sweep

    budgets, names = parse_budgets(epsilons), parse_protections(protections)
    settings = load_config(config, [*(overrides or []), *([f"run.device={device}"] if device else [])])
    cells = plan_cells(settings, budgets=budgets, protections=names, control=control)
    possible = sum(cell.config is not None for cell in cells)
    with Watch(runs=possible * seeds, rounds=settings.run.rounds) as watch:
        found = sweep(
            settings,
            budgets=budgets,
            protections=names,
            seeds=seeds,
            control=control,
            out=out,
            observe=watch.observe,
            on_run=watch.start_run,
        )
    report = build_tradeoff_report(out) if out else None
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print_tradeoff(found)
    if report:
        print(f"report: {report}")


def print_tradeoff(found: Mapping[str, Any]) -> None:
    """The table, and below it what has to be said of it; ``found`` is the contents of ``tradeoff.json``."""
    from codream_secure.tradeoff.notes import budget_meaning, notes, statements

    print(budget_meaning(found))
    show(tradeoff_table(found))
    for row in found["rows"]:
        if row["obstacle"]:
            print(f"{row['name']} cannot run: {row['obstacle']}")
        for reason in row["stopped"]:
            print(f"{row['name']} ended early, {reason}")
    for names, text in statements(found["rows"]):
        print(f"{'; '.join(names)}: {text}")
    for note in notes(found):
        print(note)


def tradeoff_table(found: Mapping[str, Any]) -> Table:
    """One row a setting; a star marks those that no other beats."""
    from codream_secure.tradeoff.grid import NO_NOISE

    count = len(found["seeds"])
    selected = {"final": "final round", "validation": "round chosen on validation data"}[found["selected_by"]]
    over = "1 seed" if count == 1 else f"{count} seeds, mean ± std"
    table = Table(
        title=f"Test accuracy in %, mean over clients, {selected}; {over}; * is Pareto-optimal",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    students = any(row["server_test_accuracy"] for row in found["rows"])
    left = ("budget", "protection")
    headings = [*left, "test\naccuracy", *(["server's\nmodel"] if students else []), "signal", "up + down\n/ client"]
    for heading in (*headings, "seconds", ""):
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=True)
    before: Any = object()
    for row in found["rows"]:
        budget, kind = row["epsilon"], "control" if row["control"] else row["protection"]
        shown = "no noise" if budget == NO_NOISE else f"{budget:g}" if budget is not None else "-"
        cells = ["" if budget == before else shown, kind or row["method"]]
        table.add_row(*cells, *(["cannot run"] if row["obstacle"] else _figures(row, students=students)))
        before = budget
    return table


def _figures(row: Mapping[str, Any], *, students: bool) -> Sequence[str]:
    student = accuracy(row["server_test_accuracy"]) if row["server_test_accuracy"] else "-"
    return [
        accuracy(row["test_accuracy"]),
        *([student] if students else []),
        f"{row['signal']['value']:.2g}" if row["signal"] else "-",
        size(row["bytes_up"]["mean"] + row["bytes_down"]["mean"]),
        f"{row['seconds']['mean']:.1f}",
        "*" if row["pareto"] else "",
    ]
