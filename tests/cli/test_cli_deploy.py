"""What is wrong with a deployment is said before anything is sent, and with the exit code of its kind."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codream_secure.deployment.demo import client_command, prepare, server_command
from codream_secure.deployment.logs import JsonFormatter, TextFormatter

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deployment")
    prepare(folder)
    return folder


def with_option(arguments: list[str], option: str, value: str) -> list[str]:
    place = arguments.index(option) + 1
    return [*arguments[:place], value, *arguments[place + 1 :]]


@pytest.mark.parametrize(
    ("option", "value", "code", "said"),
    [
        ("--roster", "absent.toml", 2, "absent.toml"),
        ("--tls", "absent", 2, "ca.pem"),
        ("--key", "absent.key", 2, "absent.key"),
        ("--member", "3", 2, "the roster has another key under this number"),
        ("--data", "npz:absent.npz", 3, "no file at absent.npz"),
        ("--data", "images:absent", 3, "no folder at absent"),
        ("--tls-name", "nobody", 2, "nobody.pem"),
    ],
)
def test_what_a_client_lacks(
    command: Command, folder: Path, option: str, value: str, code: int, said: str, tmp_path: Path
) -> None:
    pytest.importorskip("grpc")
    arguments = with_option(client_command(folder, 0, server="127.0.0.1:1"), "--state", str(tmp_path / "state"))
    done = command(*with_option(arguments, option, value))
    assert done.code == code
    assert said in done.err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("protocol.protection=bfv", "across machines sums are opened by the server"),
        ("data.clients=3", "data.clients is 3, but the roster has 4 members"),
        ("dreaming.stpes=3", "did you mean 'dreaming.steps'"),
        ("protocol.dropout=0.9", "dropout"),
    ],
)
def test_terms_that_a_server_cannot_run(
    command: Command, folder: Path, override: str, said: str, tmp_path: Path
) -> None:
    pytest.importorskip("grpc")
    arguments = with_option(server_command(folder, listen="127.0.0.1:0"), "--state", str(tmp_path / "state"))
    if override.startswith("data.clients"):
        arguments += ["--set", "model.clients=mlp"]
    done = command(*arguments, "--set", override, "--join", "0.1", "--patience", "0.1")
    assert done.code == 2
    assert said in done.err


def test_a_server_that_nobody_comes_to_gives_up(command: Command, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("grpc")
    arguments = with_option(server_command(folder, listen="127.0.0.1:0"), "--state", str(tmp_path / "state"))
    done = command(*arguments, "--join", "0.1", "--patience", "0.1")
    assert done.code == 2
    assert "members [0, 1, 2, 3] have been missing for 0.1 s" in done.err
    assert '"listening": "127.0.0.1:' in done.out


def test_a_client_without_a_server_gives_up(command: Command, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("grpc")
    arguments = with_option(client_command(folder, 3, server="127.0.0.1:1"), "--state", str(tmp_path / "state"))
    done = command(*arguments, "--patience", "0.1", "--set", "local.warmup_epochs=0")
    assert done.code == 2
    assert "no connection to 127.0.0.1:1 for 0.1 s" in done.err
    # What it has done so far it has not done in vain.
    assert (tmp_path / "state" / "round_000000.pt").exists()


def test_a_folder_of_another_deployment_is_not_prepared_again(command: Command, folder: Path) -> None:
    done = command("deploy", "demo", "--out", str(folder))
    assert done.code == 2
    assert "is there already" in done.err


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nowhere", "give HOST:PORT, or a PORT from 0 to 65535"),
        ("70000", "give HOST:PORT, or a PORT from 0 to 65535"),
        ("::1:9100", "an IPv6 address stands in brackets"),
        ("192.0.2.1:0", "cannot be listened on"),
    ],
)
def test_where_metrics_cannot_be(command: Command, folder: Path, value: str, said: str, tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    arguments = with_option(server_command(folder, listen="127.0.0.1:0"), "--state", str(tmp_path / "state"))
    done = command(*arguments, "--metrics", value)
    assert done.code == 2
    assert f"metrics is '{value}'" in done.err
    assert said in done.err


def test_metrics_are_an_extra_that_an_error_names(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    arguments = with_option(server_command(folder, listen="127.0.0.1:0"), "--state", str(tmp_path / "state"))
    done = command(*arguments, "--metrics", "0")
    assert done.code == 2
    assert "pip install 'codream-secure[metrics]'" in done.err


def test_with_json_logs_the_last_word_is_json_too(command: Command, folder: Path, tmp_path: Path) -> None:
    arguments = with_option(server_command(folder, listen="127.0.0.1:0"), "--state", str(tmp_path / "state"))
    done = command(*with_option(arguments, "--roster", "absent.toml"), "--log-format", "json")
    assert done.code == 2
    [line] = done.err.splitlines()
    said = json.loads(line)
    assert said["level"] == "ERROR"
    assert "absent.toml" in said["message"]


def test_an_interrupt_is_a_json_line_too(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("codream_secure.deployment.roster.load_roster", interrupted)
    arguments = with_option(server_command(folder, listen="127.0.0.1:0"), "--state", str(tmp_path / "state"))
    done = command(*arguments, "--log-format", "json")
    assert done.code == 130
    assert [json.loads(line)["level"] for line in done.err.splitlines()] == ["ERROR"]


def test_a_command_leaves_logging_as_it_was(command: Command, folder: Path, tmp_path: Path) -> None:
    """Whoever calls it from a program of their own goes on reading what this package says."""
    loggers = [logging.getLogger(name) for name in ("codream_secure", "py.warnings")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    options = ["--state", str(tmp_path / "state"), "--log-format", "json", "--verbose"]
    assert command(*with_option(server_command(folder, listen="nowhere"), *options[:2]), *options[2:]).code == 2
    assert [(logger.handlers, logger.propagate, logger.level) for logger in loggers] == before


def test_names_from_elsewhere_begin_no_line_of_a_log() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    for shown in (TextFormatter(), JsonFormatter()):
        handler.setFormatter(shown)
        handler.emit(logging.makeLogRecord({"msg": "refused: %s", "args": ("a\n2030-01-01 forged\x1b[2K é",)}))
    text, line = stream.getvalue().splitlines()
    assert text.endswith(r"refused: a\n2030-01-01 forged\x1b[2K é")
    assert json.loads(line)["message"] == "refused: a\n2030-01-01 forged\x1b[2K é"


def test_a_field_that_is_no_number_or_text_is_not_shown() -> None:
    record = logging.makeLogRecord({"msg": "m", "round": b"bytes of a vector", "member": 2, "other": "unnamed"})
    said = json.loads(JsonFormatter().format(record))
    assert (said["round"], said["member"]) == ("bytes", 2)
    assert "other" not in said
