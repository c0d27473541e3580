"""CoDream as a Flower app (flwr 1.41, Message API): Flower starts and watches, and carries what it is let.

A dream takes tens of sums, and Flower starts a process for every message: nearly all of a round would be starting up.
So sums travel over **streams** where a second port can be had, and a message stands for a whole round, upon which the
node's ClientApp loads its folder, takes part in that round over a stream of its own, saves, and answers that it has.
Where nothing but Flower's messages gets through, they carry the sums as well (``transport = "messages"``): two for each
sum, with as many steps in between as ``dreaming.local_steps`` says. Either way clients keep their own accuracy to
themselves, as what Flower's messages carry is in clear, and a sum has told the server the accuracy of all.

What a node is, and where it connects to, is in *its own* configuration, so that nothing of it comes from the SuperLink.
Flower is loaded when an app is made, and torch when there is something to compute: half of all messages are for a sum's
keys alone, and a program that is started for one of those is done in less time. The server's half is
:mod:`codream_secure.deployment.flower_server`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codream_secure.deployment.flower_office import RECORD, flower
from codream_secure.deployment.flower_settings import read_roster, read_training, require
from codream_secure.deployment.identity import load_identity
from codream_secure.deployment.messages.respondent import Respondent
from codream_secure.deployment.passphrase import find_passphrase
from codream_secure.deployment.training import TrainingTerms
from codream_secure.errors import CodreamError
from protocols import Identity

if TYPE_CHECKING:
    from codream_secure.deployment.carriage import Carriage
    from codream_secure.deployment.learner import Learner

_LOG = logging.getLogger(__name__)
_NODE = "the node's configuration (flower-supernode --node-config)"
_NODE_KEYS = ("member", "terms", "key", "passphrase-file", "roster", "data", "state")
_STREAM_KEYS = ("tls", "server")


class NodeFailedError(CodreamError):
    """All that a server is told of what went wrong at a node."""


def make_server_app() -> Any:
    """A ``flwr.serverapp.ServerApp``; what it reads, :func:`~codream_secure.deployment.flower_server.serve` says.

    Raises:
        ConfigError: flwr is missing.
    """
    app = flower("flwr.serverapp").ServerApp()

    @app.main()
    def main(grid: Any, context: Any) -> None:
        from codream_secure.deployment.flower_server import serve

        serve(grid, context.run_config)

    return app


def make_client_app() -> Any:
    """A ``flwr.clientapp.ClientApp`` that answers train messages, which are rounds or packets of them.

    It reads the node's configuration: ``member``, ``terms``, ``key``, ``passphrase-file``, ``roster``, ``data`` and
    ``state``, for streams also ``tls`` and ``server``, as the options of ``codream-secure deploy client``; ``part``,
    ``tls-name``, ``roster-digest`` and ``patience``, if they are given. What goes wrong at a node is in its own log;
    the server is told only that something did.

    Raises:
        ConfigError: flwr is missing.
    """
    api = flower("flwr.app")
    app = flower("flwr.clientapp").ClientApp()

    @app.train()
    def train(message: Any, context: Any) -> Any:
        try:
            answered = _answer(dict(message.content[RECORD]), context.node_config)
        except Exception:
            # Flower sends the text to the server, in clear: of a numerical error, say, or a path.
            _LOG.exception("this node could not take part in a round")
            raise NodeFailedError("this node could not take part in the round: its own log says why") from None
        return api.Message(api.RecordDict({RECORD: api.ConfigRecord(answered)}), reply_to=message)

    return app


def _answer(asked: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    if "round" in asked:
        return {"round": take_part(config, int(asked["round"]))["round"]}
    require(config, _NODE_KEYS, _NODE)
    member = int(config["member"])
    return {"member": member, "reply": respond(config, asked["packet"])} if "packet" in asked else {"member": member}


def take_part(config: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Take part in one round over a stream; the client's row of the latest round that it has finished.

    Args:
        config: of the node.
        number: the round's. It says when to leave; what the round is, the server says over the stream.

    Raises:
        ConfigError: a key is missing.
        CodreamError, ProtocolError: as for :meth:`Learner.run`.
    """
    from codream_secure.deployment.connection import Connection
    from codream_secure.deployment.streams import Backoff
    from codream_secure.deployment.streams.certificates import load

    require(config, (*_NODE_KEYS, *_STREAM_KEYS), _NODE)
    training = read_training(config)
    connection = Connection(
        address=str(config["server"]),
        identity=_identity(config),
        roster=read_roster(config),
        tls=load(Path(str(config["tls"])), str(config.get("tls-name", "client"))),
        backoff=Backoff(patience_s=float(config.get("patience", 300.0))),
    )
    return _learner(config, training, connection).run(until=number)[-1]


def respond(config: Mapping[str, Any], packet: bytes) -> bytes:
    """The reply to a packet.

    Args:
        config: of the node.
        packet: as :mod:`codream_secure.deployment.messages` makes them.

    Raises:
        ConfigError: a key is missing.
        CodreamError, ProtocolError: as for :meth:`Respondent.answer`.
    """
    require(config, _NODE_KEYS, _NODE)
    training = read_training(config)
    respondent = Respondent(
        training,
        int(config["member"]),
        identity=_identity(config),
        roster=read_roster(config),
        state=Path(str(config["state"])),
        make_learner=lambda delivered: _learner(config, training, delivered),
    )
    return respondent.answer(packet)


def _learner(config: Mapping[str, Any], training: TrainingTerms, carriage: Carriage) -> Learner:
    import torch

    from codream_secure.deployment.client_data import load_client_data
    from codream_secure.deployment.learner import Learner

    torch.set_num_threads(training.config.run.threads)
    part = config.get("part")
    return Learner(
        training,
        int(config["member"]),
        data=load_client_data(str(config["data"]), training, part=None if part is None else int(part)),
        carriage=carriage,
        state=Path(str(config["state"])),
    )


def _identity(config: Mapping[str, Any]) -> Identity:
    passphrase = find_passphrase(Path(str(config["passphrase-file"])))
    try:
        return load_identity(Path(str(config["key"])), passphrase=passphrase)
    finally:
        passphrase.wipe()
