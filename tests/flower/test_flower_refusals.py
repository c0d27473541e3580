"""What nodes and strategies refuse, what a run survives, and what it does not."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed")

from flower_harness import NODES, RUN, SIZES, OneProcess, initial, protection, trained
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from codream_secure.errors import ConfigError
from codream_secure.flower import Member, Protected, ProtectedGrid, Protection, SumLostError, protected_mod
from codream_secure.flower.envelopes import RECORD, MessageRefusedError
from codream_secure.flower.store import Store
from protocols import Identity, Roster

MakeGrid = Callable[..., OneProcess]


def run(grid: Any, sums: Any, members: list[Member], *, rounds: int = 2, fed: Any = None) -> Any:
    strategy = Protected(fed or FedAvg(fraction_evaluate=0.0), sums, roster=members[0].roster)
    return strategy.start(grid, initial_arrays=initial(), num_rounds=rounds)


def mean_of(numbers: list[int], before: ArrayRecord | None = None) -> np.ndarray:
    arrays = {name: array.numpy() for name, array in (before or initial()).items()}
    moved = [trained(number, arrays)["weights"].astype(np.float64) for number in numbers]
    return np.average(moved, axis=0, weights=[SIZES[number] for number in numbers])


# Dropouts


@pytest.mark.parametrize("name", ["plain", "masked", "bfv"])
def test_a_node_whose_vector_is_lost_is_not_in_the_mean(name: str, make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection(name)
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: grid.kinds[exchange] == "step" and number == 2
    found = run(grid, sums, members, rounds=1)
    np.testing.assert_allclose(found.arrays["weights"].numpy(), mean_of([0, 1, 3]), atol=1e-6)


@pytest.mark.parametrize("name", ["masked", "bfv"])
def test_a_node_that_vanishes_while_keys_are_exchanged_is_back_in_the_next_round(
    name: str, make_grid: MakeGrid, members: list[Member]
) -> None:
    sums = protection(name)
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: exchange == 2 and number == 1
    found = run(grid, sums, members, rounds=2)
    first = ["hello", "open", "relay", "step", {"masked": "relay", "bfv": "total"}[name]]
    assert grid.kinds == [*first, *first[1:], "close"]
    once = ArrayRecord({"weights": Array(mean_of([0, 2, 3]).astype(np.float32)), "bias": initial()["bias"]})
    once["seen"] = initial()["seen"]
    # The bias is drawn before the weights, so that what comes of the latter does not depend on it.
    np.testing.assert_allclose(found.arrays["weights"].numpy(), mean_of([0, 1, 2, 3], once), atol=1e-6)


@pytest.mark.parametrize(("name", "opening"), [("masked", "relay"), ("bfv", "total")])
def test_a_node_that_vanishes_while_the_sum_is_opened_is_in_it(
    name: str, opening: str, make_grid: MakeGrid, members: list[Member]
) -> None:
    sums = protection(name)
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: exchange == 4 and number == 3
    found = run(grid, sums, members, rounds=1)
    assert grid.kinds[4] == opening
    np.testing.assert_allclose(found.arrays["weights"].numpy(), mean_of([0, 1, 2, 3]), atol=1e-6)


def test_a_sum_of_too_few_is_given_up_and_the_next_round_goes_on(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection()
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: exchange == 3 and number < 2
    found = run(grid, sums, members, rounds=2)
    assert not found.train_metrics_clientapp.get(1)
    np.testing.assert_allclose(found.arrays["weights"].numpy(), mean_of([0, 1, 2, 3]), atol=1e-6)


def test_nodes_that_do_not_say_who_they_are_count_as_missing(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection()
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: exchange == 0 and number < 2
    found = run(grid, sums, members, rounds=2)
    assert grid.kinds[:3] == ["hello", "hello", "open"]
    assert list(found.train_metrics_clientapp) == [2]
    np.testing.assert_allclose(found.arrays["weights"].numpy(), mean_of([0, 1, 2, 3]), atol=1e-6)


def test_a_sum_that_may_be_open_ends_the_run(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection()
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: exchange == 4 and number < 2
    with pytest.raises(SumLostError, match="begin a new run"):
        run(grid, sums, members)
    assert grid.kinds[-1] == "close"


def test_facing_an_active_server_a_sum_of_too_few_ends_the_run(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection(active=True)
    grid = make_grid(sums)
    grid.vanishes = lambda exchange, number: exchange == 3 and number < 2
    with pytest.raises(SumLostError, match="begin a new run"):
        run(grid, sums, members)


# What nodes refuse


def sent(grid: OneProcess, content: RecordDict, kind: str = MessageType.TRAIN) -> list[Message]:
    return list(grid.send_and_receive([Message(content, dst_node_id=node, message_type=kind) for node in grid.nodes]))


@pytest.mark.parametrize("kind", [MessageType.TRAIN, MessageType.EVALUATE, MessageType.QUERY])
def test_a_message_that_asks_for_an_answer_in_clear_gets_none(kind: str, make_grid: MakeGrid) -> None:
    grid = make_grid(protection())
    replies = sent(grid, RecordDict({"arrays": initial(), "config": ConfigRecord()}), kind)
    assert all(reply.has_error() for reply in replies)
    assert all("answers inside protected sums only" in error for error in grid.errors)


def test_what_the_node_names_passes_in_clear(make_grid: MakeGrid) -> None:
    grid = make_grid(protection(clear=("evaluate", "query")))
    content = RecordDict({"arrays": initial(), "config": ConfigRecord()})
    assert [reply.content["config"]["number"] for reply in sent(grid, content, MessageType.QUERY)] == [0, 1, 2, 3]
    assert not any(reply.has_error() for reply in sent(grid, content, MessageType.EVALUATE))
    assert all(reply.has_error() for reply in sent(grid, content, MessageType.TRAIN))


def test_a_node_that_is_shown_other_arrays_sends_no_vector(make_grid: MakeGrid, members: list[Member]) -> None:
    def tamper(number: int, message: Message) -> Message:
        if number == 1 and message.content[RECORD]["kind"] == "step":
            message.content["arrays"]["bias"] = Array(np.ones(3, np.float32))
        return message

    sums = protection()
    grid = make_grid(sums)
    grid.tamper = tamper
    found = run(grid, sums, members, rounds=1)
    assert any("contexts differ" in error for error in grid.errors)
    np.testing.assert_allclose(found.arrays["weights"].numpy(), mean_of([0, 2, 3]), atol=1e-6)


def test_the_same_arrays_are_not_answered_twice(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection()
    grid = make_grid(sums)
    protected = ProtectedGrid(grid, sums, roster=members[0].roster)
    fed = FedAvg(fraction_evaluate=0.0)
    for at, answered in ((1, 1), (2, 0)):
        messages = fed.configure_train(at, initial(), ConfigRecord(), protected)
        replies = list(protected.send_and_receive(messages))
        assert sum(not reply.has_error() for reply in replies) == answered
    assert sum("the same arrays before" in error for error in grid.errors) == NODES


def asked_again(grid: OneProcess, sums: Protection, members: list[Member], again: ArrayRecord) -> list[str]:
    """What the nodes refuse with when a server that has begun anew shows these arrays after the initial ones."""
    for number, arrays in enumerate((initial(), again)):
        protected = ProtectedGrid(grid, sums, roster=members[0].roster)
        messages = FedAvg(fraction_evaluate=0.0).configure_train(1, arrays, ConfigRecord(), protected)
        grid.errors = []
        replies = list(protected.send_and_receive(messages)) if not number else _replies(protected, messages)
        protected.close()
    assert not any(not reply.has_error() for reply in replies)
    return grid.errors


def _replies(protected: ProtectedGrid, messages: Any) -> list[Message]:
    """None, where the run ends."""
    try:
        return list(protected.send_and_receive(messages))
    except SumLostError:
        return []


@pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])
def test_the_end_of_a_run_makes_no_node_forget_what_it_answered(
    active: bool, make_grid: MakeGrid, members: list[Member]
) -> None:
    sums = protection(active=active)
    errors = asked_again(make_grid(sums), sums, members, initial())
    assert sum("the same arrays before" in error for error in errors) == NODES


def written(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> Array:
    """An array in the bytes of another version of numpy's format."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return Array(dtype=str(array.dtype), shape=array.shape, stype="numpy.ndarray", data=stream.getvalue())


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda array: written(array, (2, 0)),
        lambda array: written(np.asfortranarray(array)),
        lambda array: written(array.astype(array.dtype.newbyteorder(">"))),
        lambda array: written(array.astype(np.float64)),
        lambda array: written(np.where(array == 0, np.copysign(array, -1.0), array).astype(array.dtype)),
    ],
    ids=["version", "order", "endianness", "type", "signs of zeros"],
)
def test_the_same_numbers_written_in_another_way_are_not_answered(
    rewrite: Callable[[np.ndarray], Array], make_grid: MakeGrid, members: list[Member]
) -> None:
    sums = protection(active=True)
    again = ArrayRecord({name: rewrite(array.numpy()) for name, array in initial().items()})
    errors = asked_again(make_grid(sums), sums, members, again)
    assert sum("the same arrays before" in error for error in errors) == NODES


@pytest.mark.parametrize("change", [{"clip": 1.0}, {"metrics": {"loss": 9.0}}, {"active": True}])
def test_nodes_with_other_settings_take_no_part(
    change: dict[str, Any], make_grid: MakeGrid, members: list[Member]
) -> None:
    grid = make_grid(protection(**change))
    found = run(grid, protection(), members, rounds=1)
    assert not found.train_metrics_clientapp
    assert grid.errors


def test_a_node_with_another_roster_takes_no_part(members: list[Member]) -> None:
    keys = {number: members[number].identity.public_key for number in range(3)}
    other = Roster({**keys, 3: Identity.generate().public_key, 4: members[3].identity.public_key})
    odd = Member(4, members[3].identity, other, members[3].folder)
    sums = protection()
    grid = OneProcess(
        lambda number: [protected_mod(sums, credentials=lambda context: odd if number == 3 else members[number])],
        lambda exchange, number: False,
    )
    found = run(grid, sums, members, rounds=1)
    np.testing.assert_allclose(found.arrays["weights"].numpy(), mean_of([0, 1, 2]), atol=1e-6)
    assert grid.kinds[1:3] == ["open", "relay"]


@pytest.mark.parametrize("name", ["masked", "bfv"])
def test_a_node_with_another_idea_of_who_the_others_are_takes_no_part(name: str, members: list[Member]) -> None:
    keys = {number: member.identity.public_key for number, member in enumerate(members)}
    other = Roster({**keys, 2: Identity.generate().public_key})
    odd = Member(3, members[3].identity, other, members[3].folder)
    sums = protection(name)
    grid = OneProcess(
        lambda number: [protected_mod(sums, credentials=lambda context: odd if number == 3 else members[number])],
        lambda exchange, number: False,
    )
    found = run(grid, sums, members, rounds=1)
    np.testing.assert_allclose(found.arrays["weights"].numpy(), mean_of([0, 1, 2]), atol=1e-6)


def test_a_message_that_is_delivered_again_gets_no_second_answer(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection()
    grid = make_grid(sums)
    seen: list[Message] = []

    def tamper(number: int, message: Message) -> Message:
        if number == 0:
            seen.append(message_from_proto(message_to_proto(message)))
        return message

    grid.tamper = tamper
    protected = ProtectedGrid(grid, sums, roster=members[0].roster)
    fed = FedAvg(fraction_evaluate=0.0)
    list(protected.send_and_receive(fed.configure_train(1, initial(), ConfigRecord(), protected)))
    assert [message.content[RECORD]["kind"] for message in seen] == ["hello", "open", "relay", "step", "relay"]
    grid.tamper, grid.errors = lambda number, message: message, []
    for again in reversed(seen[1:]):
        (reply,) = grid.send_and_receive([again])
        assert reply.has_error()
    assert [error.split(":")[0] for error in grid.errors] == [
        "AlreadyAnsweredError",
        "MessageRefusedError",
        "MessageRefusedError",
        "RoundReuseError",
    ]


def test_a_reply_without_the_number_of_examples_or_with_other_arrays_is_not_summed(members: list[Member]) -> None:
    sums = protection()

    def spoil(message: Message, context: Any, call_next: Any) -> Message:
        reply = call_next(message, context)
        number = 1000 + 17 * 0
        if message.metadata.dst_node_id == number:
            del reply.content["metrics"]["num-examples"]
        if message.metadata.dst_node_id == number + 17:
            del reply.content["arrays"]["bias"]
        return reply

    grid = OneProcess(
        lambda number: [protected_mod(sums, credentials=lambda context: members[number]), spoil],
        lambda exchange, number: False,
    )
    found = run(grid, sums, members, rounds=1)
    assert not found.train_metrics_clientapp
    assert any("no whole number 'num-examples'" in error for error in grid.errors)
    assert any("differ in name or shape" in error for error in grid.errors)


# What a node keeps


def test_what_is_kept_is_private_and_sealed_and_no_machine_after_the_run(
    make_grid: MakeGrid, members: list[Member]
) -> None:
    sums = protection()
    grid = make_grid(sums)
    kept: list[bytes] = []

    def look(exchange: int, number: int) -> bool:
        state = members[0].folder / f"run-{RUN}.state"
        if state.exists():
            assert state.stat().st_mode & 0o077 == 0
            kept.append(state.read_bytes())
        return False

    grid.vanishes = look
    run(grid, sums, members, rounds=1)
    assert len(set(kept)) == 5
    assert not any(members[0].identity.private_bytes() in state for state in kept)
    assert members[0].folder.stat().st_mode & 0o777 == 0o700
    # What is left says what was answered, and holds no machine.
    assert sorted(os.listdir(members[0].folder)) == ["rounds.log", f"run-{RUN}.state"]
    left = msgspec.msgpack.decode((members[0].folder / f"run-{RUN}.state").read_bytes())
    assert left[:2] == [None, None]


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        Store(tmp_path)


def test_a_state_that_cannot_be_written_over_is_not_lost(
    make_grid: MakeGrid, members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = protection(active=True)
    grid = make_grid(sums)
    protected = ProtectedGrid(grid, sums, roster=members[0].roster)
    messages = FedAvg(fraction_evaluate=0.0).configure_train(1, initial(), ConfigRecord(), protected)
    list(protected.send_and_receive(messages))
    path = members[0].folder / f"run-{RUN}.state"
    before = path.read_bytes()
    with monkeypatch.context() as full:
        full.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        protected.close()
    assert any("No space left" in error for error in grid.errors)
    assert path.read_bytes() == before


def test_a_damaged_state_refuses_until_somebody_looks(make_grid: MakeGrid, members: list[Member]) -> None:
    sums = protection()
    grid = make_grid(sums)
    path = Store(members[0].folder).folder / f"run-{RUN}.state"
    path.write_bytes(b"\xff")
    run(grid, sums, members, rounds=2)
    assert sum("is damaged" in error for error in grid.errors) > 1
    assert path.read_bytes() == b"\xff"


# What servers refuse


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
