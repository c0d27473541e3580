"""Events on their way from the event loop to the thread that drives rounds, which is woken as seldom as will do.

Every time a thread is woken it also takes the interpreter from the one that serves the streams. So messages wait for
each other, though not for long: until as many have come as are waited for, or enough to be worth the while.
"""

from __future__ import annotations

import threading

from codream_secure.deployment.streams.server import Arrived, Event

_WORTH_BYTES = 2 << 20
"""So much is looked at while more arrives, whatever is waited for: it bounds what lies here unread."""
_WORTH_MESSAGES = 32


class Inbox:
    """A queue that one thread fills and another empties."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._events: list[Event] = []
        self._messages = 0
        self._bytes = 0
        self._wanted = 1
        self._urgent = False
        """Whether something has come that is no message: who is there has changed."""

    def put(self, event: Event) -> None:
        """Add an event."""
        with self._changed:
            self._events.append(event)
            if isinstance(event, Arrived):
                self._messages += 1
                self._bytes += len(event.message)
            else:
                self._urgent = True
            if self._is_worth_it():
                self._changed.notify()

    def take(self, timeout_s: float = 0.0, *, messages: int = 1) -> list[Event]:
        """All that is here, in order.

        Args:
            timeout_s: wait at most so long.
            messages: until so many messages have come, or so much else that it is worth a look.
        """
        with self._changed:
            self._wanted = messages
            if timeout_s > 0:
                self._changed.wait_for(self._is_worth_it, timeout_s)
            taken, self._events = self._events, []
            self._messages = self._bytes = 0
            self._urgent = False
            return taken

    def _is_worth_it(self) -> bool:
        return self._urgent or self._messages >= min(self._wanted, _WORTH_MESSAGES) or self._bytes >= _WORTH_BYTES
