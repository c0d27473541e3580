"""The audit: train, look, score, check, and put it all into one plain structure."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from attacks.auditing.arms import PROTECTIONS, Arm, Claim, arms_of
from attacks.auditing.checks import (
    blind_check,
    duplicates_check,
    learnt_check,
    matched_check,
    null_check,
    references_check,
)
from attacks.auditing.epsilons import CONFIDENCE, claims_check, entry, one_run_bound
from attacks.auditing.findings import Findings
from attacks.auditing.membership_rows import Place, membership_rows, null_auc, withheld_row
from attacks.auditing.observe import Observation, scored
from attacks.auditing.plan import Plan, Size, make_plan
from attacks.auditing.trial_task import TrialTask
from attacks.probes.base import MembershipProbe
from attacks.shadows import train_trials
from attacks.workers import in_workers
from codream_secure.config import Config
from codream_secure.data import DataSource, load_source
from codream_secure.errors import ConfigError
from codream_secure.privacy import PrivacyUnit
from protocols import make_protocol

BOUNDING = ("weights sent", "labels of named dreams", "gradient of named dreams", "published model")
"""Probes whose signals bound epsilon: fixed beforehand, because every one more costs confidence."""

Progress = Callable[[str, int, int], None]


def audit_seed(
    config: Config,
    *,
    probes: Sequence[MembershipProbe],
    seed: int = 0,
    size: Size | None = None,
    protections: Sequence[str] = PROTECTIONS,
    claims: Sequence[Claim] = (),
    confidence: float = CONFIDENCE,
    workers: int = 1,
    cache: Path | None = None,
    source: DataSource | None = None,
    progress: Progress | None = None,
    adversaries: Sequence[str] = (),
    active: bool = True,
) -> Findings:
    """One audit of one seed.

    Args:
        config: of the run under audit.
        probes: what is tried.
        seed: of candidates, memberships, federations and the adversary.
        size: how much is done.
        protections: protocols to look through.
        claims: CoDream is trained under each of these, too.
        confidence: of all bounds together that are held against claims; they share what is left of 1.
        workers: processes.
        cache: folder of trained federations.
        source: the data set, if it is in memory.
        progress: told (what, done, total), in :func:`stages` stages of as many steps as there are trials.
        adversaries: whose reconstructions are tried beside the probes; empty for all.
        active: whether adversaries may deviate from the protocol in those.

    Raises:
        ConfigError: the configuration cannot be audited; the message says why.
        DataError: the data set is missing or too small.
    """
    started = time.perf_counter()
    if not config.run.rounds:
        raise ConfigError("run.rounds is 0: there is no round to look at")
    source = source or load_source(config.data.source, root=config.data.root, download=config.data.download)
    plan = make_plan(config, source, size=size or Size(), seed=seed)
    found = Findings(checks=[blind_check(plan), duplicates_check(plan), references_check(plan)])
    accuracies: dict[str, float] = {}
    tell = progress or (lambda what, done, total: None)
    arms = arms_of(config, protections=protections, claims=claims)
    confidence = 1 - (1 - confidence) / max(1, sum(arm.private for arm in arms))
    for arm in arms:
        reconstructions: Literal["all", "passive", "none"] = "all" if active else "passive"
        if adversaries and "server" not in adversaries:
            reconstructions = "none"
        task = partial(
            TrialTask,
            arm=arm,
            plan=plan,
            probes=_able(probes, arm),
            reconstructions=reconstructions,
            confidence=confidence,
        )
        observations = _observed(task, arm, plan, workers=workers, cache=cache, tell=tell)
        _add_membership(found, arm, plan, probes, observations)
        _add_victims(found, arm, plan, observations)
        if not arm.private:
            found.checks.append(learnt_check(arm.method, observations))
            accuracies[arm.method] = float(np.mean([each.test_accuracy for each in observations]))
        for each in observations:
            for name, values in each.extras.items():
                getattr(found, name).extend(values)
        _add_epsilons(found, arm, plan, probes, observations, confidence=confidence)
        for _, protocol in arm.protections:
            found.threats[protocol] = _threat(protocol)
    found.checks += [matched_check(accuracies), claims_check(found.epsilons)]
    found.seconds = time.perf_counter() - started
    return found


def stages(config: Config, claims: Sequence[Claim] = ()) -> int:
    """Into how many stages an audit of one seed is cut."""
    return 2 * len(arms_of(config, claims=claims))


def _able(probes: Sequence[MembershipProbe], arm: Arm) -> list[MembershipProbe]:
    """The probes that can look at this method."""
    return [probe for probe in probes if not probe.methods or arm.config.method in probe.methods]


def _observed(
    make_task: Callable[..., TrialTask],
    arm: Arm,
    plan: Plan,
    *,
    workers: int,
    cache: Path | None,
    tell: Progress,
) -> list[Observation]:
    name = arm.method if not arm.private else f"{arm.method} ({arm.protections[0][0]})"
    trained = train_trials(
        arm.config,
        plan.source,
        plan.pool,
        plan.members,
        seed=plan.seed,
        workers=workers,
        rounds=arm.config.run.rounds - 1,
        cache=cache,
        observe=lambda what, done, total: tell(f"{name}: training federations", done, total),
    )
    task = make_task(trained=trained)
    trials = len(plan.members)
    found: dict[int, Observation] = {}
    tell(f"{name}: looking at federations", 0, trials)
    for number, observation in in_workers(task, range(trials), workers=workers):
        found[number] = observation
        tell(f"{name}: looking at federations", len(found), trials)
    return [found[number] for number in range(trials)]


def _add_membership(
    found: Findings, arm: Arm, plan: Plan, probes: Sequence[MembershipProbe], observations: Sequence[Observation]
) -> None:
    rng = np.random.default_rng([plan.seed, 3])
    for probe in _able(probes, arm):
        for label, _ in arm.protections:
            place = Place(method=arm.method, protection=label, probe=probe)
            key = (probe.name, label)
            reasons = [each.withheld[key] for each in observations if key in each.withheld]
            asked = scored(probe, plan.pool.owners.numpy(), clients=arm.config.data.clients)
            if reasons:
                found.rows.append(withheld_row(place, reasons[0], n=0))
                continue
            signals = np.stack([each.signals[key] for each in observations])
            if not any(check.name == f"shuffled memberships ({arm.method}, {label})" for check in found.checks):
                found.checks.append(
                    null_check(
                        null_auc(signals, plan.members, generator=rng),
                        f"{arm.method}, {label}",
                        candidates=len(plan.pool),
                    )
                )
            rows, curves = membership_rows(
                place, signals, plan.members, asked=asked, canaries=plan.canaries, generator=rng
            )
            found.rows += rows
            found.rocs += curves


def _add_epsilons(
    found: Findings,
    arm: Arm,
    plan: Plan,
    probes: Sequence[MembershipProbe],
    observations: Sequence[Observation],
    *,
    confidence: float,
) -> None:
    """One-run bounds of the first federation, by the signals that have no need of reference models."""
    first = observations[0]
    places = [
        (probe, label)
        for probe in probes
        if probe.name in BOUNDING and not probe.colluders
        for label, _ in arm.protections
        if (probe.name, label) in first.signals
    ]
    for probe, label in places:
        bound = one_run_bound(
            first.signals[probe.name, label],
            plan.members[0],
            delta=arm.config.dp.delta,
            confidence=1 - (1 - confidence) / len(places),
        )
        found.epsilons.append(
            entry(
                bound,
                first.statement,
                method=arm.method,
                protection=label,
                adversary=probe.adversary,
                probe=probe.name,
                unit=PrivacyUnit.EXAMPLE,
            )
        )


def _add_victims(found: Findings, arm: Arm, plan: Plan, observations: Sequence[Observation]) -> None:
    train = [each.train_accuracy for each in observations]
    test = [each.test_accuracy for each in observations]
    for label, _ in arm.protections:
        found.victims.append(
            {
                "method": arm.method,
                "protection": label,
                "clients": arm.config.data.clients,
                "rounds": arm.config.run.rounds,
                "images": round(float(plan.members.sum(axis=1).mean()) / arm.config.data.clients),
                "train_accuracy": [float(np.mean(train)), float(np.std(train, ddof=1))],
                "test_accuracy": [float(np.mean(test)), float(np.std(test, ddof=1))],
                "trials": len(observations),
            }
        )


def _threat(protocol: str) -> dict[str, str]:
    model = make_protocol(protocol).threat_model
    return {name: getattr(model, name) for name in model.__dataclass_fields__}
