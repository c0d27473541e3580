"""What an audit needs of a federation: that it gives transcripts. Yours can, if you subclass :class:`Subject`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from attacks.laboratory import asked, replayed
from attacks.public import Query
from attacks.transcript import Transcript
from attacks.views import NotInViewError
from codream_secure.methods import Method
from codream_secure.methods.codream import CoDream


class Subject(ABC):
    """One federation that was trained on the members among the candidates.

    Attributes:
        protection: how rows call it.
    """

    protection: str

    @abstractmethod
    def transcript(self) -> Transcript:
        """What passed, recorded where bytes were handed over."""

    def ask(self, queries: Sequence[Query]) -> Transcript:
        """What passes when a malicious server names the dreams.

        Raises:
            NotInViewError: this federation cannot be asked.
        """
        raise NotInViewError("this federation takes no questions: it was only recorded")


class RecordedSubject(Subject):
    """A federation of this toolkit after its last round, which was recorded.

    Args:
        method: as it is now.
        transcript: of the last round, under the method's own protection.
        protection: how rows call it.
        protocol: the protocol that it is to be seen under.
        streams: whose sums probes want; only those are put through another protocol.
    """

    def __init__(
        self, method: Method, transcript: Transcript, *, protection: str, protocol: str, streams: Sequence[str]
    ) -> None:
        self.protection = protection
        self._method = method
        self._recorded = transcript
        self._protocol = protocol
        self._streams = streams

    def transcript(self) -> Transcript:
        if self._protocol == self._recorded.protection:
            return self._recorded
        return replayed(self._recorded, self._method, self._protocol, streams=self._streams)

    def ask(self, queries: Sequence[Query]) -> Transcript:
        if not isinstance(self._method, CoDream):
            raise NotInViewError(f"clients of {self._method.name!r} are not asked about dreams")
        return asked(self._method, queries, self._protocol)


def plain_settings(config: Any) -> dict[str, Any]:
    """A configuration as plain values by section."""
    return dict(config.model_dump(mode="json"))
