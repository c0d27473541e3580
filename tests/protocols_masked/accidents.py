"""Random schedules: real machines over a network that does everything that networks do."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocols import MessageError, Phase, PhaseError, ProtocolError, TooFewSurvivorsError, wire
from protocols.masked_client import MaskedClient
from protocols.masked_server import MaskedServer

Make = Callable[..., Any]

STEPS = 8
SNAPSHOT_KEY = bytes(range(32))
CHOICES = st.integers(0, 2**16)
ORDER = st.randoms(use_true_random=False)
WHO = st.sampled_from([3, 7, 8, 20, 41])
LOST = st.sampled_from([(), (), (), (3,), (20,), (41,), (7, 41)])
"""Mostly few enough for a sum to be opened."""


def read(message: bytes) -> Any:
    return wire.decode(message, wire.Message, limit=len(message))


class Envelope(NamedTuple):
    """Bytes on their way between the server and one member."""

    member: int
    message: bytes


class Accidents(RuleBasedStateMachine):
    """An honest server and honest clients over a network that may do anything but repair what it damaged."""

    def __init__(self, make: Make, active: bool, tally: Counter[str]) -> None:
        super().__init__()
        self.tally = tally
        self.cohort = make(active=active, steps=STEPS, values=3)
        self.active = active
        self.needed = self.cohort.topology.survivors
        self.down: list[Envelope] = []
        self.up: list[Envelope] = []
        self.old: list[tuple[bool, Envelope]] = []
        """Everything that was ever sent, and whether it went down."""
        self.completed: dict[int, frozenset[int]] = {}
        """Who completed the set-up, as each client was told."""
        self.exactly: tuple[int, ...] | None = None
        """Whom the present step has to sum, if not just whoever is left."""
        self.contributed: set[tuple[int, int]] = set()
        self.voted: dict[tuple[int, int], tuple[int, ...]] = {}
        self.opened: dict[tuple[int, int], tuple[int, ...]] = {}

    # What the machines do

    def send(self, outbox: dict[int, bytes]) -> None:
        for member, message in outbox.items():
            self.down.append(Envelope(member, message))
            self.old.append((True, self.down[-1]))

    def give_client(self, envelope: Envelope) -> None:
        """Deliver to a client, hold what it says against all that it may say, and put that on its way."""
        try:
            answer = self.cohort.clients[envelope.member].receive(envelope.message)
        except ProtocolError:
            return
        received = read(envelope.message)
        if isinstance(received, wire.Inbox):
            self.completed[envelope.member] = frozenset(received.members)
        if answer is not None:
            self.check_answer(envelope.member, received, read(answer))
            self.put_up(envelope.member, answer)

    def put_up(self, member: int, answer: bytes) -> None:
        self.up.append(Envelope(member, answer))
        self.old.append((False, self.up[-1]))

    def check_answer(self, member: int, received: wire.Message, answer: wire.Message) -> None:
        match received, answer:
            case (wire.Offer(), wire.Advertise()) | (wire.Keys(), wire.Shares()):
                pass
            case wire.OpenRequest(step=step, dead=dead), wire.Vote() if self.active:
                assert answer.step == step
                assert (member, step) not in self.voted, "a second vote"
                self.check_named(member, dead)
                self.voted[member, step] = tuple(dead)
            case wire.OpenRequest(step=step, dead=dead), wire.Openings() if not self.active:
                self.check_named(member, dead)
                self.note_opened(member, step, tuple(dead), answer)
            case wire.Ballots(step=step), wire.Openings() if self.active:
                dead = self.voted[member, step]
                agreeing = {voter for (voter, at), shown in self.voted.items() if at == step and shown == dead}
                assert len(agreeing | self.colluders) >= self.needed, "opened without enough votes"
                self.note_opened(member, step, dead, answer)
            case _:
                raise AssertionError(f"{type(received).__name__} was answered with {type(answer).__name__}")

    colluders: frozenset[int] = frozenset()

    def check_named(self, member: int, dead: list[int]) -> None:
        assert member not in dead
        assert len(self.completed[member] - set(dead)) >= self.needed, "answered for too few survivors"

    def note_opened(self, member: int, step: int, dead: tuple[int, ...], answer: wire.Openings) -> None:
        assert answer.step == step
        assert len(answer.shares) == 32 * len(self.completed[member])
        assert (member, step) not in self.opened, "a step was opened twice"
        assert (member, step) in self.contributed, "a step was opened without a contribution"
        self.opened[member, step] = dead
        self.tally["openings"] += 1

    def give_server(self, envelope: Envelope) -> None:
        try:
            self.cohort.server.receive(envelope.member, envelope.message)
        except ProtocolError:
            return

    def make_contribution(self, member: int) -> None:
        client = self.cohort.clients[member]
        request = client._steps.pending
        self.cohort.step = request.step if request is not None else 0
        try:
            message = client.contribute(self.cohort.vector(member), stream="g")
        except ProtocolError:
            return
        step = read(message).step
        assert (member, step) not in self.contributed, "a step was masked twice"
        self.contributed.add((member, step))
        self.put_up(member, message)

    # What the network and the driver do

    @initialize(start=st.sampled_from([None, None, (), (20,)]), skip_the_set_up=st.booleans())
    def begin(self, start: tuple[int, ...] | None, skip_the_set_up: bool) -> None:
        """Most that can go wrong goes wrong in or after a step, so that many runs begin there."""
        if skip_the_set_up:
            self.cohort.go(Phase.READY)
            self.send(self.cohort.outbox)
        else:
            self.send(self.cohort.server.open())
        if start is not None:
            for _ in range(8):
                self.one_phase(Random(0), start)

    def one_phase(self, order: Any, lost: tuple[int, ...]) -> None:
        """Everything arrives, in any order, but for what some members send; then the server goes on."""
        going, self.down = self.down, []
        order.shuffle(going)
        for envelope in going:
            self.give_client(envelope)
        for member in self.cohort.members:
            if member not in lost:
                self.make_contribution(member)
        coming, self.up = self.up, []
        order.shuffle(coming)
        for envelope in coming:
            if envelope.member not in lost:
                self.give_server(envelope)
        self.advance(order)

    @rule(order=ORDER, lost=LOST)
    def go_on(self, order: Any, lost: tuple[int, ...]) -> None:
        self.one_phase(order, lost)

    @rule(order=ORDER, gone=st.sampled_from([(), (), (3,), (41,)]))
    def go_far(self, order: Any, gone: tuple[int, ...]) -> None:
        """A while without any loss, but perhaps without one member."""
        for _ in range(8):
            self.one_phase(order, gone)

    @precondition(lambda self: self.down)
    @rule(which=CHOICES)
    def deliver_down(self, which: int) -> None:
        self.give_client(self.down.pop(which % len(self.down)))

    @precondition(lambda self: self.up)
    @rule(which=CHOICES)
    def deliver_up(self, which: int) -> None:
        self.give_server(self.up.pop(which % len(self.up)))

    @precondition(lambda self: self.down or self.up)
    @rule(which=CHOICES)
    def lose(self, which: int) -> None:
        waiting = self.down if which % 2 and self.down else self.up or self.down
        waiting.pop(which % len(waiting))

    @precondition(lambda self: self.old)
    @rule(which=CHOICES)
    def repeat(self, which: int) -> None:
        """Something from any time arrives, perhaps once more."""
        down, envelope = self.old[which % len(self.old)]
        (self.give_client if down else self.give_server)(envelope)

    @precondition(lambda self: self.old)
    @rule(which=CHOICES, whom=WHO)
    def misdirect(self, which: int, whom: int) -> None:
        """Something arrives at somebody else, or as if from somebody else."""
        down, envelope = self.old[which % len(self.old)]
        (self.give_client if down else self.give_server)(Envelope(whom, envelope.message))

    @precondition(lambda self: self.old)
    @rule(which=CHOICES, place=CHOICES, bit=st.integers(0, 7), cut=st.booleans())
    def damage(self, which: int, place: int, bit: int, cut: bool) -> None:
        """A damaged message is refused, and refused by name."""
        down, envelope = self.old[which % len(self.old)]
        message = bytearray(envelope.message)
        if cut:
            del message[place % len(message) :]
        else:
            message[place % len(message)] ^= 1 << bit
        receive = (
            self.cohort.clients[envelope.member].receive
            if down
            else functools.partial(self.cohort.server.receive, envelope.member)
        )
        with pytest.raises((MessageError, PhaseError)):
            receive(bytes(message))

    @rule(member=WHO)
    def contribute(self, member: int) -> None:
        self.make_contribution(member)

    @rule(member=WHO)
    def restart_client(self, member: int) -> None:
        """A client is stored and comes back, where it can be."""
        try:
            saved = self.cohort.clients[member].snapshot(SNAPSHOT_KEY)
        except PhaseError:
            return
        credentials = self.cohort.credentials(member)
        client = MaskedClient.restore(saved, SNAPSHOT_KEY, terms=self.cohort.terms, credentials=credentials)
        self.cohort.clients[member] = client

    @rule()
    def restart_server(self) -> None:
        try:
            saved = self.cohort.server.snapshot()
        except PhaseError:
            return
        self.cohort.server = MaskedServer.restore(saved, terms=self.cohort.terms, roster=self.cohort.roster)

    @rule(patience=st.integers(0, 3))
    def lose_patience(self, patience: int) -> None:
        if not patience:
            self.advance()

    def advance(self, order: Any = None) -> None:
        """The server's patience ends, or it begins the next step."""
        server = self.cohort.server
        if server.phase in (Phase.NEW, Phase.CLOSED):
            return
        if server.phase is Phase.READY:
            if server._next_step < STEPS:
                self.exactly = None
                if order is not None and order.random() < 0.2:
                    members = sorted(server._shares)
                    self.exactly = tuple(sorted(order.sample(members, order.randint(self.needed, len(members)))))
                self.send(server.request("g", self.cohort.values, exactly=self.exactly))
            return
        ending = server._collection.step if server._collection is not None else None
        self.send(server.advance())
        if ending is not None and server.phase is Phase.READY:
            self.check_end(ending)

    def check_end(self, step: int) -> None:
        server = self.cohort.server
        if server.failure is not None:
            assert type(server.failure) is TooFewSurvivorsError, server.failure
            return
        result = server.result()
        assert len(result.contributors) >= self.needed
        assert self.exactly in (None, result.contributors)
        assert {(member, step) for member in result.contributors} <= self.contributed
        assert result.ring.tolist() == self.cohort.expected(result.contributors, step)
        self.tally["sums"] += 1
        self.tally["sums without somebody"] += len(result.contributors) < len(self.cohort.members)

    @invariant()
    def one_set_of_dead_is_opened_at_each_step(self) -> None:
        """With an honest server always, with a hostile one in active mode."""
        shown = defaultdict(set)
        for (_, step), dead in self.opened.items():
            shown[step].add(dead)
        assert all(len(sets) == 1 for sets in shown.values())
