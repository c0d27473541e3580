"""The client's half: a Flower mod that lets nothing of a train or evaluate reply out but into a sum."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import msgspec
from flwr.app import Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod

from codream_secure.flower.contents import layout, records_of, shown_digest, values_digest, weight_of, without
from codream_secure.flower.envelopes import RECORD, Answer, Ask, Kind, MessageRefusedError, OpenedSum, ask_in
from codream_secure.flower.members import CredentialsLoader, Member, from_node_config
from codream_secure.flower.settings import EVALUATE, TRAIN, Protection
from codream_secure.flower.store import Store
from protocols import Credentials, RoundLog, SumClient
from protocols.encoding import EncodingReport

_LOG = logging.getLogger(__name__)


def protected_mod(protection: Protection, *, credentials: CredentialsLoader = from_node_config) -> Mod:
    """A mod for ``ClientApp(mods=[...])``: the app's replies are summed, and seen by nobody.

    Put it first, so that every other mod works on what is not yet protected. Train and evaluate messages that do not
    ask for a protected answer raise and are not answered, whatever the server says.

    Args:
        protection: the same as the server's; it never comes from there.
        credentials: who this node is, from its own configuration.
    """

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        category = message.metadata.message_type.split(".")[0]
        ask = ask_in(message.content)
        if ask is None:
            if category in protection.clear:
                return call_next(message, context)
            raise MessageRefusedError(
                f"a {category} message asks for an answer in clear: this node answers inside protected sums only (the "
                f"server needs Protected(...) around its strategy; evaluate and query may be named in clear)"
            )
        if category not in (TRAIN, EVALUATE):
            raise MessageRefusedError(f"a {category} message asks for a sum: train and evaluate replies are summed")
        member = credentials(context)
        answer = _Node(protection, member, context.run_id).answer(ask, message, context=context, call_next=call_next)
        return Message(answer.content(), reply_to=message)

    return mod


class _Kept(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What is kept of a run between two messages.

    Attributes:
        machine: the sealed machine; None where a round has to begin first.
        contributed: what the latest vector answered, until a message comes that may open it.
        answered: what vectors answered that may have been opened: they are never made again, as the difference of two
            sums of the same vectors is the vector of whoever is in one of them alone.
        released: sums of noisy vectors that this node was asked for, in the whole run.
    """

    machine: bytes | None = None
    contributed: bytes | None = None
    answered: list[bytes] = msgspec.field(default_factory=list)
    released: int = 0


@dataclass
class _Node:
    """One message's worth of a member's life."""

    protection: Protection
    member: Member
    run: int
    kept: _Kept = field(default_factory=_Kept)

    def answer(self, ask: Ask, message: Message, *, context: Context, call_next: ClientAppCallable) -> Answer:
        """Do what is asked. Whatever raises ends this node's part in the round: its machine is gone by then."""
        if ask.kind is Kind.HELLO:
            return Answer(self.member.number)
        store = Store(self.member.folder)
        with store.log() as log:
            stored = store.get(self.run)
            if stored is not None:
                self.kept = _read(stored)
            # What may have been opened, and spent, is remembered through refusals and failures, and when the run ends:
            # it may be taken up again. The machine is not there any more: a state is used once.
            self.kept.released += ask.kind is Kind.STEP and self.protection.dp is not None
            remembered = _Kept(answered=self._may_be_open(ask), released=self.kept.released)
            store.put(self.run, msgspec.msgpack.encode(remembered))
            if ask.kind is Kind.CLOSE:
                return Answer(self.member.number)
            machine, answer = self._act(ask, message, log, context=context, call_next=call_next)
            sealed = self.protection.protocol.suspend_client(machine, self.member.sealing_key())
            self.kept.machine = sealed
            store.put(self.run, msgspec.msgpack.encode(self.kept))
        return answer

    def _may_be_open(self, ask: Ask) -> list[bytes]:
        """What has been answered for good; a message that follows a contribution may open it."""
        if self.kept.contributed is not None and ask.kind in (Kind.RELAY, Kind.TOTAL, Kind.CLOSE):
            self.kept.answered.append(self.kept.contributed)
            self.kept.contributed = None
        return self.kept.answered

    def _act(
        self, ask: Ask, message: Message, log: RoundLog, *, context: Context, call_next: ClientAppCallable
    ) -> tuple[SumClient, Answer]:
        machine = self._machine(ask, log)
        answers = [answer for frame in ask.frames if (answer := machine.receive(frame)) is not None]
        match ask.kind:
            case Kind.OPEN | Kind.RELAY:
                return machine, Answer(self.member.number, b"".join(answers[-1:]))
            case Kind.TOTAL:
                return machine, Answer(self.member.number, opened=_told(machine))
            case Kind.STEP:
                frame = self._contribution(machine, message, context=context, call_next=call_next)
                return machine, Answer(self.member.number, frame)
            case _:
                raise MessageRefusedError(f"a message of kind {ask.kind.value!r} has no place here")

    def _machine(self, ask: Ask, log: RoundLog) -> SumClient:
        protocol, terms = self.protection.protocol, self.protection.terms
        own = Credentials(identity=self.member.identity, roster=self.member.roster, rounds=log)
        if ask.kind is Kind.OPEN:
            # An earlier round, if one is open, ends here: a server that follows the protocol has given up what is not
            # open yet. (Facing any other, what was contributed counts as open from the beginning.)
            self.kept.machine = self.kept.contributed = None
            return protocol.client(self.member.number, terms=terms, credentials=own)
        if self.kept.machine is None:
            raise MessageRefusedError(
                "this node is not part of a round: it refused or failed at an earlier message, or the state was lost"
            )
        return protocol.resume_client(self.kept.machine, self.member.sealing_key(), terms=terms, credentials=own)

    def _contribution(
        self, machine: SumClient, message: Message, *, context: Context, call_next: ClientAppCallable
    ) -> bytes:
        stream = message.metadata.message_type.split(".")[0]
        if stream not in self.protection.terms.streams:
            raise MessageRefusedError(f"{stream} replies are not summed by this node's settings")
        releases = self.protection.releases()
        if not releases.fits({stream: self.kept.released}):
            # The server counts too. A node does not depend on it.
            raise MessageRefusedError(
                f"sum {self.kept.released} of this run is beyond what was planned or budgeted for: nothing is sent"
            )
        shown = without(message.content, RECORD)
        vectors = layout(shown, self.protection, stream)
        question = self._question(shown, stream)
        if question in self.kept.answered:
            raise MessageRefusedError(
                f"this node has answered a {stream} message with the same arrays before, in a sum that may be open: "
                "two sums of the same vectors could tell one of them; change the arrays, or begin a new run"
            )
        message.content = shown
        reply = call_next(message, context)
        if reply.has_error():
            raise MessageRefusedError(f"the app's function answered with error {reply.error.code}: nothing is summed")
        arrays, metrics = records_of(reply.content, stream)
        self._note_dropped(reply.content, vectors.metrics, stream)
        vector = vectors.vector(arrays, metrics)
        frame = machine.contribute(
            releases.contribution(vector, stream, bound=self.protection.clip),
            stream=stream,
            weight=weight_of(metrics, self.protection.weight_key) if self.protection.dp is None else None,
            context=shown_digest(shown, self.protection.digest(), stream),
        )
        if machine.report is not None and machine.report.clipped:
            _LOG.warning(*self._shortened(machine.report, stream))
        if self.protection.active:
            # A server that deviates may have the sum opened by the others, and say that it failed.
            self.kept.answered.append(question)
        else:
            self.kept.contributed = question
        return frame

    def _shortened(self, report: EncodingReport, stream: str) -> tuple[object, ...]:
        bound = self.protection.clip if stream == TRAIN else 1.0
        if self.protection.dp is not None:
            return "member %d: the update was shortened to an L2 norm of %g", self.member.number, bound
        share = 100 * report.clipped_fraction
        return "member %d: %.3g %% of the values were clipped to the bound of %g", self.member.number, share, bound

    @staticmethod
    def _question(shown: RecordDict, stream: str) -> bytes:
        """What a vector is an answer to, rounds and configurations aside: training may not depend on those.

        By value: a server that writes the same numbers down in another way asks the same.
        """
        arrays = b"".join(values_digest(record) for _, record in sorted(shown.array_records.items()))
        return stream.encode() + b"\0" + arrays

    def _note_dropped(self, content: RecordDict, summed: dict[str, float], stream: str) -> None:
        found = {key for record in content.metric_records.values() for key in record}
        dropped = sorted(found - summed.keys() - {self.protection.weight_key}) + sorted(content.config_records)
        if dropped:
            _LOG.warning(
                "%s: not in the sum, and so not sent: %s (name metrics with their bounds in Protection)",
                stream,
                ", ".join(dropped),
            )


def _read(stored: bytes) -> _Kept:
    try:
        return msgspec.msgpack.decode(stored, type=_Kept)
    except msgspec.MsgspecError:
        raise MessageRefusedError(
            "what this node kept of the run is damaged, and so is what it has answered: it is out until the next run"
        ) from None


def _told(machine: SumClient) -> bytes:
    """The sum that this client opened, for the server."""
    result: Any = machine.result()
    ring = result.ring.tobytes()
    return msgspec.msgpack.encode(OpenedSum(result.step, list(result.contributors), ring))
