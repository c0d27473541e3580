"""Reconstruction from FedAvg and from CoDream, by the same adversaries on the same images.

    python -m experiments.reconstruction --out runs/reconstruction.json
    python -m experiments.reconstruction --source mnist --root DIR --only gradients --only dreams --out FILE

Every figure stands beside its control: held-out images, or what public images give.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer

from attacks.auditing.document import document
from attacks.auditing.findings import Findings
from codream_secure.cli.app import guarded
from codream_secure.data import DataSource, load_source
from codream_secure.files import write_json
from experiments.reconstruction.dreams import dreams_give
from experiments.reconstruction.gradients import invert_gradients, nothing_to_invert
from experiments.reconstruction.moments import images_from_moments
from experiments.reconstruction.neighbour import other_ones_image, other_ones_statistics
from experiments.reconstruction.norms import statistics_recovered
from experiments.reconstruction.setting import Effort, Setting
from protocols import make_protocol


class Part(StrEnum):
    """What may be measured alone."""

    GRADIENTS = "gradients"
    DREAMS = "dreams"
    STATISTICS = "statistics"
    MOMENTS = "moments"
    NEIGHBOUR = "neighbour"


def _gradients(setting: Setting) -> None:
    for architecture in ("mlp", "lenet5"):
        invert_gradients(setting, architecture)
        nothing_to_invert(setting, architecture)


def _neighbour(setting: Setting) -> None:
    for architecture in ("mlp", "lenet5"):
        other_ones_image(setting, architecture)
    other_ones_statistics(setting)


PARTS: dict[Part, Callable[[Setting], None]] = {
    Part.GRADIENTS: _gradients,
    Part.DREAMS: lambda setting: dreams_give(setting, "lenet5"),
    Part.STATISTICS: statistics_recovered,
    Part.MOMENTS: images_from_moments,
    Part.NEIGHBOUR: _neighbour,
}


def measured(
    source: DataSource, *, name: str, root: str | None, seed: int, parts: list[Part], effort: Effort
) -> Iterator[Findings]:
    """One seed's rows, after each part all that there are so far.

    Raises:
        DataError: the data set has too few images.
    """
    started = time.perf_counter()
    setting = Setting(source=source, name=name, root=root, seed=seed, effort=effort, tell=_tell(seed))
    for part in parts:
        PARTS[part](setting)
        threats = {}
        for protection in dict.fromkeys(row.protection for row in setting.rows):
            model = make_protocol(protection).threat_model
            threats[protection] = {field: getattr(model, field) for field in model.__dataclass_fields__}
        yield Findings(rows=list(setting.rows), threats=threats, seconds=time.perf_counter() - started)


def _tell(seed: int) -> Callable[[str], None]:
    started = time.perf_counter()
    return lambda text: typer.echo(f"[seed {seed}, {time.perf_counter() - started:5.0f} s] {text}", err=True)


def main(
    out: Annotated[Path, typer.Option("--out", help="JSON file of the results.")],
    source: Annotated[str, typer.Option("--source", help="digits, mnist, ...")] = "digits",
    root: Annotated[str | None, typer.Option("--root", help="Folder of the data files.")] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="0, 1, ...")] = 1,
    only: Annotated[
        list[Part] | None, typer.Option("--only", help="Part to measure. Repeatable; default: all.")
    ] = None,
) -> None:
    """Run it, print the table and write the rows."""
    from experiments.tables import audit_markdown

    torch.set_num_threads(1)
    images = load_source(source, root=root)
    parts = only or list(PARTS)
    command = f"python -m experiments.reconstruction --source {source} --seeds {seeds}"
    command += "".join(f" --only {part.value}" for part in only or [])
    found: dict[int, Findings] = {}
    for seed in range(seeds):
        for findings in measured(images, name=source, root=root, seed=seed, parts=parts, effort=Effort()):
            found[seed] = findings
            # Parts take minutes: one that is interrupted leaves those before it.
            content = document(
                found,
                title="Reconstruction from FedAvg and from CoDream",
                command=command,
                config=f"{source}: FedSGD, FedAvg and CoDream on the same clients' images; see the rows' assumptions",
                adversaries=sorted({row.adversary for each in found.values() for row in each.rows}),
                active=any(row.active for each in found.values() for row in each.rows),
            )
            write_json(out, content)
    print(audit_markdown(content))


def script() -> None:
    """The module as a command."""
    guarded(lambda: typer.run(main))


if __name__ == "__main__":
    script()
