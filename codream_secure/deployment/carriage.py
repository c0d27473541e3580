"""How what happens in a round reaches a client, and its answers the server: the one thing that transports differ in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from codream_secure.deployment.conversation import Conversation
from codream_secure.deployment.talking_member import TalkingMember
from protocols import Identity, Roster, RoundLog

MakeMember = Callable[[RoundLog], TalkingMember]


class Carriage(Protocol):
    """A way to the server and back.

    Attributes:
        identity: the client's key pair.
        roster: everybody's public keys.
    """

    @property
    def identity(self) -> Identity: ...

    @property
    def roster(self) -> Roster: ...

    def carry(
        self, make_member: MakeMember, conversation: Conversation, *, folder: Path
    ) -> AbstractContextManager[None]:
        """Put what happens into the conversation, and carry its answers, until the context ends.

        Args:
            make_member: of the client, given its memory of rounds.
            conversation: where events are put.
            folder: the client's own; the memory of rounds is kept there.
        """
