"""The probes of an audit, by name."""

from __future__ import annotations

from collections.abc import Sequence

from attacks.probes.base import MembershipProbe
from attacks.probes.honest import (
    GlobalModelAtClient,
    NearestDream,
    PublishedModel,
    SentWeights,
    StudentOfDreams,
    StudentOfDreamsAtClient,
)
from attacks.probes.named_dreams import AntitheticGradient, Extraction, NamedGradient, NamedLabels, NulledGradient
from codream_secure.errors import ConfigError

MEMBERSHIP: tuple[MembershipProbe, ...] = (
    SentWeights(),
    GlobalModelAtClient(),
    StudentOfDreams(),
    StudentOfDreamsAtClient(),
    NearestDream(),
    PublishedModel(),
    NamedLabels(),
    NamedGradient(),
    AntitheticGradient(),
    Extraction(),
)
THOROUGH: tuple[MembershipProbe, ...] = (NulledGradient(),)
"""Those that take minutes, and are used only when they are named."""


def choose(*, names: Sequence[str] = (), adversaries: Sequence[str] = (), active: bool = True) -> list[MembershipProbe]:
    """Probes by name, or all that are quick enough for a default audit.

    Args:
        names: exact names; empty for the default ones.
        adversaries: keep those of these adversaries; empty keeps all.
        active: whether adversaries may deviate from the protocol.

    Raises:
        ConfigError: a name is unknown, or nothing is left.
    """
    known = {probe.name: probe for probe in (*MEMBERSHIP, *THOROUGH)}
    for name in names:
        if name not in known:
            raise ConfigError(f"probe {name!r} is unknown: choose among {', '.join(known)}")
    wanted = [known[name] for name in names] or list(MEMBERSHIP)
    found = [
        probe
        for probe in wanted
        if (not adversaries or probe.adversary in adversaries) and (active or not probe.active)
    ]
    if not found:
        raise ConfigError("no probe is left: name other probes or adversaries, or allow active ones")
    return found
