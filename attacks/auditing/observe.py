"""One federation of many, looked at by every probe: the part of an audit that runs in worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from attacks.auditing.subject import Subject
from attacks.probes.base import MembershipProbe, Signal
from attacks.public import Public
from attacks.transcript import Transcript
from attacks.views import NotInViewError, View, view_of
from codream_secure.errors import BudgetExceededError
from codream_secure.privacy import PrivacyStatement

Place = tuple[str, str]
"""A probe's name and a protection."""


@dataclass(kw_only=True)
class Observation:
    """What probes made of one federation.

    Attributes:
        signals: by probe and protection.
        withheld: likewise, why there is no signal.
        train_accuracy: mean over clients, on their own images.
        test_accuracy: mean over clients.
        statement: what the ledger says of it, where privacy is claimed.
        extras: what else was found: rows, pictures, dreams, checks, epsilons.
    """

    signals: dict[Place, Signal] = field(default_factory=dict, repr=False)
    withheld: dict[Place, str] = field(default_factory=dict)
    train_accuracy: float = float("nan")
    test_accuracy: float = float("nan")
    statement: PrivacyStatement | None = None
    extras: dict[str, list[Any]] = field(default_factory=dict)


def seen_by(probe: MembershipProbe, transcript: Transcript) -> View:
    """The view that a probe is given."""
    return view_of(transcript, probe.adversary, own=_own(probe, transcript.clients))


def scored(probe: MembershipProbe, owners: npt.NDArray[np.int64], *, clients: int) -> npt.NDArray[np.bool_]:
    """(N,) bool, the candidates that a probe is scored on: not those of its own clients, which it knows."""
    if probe.adversary != "client":
        return np.ones(len(owners), dtype=bool)
    return np.asarray(~np.isin(owners, list(_own(probe, clients))))


def _own(probe: MembershipProbe, clients: int) -> range:
    """The numbers of a curious client and of those that help it."""
    return range(clients - 1) if probe.colluders < 0 else range(1 + probe.colluders)


def observe_membership(subjects: Sequence[Subject], probes: Sequence[MembershipProbe], public: Public) -> Observation:
    """Every probe's signal on one federation under each of its protections, or why it has none."""
    found = Observation()
    recorded: dict[str, Transcript] = {}
    for probe in probes:
        queries = probe.queries(public)
        for subject in subjects:
            place = (probe.name, subject.protection)
            try:
                if probe.active:
                    transcript = subject.ask(queries)
                else:
                    if subject.protection not in recorded:
                        recorded[subject.protection] = subject.transcript()
                    transcript = recorded[subject.protection]
                found.signals[place] = probe.signal(seen_by(probe, transcript), public)
            except NotInViewError as reason:
                found.withheld[place] = f"not in view: {reason}"
            except BudgetExceededError as reason:
                found.withheld[place] = f"refused by the privacy budget, and partial answers are not scored: {reason}"
    return found
