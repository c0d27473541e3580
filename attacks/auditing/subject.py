"""What an audit needs of a federation: that it gives transcripts. Yours can, if you subclass :class:`Subject`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from attacks.laboratory import asked, replayed
from attacks.public import Query
from attacks.transcript import Shown, Sum, Transcript
from attacks.views import NotInViewError
from codream_secure.methods import Method
from codream_secure.methods.codream import CoDream
from protocols import make_protocol


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


@dataclass(eq=False)
class Recorded:
    """A federation of this toolkit after its last round, which was recorded under its own protection.

    Attributes:
        method: as it is now.
        transcript: of the last round.
        account: of releases before that round, where privacy is claimed.
        answers: to what was asked since, so that the same question is not asked once for each protection.
    """

    method: Method = field(repr=False)
    transcript: Transcript = field(repr=False)
    account: Mapping[str, Any] | None = field(default=None, repr=False)
    answers: list[tuple[Sequence[Query], Transcript]] = field(default_factory=list, repr=False)

    def answer(self, queries: Sequence[Query]) -> Transcript:
        """What passes when a malicious server names the dreams, under the method's own protection."""
        for known, transcript in self.answers:
            if known is queries:
                return transcript
        if not isinstance(self.method, CoDream):
            raise NotInViewError(f"clients of {self.method.name!r} are not asked about dreams")
        transcript = asked(self.method, queries, account=self.account)
        self.answers.append((queries, transcript))
        return transcript


class RecordedSubject(Subject):
    """The same, seen under one protection.

    Args:
        recorded: the federation.
        protection: how rows call it.
        protocol: the protocol that it is to be seen under.
        streams: whose sums probes want; only those are put through another protocol.
    """

    def __init__(self, recorded: Recorded, *, protection: str, protocol: str, streams: Collection[str]) -> None:
        self.protection = protection
        self.recorded = recorded
        self._protocol = protocol
        self._streams = streams

    def transcript(self) -> Transcript:
        return self.under(self.recorded.transcript, self._streams)

    def ask(self, queries: Sequence[Query]) -> Transcript:
        answered = self.recorded.answer(queries)
        if make_protocol(self._protocol).opened_by == "clients":
            # The server learns no sum: one answer says as little as all.
            answered = replace(answered, events=up_to_first_sum(answered))
        return self.under(answered)

    def under(self, transcript: Transcript, streams: Collection[str] | None = None) -> Transcript:
        """A transcript of the federation as it would be under this subject's protection; of those streams, or all."""
        if self._protocol == transcript.protection:
            return transcript
        return replayed(transcript, self.recorded.method, self._protocol, streams=streams)


def up_to_first_sum(transcript: Transcript) -> list[Shown | Sum]:
    """The events until the first sum, that one included."""
    first = next((place for place, event in enumerate(transcript.events) if isinstance(event, Sum)), -1)
    return transcript.events[: first + 1]
