"""Which lines the charts of a report show."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from codream_secure.report import format as fmt
from codream_secure.report.figures import Line, Picture, draw_chart, method_colours
from codream_secure.report.load import Comparison, MethodRecord, Row, RunRecord

_VALIDATION, _TEST, _SERVER, _LOSSES = "#0072b2", "#d55e00", "#009e73", ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_CLIENTS_SHOWN = 32  # more faint lines than this are a smear


def compare_methods(comparison: Comparison) -> list[Picture]:
    """Accuracy over rounds, bytes and seconds: a line per method, the mean over seeds, in a band from least to most."""
    methods = [method for method in comparison.methods if any(run.rows for run in method.runs)]
    if not methods:
        return []
    target = comparison.target
    level = (100 * target, f"target {fmt.percent(target)} %") if target is not None else None
    charts = [
        ("test_accuracy", "round", None),
        ("validation_accuracy", "round", level),
        ("test_accuracy", "bytes", None),
        ("test_accuracy", "seconds", None),
    ]
    colours = method_colours([method.name for method in comparison.methods])
    pictures = []
    for key, over, mark in charts:
        found = [_method_line(method, key, over, colours[method.name]) for method in methods]
        lines = [line for line in found if line.y]
        if lines:
            alt = _describe(f"{key.replace('_', ' ')} against {over}, one line per method", lines, " %")
            pictures.append(
                draw_chart(lines, x=_AXES[over], y=_percent_axis(key), alt=alt, sizes=over == "bytes", level=mark)
            )
    return pictures


def follow_run(run: RunRecord) -> list[Picture]:
    """One run's accuracy over rounds, bytes and seconds, and its losses."""
    if not run.rows:
        return []
    rounds = [row["round"] for row in run.rows]
    clients = _client_lines(run, rounds)
    means = [
        _run_line(run.rows, "test_accuracy", "round", label="test, mean", colour=_TEST),
        _run_line(run.rows, "validation_accuracy", "round", label="validation, mean", colour=_VALIDATION, dashed=True),
        _run_line(run.rows, "server_test_accuracy", "round", label="test, server's model", colour=_SERVER),
    ]
    lines = [line for line in means if line.y]
    alt = _describe("accuracy against round", lines, " %")
    pictures = [draw_chart([*clients, *lines], x=_AXES["round"], y="accuracy (%)", alt=alt)]
    losses = sorted({key for row in run.rows for key in row if key.endswith("_loss")})
    if losses:
        lines = [
            _run_line(run.rows, key, "round", label=key.removesuffix("_loss"), colour=colour, scale=1)
            for key, colour in zip(losses, _LOSSES * len(losses), strict=False)
        ]
        alt = _describe("training losses against round", lines, "")
        pictures.append(draw_chart(lines, x=_AXES["round"], y="mean training loss", alt=alt))
    for over in ("bytes", "seconds"):
        lines = [_run_line(run.rows, "test_accuracy", over, label="test, mean", colour=_TEST)]
        alt = _describe(f"test accuracy against {over}", lines, " %")
        pictures.append(
            draw_chart(lines, x=_AXES[over], y=_percent_axis("test_accuracy"), alt=alt, sizes=over == "bytes")
        )
    return pictures


_AXES = {
    "round": "round",
    "bytes": "bytes per client, up and down, so far",
    "seconds": "seconds of computation, so far",
}


def _percent_axis(key: str) -> str:
    return f"{key.replace('_', ' ')} (%)"


def _along(row: Row, over: str) -> float:
    return float(row["bytes_up"] + row["bytes_down"] if over == "bytes" else row[over])


def _run_line(
    rows: Sequence[Row], key: str, over: str, *, label: str, colour: str, scale: float = 100, dashed: bool = False
) -> Line:
    known = [row for row in rows if row.get(key) is not None]
    return Line(
        label=label,
        colour=colour,
        x=[_along(row, over) for row in known],
        y=[scale * row[key] for row in known],
        dashed=dashed,
    )


def _client_lines(run: RunRecord, rounds: Sequence[int]) -> list[Line]:
    if run.config.data.clients > _CLIENTS_SHOWN:
        return []
    accuracies = zip(*(row["client_test_accuracy"] for row in run.rows), strict=True)
    # A leading underscore keeps a line out of the legend: one entry stands for all clients.
    return [
        Line(
            label="_" if client else "test, each client",
            colour="#5b626b",
            x=rounds,
            y=[100 * value for value in values],
            faint=True,
        )
        for client, values in enumerate(accuracies)
    ]


def _method_line(method: MethodRecord, key: str, over: str, colour: str) -> Line:
    by_round: dict[int, list[Row]] = {}
    for run in method.runs:
        for row in run.rows:
            if row.get(key) is not None:
                by_round.setdefault(row["round"], []).append(row)
    # A mean over some of the seeds would jump where one of them ends.
    shared = [rows for _, rows in sorted(by_round.items()) if len(rows) == len(method.runs)]
    values = [[100 * row[key] for row in rows] for rows in shared]
    several = len(method.runs) > 1
    return Line(
        label=method.name,
        colour=colour,
        x=[statistics.fmean(_along(row, over) for row in rows) for rows in shared],
        y=[statistics.fmean(group) for group in values],
        low=[min(group) for group in values] if several else (),
        high=[max(group) for group in values] if several else (),
    )


def _describe(what: str, lines: Sequence[Line], unit: str) -> str:
    ends = ", ".join(f"{line.label} {fmt.number(line.y[-1])}{unit}" for line in lines if line.y)
    return f"{what.capitalize()}. At the end: {ends}."
