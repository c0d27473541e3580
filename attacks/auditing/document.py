"""``audit.json``: the findings of one or several seeds as one plain structure, and what it is made of besides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import stats

from attacks.auditing.findings import Findings
from attacks.report import check_audit
from attacks.rows import Check, Row
from codream_secure.runs.environment import describe_environment

VERSION = 1


def document(
    findings: Mapping[int, Findings],
    *,
    title: str,
    command: str,
    config: str,
    adversaries: Sequence[str],
    active: bool,
) -> dict[str, Any]:
    """The whole of an audit.

    Args:
        findings: seed to what was found with it. Pictures, dreams and curves are those of the first.
        title: for people.
        command: what reproduces it.
        config: TOML of the audited configuration, or words.
        adversaries: whose views were looked at.
        active: whether some deviated.
    """
    seeds = list(findings)
    first = findings[seeds[0]]
    checks = _all_checks(findings)
    environment = describe_environment(torch.device("cpu"), threads=1)
    found = {
        "version": VERSION,
        "title": title,
        "command": command,
        "config": config,
        "environment": environment,
        "commit": environment.get("commit"),
        "seeds": seeds,
        "adversaries": list(adversaries),
        "active": active,
        "valid": all(check.passed for check in checks),
        "seconds": sum(each.seconds for each in findings.values()),
        "rows": [row.to_json() for row in over_seeds({seed: each.rows for seed, each in findings.items()})],
        "checks": [check.to_json() for check in checks],
        "victims": mean_victims([each.victims for each in findings.values()]),
        "rocs": first.rocs,
        "pictures": first.pictures,
        "dreams": first.dreams,
        "epsilons": [entry for each in findings.values() for entry in each.epsilons],
        "threats": first.threats,
    }
    return check_audit(found)


def over_seeds(rows: Mapping[int, Sequence[Row]]) -> list[Row]:
    """One seed's rows as they are; of several, the means of rows that all have, and then every seed's own.

    Memberships and federations of every seed are new, and its pool is drawn anew from the same data set: intervals are
    over seeds of these data, not over data sets.
    """
    seeded = {seed: [replace(row, seed=seed) for row in own] for seed, own in rows.items()}
    each = [row for own in seeded.values() for row in own]
    if len(rows) == 1:
        return each
    grouped: dict[tuple[Any, ...], list[Row]] = {}
    for row in each:
        key = (row.method, row.protection, row.adversary, row.active, row.probe, row.metric)
        grouped.setdefault(key, []).append(row)
    return [_mean(group) for group in grouped.values() if len(group) == len(rows)] + each


def _mean(rows: Sequence[Row]) -> Row:
    """The mean of rows that every seed has.

    A few seeds may agree by luck, or because a share has reached its end. So the interval is never narrower than
    the mean of independent figures, each with its own seed's interval, would have.
    """
    values = [row.value for row in rows if row.value is not None]
    if len(values) < len(rows):
        return replace(next(row for row in rows if row.value is None), seed=None)
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * spread / math.sqrt(len(values))
    below = math.hypot(*(value - row.low for value, row in zip(values, rows, strict=True) if row.low is not None))
    above = math.hypot(*(row.high - value for value, row in zip(values, rows, strict=True) if row.high is not None))
    lowest, highest = (0.0, 1.0) if _is_share(rows[0].metric) else (-math.inf, math.inf)
    controls = [row.control for row in rows if row.control is not None]
    note = (
        f"mean of {len(values)} seeds, standard deviation {spread:.3g}; interval by Student's t over seeds, or of the "
        "mean of their own intervals where that is wider"
    )
    return replace(
        rows[0],
        value=mean,
        low=max(lowest, mean - max(reach, below / len(values))),
        high=min(highest, mean + max(reach, above / len(values))),
        control=float(np.mean(controls)) if len(controls) == len(rows) else None,
        n=sum(row.n for row in rows),
        seed=None,
        note=note,
    )


def mean_victims(victims: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Victims' accuracies over seeds: the mean of means, and of their standard deviations over federations."""
    found = []
    for same in zip(*victims, strict=True):
        means = {
            key: [float(np.mean([each[key][part] for each in same])) for part in (0, 1)]
            for key in ("train_accuracy", "test_accuracy")
        }
        found.append({**same[0], **means, "trials": sum(each["trials"] for each in same)})
    return found


def _is_share(metric: str) -> bool:
    """Whether a metric lies in [0, 1]."""
    return metric in ("AUC", "advantage", "total variation") or metric.startswith(("TPR@", "TNR@", "rank 1 of"))


def _all_checks(findings: Mapping[int, Findings]) -> list[Check]:
    several = len(findings) > 1
    return [
        replace(check, name=f"{check.name}, seed {seed}") if several else check
        for seed, each in findings.items()
        for check in each.checks
    ]
