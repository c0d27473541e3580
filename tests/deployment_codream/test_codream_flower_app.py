"""The same bits once more, by a SuperLink, four SuperNodes and their apps as processes of their own, on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from codream_secure.deployment.flower_apps import NodeFailedError, make_client_app, respond, take_part
from codream_secure.deployment.flower_server import serve
from codream_secure.deployment.membership import next_roster
from codream_secure.deployment.public_half import make_public_half
from codream_secure.deployment.roster import write_roster_file
from codream_secure.deployment.training import load_training
from codream_secure.errors import ConfigError, IdentityError
from codream_secure.runs import run
from protocols import Identity

IMAGES = {"classes": 3, "channels": 1, "height": 8, "width": 8, "mean": [0.5], "std": [0.25]}
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flower_codream"


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--messages",)], ids=["streams", "messages"])
def test_a_flower_app_ends_with_the_bits_of_one_process(
    options: tuple[str, ...], tmp_path: Path, equal: Callable[[Any, Any], bool]
) -> None:
    pytest.importorskip("flwr")
    folder = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLE.parents[1]), *sys.path])}
    command = [sys.executable, str(EXAMPLE / "run_local.py"), str(folder), *options]
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
    given = {"terms": "training.toml", "roster": "roster.toml"}
    with pytest.raises(ConfigError, match="the run's configuration lacks state, tls, listen"):
        serve(None, given)
    with pytest.raises(ConfigError, match="the run's configuration lacks state"):
        serve(None, {**given, "transport": "messages"})
    with pytest.raises(ConfigError, match="transport is 'pigeons'"):
        serve(None, {**given, "transport": "pigeons"})
    with pytest.raises(ConfigError, match=r"--node-config\) lacks member, terms"):
        take_part({}, 1)
    with pytest.raises(ConfigError, match=r"--node-config\) lacks member, terms"):
        respond({}, b"")


def test_a_server_is_not_told_what_went_wrong_at_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("flwr")
    from flwr.app import ConfigRecord, Context, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    secret = str(tmp_path / "of a patient")
    config: dict[str, Any] = {"member": 0, "terms": secret}
    config |= dict.fromkeys(("key", "passphrase-file", "roster", "tls", "data", "state", "server"), secret)
    message = Message(RecordDict({"codream": ConfigRecord({"round": 1})}), dst_node_id=1, message_type="train")
    context = Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})
    with pytest.raises(NodeFailedError) as caught:
        make_client_app()(message, context)
    assert str(caught.value) == "this node could not take part in the round: its own log says why"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert secret in caplog.text


def test_a_roster_that_was_not_compared_is_refused_where_its_digest_is_given(tmp_path: Path) -> None:
    roster = next_roster(None, [make_public_half(Identity.generate(), "ada")])
    write_roster_file(roster, tmp_path / "roster.toml")
    (tmp_path / "training.toml").write_bytes(tomli_w.dumps({"data": {"clients": 1}, "images": IMAGES}).encode())
    config: dict[str, Any] = {"terms": str(tmp_path / "training.toml"), "roster": str(tmp_path / "roster.toml")}
    config |= {"tls": str(tmp_path / "tls"), "state": str(tmp_path / "state"), "listen": "127.0.0.1:0"}
    with pytest.raises(IdentityError, match="not the one that was given"):
        serve(None, {**config, "roster-digest": "0" * 64})
    with pytest.raises(ConfigError, match="cannot be read"):
        serve(None, {**config, "roster-digest": roster.digest().hex()})


def test_where_flower_is_missing_an_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr", None)
    monkeypatch.setitem(sys.modules, "flwr.app", None)
    with pytest.raises(ConfigError, match=r"pip install 'codream-secure\[flower\]'"):
        make_client_app()
