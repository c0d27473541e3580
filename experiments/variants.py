"""One configuration, several named variants of it, several seeds: the table of an ablation.

    python -m experiments.variants experiments/configs/ablation_mnist.toml --seeds 3 --out runs/ablation_mnist

A variants file is a TOML file with ``base`` (a configuration, relative to the file), an optional ``overrides`` list
that applies to all, and a table ``[variants]`` of names, each with the list of overrides that makes it. With
``reference``, the name of one of them, the table says what each needs to reach, for the first time, the validation
accuracy that the reference ends with on the same seed. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from codream_secure import files
from codream_secure.cli.app import guarded
from codream_secure.cli.progress import Watch
from codream_secure.config import Config, load_config
from codream_secure.data import load_source
from codream_secure.errors import ConfigError
from codream_secure.federation import resolve_device
from codream_secure.privacy import PrivacyStatement
from codream_secure.runs import RunResult, run
from codream_secure.runs.compare import spread
from codream_secure.runs.environment import describe_environment
from codream_secure.runs.summary import to_target


class _VariantsFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    base: str
    overrides: list[str] = []
    reference: str | None = None
    variants: dict[str, list[str]] = Field(min_length=1)


def load_variants(path: Path) -> tuple[dict[str, Config], str | None]:
    """Read a variants file: its variants, in the order of the file, and the reference's name.

    Raises:
        ConfigError: the file is no TOML, lacks a key or has an unknown one, two variants would share a folder, or a
            variant is not a valid configuration; the message names it.
    """
    try:
        tree = _VariantsFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigError(f"variants file {str(path)!r} cannot be used: {error}") from None
    if tree.reference is not None and tree.reference not in tree.variants:
        known = ", ".join(tree.variants)
        raise ConfigError(f"variants file {str(path)!r}: reference {tree.reference!r} is none of {known}")
    owners: dict[str, str] = {}
    found = {}
    for name, overrides in tree.variants.items():
        if (owner := owners.setdefault(_folder(name), name)) != name:
            raise ConfigError(f"variants file {str(path)!r}: {owner!r} and {name!r} would share a folder, rename one")
        try:
            found[name] = load_config(path.parent / tree.base, [*tree.overrides, *overrides])
        except ConfigError as error:
            raise ConfigError(f"variants file {str(path)!r}, variant {name!r}: {error}") from None
    return found, tree.reference


def _folder(name: str) -> str:
    return name.replace(" ", "_").replace("/", "_")


def run_variants(variants: dict[str, Config], *, reference: str | None, seeds: int, out: Path) -> dict[str, Any]:
    """Run every variant on every seed; write and return ``variants.json``."""
    results: dict[str, list[RunResult]] = {name: [] for name in variants}
    wanted = {config.data.source: config.data for config in variants.values()}
    first = next(iter(variants.values())).run
    environment = describe_environment(resolve_device(first.device), threads=first.threads)
    sources = {name: load_source(name, root=data.root, download=data.download) for name, data in wanted.items()}
    longest = max(config.run.rounds for config in variants.values())
    with Watch(runs=len(variants) * seeds, rounds=longest) as watch:
        for offset in range(seeds):
            for name, config in variants.items():
                seed = config.run.seed + offset
                watch.start_run(name, seed, sum(map(len, results.values())), len(variants) * seeds)
                one = config.model_copy(update={"run": config.run.model_copy(update={"seed": seed})})
                place = out / _folder(name) / f"seed_{seed}"
                found = run(one, out=place, resume=True, source=sources[config.data.source], observe=watch.observe)
                results[name].append(found)
    table = {
        "environment": environment,
        "variants": [
            {"name": name, "rounds": variants[name].run.rounds, "seeds": [found.summary["seed"] for found in runs]}
            | {
                key: spread([found.summary[key] for found in runs])
                for key in ("test_accuracy", "validation_accuracy", "bytes_up", "bytes_down", "seconds")
            }
            | _released_models(runs)
            | {"privacy": _privacy(runs)}
            | {"to_reference": _to_reference(runs, results[reference]) if reference else None}
            for name, runs in results.items()
        ],
    }
    files.write_json(out / "variants.json", table)
    return table


def _released_models(runs: list[RunResult]) -> dict[str, Any]:
    """Test accuracies of models beside the clients' own, where there are any."""
    found = {key: [run.summary[key] for run in runs] for key in ("server_test_accuracy", "dreamer_test_accuracy")}
    return {key: spread(values) for key, values in found.items() if None not in values}


def _privacy(runs: list[RunResult]) -> dict[str, Any] | None:
    """What was spent: the weakest of the seeds' statements, with the signal beside the noise."""
    claims = [run.summary["privacy"] for run in runs]
    if None in claims:
        return None
    weakest = max(claims, key=lambda claim: PrivacyStatement.from_json(claim["statement"]).epsilon)
    return {**weakest, "stopped": [claim["stopped"] for claim in claims if claim["stopped"]]}


def _to_reference(runs: list[RunResult], reference: list[RunResult]) -> list[dict[str, Any]]:
    """Per seed, what it took to reach the reference's final validation accuracy."""
    return [
        to_target(found.rows, known.summary["validation_accuracy"])
        for found, known in zip(runs, reference, strict=True)
    ]


def main(
    variants: Annotated[Path, typer.Argument(help="Variants file.")],
    out: Annotated[Path, typer.Option("--out", help="Directory for results.")],
    seeds: Annotated[int, typer.Option("--seeds", min=1)] = 3,
) -> None:
    """Run an ablation and print its table."""
    from experiments.tables import variants_markdown

    named, reference = load_variants(variants)
    print(variants_markdown(run_variants(named, reference=reference, seeds=seeds, out=out)))


def script() -> None:
    """The module as a command."""
    guarded(lambda: typer.run(main))


if __name__ == "__main__":
    script()
