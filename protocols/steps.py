"""What is the same in every protocol about a step: who may be asked for what, and who has answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from protocols.encoding import Encoded, FixedPoint, Ring, Values
from protocols.errors import (
    CohortError,
    ContributionError,
    MessageError,
    PeerKeyError,
    PhaseError,
    RosterError,
    SenderError,
    StepError,
    TermsError,
    TooFewSurvivorsError,
)
from protocols.keys import Roster, advertisement, context_digest, request_context
from protocols.machines import SumResult
from protocols.terms import Terms, check_cohort
from protocols.wire import Advertise, Ciphertexts, Contribution, Offer, PublicKey, StepRequest, encode


def check_offer(offer: Offer, member: int, terms: Terms, protocol: str) -> tuple[int, ...]:
    """The offered cohort, if this member can take part.

    Raises:
        TermsError: the server goes by other terms or another protocol, or the cohort is too small or too large.
        CohortError: the member is not in the cohort, or the cohort is none.
    """
    if offer.terms != terms.digest(protocol):
        raise TermsError("the server offers a round under other terms, or another protocol, than this client's")
    cohort = check_cohort(offer.cohort)
    if member not in cohort:
        raise CohortError(f"member {member} is not in the cohort that it was offered")
    terms.survivors(len(cohort))
    return cohort


def check_roster(cohort: Sequence[int], terms: Terms, roster: Roster) -> None:
    """Return if a member whose server chooses this cohort may take part in it.

    Raises:
        TermsError: facing an active server, the cohort is not the whole roster and the terms do not allow less.
        RosterError: somebody is not on the roster.
    """
    if terms.active and terms.min_cohort is None and len(cohort) < len(roster):
        raise TermsError(
            f"the cohort has {len(cohort)} of {len(roster)} members on the roster: an active server that chooses the "
            "cohort chooses its share of colluders; set min_cohort if that is intended"
        )
    for member in cohort:
        if member not in roster:
            raise RosterError(f"member {member} of the offered cohort is not on the roster")


class ClientSteps:
    """A client's side: steps only go up, and each is answered with one vector of what was asked for."""

    def __init__(self, terms: Terms, last: int = -1) -> None:
        self._terms = terms
        self.last = last
        """The latest step that was asked for."""
        self.pending: StepRequest | None = None
        """The request that has not been answered yet."""

    def accept(self, request: StepRequest) -> None:
        """Take a request; an older one that was not answered is over.

        Raises:
            StepError: the step is over or beyond those that were set up.
            PhaseError: a stream that is not in the terms, or more values than they allow.
        """
        if request.step <= self.last:
            raise StepError(f"step {request.step} is over: step {self.last} has been asked for")
        if request.step >= self._terms.steps:
            raise StepError(f"step {request.step} is beyond the {self._terms.steps} that were set up")
        if request.stream not in self._terms.streams:
            raise PhaseError(f"stream {request.stream!r} is not in the terms: {', '.join(self._terms.streams)}")
        if request.values > self._terms.max_values:
            raise PhaseError(f"{request.values} values were asked for: the terms allow {self._terms.max_values}")
        self.last = request.step
        self.pending = request

    def encode(self, values: Values, *, stream: str, weight: int | None, context: bytes) -> tuple[StepRequest, Encoded]:
        """This client's vector for the pending request, encoded and with its noise. The request stays pending.

        Noise is added to the values and not to the weight.

        Raises:
            PhaseError: there is none, or it is for another stream or context.
            ContributionError: the vector cannot be encoded, or has another length.
        """
        request = self.pending
        if request is None:
            raise PhaseError("no vector has been asked for, or it was handed over already")
        if stream != request.stream:
            raise PhaseError(f"stream is {stream!r}, where the server asks for {request.stream!r}")
        if isinstance(values, np.ndarray) and values.size != request.values:
            raise ContributionError(f"values has {values.size} values, where the server asks for {request.values}")
        if context_digest(context) != request.context:
            raise PhaseError("the server asks about something else than this client was shown: the contexts differ")
        encoded = self._terms.streams[stream].encode(values, weight=weight)
        clear = encoded.ring[: request.values]
        noised = self._terms.noise.add(clear)
        if noised is not clear:
            clear[:] = noised
        return request, encoded


class Collection:
    """A server's side of one step: asks for contributions, and knows who has given one.

    Args:
        terms: of the round.
        step: its number.
        stream: its stream's name.
        values: how many values each vector has.
        context: what the vectors answer.
        members: who is part of the round.
        survivors: how many of them must contribute.
        exactly: those of them who are asked, and must all contribute; None asks everybody.

    Raises:
        StepError: all steps that were set up are used.
        TermsError: there is no such stream, or too many values.
        CohortError: ``exactly`` names somebody else, or fewer than ``survivors``.
    """

    def __init__(
        self,
        terms: Terms,
        step: int,
        stream: str,
        *,
        values: int,
        context: bytes,
        members: Iterable[int],
        survivors: int,
        exactly: Iterable[int] | None = None,
    ) -> None:
        self.step = step
        self.stream = stream
        self.encoding = _encoding(terms, step, stream, values)
        self.values = values
        self.context = context_digest(context)
        self.request = request_context(step, stream, values, self.context)
        """What the step asks for."""
        self.members = frozenset(members if exactly is None else exactly)
        if not self.members.issubset(members):
            raise CohortError("exactly names somebody who is not part of this round")
        self.needed = survivors if exactly is None else len(self.members)
        """How many must contribute."""
        if self.needed < survivors:
            raise CohortError(f"exactly names {self.needed} members: no sum of fewer than {survivors} is opened")
        self.contributors: set[int] = set()

    def ask(self, round_id: bytes) -> dict[int, bytes]:
        """The request, by the member it is for."""
        request = encode(StepRequest(round_id, self.step, self.stream, self.values, self.context))
        return dict.fromkeys(sorted(self.members), request)

    def check(self, sender: int, message: Contribution | Ciphertexts) -> None:
        """Return if this member's contribution is expected.

        Raises:
            SenderError: a stranger, somebody else's name, or a second contribution.
            StepError: of another step.
        """
        check_sender(sender, message.member, self.members - self.contributors)
        if message.step != self.step:
            raise StepError(f"member {sender} contributed to step {message.step}, this is step {self.step}")


class RingCollection(Collection):
    """A collection of vectors in the ring, added up as they arrive; see :class:`Collection`."""

    @cached_property
    def total(self) -> Ring:
        """The sum so far."""
        return np.zeros(self.encoding.length(self.values), dtype=self.encoding.dtype)

    @property
    def frame_limit(self) -> int:
        """Longest frame that a contribution can take."""
        return 64 + self.total.nbytes

    def add(self, sender: int, message: Contribution) -> None:
        """Add one member's vector.

        Raises:
            SenderError: a stranger, somebody else's name, or a second contribution.
            StepError: of another step.
            MessageError: of another length.
        """
        self.check(sender, message)
        if message.ring.nbytes != self.total.nbytes:
            raise MessageError(
                f"member {sender} contributed {message.ring.nbytes} bytes, where {self.total.nbytes} are expected"
            )
        np.add(self.total, np.frombuffer(message.ring, dtype=self.total.dtype), out=self.total)
        self.contributors.add(sender)


def _encoding(terms: Terms, step: int, stream: str, values: int) -> FixedPoint:
    """The encoding of a step that a server is about to begin, if the terms allow it."""
    if step >= terms.steps:
        raise StepError(f"all {terms.steps} steps of this round are used: begin a new round")
    if stream not in terms.streams:
        raise TermsError(f"stream {stream!r} is not in the terms: {', '.join(terms.streams)}")
    if not 0 <= values <= terms.max_values:
        raise TermsError(f"values is {values}: the terms allow 0 to {terms.max_values}")
    return terms.streams[stream]


def check_sender(sender: int, named: int, expected: Iterable[int]) -> None:
    """Return if a message comes from whom it names, and that member is expected.

    Raises:
        SenderError: it does not.
    """
    if sender not in expected:
        raise SenderError(f"a message from {sender}, who is not expected to answer now (or has done so already)")
    if sender != named:
        raise SenderError(f"a message from {sender} speaks for {named}")


def check_advertised(key: Advertise | PublicKey, *, session: bytes, roster: Roster) -> None:
    """Return if a key was advertised for this round by whom it names.

    Raises:
        PeerKeyError: the signature is not theirs.
        RosterError: they are not on the roster.
    """
    try:
        roster.verify(key.member, key.signature, advertisement(session, key.member, key.public_key))
    except PeerKeyError as error:
        raise PeerKeyError(
            f"{error}, or was made for another round, or under another roster or other terms: compare the digests of "
            "both with that party's"
        ) from None


def contribution(round_id: bytes, member: int, step: int, ring: Ring) -> bytes:
    """A protected vector as a message."""
    return encode(Contribution(round_id, member, step, ring.data.cast("B")))


def finished(collected: Collection, ring: Ring) -> SumResult:
    """The result of a step whose sum, in the ring, is known."""
    total, weight = collected.encoding.decode(ring)
    return SumResult(
        total=total, weight=weight, contributors=tuple(sorted(collected.contributors)), ring=ring, step=collected.step
    )


def too_few(survivors: int, needed: int) -> TooFewSurvivorsError:
    """The one error that every side ends with when a step or round is given up for want of members."""
    return TooFewSurvivorsError(f"{survivors} members are left, where {needed} are needed: the sum is not opened")
