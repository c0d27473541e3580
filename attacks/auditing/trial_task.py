"""The work on one trial: the last round for real, then every probe under every protection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F

from attacks.auditing.arms import Arm
from attacks.auditing.checks import hidden_check
from attacks.auditing.client_level import client_level_epsilon
from attacks.auditing.epsilons import entry
from attacks.auditing.observe import Observation, observe_membership
from attacks.auditing.plan import Plan, public_side
from attacks.auditing.reconstruction_rows import RECONSTRUCTIONS, Case, png
from attacks.auditing.subject import Recorded, RecordedSubject
from attacks.laboratory import record_round
from attacks.probes.base import MembershipProbe
from attacks.public import Public, Query
from attacks.reconstruction import PixelBounds
from attacks.shadows import Trained, rebuild
from attacks.shadows.trial import measured
from attacks.workers import Stop, StoppedError, Task
from codream_secure.methods import Method
from codream_secure.methods.codream import CoDream
from codream_secure.privacy import PrivacyUnit
from codream_secure.releases import NoisyReleases
from protocols.plain import PlainSum


@dataclass(frozen=True, kw_only=True)
class TrialTask(Task[Observation]):
    """Look at trials of one arm.

    Attributes:
        arm: what was trained.
        plan: on what.
        trained: the trials, one round before the last.
        probes: those that can look at this method.
        reconstructions: which adversaries' are tried on the first trial.
        confidence: of a bound on epsilon.
    """

    arm: Arm
    plan: Plan
    trained: Sequence[Trained] = field(repr=False)
    probes: Sequence[MembershipProbe]
    reconstructions: Literal["all", "passive", "none"] = "all"
    confidence: float = 0.95

    def __call__(self, number: int, stop: Stop) -> Observation:
        arm, plan = self.arm, self.plan
        row = torch.from_numpy(plan.members[number])
        method = rebuild(arm.config, plan.source, plan.pool, row, self.trained[number])

        def watch(phase: str, done: int, total: int) -> None:
            if stop():
                raise StoppedError

        method.federation.observe = watch
        releases = method.federation.channel.releases
        vote_norm = releases.sums.norms.get("soft_labels") if isinstance(releases, NoisyReleases) else None
        public = public_side(plan, method.config, vote_norm=vote_norm)
        account = releases.ledger.state_dict() if releases.ledger is not None else None
        recorded = Recorded(method, record_round(method, arm.config.run.rounds), account=account)
        streams = {"soft_labels", "weights", *(stream for probe in self.probes for stream in probe.streams)}
        subjects = [
            RecordedSubject(recorded, protection=label, protocol=protocol, streams=streams)
            for label, protocol in arm.protections
        ]
        found = observe_membership(subjects, self.probes, public)
        after = measured(method, trial=number, seconds=0.0)
        found.train_accuracy = sum(after.train_accuracy) / len(after.train_accuracy)
        found.test_accuracy = sum(after.test_accuracy) / len(after.test_accuracy)
        if releases.ledger is not None:
            found.statement = releases.ledger.statement(delta=arm.config.dp.delta)
        if number == 0:
            self._look_closer(found, method, subjects, public, watch)
        return found

    def _look_closer(
        self,
        found: Observation,
        method: Method,
        subjects: list[RecordedSubject],
        public: Public,
        watch: Callable[[str, int, int], None],
    ) -> None:
        """Reconstructions, views and dreams of the first federation."""
        arm, size = self.arm, self.plan.size
        extras: dict[str, list[Any]] = {"rows": [], "pictures": [], "checks": [], "dreams": [], "epsilons": []}
        for subject in subjects:
            case = Case(
                name=arm.method,
                method=method,
                subject=subject,
                public=public,
                seed=self.plan.seed,
                pictures_wanted=size.pictures,
            )
            extras["checks"].append(hidden_check(subject.transcript(), label=f"{arm.method}, {subject.protection}"))
            for attack, active in RECONSTRUCTIONS[arm.config.method]:
                if self.reconstructions == "all" or (self.reconstructions == "passive" and not active):
                    watch(attack.__name__, 0, 1)
                    attack(case)
            extras["rows"] += case.rows
            extras["pictures"] += case.pictures
        dreams = method.dreams()
        if dreams is not None:
            grid = PixelBounds(public.lowest, public.highest).to_unit(dreams[:16]).clamp(0, 1)
            image = {"method": arm.method, "protection": arm.protections[0][0], "image": png(_tiled(grid), side=192)}
            extras["dreams"].append(image)
        if isinstance(method, CoDream) and isinstance(method.federation.channel.releases, NoisyReleases):
            extras["epsilons"] += self._client_level(method, public)
        found.extras = extras

    def _client_level(self, method: CoDream, public: Public) -> list[dict[str, Any]]:
        if self.arm.config.dp.unit != "client":
            return []
        dreams = torch.randn((public.dreams, *public.images.shape[1:]), generator=public.generator(4))
        bound, statement = client_level_epsilon(
            method,
            Query(images=dreams, stream="dream_updates"),
            repeats=self.plan.size.repeats,
            confidence=self.confidence,
        )
        return [
            entry(
                bound,
                statement,
                method=self.arm.method,
                protection=self.arm.protections[0][0],
                adversary="server" if self.arm.protections[0][1] != PlainSum.name else "public",
                probe="presence of a client, all else known",
                unit=PrivacyUnit.CLIENT,
            )
        ]


def _tiled(images: torch.Tensor) -> torch.Tensor:
    """(n, C, H, W) in rows of 8, a pixel of grey around each, as one (C, H', W') image."""
    framed = F.pad(images, (0, 1, 0, 1), value=0.5)
    grey = torch.full_like(framed[:1], 0.5).expand(-len(framed) % 8, -1, -1, -1)
    return torch.cat([torch.cat(list(row), dim=2) for row in torch.cat([framed, grey]).split(8)], dim=1)
