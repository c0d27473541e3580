"""How much a sum over K clients hides of what one client alone would show: membership by cohort size.

    python -m experiments.cohorts --out runs/cohorts

Federations of the audit's preset with as many images per client whatever K is, so that victims are alike and only the
sum grows. The server names the dreams, or, of FedAvg, looks at the weights.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from attacks.auditing.findings import Findings
from attacks.probes.base import MembershipProbe
from attacks.probes.honest import SentWeights
from attacks.probes.named_dreams import NamedLabels
from codream_secure.cli.app import guarded
from codream_secure.config import Config
from experiments.audits import keep, membership, preset


def main(
    out: Annotated[Path, typer.Option("--out", help="Directory for results.")],
    clients: Annotated[list[int] | None, typer.Option("--clients", min=2, help="K; repeatable.")] = None,
    images: Annotated[int, typer.Option("--images", min=10, help="Per client.")] = 60,
    trials: Annotated[int, typer.Option("--trials", min=6)] = 16,
    workers: Annotated[int, typer.Option("--workers", min=1)] = 2,
) -> None:
    """Run it and print AUCs."""
    sizes = clients or [2, 4, 8]
    probes: list[MembershipProbe] = [SentWeights(), NamedLabels()]
    whole = Findings()
    for size in sizes:
        config = _config(size, images)
        found = membership(config, probes, trials=trials, workers=workers, cache=out / f"federations-{size}")
        _add(whole, found, clients=size)
    chosen = " ".join(f"--clients {size}" for size in sizes)
    keep(
        whole,
        out / "cohorts.json",
        title="Membership by the number of clients that are summed",
        command=f"python -m experiments.cohorts {chosen} --images {images} --trials {trials}",
        config=_config(sizes[-1], images),
    )


def _config(clients: int, images: int) -> Config:
    return preset([f"data.clients={clients}", f"data.samples_per_client={images}"])


def _add(whole: Findings, found: Findings, *, clients: int) -> None:
    """Put a cohort's findings beside the others', named after its size."""
    whole.rows += [replace(row, probe=f"K = {clients}: {row.probe}") for row in found.rows]
    whole.checks += [replace(check, name=f"K = {clients}: {check.name}") for check in found.checks]
    whole.victims += found.victims
    whole.epsilons += [{**entry, "probe": f"K = {clients}: {entry['probe']}"} for entry in found.epsilons]
    whole.threats |= found.threats
    whole.seconds += found.seconds


def script() -> None:
    """The module as a command."""
    guarded(lambda: typer.run(main))


if __name__ == "__main__":
    script()
