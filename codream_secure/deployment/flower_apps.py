"""CoDream as a Flower app (flwr 1.41, Message API): Flower starts and watches, streams carry sums.

A dream takes tens of sums, and Flower starts a process for every message: nearly all of a round would be starting up.
So a message stands for a whole round. The ServerApp is a
:class:`~codream_secure.deployment.coordinator.Coordinator` that listens for streams beside Flower; for every round it
sends each node one message, upon which the node's ClientApp loads its folder, takes part in that round over a stream of
its own, saves, and answers that it has. Its own accuracy it keeps to itself: what Flower's messages carry is in clear,
and a sum has told the server the accuracy of all.

What a node is, and where it connects to, is in *its own* configuration, so that nothing of it comes from the SuperLink.
Flower is loaded when an app is made.
"""

from __future__ import annotations

import importlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from codream_secure.deployment.client_data import load_client_data
from codream_secure.deployment.connection import Connection, listen
from codream_secure.deployment.coordinator import Coordinator, Waits
from codream_secure.deployment.identity import load_identity
from codream_secure.deployment.learner import Learner
from codream_secure.deployment.passphrase import find_passphrase
from codream_secure.deployment.roster import load_roster
from codream_secure.deployment.streams import Backoff
from codream_secure.deployment.streams.certificates import load
from codream_secure.deployment.training import TrainingTerms, load_training
from codream_secure.errors import CodreamError, ConfigError
from protocols import Roster

_LOG = logging.getLogger(__name__)
_RECORD = "codream"
_POLL_S = 1.0
_ANSWER_S = 120.0
_NODE_KEYS = ("member", "terms", "key", "passphrase-file", "roster", "tls", "data", "state", "server")
_RUN_KEYS = ("terms", "roster", "tls", "listen", "state")


class NodeFailedError(CodreamError):
    """All that a server is told of what went wrong at a node."""


def make_server_app() -> Any:
    """A ``flwr.serverapp.ServerApp``.

    It reads the run's configuration: ``terms``, ``roster``, ``tls``, ``listen`` (HOST:PORT) and ``state``, as the
    options of ``codream-secure deploy server``, and ``roster-digest``, ``join`` and ``patience`` (seconds), if they
    are given.

    Raises:
        ConfigError: flwr is missing.
    """
    app = _flower("flwr.serverapp").ServerApp()

    @app.main()
    def main(grid: Any, context: Any) -> None:
        serve(grid, context.run_config)

    return app


def make_client_app() -> Any:
    """A ``flwr.clientapp.ClientApp`` whose train messages are rounds.

    It reads the node's configuration: ``member``, ``terms``, ``key``, ``passphrase-file``, ``roster``, ``tls``,
    ``data``, ``state`` and ``server``, as the options of ``codream-secure deploy client``, and ``part``, ``tls-name``,
    ``roster-digest`` and ``patience``, if they are given. What goes wrong at a node is in its own log; the server is
    told only that something did.

    Raises:
        ConfigError: flwr is missing.
    """
    flower = _flower("flwr.app")
    app = _flower("flwr.clientapp").ClientApp()

    @app.train()
    def train(message: Any, context: Any) -> Any:
        try:
            number = int(message.content[_RECORD]["round"])
            row = take_part(context.node_config, number)
        except Exception:
            # Flower sends the text to the server, in clear: of a numerical error, say, or a path.
            _LOG.exception("this node could not take part in a round")
            raise NodeFailedError("this node could not take part in the round: its own log says why") from None
        finished = flower.ConfigRecord({"round": row["round"]})
        return flower.Message(flower.RecordDict({_RECORD: finished}), reply_to=message)

    return app


def serve(grid: Any, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run the rounds that are left, each with one message to every node; the rows of all rounds.

    Args:
        grid: a ``flwr.serverapp.Grid``.
        config: of the run.

    Raises:
        ConfigError: a key is missing.
        CodreamError, ProtocolError: as for :meth:`Coordinator.run`.
    """
    _require(config, _RUN_KEYS, "the run's configuration")
    training = _training(config)
    patience = float(config.get("patience", 3600.0))
    waits = Waits(join=float(config.get("join", 300.0)), patience=patience)
    roster, tls = _roster(config), load(Path(str(config["tls"])), "server")
    rows = []
    with listen(str(config["listen"]), training, roster=roster, tls=tls, deadlines=waits.deadlines()) as aggregator:
        coordinator = Coordinator(training, aggregator, state=Path(str(config["state"])), waits=waits, anew=True)
        for number in coordinator.rounds_left():
            nodes = _nodes(grid, training.config.data.clients, patience)
            asked = _ask(grid, nodes, number)
            row = coordinator.finish(number)
            rows.append(row)
            print(f"{json.dumps(row)} {_answered(grid, asked)} of {len(asked)} nodes have finished", flush=True)
    return rows


def take_part(config: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Take part in one round; the client's row of the latest round that it has finished.

    Args:
        config: of the node.
        number: the round's. It says when to leave; what the round is, the server says over the stream.

    Raises:
        ConfigError: a key is missing.
        CodreamError, ProtocolError: as for :meth:`Learner.run`.
    """
    _require(config, _NODE_KEYS, "the node's configuration (flower-supernode --node-config)")
    training = _training(config)
    passphrase = find_passphrase(Path(str(config["passphrase-file"])))
    try:
        identity = load_identity(Path(str(config["key"])), passphrase=passphrase)
    finally:
        passphrase.wipe()
    part = config.get("part")
    learner = Learner(
        training,
        int(config["member"]),
        data=load_client_data(str(config["data"]), training, part=None if part is None else int(part)),
        carriage=Connection(
            address=str(config["server"]),
            identity=identity,
            roster=_roster(config),
            tls=load(Path(str(config["tls"])), str(config.get("tls-name", "client"))),
            backoff=Backoff(patience_s=float(config.get("patience", 300.0))),
        ),
        state=Path(str(config["state"])),
    )
    return learner.run(until=number)[-1]


def _training(config: Mapping[str, Any]) -> TrainingTerms:
    import torch

    training = load_training(Path(str(config["terms"])))
    torch.set_num_threads(training.config.run.threads)
    return training


def _roster(config: Mapping[str, Any]) -> Roster:
    """The roster, and only the one that was compared, if the configuration says which that was."""
    digest = config.get("roster-digest")
    return load_roster(Path(str(config["roster"])), digest=None if digest is None else str(digest))


def _require(config: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    missing = [key for key in keys if key not in config]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}")


def _nodes(grid: Any, wanted: int, patience_s: float) -> list[int]:
    """All nodes, once as many as there are clients have come, or the time is over."""
    end = time.monotonic() + patience_s
    while len(nodes := list(grid.get_node_ids())) < wanted and time.monotonic() < end:
        time.sleep(_POLL_S)
    return nodes


def _ask(grid: Any, nodes: Iterable[int], number: int) -> list[str]:
    """Send every node its message; their ids."""
    flower = _flower("flwr.app")
    messages = [
        flower.Message(
            flower.RecordDict({_RECORD: flower.ConfigRecord({"round": number})}),
            dst_node_id=node,
            message_type="train",
            group_id=str(number),
        )
        for node in nodes
    ]
    return [message for message in grid.push_messages(messages) if message]


def _answered(grid: Any, asked: Iterable[str]) -> int:
    """How many nodes say that they have finished; those that do not say so in time are named in the log."""
    waited, finished, end = set(asked), 0, time.monotonic() + _ANSWER_S
    while waited and time.monotonic() < end:
        for reply in grid.pull_messages(waited):
            waited.discard(reply.metadata.reply_to_message_id)
            if reply.has_error():
                _LOG.warning("node %d failed: %r", reply.metadata.src_node_id, reply.error.reason)
            else:
                finished += 1
        if waited:
            time.sleep(_POLL_S)
    if waited:
        _LOG.warning("%d nodes have not answered within %g s", len(waited), _ANSWER_S)
    return finished


def _flower(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"a Flower app needs flwr, which cannot be imported ({error}): pip install 'codream-secure[flower]'"
        ) from None
