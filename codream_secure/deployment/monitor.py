"""What a server says about its work to whoever watches it: numbers, never vectors, keys or names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What the streams count themselves; each is a look from any thread.

    Args:
        present: members with a stream that stands.
        bytes_down: of messages for members, before frames and TLS, those not yet sent included.
        turned_away: streams that were refused before they had proved who they are.
    """

    present: Callable[[], int]
    bytes_down: Callable[[], int]
    turned_away: Callable[[], int]


class Monitor:
    """Told what happens, from the thread that runs rounds. This one does nothing."""

    def watches(self, traffic: Traffic) -> None:
        """The server has begun to listen."""

    def planned(self, rounds: int, finished: int) -> None:
        """How many rounds there will be, and how many were finished before this program began."""

    def began(self, number: int) -> None:
        """A round is about to be set up."""

    def opened(self) -> None:
        """A round's set-up has succeeded."""

    def broke_off(self) -> None:
        """A round broke off, and will be begun again."""

    def finished(self, number: int) -> None:
        """A round is finished and on the disk."""

    def summed(self, seconds: float, *, opened: bool) -> None:
        """A sum was asked for and opened, or not, after so many seconds."""

    def dropped(self, phase: str, members: int) -> None:
        """So many members had not answered when a phase ended: advertise, share, collect, vote or open."""

    def refused(self, answers: int) -> None:
        """So many members refused to answer, or had their answer refused."""
