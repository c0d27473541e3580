"""The same bits once more, by a SuperLink, four SuperNodes and their apps as processes of their own, on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from codream_secure.deployment.flower_apps import make_client_app, serve, take_part
from codream_secure.deployment.training import load_training
from codream_secure.errors import ConfigError
from codream_secure.runs import run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flower_codream"


@pytest.mark.slow
def test_a_flower_app_ends_with_the_bits_of_one_process(tmp_path: Path, equal: Callable[[Any, Any], bool]) -> None:
    pytest.importorskip("flwr")
    folder = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLE.parents[1]), *sys.path])}
    command = [sys.executable, str(EXAMPLE / "run_local.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    logs = "\n".join(log.read_text(errors="replace")[-2000:] for log in folder.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    config = load_training(folder / "training.toml").config
    run(config, out=tmp_path / "in_one_process")
    expected = torch.load(tmp_path / "in_one_process" / "checkpoint.pt", weights_only=True)["method"]
    for number in range(config.data.clients):
        path = folder / f"client{number}" / f"round_{config.run.rounds:06d}.pt"
        found = torch.load(path, weights_only=True)["method"]
        assert equal(found["clients"], [expected["clients"][number]])
        assert equal(found["buffer"], expected["buffer"])


def test_what_a_configuration_lacks_is_named() -> None:
    with pytest.raises(ConfigError, match="the run's configuration lacks tls, listen, state"):
        serve(None, {"terms": "training.toml", "roster": "roster.toml"})
    with pytest.raises(ConfigError, match=r"--node-config\) lacks member, terms"):
        take_part({}, 1)


def test_where_flower_is_missing_an_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr", None)
    monkeypatch.setitem(sys.modules, "flwr.app", None)
    with pytest.raises(ConfigError, match=r"pip install 'codream-secure\[flower\]'"):
        make_client_app()
