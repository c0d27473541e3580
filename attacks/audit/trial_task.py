"""The work on one trial: the last round for real, then every probe under every protection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from attacks.audit.arms import Arm
from attacks.audit.observe import Observation, observe_membership
from attacks.audit.plan import Plan, public_side
from attacks.audit.subject import Recorded, RecordedSubject
from attacks.laboratory import record_round
from attacks.probes.base import MembershipProbe
from attacks.shadows import rebuild
from attacks.shadows.trial import measured
from attacks.workers import Stop, StoppedError, Task


@dataclass(frozen=True, kw_only=True)
class TrialTask(Task[Observation]):
    """Look at trials of one arm.

    Attributes:
        arm: what was trained.
        plan: on what.
        states: of the trials, one round before the last.
        seeds: of their runs.
        probes: those that can look at this method.
    """

    arm: Arm
    plan: Plan
    states: Sequence[Mapping[str, Any]] = field(repr=False)
    seeds: Sequence[int]
    probes: Sequence[MembershipProbe]

    def __call__(self, number: int, stop: Stop) -> Observation:
        arm, plan = self.arm, self.plan
        row = torch.from_numpy(plan.members[number])
        method = rebuild(arm.config, plan.source, plan.pool, row, self.states[number], seed=self.seeds[number])

        def watch(phase: str, done: int, total: int) -> None:
            if stop():
                raise StoppedError

        method.federation.observe = watch
        public = public_side(plan, method.config)
        recorded = Recorded(method, record_round(method, arm.config.run.rounds))
        found = observe_membership(
            [
                RecordedSubject(recorded, protection=label, protocol=protocol, streams=("soft_labels", "weights"))
                for label, protocol in arm.protections
            ],
            self.probes,
            public,
        )
        after = measured(method, trial=number, seconds=0.0)
        found.train_accuracy = sum(after.train_accuracy) / len(after.train_accuracy)
        found.test_accuracy = sum(after.test_accuracy) / len(after.test_accuracy)
        return found
