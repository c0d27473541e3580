"""A member's end: one packet in, one reply out, and everything in between is gone when the program ends.

What needs the method (a vector that was not asked for before, the end of a round) makes a
:class:`~codream_secure.deployment.learner.Learner`, with images and model; half of all messages need the sum's machine
alone.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from codream_secure.deployment.carriage import MakeMember
from codream_secure.deployment.consents import Consents
from codream_secure.deployment.conversation import Conversation, Standing
from codream_secure.deployment.events import Began, Event, Gone, Paused
from codream_secure.deployment.files import own_private_folder
from codream_secure.deployment.heading import FINISHED, OVER
from codream_secure.deployment.messages.correspondence import MESSAGES, Correspondence, Kept
from codream_secure.deployment.messages.packets import Unpacked, reply, unpack
from codream_secure.deployment.storage import StoredRoundLog
from codream_secure.deployment.streams import Limits, Member
from codream_secure.deployment.streams.calls import Answer, Ask, Begin, Downward, End, Show, Upward, encode
from codream_secure.deployment.streams.member import Suspended
from codream_secure.deployment.talking_member import TalkingMember
from codream_secure.deployment.training import TrainingTerms
from protocols import Credentials, Identity, Roster, RoundLog

if TYPE_CHECKING:
    from codream_secure.deployment.learner import Learner

_LOG = logging.getLogger(__name__)
_SEALING = b"codream-secure message key v1\0"
Calls = Sequence[tuple[Downward, memoryview]]


class Respondent:
    """One client, for as long as one message takes.

    Args:
        training: the terms.
        number: the client's.
        identity: its key pair.
        roster: everybody's public keys.
        state: its folder; made if it is not there, and gone on from if it is.
        make_learner: makes the client's learner, with the same folder, around a carriage.
        limits: of packets; the server's.

    Raises:
        IdentityError: the folder cannot be made, belongs to somebody else, or others have a right to it.
    """

    def __init__(
        self,
        training: TrainingTerms,
        number: int,
        *,
        identity: Identity,
        roster: Roster,
        state: Path,
        make_learner: Callable[[Delivered], Learner],
        limits: Limits | None = None,
    ) -> None:
        own_private_folder(state)
        self._training = training
        self._number = number
        self._identity = identity
        self._roster = roster
        self._state = state
        self._make_learner = make_learner
        self._limits = limits or Limits()
        self._key = hmac.digest(identity.private_bytes(), _SEALING, "sha256")
        self._correspondence = Correspondence(state / MESSAGES, key=self._key)

    def answer(self, message: bytes) -> bytes:
        """The reply to a packet. Whatever raises ends this client's part in the round.

        Raises:
            FrameError: the packet is malformed.
            ConfigError, DesyncError, CheckpointError, BudgetExceededError, StorageError: as for :meth:`Learner.run`.
            RoundReuseError: another message is being dealt with.
        """
        packet = unpack(message, limits=self._limits)
        calls = packet.calls
        # The log's lock is held for as long as the message takes.
        with contextlib.closing(StoredRoundLog(self._state / "rounds.log")) as log:
            kept = self._entered(packet, log)
            if kept is None:
                return reply(out=True)
            answer, left = (self._live if _needs_method(kept, calls) else self._relay)(kept, calls, log)
            last, _ = calls[-1]
            if isinstance(last, End):
                self._correspondence.forget()
                lost = last.reason in (FINISHED, OVER) and not left.done
            else:
                self._correspondence.add(kept.position, [call for call, _ in calls], given=isinstance(answer, Answer))
                self._correspondence.write(left)
                lost = left.suspended is None
        return reply(b"" if answer is None else encode(answer), out=lost)

    def _entered(self, packet: Unpacked, log: RoundLog) -> Kept | None:
        """The round that the packet goes on with, taken off the disk; None if it is not the next of that round."""
        begins = isinstance(packet.calls[0][0], Begin)
        if begins:
            if packet.round_id in log:
                _LOG.warning("member %d has taken part in the round before that this message begins", self._number)
                return None
            if not self._training.protocol.needs_credentials:
                # Where the machine itself claims no round.
                log.claim(packet.round_id)
            kept = Kept(packet.round_id, 0, None, None, False)
        else:
            found = self._correspondence.read()
            if found is None or (found.round_id, found.position) != (packet.round_id, packet.position):
                _LOG.warning("member %d has not had what comes before this message", self._number)
                return None
            if found.suspended is None:
                _LOG.warning("member %d has left the round: an earlier message was not dealt with", self._number)
                return None
            kept = found
        if begins:
            self._correspondence.forget()
        taken = packet.position + len(packet.calls)
        self._correspondence.write(Kept(kept.round_id, taken, None, kept.standing, kept.done))
        return Kept(kept.round_id, taken, kept.suspended, kept.standing, kept.done)

    def _relay(self, kept: Kept, calls: Calls, log: RoundLog) -> tuple[Upward | None, Kept]:
        """What the machine answers by itself, or with the latest vector."""
        conversation = Conversation(Consents(self._state / "consents"))
        standing = kept.standing
        if standing is not None:
            conversation.stand(standing)
        member = Member(
            self._number,
            protocol=self._training.protocol,
            terms=self._training.sums,
            credentials=Credentials(identity=self._identity, roster=self._roster, rounds=log),
            # The same question once more, so what it is opened under is the same.
            compute=lambda asked: None if standing is None else np.frombuffer(standing.vector, np.float32),
            on_masking=self._spend if self._training.config.dp.on else None,
            on_opening=conversation.agree,
        )
        if kept.suspended is not None:
            member.resume(kept.suspended, self._key)
        answer = _last_answer(member, calls)
        if standing is not None and any(isinstance(call, Show) for call, _ in calls):
            standing = Standing(standing.number, standing.asked, "", b"")
        return answer, Kept(kept.round_id, kept.position, member.suspend(self._key), standing, kept.done)

    def _spend(self, stream: str, values: int) -> None:
        """Count the latest vector once more, for it gets fresh noise. The learner that gave it has made the account."""
        # It loads torch, as the method does.
        from codream_secure.deployment.account import Account

        account = Account(self._training, self._state)
        account.open_again()
        account.spend(stream, values)

    def _live(self, kept: Kept, calls: Calls, log: RoundLog) -> tuple[Upward | None, Kept]:
        """What the method answers, after it has lived through the round so far."""
        delivered = Delivered(
            identity=self._identity,
            roster=self._roster,
            log=log,
            kept=kept,
            events=() if isinstance(calls[0][0], Begin) else self._correspondence.events(),
            calls=calls,
            key=self._key,
        )
        learner = self._make_learner(delivered)
        learner.run()
        if delivered.failure is not None:
            raise delivered.failure
        standing = delivered.standing
        done = standing.number is not None and learner.finished >= standing.number
        return delivered.answer, Kept(kept.round_id, kept.position, delivered.suspended, standing, done)


class Delivered:
    """A carriage for a learner that lives for one packet.

    Args:
        identity: the client's key pair.
        roster: everybody's public keys.
        log: its memory of rounds, open.
        kept: the round before the packet; its member is used up.
        events: what the method has lived through in it since it began.
        calls: of the packet.
        key: 32 bytes, of what is suspended.

    Attributes:
        answer: to the last call that has one.
        suspended: the member after the packet; None if its round is over.
        standing: of the method's conversation after the packet.
        failure: what went wrong, whether or not the learner had any use for what was to come.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        roster: Roster,
        log: RoundLog,
        kept: Kept,
        events: Iterable[Event],
        calls: Calls,
        key: bytes,
    ) -> None:
        self.identity = identity
        self.roster = roster
        self._log = log
        self._kept = kept
        self._events = events
        self._calls = calls
        self._key = key
        self.answer: Upward | None = None
        self.suspended: Suspended | None = None
        self.standing = Standing(None, None, "", b"")
        self.failure: BaseException | None = None

    @contextlib.contextmanager
    def carry(self, make_member: MakeMember, conversation: Conversation, *, folder: Path) -> Iterator[None]:
        """See :class:`~codream_secure.deployment.carriage.Carriage`."""
        member = make_member(self._log)
        if self._kept.standing is not None:
            # However far the method gets in the meantime, what is opened is what was masked.
            conversation.stand(self._kept.standing)

        def work() -> None:
            try:
                self._work(member, conversation)
                conversation.put(Paused())
            except BaseException as error:
                # Raised again by whoever waits for an event, and by whoever made this.
                self.failure = error
                conversation.put(Gone(error))

        thread = threading.Thread(target=work, name="packet", daemon=True)
        thread.start()
        try:
            yield
        finally:
            conversation.close()
            thread.join()
            self.standing = conversation.standing()

    def _work(self, member: TalkingMember, conversation: Conversation) -> None:
        if self._kept.suspended is not None:
            conversation.put(Began())
            member.resume(self._kept.suspended, self._key)
        for event in self._events:
            conversation.put(event)
        self.answer = _last_answer(member, self._calls)
        self.suspended = member.suspend(self._key)


def _last_answer(member: Member, calls: Calls) -> Upward | None:
    """Have a member take these calls; its answer to the last of them that has one.

    Raises:
        BudgetExceededError: a vector is asked for that the privacy budget does not cover.
        StorageError: it cannot be written that one is given.
    """
    answer = None
    for call, message in calls:
        answer = member.handle(call, message) or answer
    if member.failure is not None:
        raise member.failure
    return answer


def _needs_method(kept: Kept, calls: Calls) -> bool:
    """Whether a vector is asked for that is not the latest once more, or there is a round to be finished.

    A question or an end is the last call of its packet.
    """
    standing, (last, _) = kept.standing, calls[-1]
    shows = any(isinstance(call, Show) for call, _ in calls)
    if isinstance(last, Ask):
        latest = None if standing is None else (standing.stream, len(standing.vector) // np.float32().nbytes)
        return shows or latest != (last.stream, last.values)
    finished = isinstance(last, End) and last.reason in (FINISHED, OVER)
    return finished and not kept.done and (shows or standing is not None)
