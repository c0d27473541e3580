"""One configuration, several named variants of it, several seeds: the table of an ablation.

    python -m experiments.variants experiments/configs/ablation_mnist.toml --seeds 3 --out runs/ablation_mnist

A variants file is a TOML file with ``base`` (a configuration, relative to the file), an optional ``overrides`` list
that applies to all, and a table ``[variants]`` of names, each with the list of overrides that makes it. Interrupted, it
goes on where it stopped.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from codream_secure.cli.progress import Watch
from codream_secure.config import Config, load_config
from codream_secure.data import load_source
from codream_secure.errors import ConfigError
from codream_secure.runs import files, run
from codream_secure.runs.compare import spread
from codream_secure.runs.environment import describe_environment


def load_variants(path: Path) -> dict[str, Config]:
    """Read a variants file; the order is that of the file.

    Raises:
        ConfigError: the file is no TOML, lacks a key, or a variant is not a valid configuration.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
        base, common, variants = path.parent / tree["base"], tree.get("overrides", []), tree["variants"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise ConfigError(f"variants file {str(path)!r} cannot be used: {error!r}") from None
    return {name: load_config(base, [*common, *overrides]) for name, overrides in variants.items()}


def run_variants(variants: dict[str, Config], *, seeds: int, out: Path) -> dict[str, Any]:
    """Run every variant on every seed; write and return ``variants.json``."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    sources = {c.data.source: load_source(c.data.source, root=c.data.root) for c in variants.values()}
    longest = max(config.run.rounds for config in variants.values())
    with Watch(runs=len(variants) * seeds, rounds=longest) as watch:
        for offset in range(seeds):
            for name, config in variants.items():
                seed = config.run.seed + offset
                watch.start_run(name, seed, sum(map(len, results.values())), len(variants) * seeds)
                one = config.model_copy(update={"run": config.run.model_copy(update={"seed": seed})})
                place = out / name.replace(" ", "_").replace("/", "_") / f"seed_{seed}"
                found = run(one, out=place, resume=True, source=sources[config.data.source], observe=watch.observe)
                results[name].append(found.summary)
    table = {
        "environment": describe_environment(torch.device("cpu")),
        "variants": [
            {"name": name, "rounds": variants[name].run.rounds, "seeds": [summary["seed"] for summary in summaries]}
            | {
                key: spread([summary[key] for summary in summaries])
                for key in ("test_accuracy", "validation_accuracy", "bytes_up", "bytes_down", "seconds")
            }
            | {"to_target": [summary["to_target"] for summary in summaries]}
            for name, summaries in results.items()
        ],
    }
    files.write_json(out / "variants.json", table)
    return table


def main(
    variants: Annotated[Path, typer.Argument(help="Variants file.")],
    out: Annotated[Path, typer.Option("--out", help="Directory for results.")],
    seeds: Annotated[int, typer.Option("--seeds", min=1)] = 3,
) -> None:
    """Run an ablation and print its table."""
    from experiments.tables import variants_markdown

    print(variants_markdown(run_variants(load_variants(variants), seeds=seeds, out=out)))


if __name__ == "__main__":
    typer.run(main)
