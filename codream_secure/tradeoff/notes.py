"""What has to be said beside the figures of a trade-off, wherever they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def budget_meaning(found: Mapping[str, Any]) -> str:
    """What the column of budgets holds; ``found`` is the contents of ``tradeoff.json``."""
    if found["unit"] is None:
        return "No setting has noise: nothing is claimed about privacy."
    return (
        f"Budget: the largest epsilon that a run may spend, at delta = {found['delta']:g} for the unit "
        f"{found['unit']} under {found['adjacency']}. What each spent, and against whom that holds, is stated below."
    )


def statements(rows: Sequence[Mapping[str, Any]]) -> list[tuple[list[str], str]]:
    """Every statement in full, once, with the names of the settings that it is of."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for text in row["texts"]:
            found.setdefault(text, []).append(row["name"])
    return [(names, text) for text, names in found.items()]


def notes(found: Mapping[str, Any]) -> list[str]:
    """One sentence or two each: what figures mean, and what they do not."""
    said = []
    if len(found["seeds"]) > 1:
        said.append(
            f"Figures are means over {len(found['seeds'])} seeds ± the sample standard deviation; a seed decides the "
            "partition, the initial weights and every other random choice, but no noise that protects anybody."
        )
    said.append(
        "Pareto-optimal: no other setting is at least as good in mean test accuracy, epsilon spent, bytes and seconds, "
        "better in one of them, and private against at least the same adversaries. Differences within the deviations "
        "are no differences."
    )
    if found["unit"] is not None:
        said.append(
            "Each statement is of one run. Who publishes the results of several runs on the same data spends what they "
            "spend together. Test accuracies are instruments of the experiment and are covered by no statement."
        )
    if any(row["control"] and row["obstacle"] is None for row in found["rows"]):
        said.append(
            "The control leaves dreams random, and what noise there is on sums is on their labels alone: a setting "
            "that is no better than it gains nothing from dreaming."
        )
    if any(row["signal"] for row in found["rows"]):
        said.append(
            "Signal is the length of what all clients want of the dreams, if they agree, over that of the noise: at "
            "0.2 or less noise drowns it, at 1 or more most of it survives."
        )
    return said
