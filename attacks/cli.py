"""``codream-secure audit``."""

from __future__ import annotations

import shlex
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codream_secure.config import Config, load_config
from codream_secure.errors import ConfigError

if TYPE_CHECKING:
    # At run time inside the command: the command line loads this module while it is being imported itself.
    from codream_secure.cli.progress import Watch

PRESET = "audit"


def audit(
    run_or_config: Annotated[
        Path | None, typer.Argument(help="A run's directory or a TOML configuration; default: digits, four clients.")
    ] = None,
    adversary: Annotated[str, typer.Option("--adversary", help="Comma-separated: server, client, public.")] = "",
    active: Annotated[bool, typer.Option("--active/--passive", help="Whether adversaries may deviate.")] = True,
    probes: Annotated[str, typer.Option("--probes", help="Comma-separated names; default: all quick ones.")] = "",
    protections: Annotated[str, typer.Option("--protections", help="Comma-separated protocols to look through.")] = (
        "plain,masked,bfv,ckks"
    ),
    claims: Annotated[
        str,
        typer.Option("--claims", help="Comma-separated unit:epsilon, as client:1,example:1: CoDream under these too."),
    ] = "",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Whole audits, each with a seed of its own.")] = 1,
    trials: Annotated[int | None, typer.Option("--trials", min=6, help="Federations of each kind, even.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few federations and one round: wide intervals, in a minute or so.")
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 2,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Override: section.key=value.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Directory for audit.json and .html.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Also write audit.json here.")
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="Print every probe, check and bound, and not one figure a probe alone.")
    ] = False,
) -> None:
    """Measure what leaks: membership, reconstruction, label distributions and epsilon, FedAvg beside CoDream.

    Trains many small federations on random halves of the data, so it says something of the configuration and its data,
    not of one model that exists already. With --out it goes on where it was interrupted. Exits with 5 if a claim of
    privacy is refuted, and with 6 if another check fails, which makes the audit invalid.
    """
    from attacks.auditing.arms import Claim
    from attacks.auditing.document import document
    from attacks.auditing.epsilons import CONFIDENCE
    from attacks.auditing.plan import QUICK, Size
    from attacks.auditing.run import audit_seed, stages
    from attacks.probes.registry import choose
    from attacks.report import print_audit, write_report
    from codream_secure import files
    from codream_secure.cli.progress import Watch

    config = _config(run_or_config, [*(["run.rounds=1"] if quick else []), *(overrides or [])])
    adversaries = _names(adversary)
    for name in adversaries:
        if name not in ("server", "client", "public"):
            raise ConfigError(f"--adversary {name!r} is unknown: choose among server, client, public")
    chosen = choose(names=_names(probes), adversaries=adversaries, active=active)
    size = QUICK if quick else Size()
    if trials is not None:
        size = Size(trials=trials, canaries=size.canaries, pictures=size.pictures, repeats=size.repeats)
    claimed = [Claim.parse(text) for text in _names(claims)]
    wanted = range(config.run.seed, config.run.seed + seeds)
    with Watch(runs=1, rounds=seeds * stages(config, claimed) * size.trials - 1) as watch:
        progress = _Progress(watch)
        found = {
            seed: audit_seed(
                config,
                probes=chosen,
                seed=seed,
                size=size,
                protections=_names(protections),
                claims=claimed,
                confidence=1 - (1 - CONFIDENCE) / seeds,  # one refutation in any seed refutes
                workers=workers,
                cache=out / "federations" if out else None,
                progress=progress.at,
                adversaries=adversaries,
                active=active,
            )
            for seed in wanted
        }
    audited = document(
        found,
        title="What leaks from " + (str(run_or_config) if run_or_config else "the demonstration on digits"),
        command="codream-secure " + shlex.join(sys.argv[1:]),
        config=config.to_toml(),
        adversaries=adversaries or ["server", "client", "public"],
        active=active,
    )
    print_audit(audited, details=details)
    if out:
        files.write_json(out / "audit.json", audited)
    if json_file:
        files.write_json(json_file, audited)
    if out:
        write_report(audited, out / "audit.html")
        print(f"report: {out / 'audit.html'}")
    if any(entry["violated"] for entry in audited["epsilons"]):
        raise typer.Exit(5)
    if not audited["valid"]:
        raise typer.Exit(6)


class _Progress:
    """Adds up stages, each of as many steps as there are federations of a kind."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._stage = ""
        self._before = 0
        self._total = 0

    def at(self, stage: str, done: int, total: int) -> None:
        """A stage is so far."""
        if stage != self._stage:
            self._stage, self._before = stage, self._before + self._total
        self._total = total
        self._watch.tell(f"{stage} {done}/{total}", self._before + done)


def _config(path: Path | None, overrides: list[str]) -> Config:
    if path is None:
        preset = resources.files("attacks") / "presets" / f"{PRESET}.toml"
        with resources.as_file(preset) as found:
            return load_config(found, overrides)
    return load_config(path / "config.toml" if path.is_dir() else path, overrides)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
