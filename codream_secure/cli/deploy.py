"""``codream-secure deploy``: CoDream across machines, a server and each client as a program of its own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codream_secure.cli.exits import logged_end
from codream_secure.cli.privacy import announce
from codream_secure.cli.tables import percent, show_deployment
from codream_secure.deployment.logs import LogFormat, logging_to

if TYPE_CHECKING:
    from codream_secure.deployment.account import Account
    from codream_secure.deployment.training import TrainingTerms

deploy_app = typer.Typer(no_args_is_help=True, help="Run CoDream across machines.")
Terms = Annotated[Path, typer.Argument(help="Terms of training, TOML: the same for every party.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override: section.key=value, alike for every party. Repeatable.")
]
RosterFile = Annotated[Path, typer.Option("--roster", dir_okay=False, help="As keys roster made it.")]
TlsFolder = Annotated[Path, typer.Option("--tls", file_okay=False, help="Folder with ca.pem, NAME.pem and NAME.key.")]
State = Annotated[Path, typer.Option("--state", file_okay=False, help="This party's own folder; gone on from.")]
Digest = Annotated[str | None, typer.Option("--digest", help="Of the roster, as it was compared: 64 hex digits.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
LogForm = Annotated[LogFormat, typer.Option("--log-format", help="Of what goes to standard error.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Also say which rounds begin and end, and whose lines break.")]


@deploy_app.command("server")
def deploy_server(
    config: Terms,
    listen: Annotated[str, typer.Option("--listen", help="HOST:PORT; port 0 takes a free one.")],
    roster: RosterFile,
    tls: TlsFolder,
    state: State,
    digest: Digest = None,
    tls_name: Annotated[str, typer.Option("--tls-name", help="NAME of this machine's certificate.")] = "server",
    join: Annotated[float, typer.Option("--join", help="Seconds to wait for everybody.")] = 120.0,
    train: Annotated[float, typer.Option("--train", help="Seconds to wait for a vector.")] = 1800.0,
    answer: Annotated[float, typer.Option("--answer", help="Seconds to wait for what takes no training.")] = 60.0,
    reconnect: Annotated[float, typer.Option("--reconnect", help="Seconds to wait for a line that is cut.")] = 15.0,
    patience: Annotated[float, typer.Option("--patience", help="Seconds for a round that breaks off.")] = 3600.0,
    metrics: Annotated[
        str | None, typer.Option("--metrics", help="HOST:PORT for /metrics and /healthz; PORT alone is on loopback.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    log_format: LogForm = LogFormat.TEXT,
) -> None:
    """Run the server: it sums and dreams with the clients, and has no image."""
    from codream_secure.deployment.connection import listen as listen_at
    from codream_secure.deployment.coordinator import Coordinator, Waits
    from codream_secure.deployment.metrics import Metrics
    from codream_secure.deployment.roster import load_roster
    from codream_secure.deployment.status_server import StatusServer
    from codream_secure.deployment.streams.certificates import load

    with _logged(log_format, verbose):
        training = _begin(config, overrides)
        waits = Waits(join=join, train=train, answer=answer, reconnect=reconnect, patience=patience)

        def on_round(row: dict[str, Any]) -> None:
            if as_json:
                print(json.dumps(row), flush=True)
                return
            who = ", ".join(map(str, row["contributors"]))
            print(f"round {row['round']}: accuracy {percent(row.get('test_accuracy'))}, members {who}", flush=True)

        with contextlib.ExitStack() as stack:
            said, monitor = {}, None
            if metrics is not None:
                monitor = Metrics()
                said["metrics"] = stack.enter_context(StatusServer(metrics, monitor)).address
            people, certificate = load_roster(roster, digest=digest), load(tls, tls_name)
            aggregator = stack.enter_context(
                listen_at(listen, training, roster=people, tls=certificate, deadlines=waits.deadlines())
            )
            coordinator = Coordinator(
                training, aggregator, state=state, waits=waits, on_round=on_round, monitor=monitor
            )
            said = {"listening": f"{listen.rpartition(':')[0]}:{aggregator.port}", **said}
            text = ", ".join(f"{name} on {address}" for name, address in said.items())
            print(json.dumps(said) if as_json else text, flush=True)
            announce(coordinator.account.releases)
            coordinator.run()
            _say_what_was_spent(coordinator.account, as_json=as_json, stopped=coordinator.stopped)


@deploy_app.command("client")
def deploy_client(
    config: Terms,
    server: Annotated[str, typer.Option("--server", help="HOST:PORT, as the server's certificate names it.")],
    member: Annotated[int, typer.Option("--member", min=0, help="This client's number on the roster.")],
    key: Annotated[Path, typer.Option("--key", dir_okay=False, help="Its private key, as keys new made it.")],
    roster: RosterFile,
    tls: TlsFolder,
    data: Annotated[str, typer.Option("--data", help="images:FOLDER, npz:FILE, or a named data set.")],
    state: State,
    part: Annotated[
        int | None, typer.Option("--part", min=0, help="Only this part of the data, divided as [data] says.")
    ] = None,
    digest: Digest = None,
    tls_name: Annotated[str, typer.Option("--tls-name", help="NAME of this machine's certificate.")] = "client",
    patience: Annotated[float, typer.Option("--patience", help="Seconds without a connection before giving up.")] = 600,
    passphrase_file: Annotated[
        Path | None,
        typer.Option("--passphrase-file", help="One line; default: $CODREAM_KEY_PASSPHRASE, else it is asked for."),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    log_format: LogForm = LogFormat.TEXT,
) -> None:
    """Run one client on its own images."""
    from codream_secure.deployment.client_data import load_client_data
    from codream_secure.deployment.connection import Connection
    from codream_secure.deployment.identity import check_key_file, load_identity
    from codream_secure.deployment.learner import Learner
    from codream_secure.deployment.passphrase import find_passphrase
    from codream_secure.deployment.roster import load_roster
    from codream_secure.deployment.streams import Backoff
    from codream_secure.deployment.streams.certificates import load

    with _logged(log_format, verbose):
        training = _begin(config, overrides)
        people = load_roster(roster, digest=digest)
        certificate = load(tls, tls_name)
        check_key_file(key)
        passphrase = find_passphrase(passphrase_file)
        try:
            identity = load_identity(key, passphrase=passphrase)
        finally:
            passphrase.wipe()

        def on_round(number: int, accuracy: float | None) -> None:
            if as_json:
                print(json.dumps({"round": number, "test_accuracy": accuracy}), flush=True)
            else:
                print(f"round {number}: own accuracy {percent(accuracy)}", flush=True)

        learner = Learner(
            training,
            member,
            data=load_client_data(data, training, part=part),
            carriage=Connection(
                address=server, identity=identity, roster=people, tls=certificate, backoff=Backoff(patience_s=patience)
            ),
            state=state,
            on_round=on_round,
        )
        announce(learner.account.releases)
        learner.run()
        _say_what_was_spent(learner.account, as_json=as_json)


@deploy_app.command("demo")
def deploy_demo(
    folder: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Where everything is kept; default: nowhere.")
    ] = None,
) -> None:
    """A server and four clients as processes on this machine: digits, masked sums, two rounds."""
    from codream_secure.deployment.demo import run_demo

    show_deployment(run_demo(folder))


def _say_what_was_spent(account: Account, *, as_json: bool, stopped: str | None = None) -> None:
    """Where something is claimed: what has left under it, as this party has counted it."""
    if account.releases.ledger is None:
        return
    if as_json:
        print(json.dumps({"privacy": str(account), "stopped": stopped}), flush=True)
    else:
        print(f"privacy: {account}" + (f" Training ended early: {stopped}." if stopped else ""), flush=True)


@contextlib.contextmanager
def _logged(log_format: LogFormat, verbose: bool) -> Iterator[None]:
    """What is said from here on goes to standard error in this form, the last word of all included."""
    ending = logged_end() if log_format is LogFormat.JSON else contextlib.nullcontext()
    with logging_to(log_format, verbose=verbose), ending:
        yield


def _begin(config: Path, overrides: list[str] | None) -> TrainingTerms:
    """The terms of training; this process computes with as many threads as they say."""
    import torch

    from codream_secure.deployment.training import load_training

    training = load_training(config, overrides or ())
    torch.set_num_threads(training.config.run.threads)
    return training
