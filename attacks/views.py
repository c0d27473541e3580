"""What each adversary holds of a transcript, and nothing else.

A view is made by copying: it keeps no reference to the transcript, to a client, a channel, a key or a model, so that a
probe cannot reach what its adversary does not have. What a protocol hides is not in the view at all:

* :class:`ServerView`: every message that the server sent or got; single clients' vectors only where messages are
  in clear (``plain``); sums where the server opens them; whatever it handed out.
* :class:`ClientView`: a curious client and those who collude with it: their own vectors, whatever clients were handed
  or computed from sums, and the sums themselves where clients open them.
* :class:`PublicView`: what was published in the end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from attacks.transcript import Arrays, Shown, Sum, Transcript, Vector
from codream_secure.errors import CodreamError
from protocols import SERVER, Envelope, ProtocolError, wire
from protocols.plain import PlainSum

Adversary = Literal["server", "client", "public"]
ADVERSARIES: tuple[Adversary, ...] = ("server", "client", "public")


PUBLISHED = "published"
"""Phase of arrays that everybody gets in the end, such as the weights of a released model."""


class NotInViewError(CodreamError):
    """A probe asked for something that its adversary does not hold under this protocol."""


class UnnamedStreamError(CodreamError):
    """A probe asked for sums that were left out when a round was replayed: a fault of the probe, not of the view."""


@dataclass(frozen=True, kw_only=True)
class SeenSum:
    """What an adversary holds of one sum.

    Attributes:
        stream: what was summed.
        values: how many numbers.
        messages: those that it sent or got, in order.
        vectors: client to its flat float64 vector; of those clients whose vectors it knows.
        mean: what was made of the sum, if it knows that.
        contributors: who was in the sum; empty if it does not know.
    """

    stream: str
    values: int
    messages: tuple[Envelope, ...] = field(repr=False)
    vectors: Mapping[int, Vector] = field(repr=False)
    mean: Vector | None = field(repr=False)
    contributors: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class View:
    """What every kind of view has.

    Attributes:
        protection: name of the protocol, which is public.
        opened_by: who learns sums under it, "server" or "clients".
        clients: how many there are.
        sums: in order.
        arrays: phase and arrays of everything that it was shown, in order.
        left_out: streams whose sums are not here although they passed, because no probe named them.
    """

    protection: str
    opened_by: str
    clients: int
    sums: tuple[SeenSum, ...] = field(repr=False)
    arrays: tuple[tuple[str, Arrays], ...] = field(repr=False)
    left_out: frozenset[str] = frozenset()

    def of(self, stream: str) -> list[SeenSum]:
        """The sums of one stream, in order.

        Raises:
            NotInViewError: there are none.
            UnnamedStreamError: there are, but they were not replayed.
        """
        if stream in self.left_out:
            raise UnnamedStreamError(
                f"sums of {stream!r} were not put through {self.protection!r}: name it in the probe's streams"
            )
        found = [each for each in self.sums if each.stream == stream]
        if not found:
            raise NotInViewError(f"{self._whose} holds no sums of {stream!r} under {self.protection!r}")
        return found

    def vectors(self, stream: str) -> list[Mapping[int, Vector]]:
        """Single clients' vectors of one stream, sum by sum.

        Raises:
            NotInViewError: the protocol hides them.
        """
        found = [each.vectors for each in self.of(stream)]
        if not all(found):
            raise NotInViewError(f"{self._whose} sees no client's {stream!r} under {self.protection!r}")
        return found

    def means(self, stream: str) -> list[Vector]:
        """Opened means of one stream, sum by sum.

        Raises:
            NotInViewError: somebody else opens them.
        """
        found = [each.mean for each in self.of(stream) if each.mean is not None]
        if not found:
            raise NotInViewError(f"{self._whose} does not learn sums of {stream!r} under {self.protection!r}")
        return found

    def shown(self, phase: str) -> list[Arrays]:
        """Arrays of one phase, in order.

        Raises:
            NotInViewError: there are none.
        """
        found = [arrays for name, arrays in self.arrays if name == phase]
        if not found:
            raise NotInViewError(f"{self._whose} holds no {phase!r} under {self.protection!r}")
        return found

    @property
    def _whose(self) -> str:
        return {ServerView: "a server", ClientView: "a client", PublicView: "the public"}.get(type(self), "this view")


@dataclass(frozen=True, kw_only=True)
class ServerView(View):
    """What a curious server holds; of a malicious one, also the answers to what it asked."""

    @classmethod
    def of_transcript(cls, transcript: Transcript) -> ServerView:
        """Copy what the server holds."""
        opens = transcript.opened_by == "server"
        return cls(
            protection=transcript.protection,
            opened_by=transcript.opened_by,
            clients=transcript.clients,
            left_out=transcript.left_out,
            sums=tuple(_seen_by_server(each, transcript, opens=opens) for each in transcript.sums()),
            arrays=_copied(each for each in transcript.events if isinstance(each, Shown) and each.by_server),
        )


@dataclass(frozen=True, kw_only=True)
class ClientView(View):
    """What a curious client holds, with the clients that collude with it.

    Attributes:
        own: their numbers.
    """

    own: tuple[int, ...]

    @classmethod
    def of_transcript(cls, transcript: Transcript, own: Collection[int]) -> ClientView:
        """Copy what these clients hold together."""
        opens = transcript.opened_by == "clients"
        return cls(
            protection=transcript.protection,
            opened_by=transcript.opened_by,
            clients=transcript.clients,
            left_out=transcript.left_out,
            own=tuple(sorted(own)),
            sums=tuple(
                SeenSum(
                    stream=each.stream,
                    values=each.values,
                    messages=tuple(one for one in each.envelopes if {one.sender, one.recipient} & set(own)),
                    vectors={client: vector.copy() for client, vector in each.entered.items() if client in own},
                    mean=each.mean.copy() if opens and each.mean is not None else None,
                    contributors=each.contributors if opens else (),
                )
                for each in transcript.sums()
            ),
            arrays=_copied(each for each in transcript.events if isinstance(each, Shown)),
        )


@dataclass(frozen=True, kw_only=True)
class PublicView(View):
    """What everybody holds in the end."""

    @classmethod
    def of_transcript(cls, transcript: Transcript) -> PublicView:
        """Copy what was published."""
        return cls(
            protection=transcript.protection,
            opened_by=transcript.opened_by,
            clients=transcript.clients,
            sums=(),
            arrays=_copied(transcript.shown(PUBLISHED)),
        )


def view_of(transcript: Transcript, adversary: Adversary, *, own: Collection[int] = (0,)) -> View:
    """The view of one kind of adversary; ``own`` are a client's and its colluders' numbers."""
    if adversary == "server":
        return ServerView.of_transcript(transcript)
    if adversary == "client":
        return ClientView.of_transcript(transcript, own)
    return PublicView.of_transcript(transcript)


def _seen_by_server(one: Sum, transcript: Transcript, *, opens: bool) -> SeenSum:
    mean = one.mean if opens else None
    return SeenSum(
        stream=one.stream,
        values=one.values,
        messages=tuple(each for each in one.envelopes if SERVER in (each.sender, each.recipient)),
        vectors=in_clear(one, transcript) if transcript.protection == PlainSum.name else {},
        mean=None if mean is None else mean.copy(),
        contributors=one.contributors if opens else (),
    )


def in_clear(one: Sum, transcript: Transcript) -> dict[int, Vector]:
    """Client to what its message to the server says, taken for an encoded vector: the encoding is public.

    Under protection that is noise; messages that cannot be such vectors are left out.
    """
    encoding = transcript.streams[one.stream]
    found = {}
    for envelope in one.envelopes:
        if envelope.recipient != SERVER:
            continue
        try:
            message = wire.decode(envelope.message, wire.Contribution, limit=len(envelope.message))
        except ProtocolError:
            continue  # a message of another kind
        found[message.member] = encoding.decode(np.frombuffer(message.ring, dtype=encoding.dtype)).total
    return found


def _copied(shown: Iterable[Shown]) -> tuple[tuple[str, Arrays], ...]:
    return tuple((each.phase, tuple(array.copy() for array in each.arrays)) for each in shown)
