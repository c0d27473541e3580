"""A server that asks the same question twice, for sums over other members, gets one of the two."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codream_secure.deployment.consents import Consents
from codream_secure.deployment.conversation import Conversation
from codream_secure.deployment.events import Began, RoundLostError
from codream_secure.deployment.streams import Shown
from codream_secure.deployment.streams.calls import (
    Answer,
    Ask,
    Begin,
    Call,
    End,
    Refusal,
    Relay,
    decode_downward,
    encode,
    first_context,
    next_context,
    show,
)
from codream_secure.deployment.talking_member import TalkingMember
from protocols import (
    AlreadyAnsweredError,
    Credentials,
    FixedPoint,
    Identity,
    PhaseError,
    Roster,
    RoundLog,
    SumResult,
    Terms,
    make_protocol,
)
from protocols.machines import Outbox, Phase

MEMBERS = range(4)
STREAM = "dream_updates"
VALUES = 5
SHOWN = np.arange(3, dtype=np.float32)
MASKED = make_protocol("masked")


class Party:
    """A member and its method, in a thread of its own."""

    def __init__(self, number: int, server: Server, folder: Path | None) -> None:
        self._conversation = Conversation(None if folder is None else Consents(folder / str(number)))
        self._server = server
        self._vector = np.full(VALUES, 0.5 + number, np.float32)
        self.member = TalkingMember(
            number,
            self._conversation,
            protocol=MASKED,
            terms=server.terms,
            credentials=Credentials(identity=server.identities[number], roster=server.roster, rounds=RoundLog()),
        )
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while isinstance(self._conversation.next(), Began):
            if self._server.number is not None:
                self._conversation.enter(self._server.number, base=self._server.base)
            try:
                while True:
                    self._conversation.show()
                    self._conversation.contribute(STREAM, len(self._vector), lambda: self._vector)
            except RoundLostError:
                pass

    def hear(self, call: Call) -> object:
        message = encode(call)
        return self.member.handle(decode_downward(message), message)  # type: ignore[arg-type]


class Server:
    """One that asks whatever it likes."""

    def __init__(self, active: bool, folder: Path | None = None) -> None:
        self.identities = {number: Identity.generate() for number in MEMBERS}
        self.roster = Roster({number: identity.public_key for number, identity in self.identities.items()})
        streams = {STREAM: FixedPoint(clip=4.0, clients=4)}
        self.terms = Terms(streams=streams, steps=8, dropout=0.25, corruption=0.25, active=active, min_cohort=4)
        self.number: int | None = None
        self.base = 0
        self.folder = folder
        self.refusals: list[str] = []
        self.start()

    def start(self) -> None:
        """All members as new processes."""
        self.parties = {number: Party(number, self, self.folder) for number in MEMBERS}

    def say(self, call: Call) -> None:
        for party in self.parties.values():
            party.hear(call)

    def begin(self) -> None:
        self._round_id = os.urandom(16)
        self.say(Begin(self._round_id))
        self._context = first_context(self._round_id)
        self._machine = MASKED.server(list(MEMBERS), terms=self.terms, round_id=self._round_id, roster=self.roster)
        self._drive(self._machine.open(), ())

    def end(self) -> None:
        self.say(End(self._round_id, "over"))

    def show(self, array: np.ndarray) -> None:
        call = show("dreams", [array])
        self._context = next_context(self._context, encode(call))
        self.say(call)

    def ask(self, *, without: tuple[int, ...] = ()) -> SumResult | None:
        """The sum over all but some; None if the others do not open it."""
        asked = self._machine.request(STREAM, VALUES, context=self._context)
        self._drive(asked, without, lambda message: Ask(1, STREAM, VALUES, memoryview(message)))
        return None if self._machine.failure else self._machine.result()

    def _drive(
        self,
        outbox: Outbox,
        without: tuple[int, ...],
        make: Callable[[bytes], Call] = lambda message: Relay(1, memoryview(message)),
    ) -> None:
        while True:
            for number, message in outbox.items():
                answer = None if number in without else self.parties[number].hear(make(message))
                if isinstance(answer, Answer):
                    self._machine.receive(number, bytes(answer.message))
                elif isinstance(answer, Refusal):
                    self.refusals.append(answer.reason)
            if self._machine.phase in (Phase.READY, Phase.CLOSED):
                return
            outbox, make = self._machine.advance(), lambda message: Relay(1, memoryview(message))


@pytest.fixture(params=[False, True], ids=["passive", "active"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    return Server(request.param, tmp_path)


def refused(server: Server) -> bool:
    return sum("over other members" in reason for reason in server.refusals) == len(MEMBERS) - 1


def test_a_question_that_is_repeated_in_a_round_is_answered_for_the_same_members_alone() -> None:
    server = Server(active=True)
    server.begin()
    server.show(SHOWN)
    first = server.ask()
    assert first is not None
    assert server.ask(without=(3,)) is None
    assert refused(server)


def test_the_same_question_for_the_same_members_is_answered_again(server: Server) -> None:
    server.number = 1
    totals = []
    for _ in range(2):
        server.begin()
        server.show(SHOWN)
        totals += [server.ask(without=(3,)), server.ask(without=(3,))]
        server.end()
        server.start()
    assert not server.refusals
    for total in totals:
        assert total is not None
        assert total.contributors == (0, 1, 2)


@pytest.mark.parametrize("anew", [False, True], ids=["same processes", "new processes"])
def test_a_round_that_is_begun_again_opens_no_other_sum(server: Server, anew: bool) -> None:
    server.number = 1
    server.begin()
    server.show(SHOWN)
    assert server.ask() is not None
    server.end()
    if anew:
        server.start()
    server.begin()
    server.show(SHOWN)
    assert server.ask(without=(3,)) is None
    assert refused(server)


def test_another_number_for_the_same_question_makes_it_no_new_one(server: Server) -> None:
    for number, without in ((5, ()), (6, (3,))):
        server.number = number
        server.begin()
        server.show(SHOWN)
        found = server.ask(without=without)
        server.end()
    assert found is None
    assert refused(server)


def test_a_change_of_one_unit_in_the_last_place_does_not_either(server: Server) -> None:
    server.number = 1
    for array, without in ((SHOWN, ()), (np.nextafter(SHOWN, np.float32(9)), (3,))):
        server.begin()
        server.show(array)
        found = server.ask(without=without)
        server.end()
    assert found is None
    assert refused(server)


def test_the_next_question_is_answered_for_other_members(server: Server) -> None:
    server.number = 1
    server.begin()
    server.show(SHOWN)
    assert server.ask() is not None
    server.show(SHOWN + 1)
    assert server.ask(without=(3,)) is not None
    assert not server.refusals


def test_zeros_of_another_sign_are_the_same_question() -> None:
    server = Server(active=False)
    for array, without in ((np.zeros(3, np.float32), ()), (-np.zeros(3, np.float32), (3,))):
        server.begin()
        server.show(array)
        found = server.ask(without=without)
        server.end()
    assert found is None


def test_what_is_shown_and_not_used_makes_no_new_question() -> None:
    conversation = Conversation()
    found = []
    for buffer in ([], [Shown(phase="buffer", tensors=[SHOWN])]):
        for event in buffer:
            conversation.put(event)
            conversation.show()
        conversation.enter(3, base=2)
        found.append(conversation._questions(STREAM))
    assert found[0] == found[1]
    conversation.enter(3, base=2, buffer=Shown(phase="buffer", tensors=[SHOWN]))
    assert len(conversation._questions(STREAM)) == 2


def test_consents_last_as_long_as_the_state_they_follow_from(tmp_path: Path) -> None:
    consents = Consents(tmp_path / "consents")
    for base in (1, 2):
        consents.agree(base, [b"question"], survivors=(0, 1, 2))
    consents.forget(2)
    again = Consents(tmp_path / "consents")
    again.agree(1, [b"question"], survivors=(0, 1))
    with pytest.raises(AlreadyAnsweredError, match="exactly the same members"):
        again.agree(2, [b"another", b"question"], survivors=(0, 1))
    again.agree(2, [b"another"], survivors=(0, 1))


def test_a_damaged_consent_refuses(tmp_path: Path) -> None:
    consents = Consents(tmp_path)
    consents.agree(1, [b"question"], survivors=(0, 1, 2))
    (path,) = (tmp_path / "000001").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"")
    with pytest.raises(AlreadyAnsweredError):
        consents.agree(1, [b"question"], survivors=(0, 1, 2))


def test_nothing_is_opened_before_there_is_a_vector() -> None:
    with pytest.raises(PhaseError, match="no vector"):
        Conversation().agree((0, 1))
