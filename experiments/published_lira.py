"""The published LiRA comparison at small scale: what released models tell about the images they were trained on.

    python -m experiments.published_lira --out runs/published_lira
    python -m experiments.published_lira --source npz:cifar10.npz --halve --set run.rounds=3 --out runs/lira_cifar10

The paper (arXiv 2402.15968) attacks models of isolated, FedAvg's and CoDream's training with ten shadow models. Here
the same is done with federations of the audit's preset: each in turn is the target, and ten of the others, five with
and five without each candidate, are the references. All methods see the same candidates, memberships and references.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from attacks.auditing.arms import Arm, arms_of
from attacks.auditing.checks import blind_check, duplicates_check, learnt_check, null_check, references_check
from attacks.auditing.membership_rows import null_auc
from attacks.auditing.observe import Observation
from attacks.auditing.plan import Plan, Size, make_plan
from attacks.rows import Check
from attacks.shadows import Trained, rebuild, train_trials
from codream_secure import files
from codream_secure.cli.app import guarded
from codream_secure.config import Config, load_config, make_config
from codream_secure.data import DataSource, ImageSet, load_source
from codream_secure.errors import ConfigError
from codream_secure.federation import Observer
from codream_secure.runs.environment import describe_environment
from experiments.released_models import (
    GLOBAL,
    OWN,
    Answers,
    Judged,
    answers_of,
    judged,
    released_rows,
    set_side_by_side,
)

PUBLISHED: dict[str, Any] = {
    "source": "arXiv 2402.15968, CIFAR-10, LiRA with 10 shadow models",
    "figures": {
        "isolated": {"AUC": 0.656, "TPR@0.1%FPR": 0.724},
        "fedavg": {"AUC": 0.632, "TPR@0.1%FPR": 0.537},
        "codream": {"AUC": 0.597, "TPR@0.1%FPR": 0.394},
    },
}
"""As printed, in the printed order, without intervals. The paper's CoDream is its variant "CoDream-fast"."""

COMPARED = (("isolated", OWN), ("fedavg", GLOBAL), ("codream", OWN))
"""The models that stand for the paper's rows."""

UNREHEARSED = "codream, no rehearsal"
METHODS = ("isolated", "fedavg", "codream", UNREHEARSED)


def choose_arms(config: Config, names: Sequence[str] = METHODS) -> list[Arm]:
    """The methods, with one configuration but for what makes each of them.

    Args:
        config: of CoDream or FedAvg, without claims of privacy.
        names: some of METHODS.

    Raises:
        ConfigError: a name is unknown or comes twice, or the configuration claims privacy.
    """
    if config.dp.on:
        raise ConfigError(f"dp.unit is {config.dp.unit!r}: the comparison is one without noise, set it to 'none'")
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names or len(set(names)) < len(names):
        raise ConfigError(f"--methods is {'; '.join(names) or 'empty'}: choose, once each, among {'; '.join(METHODS)}")
    fedavg, codream = (arm.config for arm in arms_of(config, protections=("plain",)))
    tree = codream.model_dump(mode="json", exclude_none=True)
    configs = {
        "isolated": make_config({**tree, "method": "isolated"}),
        "fedavg": fedavg,
        "codream": codream,
        UNREHEARSED: make_config(tree, ["distillation.rehearsal=0"]),
    }
    return [Arm(method=name, config=configs[name], protections=(("plain", "plain"),)) for name in names]


def attack(arm: Arm, plan: Plan, trained: Sequence[Trained]) -> list[Judged]:
    """LiRA on every kind of model that the method releases, in the order of a first federation's answers.

    Args:
        arm: the method.
        plan: candidates and memberships.
        trained: M federations, one for each row of the memberships.
    """
    images = plan.pool.images.normalised(plan.source.mean, plan.source.std)
    found: dict[str, list[Answers]] = {}
    for row, each in zip(plan.members, trained, strict=True):
        method = rebuild(arm.config, plan.source, plan.pool, torch.from_numpy(row), each)
        answered = answers_of(method, images, plan.pool.images.labels, owners=plan.pool.owners)
        for model, answers in answered.items():
            found.setdefault(model, []).append(answers)
    return [judged(arm.method, model, each, plan.members, seed=plan.seed) for model, each in found.items()]


def check_arm(arm: Arm, plan: Plan, trained: Sequence[Trained], first: Judged) -> list[Check]:
    """Victims have learnt, and the scoring finds nothing where there is nothing."""
    observed = [
        Observation(
            train_accuracy=float(np.mean(each.train_accuracy)), test_accuracy=float(np.mean(each.test_accuracy))
        )
        for each in trained
    ]
    null = null_auc(first.signals, plan.members, generator=np.random.default_rng([plan.seed, 2]))
    return [
        learnt_check(arm.method, observed),
        null_check(null, f"{arm.method}, {first.model}", candidates=len(plan.pool)),
    ]


def compare(
    config: Config,
    arms: Sequence[Arm],
    *,
    source: DataSource,
    trials: int,
    workers: int = 1,
    cache: Path | None = None,
) -> dict[str, Any]:
    """The whole comparison as plain values, but for the command and the environment.

    Args:
        config: of all methods; says the seed.
        arms: the methods.
        source: the data set.
        trials: M, federations of each method: even, 12 for the published number of references.
        workers: processes.
        cache: folder of trained federations.

    Raises:
        ConfigError: the configuration cannot be audited.
        DataError: data are missing or too few.
    """
    started = time.perf_counter()
    plan = make_plan(config, source, size=Size(trials=trials, canaries=0), seed=config.run.seed)
    checks = [blind_check(plan), duplicates_check(plan), references_check(plan)]
    found: list[Judged] = []
    for arm in arms:
        trained = train_trials(
            arm.config,
            source,
            plan.pool,
            plan.members,
            seed=plan.seed,
            workers=workers,
            cache=cache,
            observe=_teller(arm.method),
        )
        own = attack(arm, plan, trained)
        checks += check_arm(arm, plan, trained, own[0])
        found += own
    rows = [row for each in found for row in released_rows(each, plan.members, seed=plan.seed)]
    return {
        "seed": plan.seed,
        "clients": config.data.clients,
        "rounds": config.run.rounds,
        "candidates": len(plan.pool),
        "image_size": list(source.image_size),
        "trials": trials,
        "references": trials - 2,
        "valid": all(check.passed for check in checks),
        "seconds": time.perf_counter() - started,
        "published": PUBLISHED,
        "released": [each.to_json(plan.members) for each in found],
        "rows": [row.to_json() for row in rows],
        "order": set_side_by_side(found, COMPARED, plan.members, seed=plan.seed),
        "checks": [check.to_json() for check in checks],
    }


def _teller(method: str) -> Observer:
    def tell(what: str, done: int, total: int) -> None:
        print(f"{method}: {what} {done}/{total}", file=sys.stderr, flush=True)

    return tell


def halved(source: DataSource) -> DataSource:
    """Every image at half its sides, each pixel the mean of four: what trains on it takes a quarter of the time.

    Raises:
        ConfigError: a side is odd.
    """
    if source.image_size[0] % 2 or source.image_size[1] % 2:
        raise ConfigError(f"--halve with images of {source.image_size} pixels: both sides must be even")

    def smaller(part: ImageSet) -> ImageSet:
        means = torch.nn.functional.avg_pool2d(part.images.float(), 2)
        exact = means if part.images.is_floating_point() else means.round()
        return replace(part, images=exact.to(part.images.dtype))

    return replace(source, train=smaller(source.train), test=smaller(source.test))


def without_root(config: Config) -> Config:
    """The configuration without the folder of its data, which is nobody else's."""
    tree = config.model_dump(mode="json", exclude_none=True)
    tree["data"].pop("root", None)
    return make_config(tree)


def main(
    out: Annotated[Path, typer.Option("--out", help="Directory for results; an interrupted run goes on.")],
    methods: Annotated[str, typer.Option("--methods", help="Semicolon-separated.")] = ";".join(METHODS),
    source: Annotated[str | None, typer.Option("--source", help="Data source; default: the preset's.")] = None,
    root: Annotated[str | None, typer.Option("--root", help="Folder of the data files.")] = None,
    halve: Annotated[
        bool, typer.Option("--halve", help="Images at half their sides, in a quarter of the time.")
    ] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Override: section.key=value.")] = None,
    trials: Annotated[int, typer.Option("--trials", min=6, help="Federations of each method, even.")] = 12,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
) -> None:
    """Train, attack and print the table. Exits with 6 if a check fails, which makes the figures invalid."""
    from experiments.tables import released_markdown

    with resources.as_file(resources.files("attacks") / "presets" / "audit.toml") as path:
        config = load_config(path, overrides or [])
    tree = config.model_dump(mode="json", exclude_none=True)
    tree["data"] |= {name: value for name, value in (("source", source), ("root", root)) if value is not None}
    config = make_config(tree)
    arms = choose_arms(config, [name.strip() for name in methods.split(";") if name.strip()])
    images = load_source(config.data.source, root=config.data.root, download=config.data.download)
    if halve:
        images = halved(images)
    found = compare(config, arms, source=images, trials=trials, workers=workers, cache=out / "federations")
    environment = describe_environment(torch.device("cpu"), threads=1)
    files.write_json(
        out / "published_lira.json",
        {
            "version": 1,
            "title": "The published LiRA comparison, at small scale",
            "config": without_root(config).to_toml(),
            "environment": environment,
            "commit": environment.get("commit"),
            **found,
        },
    )
    print(released_markdown(found))
    for check in found["checks"]:
        print(f"{'passed' if check['passed'] else 'FAILED'}: {check['name']}: {check['detail']}")
    if not found["valid"]:
        raise typer.Exit(6)


def script() -> None:
    """The module as a command."""
    guarded(lambda: typer.run(main))


if __name__ == "__main__":
    script()
