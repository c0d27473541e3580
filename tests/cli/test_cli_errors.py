"""Exit codes and messages: deliberate errors in one line on standard error, bugs with their traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import codream_secure.runs
from codream_secure.cli.app import guarded
from protocols import ProtocolError

TRAIN = ("train", "CONFIG")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((*TRAIN, "--resume"), 2, "--resume needs --out"),
        ((*TRAIN, "--set", "dreaming.stpes=3"), 2, "did you mean 'dreaming.steps'?"),
        ((*TRAIN, "--set", "dreaming.steps"), 2, "not of the form section.key=value"),
        ((*TRAIN, "--set", "method=codraem"), 2, "codraem"),
        ((*TRAIN, "--device", "tpu"), 2, "run.device"),
        ((*TRAIN, "--set", "data.source=npz:/nowhere/[x].npz"), 3, "/nowhere/[x].npz"),
        ((*TRAIN, "--set", "data.samples_per_client=5000"), 3, "5000"),
        (("train", "missing.toml"), 2, "missing.toml"),
        (("compare", "CONFIG", "--methods", "isolated,alone"), 2, "alone"),
        (("compare", "CONFIG", "--seeds", "0"), 2, "--seeds"),
        (("data", "check", "npz:missing"), 3, "missing"),
        (("data", "check", "mnits"), 3, "mnist"),
        (("report", "."), 2, "holds nothing to report"),
        (("report", "missing"), 2, "missing"),
        ((*TRAIN, "--out", "CONFIG"), 2, "--out"),
        (("train",), 2, "missing argument"),
        (("trian", "CONFIG"), 2, "trian"),
        (("compare", "CONFIG", "--method", "isolated"), 2, "--method"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_user_errors_are_messages_with_exit_codes(
    command: Callable[..., Any],
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    done = command(*(config if argument == "CONFIG" else argument for argument in arguments))
    assert (done.code, done.out) == (code, "")
    # Typer's releases differ in the case of what they name.
    assert message.lower() in done.err.lower()
    assert "Traceback" not in done.err
    assert not list(empty.iterdir()), "a refused command leaves nothing behind"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_named(command: Callable[..., Any], config: Path) -> None:
    done = command("train", config, "--device", "cuda", "--json")
    assert (done.code, done.out) == (2, "")
    assert "torch sees no CUDA device" in done.err


def test_training_that_leaves_the_finite_numbers_has_its_own_code(
    command: Callable[..., Any], config: Path, small: list[str]
) -> None:
    hot = ("--set", "local.lr=1e30", "--set", "local.max_grad_norm=off", "--set", "local.warmup_epochs=5")
    done = command("train", config, *small, *hot, "--json")
    assert (done.code, done.out) == (4, "")
    assert "lower the learning rate" in done.err
    assert "Traceback" not in done.err


def test_a_protocol_error_is_a_deliberate_one(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ProtocolError("a [share] is missing")

    with pytest.raises(SystemExit) as stop:
        guarded(fail)
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", "error: a [share] is missing\n")


@pytest.mark.parametrize("name", ["train", "compare"])
def test_an_interrupt_says_how_to_go_on(
    command: Callable[..., Any], config: Path, small: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("codream_secure.runs.loop._advance", interrupt)
    done = command(name, config, *small)
    assert (done.code, done.out) == (130, "")
    assert "interrupted" in done.err
    assert "--resume" in done.err


def test_a_bug_is_not_dressed_up_as_a_user_error(
    command: Callable[..., Any], config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(codream_secure.runs, "run", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        command("train", config)


def test_a_bug_ends_the_process_with_its_traceback() -> None:
    """In a command that starts fast; that training's bugs come through, too, the test before says."""
    program = (
        "import sys, protocols\n"
        "from codream_secure.cli import main\n"
        "def fail(*arguments, **options): raise RuntimeError('a bug')\n"
        "protocols.available_protocols = fail\n"
        "sys.argv = ['codream-secure', 'protocols', 'list']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.rstrip().endswith("RuntimeError: a bug")


def test_the_module_is_a_command_whose_exit_code_reaches_the_shell(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "codream_secure"]
    missing = str(tmp_path / "missing.toml")
    wrong = subprocess.run([*command, "keys", "verify", missing], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: ")
    right = subprocess.run([*command, "protocols", "list", "--json"], capture_output=True, text=True, check=False)
    assert (right.returncode, right.stderr) == (0, "")
    assert json.loads(right.stdout)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("protocol.protection=maskd", "did you mean 'masked'"),
        ("protocol.dropout=0.6", "lower dropout or corruption"),
        ("protocol.clip.soft_labels=-1", "protocol.clip.soft_labels"),
    ],
)
def test_protections_that_cannot_be_are_refused_with_what_can(
    command: Callable[..., Any], config: Path, small: list[str], override: str, message: str
) -> None:
    done = command("train", config, *small, "--set", "protocol.protection=masked", "--set", override)
    assert done.code == 2
    assert message in done.err


def test_protections_are_listed_with_who_learns_what(command: Callable[..., Any]) -> None:
    found = json.loads(command("protocols", "list", "--json").out)
    assert set(found) == {"plain", "masked", "bfv", "ckks", "bfv-authority", "ckks-authority"}
    table = command("protocols", "list").out
    for statements in found.values():
        assert all(statement.split()[0] in table for statement in statements.values())
