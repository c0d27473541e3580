"""The command line, called as its script calls it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from codream_secure.cli import main

SMALL = (
    "run.rounds=1",
    "local.warmup_epochs=1",
    "local.epochs=1",
    "dreaming.images=8",
    "dreaming.steps=2",
    "distillation.epochs=1",
    "data.validation_samples=20",
    "data.samples_per_client=10",
)


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: its exit code and the two streams."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``codream-secure`` with these arguments, in this process; faults that are bugs come through."""
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    # typer replaces the hook; a test must not leave it behind.
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["codream-secure", *map(str, arguments)])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        assert isinstance(code, int)
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration file that changes nothing."""
    path = tmp_path / "config.toml"
    path.write_text("")
    return path


@pytest.fixture
def small() -> list[str]:
    """Options that make a run take a fraction of a second."""
    return [part for override in SMALL for part in ("--set", override)]
