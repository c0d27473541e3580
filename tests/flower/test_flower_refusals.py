"""What nodes refuse."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed")

from flower_harness import NODES, OneProcess, initial, mean_of, protection, run
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp.strategy import FedAvg

from codream_secure.flower import Member, ProtectedGrid, Protection, SumLostError, protected_mod
from codream_secure.flower.envelopes import RECORD
from protocols import Identity, Roster

MakeGrid = Callable[..., OneProcess]


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
