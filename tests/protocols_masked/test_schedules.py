"""Random schedules over a network that does everything that networks do, with an honest server and a hostile one."""

from __future__ import annotations

import functools
import importlib
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from protocols import wire

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))
pytest.register_assert_rewrite("accidents")
accidents = importlib.import_module("accidents")
Accidents, Envelope = accidents.Accidents, accidents.Envelope
CHOICES, ORDER, WHO = accidents.CHOICES, accidents.ORDER, accidents.WHO

Make = Callable[..., Any]

HONEST = st.sampled_from([3, 7, 8, 20])
NEARLY_NOW = st.sampled_from([0, 0, 0, 0, -1, 1])


class Attacks(Accidents):
    """The same with a server that makes up messages, and with one client that signs whatever the server wants.

    A hostile server can make a sum wrong. What it cannot do is get more out of a client than one answer a step, and in
    active mode see two sets of survivors opened.
    """

    colluders = frozenset({41})

    def check_end(self, step: int) -> None:
        """Nothing is known of the result."""

    @invariant()
    def one_set_of_dead_is_opened_at_each_step(self) -> None:
        if self.active:
            super().one_set_of_dead_is_opened_at_each_step()

    def check_answer(self, member: int, received: wire.Message, answer: wire.Message) -> None:
        if member not in self.colluders:
            super().check_answer(member, received, answer)

    @precondition(lambda self: self.old)
    @rule(which=CHOICES, place=CHOICES, value=st.integers(1, 255))
    def tamper(self, which: int, place: int, value: int) -> None:
        """Bytes change, and the checksum with them."""
        down, envelope = self.old[which % len(self.old)]
        message = bytearray(envelope.message[: -wire.CHECKSUM_BYTES])
        message[place % len(message)] ^= value
        message += wire.checksum(message[0], bytes(message[1:]))
        (self.give_client if down else self.give_server)(Envelope(envelope.member, bytes(message)))

    @rule(
        dead=st.sets(WHO, max_size=3),
        offset=NEARLY_NOW,
        order=ORDER,
        whom=st.sets(HONEST, min_size=1),
        fresh=st.booleans(),
    )
    def equivocate(self, dead: set[int], offset: int, order: Any, whom: set[int], fresh: bool) -> None:
        """Some clients are shown some set of dead, at a step of the server's choice, and all votes there are for it."""
        listed = sorted(dead)
        if order.random() < 0.1:
            listed.append(order.choice([3, 8, 9]))
        for member in sorted(whom):
            if fresh:
                self.ask(member, self.latest(member) + 1)
            self.give_client(Envelope(member, self.cohort.open_request(self.latest(member) + offset, listed)))
        for member in sorted(whom):
            self.show_votes(member, self.latest(member) + offset, tuple(listed))

    @rule(offset=NEARLY_NOW, whom=HONEST)
    def ask_for_a_step(self, offset: int, whom: int) -> None:
        self.ask(whom, self.latest(whom) + offset)

    @rule(dead=st.sets(WHO, max_size=1), offset=NEARLY_NOW, whom=HONEST)
    def show_ballots(self, dead: set[int], offset: int, whom: int) -> None:
        self.show_votes(whom, self.latest(whom) + offset, tuple(sorted(dead)))

    def latest(self, member: int) -> int:
        """The latest step that a member was asked for."""
        return max(0, self.cohort.clients[member]._steps.last)

    def ask(self, member: int, step: int) -> None:
        self.give_client(Envelope(member, self.cohort.request(max(0, step))))
        self.make_contribution(member)

    def show_votes(self, member: int, step: int, dead: tuple[int, ...]) -> None:
        """All votes that were ever given for a set of dead, and the colluder's."""
        step = max(0, step)
        voters = {voter for (voter, at), shown in self.voted.items() if at == step and shown == dead}
        # An honest member's signature is a vote that it gave; Ed25519 is deterministic, so it is the same bytes.
        votes = [self.cohort.vote(voter, dead, step=step) for voter in sorted(voters | self.colluders)]
        self.give_client(Envelope(member, self.cohort.ballots(step, votes)))


def run(machine: type[Accidents], make: Make, active: bool, examples: int, *, random: bool = False) -> Counter[str]:
    """Play schedules; what came of them, so that a test can tell that anything did."""
    tally: Counter[str] = Counter()
    run_state_machine_as_test(
        functools.partial(machine, make, active, tally),
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            derandomize=not random,
            # A counterexample that is not made smaller is still printed step by step, and comes at once.
            phases=[Stage.generate, Stage.shrink] if random else [Stage.generate],
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return tally


@pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])
def test_whatever_the_network_does_a_finished_sum_is_the_survivors(make_cohort: Make, active: bool) -> None:
    tally = run(Accidents, make_cohort, active, 40)
    assert tally["sums"] >= 20
    assert tally["sums without somebody"] >= 3


@pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])
def test_whatever_the_server_says_a_client_answers_once_a_step(make_cohort: Make, active: bool) -> None:
    tally = run(Attacks, make_cohort, active, 40)
    assert tally["openings"] >= 60


@pytest.mark.slow
@pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])
@pytest.mark.parametrize("machine", [Accidents, Attacks])
def test_both_hold_on_many_more_schedules(make_cohort: Make, machine: type[Accidents], active: bool) -> None:
    assert run(machine, make_cohort, active, 600, random=True)["openings"] >= 500
