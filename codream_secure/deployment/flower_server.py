"""The server's half of CoDream as a Flower app: over streams with one message a round, or over messages alone."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from codream_secure.deployment.connection import listen
from codream_secure.deployment.coordinator import Coordinator, Row, Waits
from codream_secure.deployment.flower_office import RECORD, FlowerOffice, flower
from codream_secure.deployment.flower_settings import read_roster, read_training, require
from codream_secure.deployment.messages import MessageAggregator
from codream_secure.deployment.metrics import Metrics
from codream_secure.deployment.monitor import Monitor
from codream_secure.deployment.status_server import StatusServer
from codream_secure.deployment.streams.certificates import load
from codream_secure.errors import ConfigError

_LOG = logging.getLogger(__name__)
_POLL_S = 1.0
_ANSWER_S = 120.0
_RUN = "the run's configuration"
_RUN_KEYS = ("terms", "roster", "state")
_STREAM_KEYS = ("tls", "listen")
STREAMS, MESSAGES = "streams", "messages"


def serve(grid: Any, config: Mapping[str, Any]) -> list[Row]:
    """Run the rounds that are left; the rows of those.

    Args:
        grid: a ``flwr.serverapp.Grid``.
        config: of the run: ``terms``, ``roster`` and ``state``, for streams also ``tls`` and ``listen`` (HOST:PORT), as
            the options of ``codream-secure deploy server``; and ``transport`` ("streams", if it is not given, or
            "messages"), ``roster-digest``, ``metrics`` (HOST:PORT, or a port on loopback), ``join`` and ``patience``
            and, for messages, ``train`` and ``answer`` (seconds), if they are given. Over messages ``train`` and
            ``answer`` hold the time that Flower takes to start a process at every node.

    Raises:
        ConfigError: a key is missing, or ``transport`` is neither.
        CodreamError, ProtocolError: as for :meth:`Coordinator.run`.
    """
    transport = config.get("transport", STREAMS)
    if transport not in (STREAMS, MESSAGES):
        raise ConfigError(f"transport is {transport!r} in {_RUN}: it is {STREAMS!r} or {MESSAGES!r}")
    by_streams = transport == STREAMS
    require(config, (*_RUN_KEYS, *(_STREAM_KEYS if by_streams else ())), _RUN)
    with contextlib.ExitStack() as stack:
        monitor = None
        if "metrics" in config:
            monitor = Metrics()
            status = stack.enter_context(StatusServer(str(config["metrics"]), monitor))
            print(f"metrics on {status.address}", flush=True)
        return (_serve_by_streams if by_streams else _serve_by_messages)(grid, config, monitor)


def _serve_by_streams(grid: Any, config: Mapping[str, Any], monitor: Monitor | None) -> list[Row]:
    training = read_training(config)
    torch.set_num_threads(training.config.run.threads)
    waits = Waits(join=float(config.get("join", 300.0)), patience=float(config.get("patience", 3600.0)))
    roster, tls = read_roster(config), load(Path(str(config["tls"])), "server")
    rows = []
    with listen(str(config["listen"]), training, roster=roster, tls=tls, deadlines=waits.deadlines()) as aggregator:
        state = Path(str(config["state"]))
        coordinator = Coordinator(training, aggregator, state=state, waits=waits, anew=True, monitor=monitor)
        with coordinator.at_work():
            for number in coordinator.rounds_left():
                nodes = _nodes(grid, training.config.data.clients, waits.patience)
                asked = _ask(grid, nodes, number)
                row = coordinator.finish(number)
                answered = f"{_answered(grid, asked)} of {len(asked)} nodes have finished"
                if row is not None:
                    rows.append(row)
                    print(f"{json.dumps(row)} {answered}", flush=True)
        _say_what_was_spent(coordinator)
    return rows


def _serve_by_messages(grid: Any, config: Mapping[str, Any], monitor: Monitor | None) -> list[Row]:
    training, roster = read_training(config), read_roster(config)
    training.check_roster(roster)
    torch.set_num_threads(training.config.run.threads)
    waits = Waits(
        join=float(config.get("join", 300.0)),
        train=float(config.get("train", 1800.0)),
        answer=float(config.get("answer", 300.0)),
        patience=float(config.get("patience", 3600.0)),
    )
    office = FlowerOffice(grid, members=training.config.data.clients, hello_s=waits.answer)
    rows = []
    with MessageAggregator(
        office, protocol=training.protocol, terms=training.sums, roster=roster, deadlines=waits.deadlines()
    ) as aggregator:
        state = Path(str(config["state"]))
        coordinator = Coordinator(training, aggregator, state=state, waits=waits, monitor=monitor)
        with coordinator.at_work():
            for number in coordinator.rounds_left():
                before = office.exchanges
                row = coordinator.finish(number)
                if row is not None:
                    rows.append(row)
                    print(f"{json.dumps(row)} {office.exchanges - before} exchanges of messages", flush=True)
        _say_what_was_spent(coordinator)
    return rows


def _say_what_was_spent(coordinator: Coordinator) -> None:
    if coordinator.account.releases.ledger is not None:
        stopped = f"; {coordinator.stopped}" if coordinator.stopped else ""
        print(f"privacy: {coordinator.account}{stopped}", flush=True)


def _nodes(grid: Any, wanted: int, patience_s: float) -> list[int]:
    """All nodes, once as many as there are clients have come, or the time is over."""
    end = time.monotonic() + patience_s
    while len(nodes := list(grid.get_node_ids())) < wanted and time.monotonic() < end:
        time.sleep(_POLL_S)
    return nodes


def _ask(grid: Any, nodes: Iterable[int], number: int) -> list[str]:
    """Send every node its message; their ids."""
    api = flower("flwr.app")
    messages = [
        api.Message(
            api.RecordDict({RECORD: api.ConfigRecord({"round": number})}),
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
