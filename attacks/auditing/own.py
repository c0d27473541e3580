"""An audit of a federation of one's own: anything that gives transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from attacks.auditing.checks import null_check
from attacks.auditing.document import document
from attacks.auditing.epsilons import claims_check, entry, one_run_bound
from attacks.auditing.findings import Findings
from attacks.auditing.membership_rows import Place, membership_rows, null_auc, withheld_row
from attacks.auditing.observe import observe_membership, scored
from attacks.auditing.subject import Subject
from attacks.membership.design import checked_memberships
from attacks.probes.base import MembershipProbe
from attacks.public import Public
from attacks.rows import Check
from codream_secure.privacy import PrivacyStatement, PrivacyUnit


def audit(
    subjects: Sequence[Subject],
    *,
    members: npt.NDArray[np.bool_],
    public: Public,
    probes: Sequence[MembershipProbe],
    method: str = "own",
    statement: PrivacyStatement | None = None,
    delta: float = 1e-5,
    seed: int = 0,
    title: str = "What leaks from a federation of one's own",
) -> dict[str, Any]:
    """Membership inference on federations that you trained yourself, and recorded.

    Args:
        subjects: M federations of one kind, each trained on its members among the candidates.
        members: (M, N) bool: which candidates each was trained on; every one by half of them
            (:func:`attacks.membership.balanced_memberships`).
        public: the candidates, and what else everybody knows.
        probes: what is tried; your own too.
        method: how rows call the federation.
        statement: what you claim of it; of the unit "example", or it is not compared.
        delta: of the bounds on epsilon; that of the claim.
        seed: of the adversary's random choices.
        title: of the report.

    Returns:
        The content of ``audit.json``; :func:`attacks.report.write_report` makes a page of it.

    Raises:
        ValueError: the memberships are not balanced, or not one row per subject.

    The checks of :mod:`attacks.auditing.checks` that need the images' origin are yours: see that members and
    non-members are drawn alike, as :func:`attacks.blind.blind_auc` tests.
    """
    inside = checked_memberships(members)
    if len(inside) != len(subjects) or inside.shape[1] != len(public):
        raise ValueError(
            f"members has shape {inside.shape}: give one row for each of {len(subjects)} subjects and one column for "
            f"each of {len(public)} candidates"
        )
    rng = np.random.default_rng([seed, 3])
    found = Findings()
    observations = [observe_membership([subject], probes, public) for subject in subjects]
    protection = subjects[0].protection
    for probe in probes:
        place = Place(method=method, protection=protection, probe=probe)
        key = (probe.name, protection)
        reasons = [each.withheld[key] for each in observations if key in each.withheld]
        if reasons:
            found.rows.append(withheld_row(place, reasons[0], n=0))
            continue
        signals = np.stack([each.signals[key] for each in observations])
        if not found.checks:
            found.checks.append(
                null_check(null_auc(signals, inside, generator=rng), f"{method}, {protection}", candidates=len(public))
            )
        asked = scored(probe, public.owners.numpy(), clients=int(public.owners.max()) + 1)
        rows, curves = membership_rows(
            place, signals, inside, asked=asked, canaries=np.zeros(len(public), dtype=bool), generator=rng
        )
        found.rows += rows
        found.rocs += curves
        if not probe.colluders:
            confidence = 1 - 0.05 / len(probes)
            bound = one_run_bound(signals[0], inside[0], delta=delta, confidence=confidence)
            found.epsilons.append(
                entry(
                    bound,
                    statement,
                    method=method,
                    protection=protection,
                    adversary=probe.adversary,
                    probe=probe.name,
                    unit=PrivacyUnit.EXAMPLE,
                )
            )
    found.checks.append(claims_check(found.epsilons))
    if not any(row.value is not None for row in found.rows):
        found.checks.append(Check(name="something to look at", passed=False, detail="no probe had anything in view"))
    return document(
        {seed: found},
        title=title,
        command="attacks.audit(...)",
        config="a federation of one's own",
        adversaries=sorted({probe.adversary for probe in probes}),
        active=any(probe.active for probe in probes),
    )
