"""Bytes from hell for machines in every phase: only a ProtocolError comes out, and no memory is given away."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from protocols import Phase, ProtocolError, make_protocol, wire

Make = Callable[..., Any]
Mutators = Callable[[int], Any]
Framed = Callable[..., bytes]
Peak = Callable[..., int]
Receive = Callable[[bytes], Any]

TAIL = wire.CHECKSUM_BYTES
MEMBERS = (3, 7, 8)
VICTIM = 7

CLIENT_STATES = ("offer", "keys", "inbox", "ready", "asked", "contributed", "voted", "opened", "closed")
SERVER_PHASES = (
    Phase.NEW,
    Phase.ADVERTISE,
    Phase.SHARE,
    Phase.READY,
    Phase.COLLECT,
    Phase.VOTE,
    Phase.OPEN,
    Phase.CLOSED,
)
STATIONS = [
    (active, state)
    for active in (False, True)
    for state in (*CLIENT_STATES, *SERVER_PHASES)
    if active or state not in ("voted", Phase.VOTE)
]


def client_station(make: Make, active: bool, state: str) -> tuple[Any, Receive, list[bytes], list[bytes]]:
    """A cohort, its client's door, what could come through it now, and what came and went."""
    cohort = make(MEMBERS, active=active, dropout=0.34, values=3)
    match state:
        case "offer":
            cohort.go(Phase.ADVERTISE)
        case "keys":
            cohort.go(Phase.SHARE)
        case "inbox":
            cohort.go(Phase.READY)
        case "ready":
            cohort.go(Phase.COLLECT)
        case "asked":
            cohort.clients[VICTIM].receive(cohort.go(Phase.COLLECT)[VICTIM])
        case "contributed":
            cohort.go(Phase.VOTE if active else Phase.OPEN)
        case "voted":
            cohort.go(Phase.OPEN)
        case "opened":
            cohort.go(Phase.OPEN)
            cohort.clients[VICTIM].receive(cohort.outbox[VICTIM])
        case "closed":
            cohort.go(Phase.OPEN)
            cohort.clients[VICTIM].close()
    likely = [*cohort.outbox.values(), cohort.abort(max(0, cohort.step)), cohort.abort(None)]
    if cohort.step >= 0:
        likely += [cohort.open_request(0, [8]), cohort.request(1)]
    return cohort, cohort.clients[VICTIM].receive, likely, [sent.message for sent in cohort.transcript]


def server_station(make: Make, active: bool, phase: Phase) -> tuple[Any, Receive, list[bytes], list[bytes]]:
    """The same for the server, at whose door the victim stands."""
    cohort = make(MEMBERS, active=active, dropout=0.34, values=3)
    answers: dict[int, bytes] = {}
    if phase is Phase.CLOSED:
        cohort.ready()
        cohort.server.close()
    elif phase is not Phase.NEW:
        cohort.go(phase)
        for member, message in cohort.outbox.items():
            answer = cohort.clients[member].receive(message)
            if phase is Phase.COLLECT:
                answer = cohort.clients[member].contribute(cohort.vector(member), stream="g")
            if answer is not None:
                answers[member] = answer
    cohort.outbox = {}
    cohort.answers = answers
    past = [sent.message for sent in cohort.transcript]
    likely = [answers[VICTIM]] * 4 + list(answers.values()) if answers else past[:1] or [cohort.abort(None)]
    return cohort, functools.partial(cohort.server.receive, VICTIM), likely, past


def run_on(cohort: Any) -> None:
    """Go on with whatever was accepted, to the end of two steps; machines may refuse, but by name."""
    server, answers = cohort.server, dict(getattr(cohort, "answers", {}))
    for _ in range(16):
        for member, message in cohort.outbox.items():
            try:
                answer = cohort.clients[member].receive(message)
                if server.phase is Phase.COLLECT:
                    answer = cohort.clients[member].contribute(cohort.vector(member), stream="g")
            except ProtocolError:
                continue
            if answer is not None:
                answers[member] = answer
        for member, answer in answers.items():
            try:
                server.receive(member, answer)
            except ProtocolError:
                continue
        answers = {}
        if server.phase is Phase.CLOSED or (server.phase is Phase.READY and cohort.step >= 1):
            return
        cohort.advance()


def fuzz_station(
    make: Make, make_mutator: Mutators, active: bool, state: str | Phase, cases: int, seed: int
) -> Counter[str]:
    """Throw mutated messages at one machine in one phase; how they ended."""
    build = client_station if isinstance(state, str) else server_station
    mutator, ends = make_mutator(1000 * seed + STATIONS.index((active, state))), Counter[str]()
    station = None
    for case in range(cases):
        if station is None:
            station = build(make, active, state)
        cohort, receive, likely, past = station
        message = mutator.random.choice(likely if mutator.random.random() < 0.7 or not past else past)
        hostile = mutator.mutate(message, likely + past)
        try:
            receive(hostile)
        except ProtocolError as error:
            ends[type(error).__name__] += 1
            if isinstance(state, str) and cohort.clients[VICTIM]._state.name == "CLOSED" and state != "closed":
                station = None
        except Exception as error:
            raise AssertionError(f"seed {seed}, case {case}: {hostile.hex()}") from error
        else:
            ends["accepted"] += 1
            station = None
            try:
                run_on(cohort)
            except Exception as error:
                raise AssertionError(f"seed {seed}, case {case}, later: {hostile.hex()}") from error
    return ends


@pytest.mark.parametrize(("active", "state"), STATIONS)
def test_mutated_messages_are_refused_by_name_in_every_phase(
    make_cohort: Make, make_mutator: Mutators, active: bool, state: Any
) -> None:
    ends = fuzz_station(make_cohort, make_mutator, active, state, 200, seed=1)
    assert sum(ends.values()) == 200


@pytest.mark.slow
@pytest.mark.parametrize(("active", "state"), STATIONS)
def test_many_more_mutated_messages_are_refused_by_name(
    make_cohort: Make, make_mutator: Mutators, active: bool, state: Any
) -> None:
    fuzz_station(make_cohort, make_mutator, active, state, 5000, seed=2)


@pytest.mark.parametrize("role", ["client", "server"])
def test_mutated_messages_are_refused_by_name_without_protection_too(
    make_cohort: Make, role: str, make_mutator: Mutators
) -> None:
    cohort, plain, mutator = make_cohort(MEMBERS, values=3), make_protocol("plain"), make_mutator(3)
    cohort.finish()
    past = [sent.message for sent in cohort.transcript]
    for _ in range(500):
        client, server = (
            plain.client(VICTIM, terms=cohort.terms),
            plain.server(MEMBERS, terms=cohort.terms, round_id=cohort.round_id),
        )
        client.receive(server.open()[VICTIM])
        client.receive(server.request("g", 3)[VICTIM])
        receive = client.receive if role == "client" else functools.partial(server.receive, VICTIM)
        try:
            receive(mutator.mutate(mutator.random.choice(past), past))
        except ProtocolError:
            continue


@pytest.mark.parametrize("state", ["offer", "keys", "inbox", "asked", "contributed"])
def test_a_client_looks_at_no_message_longer_than_it_can_be(
    make_cohort: Make, state: str, framed: Framed, peak_of: Peak
) -> None:
    _, receive, likely, _ = client_station(make_cohort, False, state)
    long = framed(likely[0][1:-TAIL] + bytes(30_000_000))
    assert peak_of(receive, long, match="at most") < 100_000


@pytest.mark.parametrize("phase", [Phase.ADVERTISE, Phase.SHARE, Phase.COLLECT, Phase.OPEN])
def test_a_server_looks_at_no_message_longer_than_it_can_be(
    make_cohort: Make, phase: Phase, framed: Framed, peak_of: Peak
) -> None:
    _, receive, likely, _ = server_station(make_cohort, False, phase)
    long = framed(likely[0][1:-TAIL] + bytes(30_000_000))
    assert peak_of(receive, long, match="at most") < 100_000
