"""A Flower app in one process: real messages, serialised both ways, and a new context for each, as in new processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto, recorddict_to_proto
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from codream_secure.flower import Member, Protected, Protection, protected_mod
from protocols import Identity, Roster

NODES = 4
SIZES = (7, 104_729, 60, 33)
"""Numbers of examples; the second is found easily in bytes, if it is there."""
RUN = 42


def initial() -> ArrayRecord:
    """Arrays of two kinds and shapes, not in the order of their names."""
    return ArrayRecord(
        {
            "weights": Array(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)),
            "bias": Array(np.zeros(3, np.float32)),
            "seen": Array(np.array(5, np.int64)),
        }
    )


def trained(number: int, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What node ``number`` makes of the arrays."""
    generator = np.random.default_rng(number)
    moved = {
        name: np.asarray(array + generator.uniform(-0.5, 0.5, array.shape), array.dtype)
        for name, array in sorted(arrays.items())
        if name != "seen"
    }
    moved["seen"] = np.asarray(arrays["seen"] + 1)
    return {name: moved[name] for name in arrays}


def make_app(number: int, mods: list[Any]) -> ClientApp:
    """An app as its users write them; it knows nothing of protection."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
        metrics = {"num-examples": SIZES[number], "loss": 0.5 + number, "secret": 0.125}
        records: dict[str, Any] = {
            "arrays": ArrayRecord({name: Array(array) for name, array in trained(number, arrays).items()}),
            "metrics": MetricRecord(metrics),
        }
        return Message(RecordDict(records), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": SIZES[number], "accuracy": number / 10})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return Message(RecordDict({"config": ConfigRecord({"number": number})}), reply_to=message)

    return app


class OneProcess(Grid):
    """Hands every message to the app of its node, each time as if in a process of its own.

    Args:
        mods: of a node's app.
        vanishes: told how many times messages were sent before, and the node's place; whether its reply is lost.

    Attributes:
        wire: the bytes of every message, in both directions.
        kinds: for every exchange, what was asked for.
    """

    def __init__(self, mods: Callable[[int], list[Any]], vanishes: Callable[[int, int], bool]) -> None:
        self._mods, self.vanishes = mods, vanishes
        self.run_id = RUN
        self.nodes = {1000 + 17 * number: number for number in range(NODES)}
        self.wire: list[bytes] = []
        self.kinds: list[str] = []
        self.errors: list[str] = []
        self.tamper: Callable[[int, Message], Message] = lambda number, message: message
        self.config_of: Callable[[int], dict[str, Any]] = lambda number: {}
        """A SuperNode's own configuration."""

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **named: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        replies = []
        for place, message in enumerate(messages):
            if not place:
                record = message.content.get("codream-secure")
                self.kinds.append("clear" if record is None else str(record["kind"]))
            number = self.nodes[message.metadata.dst_node_id]
            reply = self._answer(number, self.tamper(number, self._carried(message)))
            if not self.vanishes(len(self.kinds) - 1, number):
                replies.append(self._carried(reply))
        return replies

    def _carried(self, message: Message) -> Message:
        """The message after a way through bytes."""
        if message.has_content():
            self.wire.append(recorddict_to_proto(message.content).SerializeToString())
        return message_from_proto(message_to_proto(message))

    def _answer(self, number: int, message: Message) -> Message:
        context = Context(
            run_id=self.run_id,
            node_id=message.metadata.dst_node_id,
            node_config=self.config_of(number),
            state=RecordDict(),
            run_config={},
        )
        try:
            return make_app(number, self._mods(number))(message, context)
        except Exception as error:
            # As a SuperNode does it.
            self.errors.append(f"{type(error).__name__}: {error}")
            return Message(Error(code=2, reason=str(error)), reply_to=message)


@pytest.fixture(autouse=True)
def server_identity() -> None:
    """Flower makes no message before it knows who it is."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN, 1


@pytest.fixture
def members(tmp_path: Path) -> list[Member]:
    identities = [Identity.generate() for _ in range(NODES)]
    roster = Roster({number: identity.public_key for number, identity in enumerate(identities)})
    return [Member(number, identity, roster, tmp_path / f"node-{number}") for number, identity in enumerate(identities)]


def protection(name: str = "masked", **changes: Any) -> Protection:
    """What server and clients of the tests agree on."""
    given: dict[str, Any] = {
        "name": name,
        "clip": 2.0,
        "clients": NODES,
        "max_weight": 200_000,
        "metrics": {"loss": 8.0},
        "evaluate_metrics": {"accuracy": 1.0},
        "steps": 8,
    }
    return Protection(**{**given, **changes})


def run(grid: Any, sums: Any, members: list[Member], *, rounds: int = 2, fed: Any = None) -> Any:
    """What a run of so many rounds under protection ends with."""
    strategy = Protected(fed or FedAvg(fraction_evaluate=0.0), sums, roster=members[0].roster)
    return strategy.start(grid, initial_arrays=initial(), num_rounds=rounds)


def mean_of(numbers: list[int], before: ArrayRecord | None = None) -> np.ndarray:
    """The weights that these nodes' training makes on average of the arrays."""
    arrays = {name: array.numpy() for name, array in (before or initial()).items()}
    moved = [trained(number, arrays)["weights"].astype(np.float64) for number in numbers]
    return np.average(moved, axis=0, weights=[SIZES[number] for number in numbers])


@pytest.fixture
def make_grid(members: list[Member]) -> Callable[..., OneProcess]:
    """The apps of all nodes, each behind the mod."""

    def make(sums: Protection, vanishes: Callable[[int, int], bool] = lambda exchange, number: False) -> OneProcess:
        return OneProcess(lambda number: [protected_mod(sums, credentials=lambda context: members[number])], vanishes)

    return make


@pytest.fixture
def plain_grid() -> OneProcess:
    """The same apps without a mod."""
    return OneProcess(lambda number: [], lambda exchange, number: False)
