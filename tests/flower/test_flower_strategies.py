"""What servers refuse: strategies that a mean is not enough for, settings that guard nothing, broken records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("flwr", reason="flwr is not installed")

from flower_harness import OneProcess, initial, protection
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from codream_secure.errors import ConfigError
from codream_secure.flower import Member, Protected, ProtectedGrid
from codream_secure.flower.envelopes import RECORD, MessageRefusedError

MakeGrid = Callable[..., OneProcess]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (flower.Krum, "compares the clients' updates"),
        (flower.MultiKrum, "compares the clients' updates"),
        (flower.Bulyan, "compares the clients' updates"),
        (flower.FedMedian, "takes the median"),
        (flower.FedTrimmedAvg, "drops the extremes"),
    ],
)
def test_strategies_that_need_single_updates(kind: Any, reason: str, members: list[Member]) -> None:
    with pytest.raises(ConfigError, match=reason):
        Protected(kind(), protection(), roster=members[0].roster)


def test_strategies_that_need_single_losses_trees_or_clipped_updates(members: list[Member]) -> None:
    clip = {"noise_multiplier": 1.0, "clipping_norm": 1.0, "num_sampled_clients": 2}
    for strategy, reason in (
        (flower.QFedAvg(client_learning_rate=0.1), "by its own loss"),
        (flower.FedXgbBagging(), "collects each client's trees"),
        (flower.DifferentialPrivacyServerSideFixedClipping(FedAvg(), **clip), "at the server"),
        (flower.DifferentialPrivacyClientSideFixedClipping(FedAvg(), **clip), "adds noise"),
    ):
        with pytest.raises(ConfigError, match=reason):
            Protected(strategy, protection(), roster=members[0].roster)


def test_an_own_strategy_has_to_say_that_the_mean_is_enough(members: list[Member]) -> None:
    class Own(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            return super().aggregate_train(server_round, replies)

    with pytest.raises(ConfigError, match="mean_is_enough=True"):
        Protected(Own(), protection(), roster=members[0].roster)
    Protected(Own(), protection(), roster=members[0].roster, mean_is_enough=True)
    with pytest.raises(ConfigError, match="needs more than a sum gives"):
        Protected(flower.FedMedian(), protection(), roster=members[0].roster, mean_is_enough=True)


def test_a_server_needs_the_roster_and_one_name_for_the_weight() -> None:
    with pytest.raises(ConfigError, match="weighs by 'size'"):
        Protected(FedAvg(weighted_by_key="size"), protection())
    grid = OneProcess(lambda number: [], lambda exchange, number: False)
    with pytest.raises(ConfigError, match="roster is None"):
        Protected(FedAvg(), protection()).start(grid, initial_arrays=initial())


def test_a_server_sends_everybody_the_same(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection()
    protected = ProtectedGrid(make_grid(sums), sums, roster=members[0].roster)
    messages = list(FedAvg().configure_train(1, initial(), ConfigRecord(), protected))
    other = RecordDict({"arrays": initial(), "config": ConfigRecord({"node": 3})})
    odd = Message(other, dst_node_id=messages[3].metadata.dst_node_id, message_type=MessageType.TRAIN)
    with pytest.raises(ConfigError, match="different contents"):
        protected.send_and_receive([*messages[:3], odd])
    with pytest.raises(ConfigError, match="two messages at once"):
        protected.send_and_receive([messages[0], messages[0]])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "bfv-authority"}, "one of plain, masked, bfv"),
        ({"name": "bfv", "active": True}, "only masked sums guard"),
        ({"clear": ("train",)}, "may pass unprotected"),
        ({"metrics": {"loss": 0.0}}, "positive bound"),
        ({"metrics": {"num-examples": 5.0}}, "summed anyway"),
    ],
)
def test_settings_that_guard_nothing_are_refused(changes: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        protection(**changes)


def test_a_malformed_record_is_refused() -> None:
    from codream_secure.flower.envelopes import answer_in, ask_in

    for record in (
        {"version": 2, "kind": "hello", "frames": [b""]},
        {"version": 1, "kind": "dance", "frames": [b""]},
        {"version": 1, "kind": "open", "frames": [b"", b"", b"", b""]},
        {"version": 1, "kind": "open", "frames": "text"},
    ):
        with pytest.raises(MessageRefusedError):
            ask_in(RecordDict({RECORD: ConfigRecord(record)}))
    for record in (
        {"version": 1, "member": -1, "frame": b"", "opened": b""},
        {"version": 1, "member": True, "frame": b"", "opened": b""},
        {"version": 1, "member": 1, "frame": "text", "opened": b""},
    ):
        with pytest.raises(MessageRefusedError):
            answer_in(RecordDict({RECORD: ConfigRecord(record)}))
    with pytest.raises(MessageRefusedError, match="among its mods"):
        answer_in(RecordDict({"arrays": initial()}))
