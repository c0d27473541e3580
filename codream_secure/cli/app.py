"""Commands and exit codes.

Results go to standard output (as JSON with ``--json``), progress and errors to standard error. Exit codes: 0 done;
1 an unexpected fault (with its traceback); 2 wrong usage or configuration; 3 data missing or broken; 4 training left
the finite numbers; 5 an audit refuted a claim of privacy; 6 an audit is not valid; 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from codream_secure.cli.deploy import deploy_app
from codream_secure.cli.exits import EXIT_INTERRUPTED, SaidExit, exit_code
from codream_secure.cli.keys import keys_app
from codream_secure.cli.privacy import announce, dp_app
from codream_secure.cli.progress import Watch
from codream_secure.cli.sums import protocols_app
from codream_secure.cli.tables import comparison_table, flat, plain_table, show, size
from codream_secure.cli.tradeoff import tradeoff
from codream_secure.config import Config, load_config
from codream_secure.errors import CodreamError, ConfigError
from protocols import ProtocolError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Collaborative learning in data space: CoDream beside its baselines.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look at data sets.")
bench_app = typer.Typer(no_args_is_help=True, help="Measure speed on this machine.")
app.add_typer(data_app, name="data")
app.add_typer(protocols_app, name="protocols")
app.add_typer(keys_app, name="keys")
app.add_typer(deploy_app, name="deploy")
app.add_typer(bench_app, name="bench")
app.add_typer(dp_app, name="dp")
app.command()(tradeoff)
for _entry in metadata.entry_points(group="codream_secure.commands"):
    # Packages above this one add commands of theirs, as attacks does; this one does not know them.
    app.command(_entry.name)(_entry.load())

ConfigFile = Annotated[Path, typer.Argument(help="TOML configuration.", show_default=False)]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override: section.key=value. Repeatable.")]
Out = Annotated[Path | None, typer.Option("--out", file_okay=False, writable=True, help="Directory for results.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or auto.")]


def main() -> None:
    """Entry point of ``codream-secure``."""
    guarded(app)


def guarded(command: Callable[[], object]) -> None:
    """Run a typer app and turn deliberate errors into messages and exit codes."""
    try:
        command()
    except (CodreamError, ProtocolError) as error:
        message = Text.assemble(("error: ", "bold red"), str(error))
        Console(stderr=True, highlight=False).print(message, soft_wrap=True)
        sys.exit(exit_code(error))
    except SaidExit:
        raise
    except (KeyboardInterrupt, SystemExit) as stop:
        # typer turns an interrupt within a command into a silent exit.
        if isinstance(stop, SystemExit) and stop.code != EXIT_INTERRUPTED:
            raise
        hint = "with --out or --state, the same command goes on from there (train: with --resume)"
        print(f"interrupted; {hint}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def _read(path: Path, overrides: list[str] | None, device: str | None = None) -> Config:
    return load_config(path, [*(overrides or []), *([f"run.device={device}"] if device else [])])


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", file_okay=False, writable=True, help="Directory for results.")] = Path(
        "runs/demo"
    ),
    as_json: AsJson = False,
) -> None:
    """Four clients with four different architectures and 50 digits each: the comparison and its report, in minutes."""
    preset = resources.files("codream_secure") / "presets" / "demo.toml"
    with resources.as_file(preset) as path:
        _compare(load_config(path), methods=None, seeds=1, out=out, as_json=as_json)


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Run one method on one configuration."""
    from codream_secure.runs import run

    if resume and out is None:
        raise ConfigError("--resume needs --out: the directory of the run to go on with")
    settings = _read(config, overrides, device)
    with Watch(runs=1, rounds=settings.run.rounds) as watch:
        watch.start_run(settings.method, settings.run.seed, 0, 1)
        result = run(settings, out=out, resume=resume, observe=watch.observe, on_privacy=announce)
    if as_json:
        _print_json(result.summary)
        return
    summary = result.summary
    chosen = "final round" if summary["selected_by"] == "final" else f"round {summary['round']}, chosen on validation"
    rows = [
        ("test accuracy", f"{100 * summary['test_accuracy']:.1f} % (mean over clients, {chosen})"),
        ("of each client", ", ".join(f"{100 * value:.1f}" for value in summary["client_test_accuracy"])),
        ("bytes per client", f"{size(summary['bytes_up'])} up, {size(summary['bytes_down'])} down"),
        ("seconds", f"{summary['seconds']:.1f}"),
    ]
    show(plain_table((summary["method"], f"seed {summary['seed']}"), rows))
    if (privacy := summary["privacy"]) is not None:
        print(privacy["text"])
        if privacy["stopped"]:
            print(f"stopped {privacy['stopped']}")
    if out:
        print(f"results: {out}")


@app.command()
def compare(
    config: ConfigFile,
    methods: Annotated[str | None, typer.Option("--methods", help="Comma-separated names; default: all four.")] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many, from run.seed upwards.")] = 1,
    overrides: Overrides = None,
    out: Out = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Run several methods on the same data, models and seeds; one table. With --out it can be interrupted."""
    _compare(_read(config, overrides, device), methods=methods, seeds=seeds, out=out, as_json=as_json)


def _compare(config: Config, *, methods: str | None, seeds: int, out: Path | None, as_json: bool) -> None:
    from codream_secure.methods import find_method
    from codream_secure.report import build_report
    from codream_secure.runs.compare import DEFAULT_METHODS, compare

    names = list(dict.fromkeys(name.strip() for name in methods.split(","))) if methods else list(DEFAULT_METHODS)
    possible = sum(find_method(name).obstacle(config) is None for name in names)
    with Watch(runs=possible * seeds, rounds=config.run.rounds) as watch:
        found = compare(
            config,
            methods=names,
            seeds=seeds,
            out=out,
            observe=watch.observe,
            on_run=watch.start_run,
            on_privacy=announce,
        )
    if as_json:
        _print_json(found)
    else:
        show(comparison_table(found))
    if out:
        report_path = build_report(out)
        if not as_json:
            print(f"report: {report_path}")


@app.command()
def report(directory: Annotated[Path, typer.Argument(help="Directory of a run or a comparison.")]) -> None:
    """Write a self-contained HTML report into the directory."""
    from codream_secure.report import build_report

    print(f"report: {build_report(directory)}")


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the architectures that a configuration can name."""
    from codream_secure.models import available_models

    found = available_models()
    if as_json:
        _print_json([dataclasses.asdict(model) for model in found])
        return
    headings = ("name", "smallest\nside", "normalisation", "description")
    show(plain_table(headings, [(m.name, str(m.smallest_side), m.normalisation, m.description) for m in found]))


@data_app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """List the data sets that a configuration can name."""
    from codream_secure.data import list_sources

    found = list_sources()
    if as_json:
        _print_json([dataclasses.asdict(source) for source in found])
        return
    show(plain_table(("source", "description"), [(s.name, s.description) for s in found]))


@data_app.command("check")
def data_check(
    source: Annotated[str, typer.Argument(help="As data.source: digits, mnist, npz:FILE, images:FOLDER, ...")],
    root: Annotated[str | None, typer.Option("--root", help="Folder of the data files.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Let torchvision download what is missing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Load a data set, check it, and show what it holds."""
    from codream_secure.data import load_source
    from codream_secure.data.check import check_source

    found = check_source(load_source(source, root=root, download=download))
    if as_json:
        _print_json(found)
        return
    show(plain_table(("data set", source), flat(found)))


@bench_app.command("dreaming")
def bench_dreaming(
    models: Annotated[str, typer.Option("--models", help="Comma-separated names.")] = "lenet5,small_cnn,resnet18",
    images: Annotated[int, typer.Option("--images", min=1, help="Dreams per step.")] = 256,
    shape: Annotated[str, typer.Option("--shape", help="Channels, height and width of a dream.")] = "3x32x32",
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed steps of each variant, at least.")] = 3,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Default: torch's, one a core.")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Time one dream step against the published formulation, and compare gradients and dreams."""
    from codream_secure.bench import dreaming
    from codream_secure.bench.hardware import find_device
    from codream_secure.bench.table import dreaming_tables

    found = dreaming.bench_dreaming(
        [name.strip() for name in models.split(",")],
        images=images,
        shape=dreaming.image_shape(shape),
        turns=repeats,
        thread_count=threads,
        device=find_device(device),
        observe=lambda text: print(text, file=sys.stderr, flush=True),
    )
    if as_json:
        _print_json(dataclasses.asdict(found))
        return
    Console().print(dreaming_tables(found))


@bench_app.command("protocols")
def bench_protocols(
    clients: Annotated[str, typer.Option("--clients", help="Comma-separated cohort sizes.")] = "10,50,100",
    values: Annotated[int, typer.Option("--values", min=1, help="Length of every client's vector.")] = 786_432,
    dropout: Annotated[str, typer.Option("--dropout", help="Comma-separated shares that vanish.")] = "0,0.1,0.2",
    protections: Annotated[str, typer.Option("--protections", help="Comma-separated names.")] = ",".join(
        ("plain", "masked", "bfv", "ckks", "ckks-8192-default")
    ),
    steps: Annotated[int, typer.Option("--steps", min=1, help="Timed steps of each row.")] = 3,
    planned_steps: Annotated[int, typer.Option("--planned-steps", min=1, help="Steps that one set-up serves.")] = 30,
    encrypted_clients: Annotated[
        str | None, typer.Option("--encrypted-clients", help="Of --clients, for ciphertexts; default: the smallest.")
    ] = None,
    flower: Annotated[bool, typer.Option(help="Time Flower's SecAgg+ too: minutes at 100 clients.")] = True,
    flower_clients: Annotated[str | None, typer.Option("--flower-clients", help="Of --clients; default: all.")] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", dir_okay=False, writable=True, allow_dash=True, help="Write JSON; - prints it."),
    ] = None,
) -> None:
    """Time secure sums, client and server apart, against the machine's floor and Flower's SecAgg+."""
    from codream_secure.bench import flower as flower_bench
    from codream_secure.bench import protocols
    from codream_secure.bench.table import protocol_tables
    from codream_secure.files import write_json

    def observe(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    sizes = protocols.cohort_sizes(clients)
    flower_sizes = protocols.cohort_sizes(flower_clients, "flower_clients") if flower_clients else sizes
    encrypted_sizes = (
        protocols.cohort_sizes(encrypted_clients, "encrypted_clients") if encrypted_clients else [min(sizes)]
    )
    if flower and (obstacle := flower_bench.obstacle()) is not None:
        observe(f"Flower's rows are left out: {obstacle}")
        flower = False
    rows = protocols.bench_protocols(
        list(dict.fromkeys(name.strip() for name in protections.split(","))),
        clients=sizes,
        dropouts=protocols.dropout_shares(dropout),
        values=values,
        steps=steps,
        planned_steps=planned_steps,
        encrypted_clients=encrypted_sizes,
        flower_clients=flower_sizes if flower else (),
        observe=observe,
    )
    found = [dataclasses.asdict(row) for row in rows]
    if json_file is None:
        for table in protocol_tables(rows):
            show(table)
    elif str(json_file) == "-":
        _print_json(found)
    else:
        write_json(json_file, found)
        print(f"results: {json_file}")
