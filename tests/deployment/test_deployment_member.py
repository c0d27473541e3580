"""A member's part without a socket, and who an aggregator waits for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from codream_secure.deployment.streams import Asked, Deadlines, Member, Shown
from codream_secure.deployment.streams.attendance import Attendance
from codream_secure.deployment.streams.calls import (
    Answer,
    Ask,
    Begin,
    Call,
    End,
    Refusal,
    Relay,
    Show,
    Tensor,
    decode_downward,
    first_context,
    next_context,
    show,
)
from codream_secure.deployment.streams.calls import encode as encode_call
from codream_secure.deployment.streams.errors import FrameError, RefusedError, printable
from codream_secure.deployment.streams.server import Joined, Left
from codream_secure.errors import ConfigError
from protocols import FixedPoint, Phase, SumServer, Terms, make_protocol

PLAIN = make_protocol("plain")
TERMS = Terms(streams={"gradients": FixedPoint(clip=1.0, clients=2)}, steps=9, dropout=0.0, corruption=0.0)
ROUND = bytes(range(16))


def hand(member: Member, call: Call, **options: bool) -> Any:
    message = encode_call(call)
    return member.handle(decode_downward(message), message, **options)


class Round:
    """Two members and a server's machine, all set up."""

    def __init__(self, compute: Callable[[Asked], Any], **options: Any) -> None:
        self.members = [Member(number, protocol=PLAIN, terms=TERMS, compute=compute, **options) for number in (0, 1)]
        self.server: SumServer = PLAIN.server((0, 1), terms=TERMS, round_id=ROUND)
        self.context = first_context(ROUND)
        for member in self.members:
            hand(member, Begin(ROUND))
        outbox = self.server.open()
        while self.server.phase is not Phase.READY:
            for number, message in outbox.items():
                answer = hand(self.members[number], Relay(1, memoryview(message)))
                self.server.receive(number, bytes(answer.message))
            outbox = self.server.advance()
        for number, message in outbox.items():
            hand(self.members[number], Relay(1, memoryview(message)))

    def show(self, number: int, value: float) -> None:
        call = show("dreams", [np.array([value])])
        hand(self.members[number], call)

    def ask(self, number: int, **options: bool) -> Any:
        (message,) = set(self.server.request("gradients", 2, context=self.context).values())
        return hand(self.members[number], Ask(5, "gradients", 2, memoryview(message)), **options)


def ones(asked: Asked) -> np.ndarray:
    return np.ones(asked.values)


def test_a_member_answers_what_it_was_asked_about_what_it_was_shown() -> None:
    seen: list[Any] = []

    def compute(asked: Asked) -> np.ndarray:
        seen.append(asked)
        return np.ones(2)

    told: list[Shown] = []
    scene = Round(compute, on_shown=told.append)
    call = show("dreams", [np.array([0.5])])
    scene.context = next_context(scene.context, encode_call(call))
    scene.show(0, 0.5)
    answer = scene.ask(0)
    assert isinstance(answer, Answer)
    assert answer.exchange == 5
    scene.server.receive(0, bytes(answer.message))
    (asked,) = seen
    assert (asked.stream, asked.values, asked.round_id) == ("gradients", 2, ROUND)
    assert asked.shown is told[0]
    assert told[0].tensors[0].tolist() == [0.5]


def test_a_member_that_was_shown_something_else_refuses() -> None:
    scene = Round(ones)
    scene.show(0, 0.25)
    answer = scene.ask(0)
    assert isinstance(answer, Refusal)
    assert "contexts differ" in answer.reason


def test_a_question_that_the_next_one_has_overtaken_is_not_worked_on() -> None:
    def compute(asked: Asked) -> np.ndarray:
        raise AssertionError("nobody waits for this")

    scene = Round(compute)
    assert scene.ask(0, overtaken=True) is None
    assert scene.members[0].failure is None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (None, "sits the step out"),
        (np.array([np.nan, 0.0]), "ContributionError"),
        (np.ones(3), "where the server asks for 2"),
        ((np.ones(2), 3), "weight"),
    ],
)
def test_what_cannot_be_summed_is_refused_and_the_member_goes_on(given: Any, reason: str) -> None:
    scene = Round(lambda asked: given)
    answer = scene.ask(0)
    assert isinstance(answer, Refusal)
    assert reason in answer.reason
    assert scene.members[0].failure is None


def test_an_error_of_the_callers_is_kept_for_the_caller_and_not_told() -> None:
    def compute(asked: Asked) -> np.ndarray:
        raise RuntimeError("a private value: 42")

    scene = Round(compute)
    answer = scene.ask(0)
    assert isinstance(answer, Refusal)
    assert "42" not in answer.reason
    assert isinstance(scene.members[0].failure, RuntimeError)


def test_outside_a_round_nothing_is_answered() -> None:
    scene = Round(ones)
    hand(scene.members[0], End(ROUND, ""))
    assert scene.members[0].rounds == 1
    answer = scene.ask(0)
    assert isinstance(answer, Refusal)
    assert "in no round" in answer.reason


def test_a_member_for_one_round_takes_part_in_no_other() -> None:
    member = Member(0, protocol=PLAIN, terms=TERMS, compute=ones, round_id=ROUND)
    hand(member, Begin(ROUND))
    with pytest.raises(RefusedError, match="is here for"):
        hand(member, Begin(os.urandom(16)))


@pytest.mark.parametrize("pinned", [b"", ROUND], ids=["any", "pinned"])
def test_a_machine_enters_the_round_that_was_begun_and_no_other(pinned: bytes) -> None:
    member = Member(0, protocol=PLAIN, terms=TERMS, compute=ones, round_id=pinned)
    hand(member, Begin(ROUND))
    for round_id in (os.urandom(16), ROUND):
        server = PLAIN.server((0, 1), terms=TERMS, round_id=round_id)
        answer = hand(member, Relay(1, memoryview(server.open()[0])))
        assert isinstance(answer, Refusal) == (round_id != ROUND)
        assert round_id == ROUND or "another round" in answer.reason


@pytest.mark.parametrize("shape", [[0, 2**39, 2**39, 2**39], [0, 2**39, 2**39], [2**39, 0, 2**39]])
def test_shapes_that_cannot_be_are_malformed(shape: list[int]) -> None:
    member = Member(0, protocol=PLAIN, terms=TERMS, compute=ones)
    hand(member, Begin(ROUND))
    with pytest.raises(FrameError, match="cannot be"):
        hand(member, Show("dreams", [Tensor("float32", shape, memoryview(b""))]))


def test_somebody_elses_text_does_not_reach_a_log_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    scene = Round(ones)
    with caplog.at_level("INFO"):
        hand(scene.members[0], End(ROUND, "over\n\x1b[2J"))
    assert "over" in caplog.text
    assert "\x1b" not in caplog.text
    assert printable("over\n\x1b[2J") == "over\\n\\x1b[2J"


def test_a_protocol_whose_sums_clients_open_is_not_carried() -> None:
    class Opened(type(PLAIN)):  # type: ignore[misc]
        opened_by = "clients"

    with pytest.raises(ConfigError, match="not carried by streams"):
        Member(0, protocol=Opened(), terms=TERMS, compute=ones)


def test_only_members_that_may_still_answer_are_waited_for() -> None:
    attendance = Attendance()
    first, other = b"a" * 16, b"b" * 16
    for member in (1, 2, 3):
        attendance.note(Joined(member, first, False))
    attendance.enrol([1, 2, 3, 4])
    everybody = (1, 2, 3, 4)
    assert attendance.worth_waiting_for(everybody, reconnect_s=60)[0] == {1, 2, 3}
    attendance.note(Left(1, first, False))
    assert attendance.worth_waiting_for(everybody, reconnect_s=60)[0] == {1, 2, 3}
    assert attendance.worth_waiting_for(everybody, reconnect_s=1e-9)[0] == {2, 3}
    attendance.note(Joined(1, first, True))
    attendance.note(Left(2, first, True))
    assert attendance.worth_waiting_for(everybody, reconnect_s=60)[0] == {1, 3}
    # A new session has no machine of this round.
    attendance.note(Joined(1, other, False))
    attendance.note(Left(1, first, False))
    assert attendance.worth_waiting_for(everybody, reconnect_s=60)[0] == {3}
    assert attendance.present[1] == other


def test_deadlines_are_numbers_above_zero() -> None:
    with pytest.raises(ConfigError, match="setup_s"):
        Deadlines(setup_s=0)
