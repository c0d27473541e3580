"""Calls out of turn, and rounds, cohorts, members and sums that the terms do not allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import (
    CohortError,
    PhaseError,
    StepError,
    SumProtocol,
    Terms,
    TermsError,
    TooFewSurvivorsError,
    available_protocols,
    wire,
)

ByHand = Callable[..., Any]
MakeTerms = Callable[..., Terms]

ONES = np.ones(3, np.float32)


def test_a_server_refuses_steps_that_the_terms_do_not_allow(by_hand: ByHand) -> None:
    cohort = by_hand([0, 1], steps=2, max_values=10)
    with pytest.raises(TermsError, match="'weights' is not in the terms: gradients"):
        cohort.server.request("weights", 3)
    for values in (-1, 11):
        with pytest.raises(TermsError, match=f"values is {values}"):
            cohort.server.request("gradients", values)
    for _ in range(2):
        assert cohort.step({0: ONES, 1: ONES}).total.tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(StepError, match="all 2 steps of this round are used"):
        cohort.server.request("gradients", 3)


def test_calls_out_of_turn_are_refused(by_hand: ByHand) -> None:
    cohort = by_hand([0, 1], opened=False)
    for call in (cohort.server.advance, cohort.server.snapshot, lambda: cohort.server.request("gradients", 3)):
        with pytest.raises(PhaseError):
            call()
    with pytest.raises(PhaseError):
        cohort.server.receive(0, b"")
    assert cohort.server.expected == frozenset()
    for client in cohort.clients.values():
        with pytest.raises(PhaseError):
            client.contribute(ONES, stream="gradients")
    cohort.settle(cohort.server.open())
    for call in (cohort.server.open, cohort.server.advance, cohort.server.result):
        with pytest.raises(PhaseError):
            call()
    with pytest.raises(PhaseError):
        cohort.server.receive(0, b"")
    cohort.ask("gradients", 3)
    for call in (cohort.server.result, cohort.server.snapshot, lambda: cohort.server.request("gradients", 3)):
        with pytest.raises(PhaseError):
            call()
    assert cohort.server.expected == {0, 1}
    assert cohort.answer({0: ONES, 1: ONES}).total.tolist() == [2.0, 2.0, 2.0]
    assert cohort.server.expected == frozenset()


def test_a_round_that_is_closed_takes_nothing_more(by_hand: ByHand) -> None:
    cohort = by_hand([0, 1])
    request = cohort.server.request("gradients", 3)
    cohort.server.close()
    with pytest.raises(PhaseError):
        cohort.server.request("gradients", 3)
    with pytest.raises(PhaseError):
        cohort.server.receive(0, b"")
    for member, client in cohort.clients.items():
        assert client.member == member
        client.close()
        client.close()
        with pytest.raises(PhaseError, match="closed"):
            client.receive(request[member])
        with pytest.raises(PhaseError):
            client.contribute(ONES, stream="gradients")
        with pytest.raises(PhaseError):
            client.snapshot(bytes(32))


def test_a_server_can_end_a_round_for_its_clients(by_hand: ByHand) -> None:
    cohort = by_hand([0, 1])
    abort = wire.encode(wire.Abort(cohort.round_id, None, 1, 2))
    with pytest.raises(TooFewSurvivorsError, match="1 members are left, where 2 are needed"):
        cohort.clients[0].receive(abort)
    with pytest.raises(PhaseError, match="closed"):
        cohort.clients[0].receive(abort)


@pytest.mark.parametrize("step", [0, 2, 7])
def test_an_abort_of_another_step_does_not_end_the_one_going_on(by_hand: ByHand, step: int) -> None:
    cohort = by_hand([0, 1])
    cohort.step({0: ONES, 1: ONES})
    cohort.ask("gradients", 3)
    with pytest.raises(StepError, match=f"step {step}, which is given up, is not the one going on"):
        cohort.clients[0].receive(wire.encode(wire.Abort(cohort.round_id, step, 1, 2)))
    assert cohort.answer({0: ONES, 1: ONES}).total.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("cohort", [[1, 0], [0, 0], [0, 1, 1], [-1, 0], [0, 2**32], [0, True], [0, 1.0], [0, "1"]])
def test_a_cohort_that_cannot_be_is_refused(
    by_hand: ByHand, protocol: SumProtocol, make_terms: MakeTerms, cohort: list[Any]
) -> None:
    parties = by_hand([0, 1], opened=False)
    with pytest.raises(CohortError):
        protocol.server(cohort, terms=make_terms(4), round_id=bytes(16), roster=parties.roster)


@pytest.mark.parametrize("member", [-1, 2**32, True, 1.0, "1", None])
def test_a_member_that_cannot_be_is_refused(
    by_hand: ByHand, protocol: SumProtocol, make_terms: MakeTerms, member: Any
) -> None:
    parties = by_hand([0, 1], opened=False)
    with pytest.raises(CohortError):
        protocol.client(member, terms=make_terms(2), credentials=parties.credentials[1])


@pytest.mark.parametrize("members", [[1, 2], [], [0, 2, 1], [0, 0, 1], [1, 0]])
def test_a_client_refuses_a_cohort_without_it_or_out_of_order(by_hand: ByHand, members: list[int]) -> None:
    cohort = by_hand([0, 1, 2], opened=False)
    offer = wire.decode(cohort.server.open()[0], wire.Offer, limit=1000)
    with pytest.raises(CohortError):
        cohort.clients[0].receive(wire.encode(msgspec.structs.replace(offer, cohort=members)))
    cohort.clients[0].receive(wire.encode(offer))


def test_a_client_refuses_a_round_under_other_terms(by_hand: ByHand, make_terms: MakeTerms) -> None:
    """Or under another protocol: a server that could choose one would choose the one without protection."""
    cohort = by_hand([0, 1, 2], opened=False)
    digests = [make_terms(3, steps=9).digest(cohort.protocol.name), cohort.terms.digest("another"), bytes(32)]
    digests += [cohort.terms.digest(name) for name in available_protocols() if name != cohort.protocol.name]
    offer = wire.decode(cohort.server.open()[0], wire.Offer, limit=1000)
    for digest in digests:
        with pytest.raises(TermsError, match="under other terms, or another protocol"):
            cohort.clients[0].receive(wire.encode(msgspec.structs.replace(offer, terms=digest)))
    cohort.clients[0].receive(wire.encode(offer))


def test_a_cohort_that_is_too_large_or_too_small_for_the_terms_is_refused(
    by_hand: ByHand, protocol: SumProtocol, make_terms: MakeTerms
) -> None:
    parties = by_hand([0, 1, 2], opened=False)
    with pytest.raises(TermsError, match="3 members, but stream 'gradients' is encoded for at most 2"):
        protocol.server([0, 1, 2], terms=make_terms(2), round_id=bytes(16), roster=parties.roster)
    with pytest.raises(TermsError, match="3 members: the terms ask for at least 4"):
        protocol.server([0, 1, 2], terms=make_terms(5, min_cohort=4), round_id=bytes(16), roster=parties.roster)
    cohort = by_hand([0, 1, 2, 3], opened=False, min_cohort=4)
    offer = wire.decode(cohort.server.open()[0], wire.Offer, limit=1000)
    with pytest.raises(TermsError, match="3 members: the terms ask for at least 4"):
        cohort.clients[0].receive(wire.encode(msgspec.structs.replace(offer, cohort=[0, 1, 2])))


def test_a_sum_over_exactly_these_is_opened_over_all_of_them_or_not_at_all(by_hand: ByHand) -> None:
    """Others are not asked; and when one of them is missing, the others' sum stays closed."""
    cohort = by_hand(range(10))
    chosen = [0, 2, 3, 4, 6, 7, 8, 9]
    request = cohort.server.request("gradients", 3, exactly=chosen)
    assert sorted(request) == chosen
    for member, message in request.items():
        cohort.clients[member].receive(message)
    assert cohort.answer(dict.fromkeys(chosen, ONES)).contributors == tuple(chosen)
    for member, message in cohort.server.request("gradients", 3, exactly=chosen).items():
        cohort.clients[member].receive(message)
    for member in chosen[:-1]:
        cohort.server.receive(member, cohort.clients[member].contribute(ONES, stream="gradients"))
    for member, message in cohort.server.advance().items():
        with pytest.raises(TooFewSurvivorsError, match="7 members are left, where 8 are needed"):
            cohort.clients[member].receive(message)
    with pytest.raises(TooFewSurvivorsError):
        cohort.server.result()
    assert cohort.step(dict.fromkeys(range(10), ONES)).total.tolist() == [10.0] * 3


def test_a_sum_over_exactly_too_few_or_over_strangers_is_refused(by_hand: ByHand) -> None:
    cohort = by_hand(range(10))
    with pytest.raises(CohortError, match="6 members: no sum of fewer than 7"):
        cohort.server.request("gradients", 3, exactly=range(6))
    with pytest.raises(CohortError, match="not part of this round"):
        cohort.server.request("gradients", 3, exactly=[*range(9), 10])
    assert cohort.step(dict.fromkeys(range(10), ONES)).total.tolist() == [10.0] * 3
