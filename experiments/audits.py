"""What experiments on leakage have in common: the audit's preset, membership probes alone, and a result to keep."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from attacks.auditing.document import document
from attacks.auditing.findings import Findings
from attacks.auditing.plan import Size
from attacks.auditing.run import audit_seed
from attacks.probes.base import MembershipProbe
from codream_secure import files
from codream_secure.config import Config, load_config
from experiments.tables import audit_markdown


def preset(overrides: Sequence[str]) -> Config:
    """The configuration of ``codream-secure audit`` without arguments, changed."""
    with resources.as_file(resources.files("attacks") / "presets" / "audit.toml") as path:
        return load_config(path, list(overrides))


def membership(
    config: Config, probes: Sequence[MembershipProbe], *, trials: int, workers: int, cache: Path, canaries: int = 0
) -> Findings:
    """Those probes in the clear and through masked sums, without reconstructions."""
    return audit_seed(
        config,
        probes=probes,
        seed=config.run.seed,
        size=Size(trials=trials, canaries=canaries),
        protections=("plain", "masked"),
        workers=workers,
        cache=cache,
        adversaries=("client",),  # no reconstructions: the probes are whose they are all the same
    )


def keep(found: Findings, path: Path, *, title: str, command: str, config: Config) -> None:
    """Write a result without curves and pictures, which tables do not show, and print its table."""
    found.rocs, found.pictures, found.dreams = [], [], []
    audited = document(
        {config.run.seed: found},
        title=title,
        command=command,
        config=config.to_toml(),
        adversaries=sorted({row.adversary for row in found.rows}),
        active=any(row.active for row in found.rows),
    )
    files.write_json(path, audited)
    print(audit_markdown(audited))
