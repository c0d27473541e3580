"""A member that tells a conversation when rounds begin and end, beside what is shown and asked in them."""

from __future__ import annotations

from typing import Any

from codream_secure.deployment.conversation import Conversation
from codream_secure.deployment.events import Began, Ended, Lost
from codream_secure.deployment.streams import Member
from codream_secure.deployment.streams.calls import Answer, Ask, Downward, End, Upward
from protocols import SumClient


class TalkingMember(Member):
    """A :class:`Member` that also says when rounds begin and end.

    Args:
        number: the member's.
        conversation: where it is said.
        settings: for :class:`Member`.
    """

    def __init__(self, number: int, conversation: Conversation, **settings: Any) -> None:
        super().__init__(
            number, compute=conversation.ask, on_shown=conversation.put, on_opening=conversation.agree, **settings
        )
        self._conversation = conversation
        self._ending = False

    def handle(self, call: Downward, message: bytes | memoryview, *, overtaken: bool = False) -> Any:
        self._ending = isinstance(call, End)
        answer = super().handle(call, message, overtaken=overtaken)
        if isinstance(call, End):
            self._conversation.put(Ended(call.reason))
        self._ending = False
        return answer

    def drop(self) -> None:
        held = self._machine is not None
        super().drop()
        if held and not self._ending:
            self._conversation.put(Lost())

    def _contribute(self, call: Ask, machine: SumClient) -> Upward:
        answer = super()._contribute(call, machine)
        if isinstance(answer, Answer):
            self._conversation.masked()
        return answer

    def _begin(self, round_id: bytes) -> None:
        super()._begin(round_id)
        self._conversation.put(Began())
