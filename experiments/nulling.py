"""How many contexts it takes to see through feature matching: membership by the gradient of named dreams.

    python -m experiments.nulling --out runs/nulling

Federations of the audit's preset with moments per channel, looked at by a malicious server right after the warm-up's
first round, in the clear and through sums over the clients.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from attacks.auditing.document import document
from attacks.auditing.plan import Size
from attacks.auditing.run import audit_seed
from attacks.probes.base import MembershipProbe
from attacks.probes.named_dreams import AntitheticGradient, NamedGradient, NamedLabels, NulledGradient
from codream_secure.cli.app import guarded
from codream_secure.config import load_config
from codream_secure.runs import files

OVERRIDES = ["dreaming.moments=channel", "run.rounds=1"]


def _nulled(contexts: int) -> NulledGradient:
    probe = NulledGradient(contexts)
    probe.name = f"gradient, {contexts:3d} contexts nulled"  # type: ignore[misc]
    return probe


def main(
    out: Annotated[Path, typer.Option("--out", help="Directory for results.")],
    contexts: Annotated[list[int] | None, typer.Option("--contexts", min=2, help="Repeatable.")] = None,
    trials: Annotated[int, typer.Option("--trials", min=6)] = 6,
    workers: Annotated[int, typer.Option("--workers", min=1)] = 2,
) -> None:
    """Run it and print AUCs."""
    from experiments.tables import audit_markdown

    preset = resources.files("attacks") / "presets" / "audit.toml"
    with resources.as_file(preset) as path:
        config = load_config(path, OVERRIDES)
    probes: list[MembershipProbe] = [NamedLabels(), NamedGradient(), AntitheticGradient()]
    probes += [_nulled(count) for count in contexts or (50, 100, 200)]
    found: Any = audit_seed(
        config,
        probes=probes,
        seed=config.run.seed,
        size=Size(trials=trials, canaries=0),
        protections=("plain", "masked"),
        workers=workers,
        cache=out / "federations",
        adversaries=("client",),  # no reconstructions: the probes are the server's all the same
    )
    audited = document(
        {config.run.seed: found},
        title="Contexts that null feature matching",
        command=f"python -m experiments.nulling --out {out}",
        config=config.to_toml(),
        adversaries=["server"],
        active=True,
    )
    files.write_json(out / "nulling.json", audited)
    print(audit_markdown(audited))


def script() -> None:
    """The module as a command."""
    guarded(lambda: typer.run(main))


if __name__ == "__main__":
    script()
