"""CoDream in Flower's messages alone, each call of an app as in a new process: the same bits, and strangers."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

pytest.importorskip("flwr", reason="flwr is not installed")

from flower_harness import OneProcess
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict

from codream_secure.deployment.demo import prepare
from codream_secure.deployment.flower_apps import make_client_app
from codream_secure.deployment.flower_office import RECORD, FlowerOffice
from codream_secure.deployment.flower_server import serve
from codream_secure.runs import run

CLIENTS = 3
TERMS: dict[str, Any] = {
    "data": {"clients": CLIENTS, "samples_per_client": 10},
    "model": {"clients": ["mlp"]},
    "local": {"warmup_epochs": 1, "epochs": 1},
    "dreaming": {"images": 4, "steps": 1, "local_steps": 2},
    "distillation": {"epochs": 1, "cutmix": 0},
    "protocol": {"protection": "masked", "dropout": 0.34, "corruption": 0.25},
    "run": {"rounds": 1},
    "images": {"classes": 10, "channels": 1, "height": 8, "width": 8, "mean": [0.3053], "std": [0.3760]},
}


class Nodes(OneProcess):
    """Nodes that run the app that the package makes.

    Args:
        configs: of the nodes, by place.
    """

    def __init__(self, configs: list[dict[str, Any]]) -> None:
        super().__init__(lambda number: [], lambda exchange, number: False)
        self.nodes = {1000 + number: number for number in range(len(configs))}
        self._configs = configs

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = list(messages)
        self._replies = {str(place): reply for place, reply in enumerate(self.send_and_receive(pushed))}
        for name, reply in self._replies.items():
            reply.metadata._reply_to_message_id = name
        return list(self._replies)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(name) for name in list(message_ids) if name in self._replies]

    def _answer(self, number: int, message: Message) -> Message:
        context = Context(
            run_id=1, node_id=1000 + number, node_config=self._configs[number], state=RecordDict(), run_config={}
        )
        try:
            return make_client_app()(message, context)
        except Exception as error:
            self.errors.append(str(error))
            return Message(Error(code=2, reason=str(error)), reply_to=message)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "terms.toml").write_text(tomli_w.dumps(TERMS))
    prepare(tmp_path / "run", tmp_path / "terms.toml")
    return tmp_path / "run"


def node(folder: Path, number: int) -> dict[str, Any]:
    """What a node needs for messages: neither an address nor certificates."""
    files = {"terms": "training.toml", "key": f"member{number}.key", "passphrase-file": "passphrase"}
    files |= {"roster": "roster.toml", "state": f"client{number}"}
    named = {key: str(folder / file) for key, file in files.items()}
    return {**named, "member": number, "data": f"npz:{folder / f'member{number}.npz'}"}


def settings(folder: Path) -> dict[str, Any]:
    files = {"terms": "training.toml", "roster": "roster.toml", "state": "server"}
    return {"transport": "messages", "join": 0.5, **{key: str(folder / file) for key, file in files.items()}}


def test_a_flower_app_needs_no_second_port(
    folder: Path, equal: Callable[[Any, Any], bool], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = Nodes([node(folder, number) for number in range(CLIENTS)])
    watched: list[str] = []

    def watch(number: int, message: Message) -> Message:
        """What whoever watches the server reads in the middle of the round."""
        if len(grid.kinds) == 5 and not watched:
            watched.append(capsys.readouterr().out.split()[-1])
            with urllib.request.urlopen(f"http://{watched[0]}/metrics") as page:
                watched.append(page.read().decode())
        return message

    grid.tamper = watch
    [row] = serve(grid, {**settings(folder), "metrics": "0"})
    assert "codream_members_present 3.0" in watched[1]
    assert "codream_rounds_finished 0.0" in watched[1]
    assert row["contributors"] == [0, 1, 2]
    # Two for the set-up; two for each of three sums; the end.
    assert "9 exchanges of messages" in capsys.readouterr().out
    run(make_config_of(folder), out=tmp_path / "in_one_process")
    expected = torch.load(tmp_path / "in_one_process" / "checkpoint.pt", weights_only=True)["method"]
    for number in range(CLIENTS):
        found = torch.load(folder / f"client{number}" / "round_000001.pt", weights_only=True)["method"]
        assert equal(found["clients"], [expected["clients"][number]])
        assert equal(found["buffer"], expected["buffer"])
    # A client's own accuracy and the name of its files stay at home.
    wire = b"".join(grid.wire)
    assert b"member0.npz" not in wire
    assert b"test_accuracy" not in wire


def make_config_of(folder: Path) -> Any:
    from codream_secure.deployment.training import load_training

    return load_training(folder / "training.toml").config


def test_a_node_that_says_it_is_somebody_else_has_no_part_in_a_masked_sum(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has a key of its own, which is not the one that the roster has under the number that it claims."""
    stranger = {**node(folder, 2), "member": 1, "state": str(folder / "stranger")}
    grid = Nodes([node(folder, 0), stranger, node(folder, 2)])
    [row] = serve(grid, settings(folder))
    assert row["contributors"] == [0, 2]
    assert "this node could not take part in the round: its own log says why" in grid.errors[0]
    assert "refused" in caplog.text or "failed" in caplog.text


class Talk:
    """A grid whose nodes say what they like; those that say nothing are not heard of again."""

    def __init__(self, said: dict[int, Any]) -> None:
        self.said = said
        self.asked: list[int] = []
        self._waiting: dict[str, Message] = {}

    def get_node_ids(self) -> list[int]:
        return list(self.said)

    def push_messages(self, messages: list[Message]) -> list[str]:
        names = []
        for message in messages:
            self.asked.append(message.metadata.dst_node_id)
            names.append(f"{len(self.asked)}")
            if (reply := self._reply(message)) is not None:
                reply.metadata._reply_to_message_id = names[-1]
                self._waiting[names[-1]] = reply
        return names

    def pull_messages(self, message_ids: list[str]) -> list[Message]:
        return [self._waiting.pop(name) for name in message_ids if name in self._waiting]

    def send_and_receive(self, messages: list[Message], *, timeout: float) -> list[Message]:
        assert all(message.metadata.ttl <= timeout for message in messages)
        return [reply for message in messages if (reply := self._reply(message)) is not None]

    def _reply(self, message: Message) -> Message | None:
        said = self.said[message.metadata.dst_node_id]
        if said == "nothing":
            return None
        if said is None:
            return Message(Error(code=1, reason="gone\nand\x1b lost"), reply_to=message)
        return Message(RecordDict({RECORD: ConfigRecord(said)}), reply_to=message)


@pytest.mark.usefixtures("server_identity")
def test_what_nodes_say_of_themselves_is_checked(caplog: pytest.LogCaptureFixture) -> None:
    grid = Talk(
        {1: {"member": 0}, 2: {"member": 7}, 3: {"member": "0"}, 4: {}, 5: None, 6: {"member": True}, 7: "nothing"}
    )
    office = FlowerOffice(grid, members=3, hello_s=1000.0)
    # Nobody is waited for: what they say is heard the next time.
    assert office.members() == frozenset()
    assert office.members() == {0}
    assert office.members() == {0}
    assert grid.asked == [1, 2, 3, 4, 5, 6, 7]
    assert "\x1b" not in caplog.text
    grid.said[9] = {"member": 0}
    office.members()
    assert office.members() == {0}
    assert grid.asked[7:] == [9]
    assert "nodes 1 and 9 both are member 0: the later counts" in caplog.text
    assert office.exchanges == 0
    grid.said[9] = {"member": 0, "reply": b"yes"}
    assert office.exchange({0: b"packet"}, timeout_s=5.0) == {0: b"yes"}
    for wrong in ({"member": 1, "reply": b"yes"}, {"member": 0, "reply": "yes"}, {"member": 0}, None, "nothing"):
        grid.said[9] = wrong
        assert office.exchange({0: b"packet"}, timeout_s=5.0) == {}
    del grid.said[9]
    assert office.members() == frozenset()


@pytest.mark.usefixtures("server_identity")
def test_who_has_not_said_who_it_is_is_asked_again_in_time() -> None:
    grid = Talk({1: "nothing"})
    office = FlowerOffice(grid, members=3, hello_s=0.001)
    while len(grid.asked) < 3:
        assert office.members() == frozenset()
    grid.said[1] = {"member": 2}
    while not office.members():
        pass
    assert office.members() == {2}
