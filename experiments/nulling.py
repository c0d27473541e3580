"""How many contexts it takes to see through feature matching: membership by the gradient of named dreams.

    python -m experiments.nulling --out runs/nulling

Federations of the audit's preset with moments per channel, looked at by a malicious server right after the warm-up's
first round, in the clear and through sums over the clients.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attacks.probes.base import MembershipProbe
from attacks.probes.named_dreams import AntitheticGradient, NamedGradient, NamedLabels, NulledGradient
from codream_secure.cli.app import guarded
from experiments.audits import keep, membership, preset


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
    config = preset(["dreaming.moments=channel", "run.rounds=1"])
    counts = contexts or [50, 100, 200]
    chosen = " ".join(f"--contexts {count}" for count in counts)
    probes: list[MembershipProbe] = [NamedLabels(), NamedGradient(), AntitheticGradient()]
    probes += [_nulled(count) for count in counts]
    found = membership(config, probes, trials=trials, workers=workers, cache=out / "federations")
    keep(
        found,
        out / "nulling.json",
        title="Contexts that null feature matching",
        command=f"python -m experiments.nulling {chosen} --trials {trials}",
        config=config,
    )


def script() -> None:
    """The module as a command."""
    guarded(lambda: typer.run(main))


if __name__ == "__main__":
    script()
