"""What wakes the thread that drives rounds, and what waits for company."""

from __future__ import annotations

import threading

import pytest

from codream_secure.deployment.streams.inbox import Inbox
from codream_secure.deployment.streams.server import Arrived, Event, Joined, Left

SESSION = bytes(16)
FOREVER = 60.0


def arrived(member: int, size: int = 1) -> Arrived:
    return Arrived(member, SESSION, bytes(size))


def taken_while(inbox: Inbox, events: list[Event], *, messages: int) -> list[Event]:
    """What a thread that waits for so many messages is woken with, while these events come one after the other."""
    found: list[Event] = []
    waiter = threading.Thread(target=lambda: found.extend(inbox.take(FOREVER, messages=messages)))
    waiter.start()
    for event in events:
        inbox.put(event)
    waiter.join()
    return found


def test_events_come_out_in_order_and_once() -> None:
    inbox = Inbox()
    events: list[Event] = [Joined(1, SESSION, False), arrived(1), arrived(2), Left(1, SESSION, True)]
    for event in events:
        inbox.put(event)
    assert inbox.take() == events
    assert inbox.take() == []


def test_nothing_is_waited_for_longer_than_allowed() -> None:
    inbox = Inbox()
    assert inbox.take(0.01) == []
    inbox.put(arrived(1))
    assert inbox.take(0.01, messages=2) == [arrived(1)]


def test_a_thread_sleeps_until_as_many_have_come_as_it_waits_for() -> None:
    events: list[Event] = [arrived(member) for member in range(5)]
    assert taken_while(Inbox(), events, messages=5) == events


@pytest.mark.parametrize(
    "events",
    [
        [arrived(1), Left(2, SESSION, False)],
        [arrived(1, 1 << 20), arrived(2, 1 << 20)],
        [arrived(member) for member in range(32)],
    ],
    ids=["somebody left", "enough bytes", "enough messages"],
)
def test_some_things_are_worth_a_look_whatever_is_waited_for(events: list[Event]) -> None:
    assert taken_while(Inbox(), events, messages=1000) == events


def test_what_was_worth_a_look_is_so_once() -> None:
    inbox = Inbox()
    inbox.put(Left(2, SESSION, False))
    inbox.put(arrived(1, 4 << 20))
    assert len(inbox.take()) == 2
    assert inbox.take(0.01, messages=1) == []
