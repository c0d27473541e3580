"""Where the stream's threads meet the method: order, questions that come again, rounds that are lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from codream_secure.deployment.conversation import Conversation
from codream_secure.deployment.events import Began, DesyncError, Ended, Gone, Lost, RoundLostError
from codream_secure.deployment.heading import OVER, Heading, read_heading
from codream_secure.deployment.member_channel import MemberChannel
from codream_secure.deployment.streams import Asked, Shown
from codream_secure.deployment.streams.calls import Begin, End
from codream_secure.deployment.talking_member import TalkingMember
from protocols import FixedPoint, Terms, make_protocol

ROUND_ID = bytes(16)
VECTOR = np.arange(3, dtype=np.float32)


def asked(stream: str = "soft_labels", values: int = 3) -> Asked:
    return Asked(stream=stream, values=values, shown=None, round_id=ROUND_ID)


def shown(phase: str = "dreams", *arrays: np.ndarray) -> Shown:
    return Shown(phase=phase, tensors=list(arrays))


class Stream:
    """The other side: asks in threads, and remembers the answers."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self.answers: list[np.ndarray | None] = []
        self._threads: list[threading.Thread] = []

    def asks(self, question: Asked) -> None:
        thread = threading.Thread(target=lambda: self.answers.append(self._conversation.ask(question)))
        self._threads.append(thread)
        thread.start()

    def answered(self) -> list[Any]:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        return self.answers


@pytest.fixture
def conversation() -> Conversation:
    return Conversation()


@pytest.fixture
def stream(conversation: Conversation) -> Stream:
    return Stream(conversation)


def test_a_question_gets_the_method_s_vector(conversation: Conversation, stream: Stream) -> None:
    stream.asks(asked())
    conversation.contribute("soft_labels", 3, lambda: VECTOR)
    assert stream.answered()[0] is VECTOR


def test_a_question_that_comes_again_gets_the_same_vector(conversation: Conversation, stream: Stream) -> None:
    stream.asks(asked())
    conversation.contribute("soft_labels", 3, lambda: VECTOR)
    stream.answered()
    stream.asks(asked())
    threading.Timer(0.05, conversation.put, [shown()]).start()
    assert conversation.show().phase == "dreams"
    first, second = stream.answered()
    assert first is second is VECTOR


def test_what_was_answered_before_something_was_shown_answers_no_later_question(
    conversation: Conversation, stream: Stream
) -> None:
    stream.asks(asked())
    conversation.contribute("soft_labels", 3, lambda: VECTOR)
    stream.answered()
    conversation.put(shown())
    conversation.show()
    stream.asks(asked())
    with pytest.raises(DesyncError, match="3 values of 'soft_labels', where something was to be shown"):
        conversation.show()
    assert stream.answered()[1] is None


def test_a_sum_that_is_taken_without_this_member_is_passed_over(conversation: Conversation) -> None:
    conversation.put(shown())
    conversation.contribute("soft_labels", 3, lambda: VECTOR)
    assert conversation.show().phase == "dreams"
    conversation.put(Ended("done"))
    conversation.contribute("evaluation", 3, lambda: VECTOR)
    assert conversation.next() == Ended("done")


@pytest.mark.parametrize("question", [asked(stream="evaluation"), asked(values=4)])
def test_another_question_than_the_terms_say_is_refused(
    conversation: Conversation, stream: Stream, question: Asked
) -> None:
    stream.asks(question)
    with pytest.raises(DesyncError, match="does not follow these terms"):
        conversation.contribute("soft_labels", 3, lambda: VECTOR)
    assert stream.answered() == [None]


@pytest.mark.parametrize("event", [Lost(), Ended("broke off"), Ended(OVER), Began(), Gone(None)])
def test_a_lost_round_is_lost_at_once(conversation: Conversation, event: Any) -> None:
    conversation.put(event)
    with pytest.raises(RoundLostError):
        conversation.show()
    # What says more than that this round is over is heard by whoever waits for the next one.
    if isinstance(event, Began | Gone) or event == Ended(OVER):
        assert conversation.next() == event


@pytest.mark.parametrize("event", [Lost(), Gone(None)])
def test_nothing_is_contributed_to_a_lost_round(conversation: Conversation, event: Any) -> None:
    conversation.put(event)
    with pytest.raises(RoundLostError):
        conversation.contribute("soft_labels", 3, lambda: VECTOR)


def test_closing_it_lets_nobody_wait(conversation: Conversation, stream: Stream) -> None:
    stream.asks(asked())
    threading.Timer(0.05, conversation.close).start()
    assert stream.answered() == [None]
    stream.asks(asked())
    assert stream.answered() == [None, None]


def test_a_member_says_when_rounds_begin_end_and_are_lost(conversation: Conversation) -> None:
    member = TalkingMember(
        0,
        conversation,
        protocol=make_protocol("plain"),
        terms=Terms(streams={"x": FixedPoint(clip=1.0, clients=2)}, steps=1),
    )
    member.handle(Begin(ROUND_ID), b"")
    member.handle(End(ROUND_ID, "done"), b"")
    member.handle(Begin(ROUND_ID), b"")
    member.drop()
    member.drop()
    conversation.put(Gone(None))
    events = [conversation.next() for _ in range(5)]
    assert events == [Began(), Ended("done"), Began(), Lost(), Gone(None)]


def test_a_member_s_channel_takes_what_is_shown_and_hands_over_its_own(
    conversation: Conversation, stream: Stream
) -> None:
    channel = MemberChannel(make_protocol("plain"), 3, member=1, conversation=conversation)
    conversation.put(shown("dreams", np.full((2, 2), 7, dtype=np.float32)))
    mine = torch.zeros(2, 2)
    (received,) = channel.broadcast([mine], phase="dreams")
    assert torch.equal(received, torch.full((2, 2), 7.0))
    stream.asks(asked("dream_updates", 4))
    (mean,) = channel.mean({1: [torch.ones(2, 2)]}, phase="dream_updates", like=[mine])
    assert torch.equal(mean, torch.zeros(2, 2))
    assert np.array_equal(stream.answered()[0], np.ones(4, dtype=np.float32))


@pytest.mark.parametrize(
    "wrong",
    [
        shown("soft_labels", np.zeros((2, 2), dtype=np.float32)),
        shown("dreams", np.zeros((2, 3), dtype=np.float32)),
        shown("dreams", np.zeros((2, 2), dtype=np.float64)),
        shown("dreams"),
    ],
)
def test_a_member_s_channel_refuses_what_has_another_shape(conversation: Conversation, wrong: Shown) -> None:
    channel = MemberChannel(make_protocol("plain"), 3, member=1, conversation=conversation)
    conversation.put(wrong)
    with pytest.raises(DesyncError, match="was to come"):
        channel.broadcast([torch.zeros(2, 2)], phase="dreams")


def test_headings_are_read_back() -> None:
    heading = Heading(3, True, bytes(range(32)))
    assert read_heading(shown("round", *heading.arrays())) == heading


def _spoiled(change: Callable[[list[np.ndarray]], None]) -> list[np.ndarray]:
    arrays = Heading(3, True, bytes(32)).arrays()
    change(arrays)
    return arrays


@pytest.mark.parametrize(
    ("phase", "arrays"),
    [
        ("dreams", Heading(3, True, bytes(32)).arrays()),
        ("round", Heading(0, True, bytes(32)).arrays()),
        ("round", _spoiled(lambda arrays: arrays.pop())),
        ("round", _spoiled(lambda arrays: arrays.__setitem__(0, np.array([3, 2])))),
        ("round", _spoiled(lambda arrays: arrays.__setitem__(1, np.zeros(31, dtype=np.uint8)))),
        ("round", _spoiled(lambda arrays: arrays.__setitem__(0, np.array([3.0, 1.0])))),
    ],
)
def test_what_is_no_heading_is_refused(phase: str, arrays: list[np.ndarray]) -> None:
    with pytest.raises(DesyncError, match="begins"):
        read_heading(shown(phase, *arrays))


def test_a_server_that_shows_faster_than_anybody_looks_is_kept_waiting() -> None:
    conversation = Conversation(most_bytes=20_000)
    thread = threading.Thread(
        target=lambda: [conversation.put(shown("dreams", np.zeros(1000, np.float32))) for _ in range(50)]
    )
    thread.start()
    held = []
    for _ in range(50):
        conversation.show()
        held.append(conversation.held)
    thread.join(30)
    assert max(held) <= 20_000
    assert conversation.held == 0


def test_an_event_larger_than_the_room_is_taken_alone_and_nobody_waits_for_whoever_left() -> None:
    conversation = Conversation(most_bytes=1000)
    conversation.put(shown("dreams", np.zeros(1000, np.float32)))
    thread = threading.Thread(target=lambda: conversation.put(Began()))
    thread.start()
    conversation.put(Gone(None))
    conversation.close()
    thread.join(30)
    assert not thread.is_alive()
