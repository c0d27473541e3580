"""Clients that lie in well-formed messages: what a server finds out, and what becomes of the sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import (
    CohortError,
    FixedPoint,
    MessageError,
    Network,
    Phase,
    ProtocolError,
    ShareError,
    Simulation,
    Terms,
    TooFewSurvivorsError,
    make_protocol,
    wire,
)
from protocols.driver import Envelope

Vectors = dict[int, np.ndarray]
Start = Callable[..., Simulation]
Total = Callable[[Vectors], list[int]]

VECTORS: Vectors = {member: np.array([0.5, -0.25, 0.125]) * (member + 1) / 5 for member in range(5)}


class Lying(Network):
    """Some members' messages of one kind have other fields than they were sent with."""

    def __init__(self, kind: type[wire.Message], members: set[int], change: Callable[[Any], dict[str, Any]]) -> None:
        self.kind, self.members, self.change = kind, members, change

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        return [self._changed(envelope) for envelope in envelopes]

    def _changed(self, envelope: Envelope) -> Envelope:
        message = wire.decode(envelope.message, wire.Message, limit=len(envelope.message))
        if not isinstance(message, self.kind) or envelope.sender not in self.members:
            return envelope
        return envelope._replace(message=wire.encode(msgspec.structs.replace(message, **self.change(message))))


@pytest.fixture(params=[False, True], ids=["passive", "active"])
def masked(request: pytest.FixtureRequest) -> Start:
    """Five clients under masks; one may be missing, and one more with ``dropout=0.5``."""

    def make(network: Network, **changes: Any) -> Simulation:
        streams = {"gradients": FixedPoint(clip=1.0, clients=5)}
        terms = Terms(streams=streams, steps=3, active=request.param, **({"corruption": 0.0} | changes))
        cohort = Simulation(make_protocol("masked"), range(5), terms=terms, network=network)
        cohort.open()
        return cohort

    return make


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda shares: {"parcels": shares.parcels[:-1]}, CohortError, "exactly its neighbours"),
        (lambda shares: {"parcels": shares.parcels[::-1]}, CohortError, "exactly its neighbours"),
        (
            lambda shares: {"parcels": [wire.Parcel(p.peer, p.ciphertext + b"\0") for p in shares.parcels]},
            MessageError,
            "another number of steps",
        ),
        (lambda shares: {"commitments": shares.commitments[:-1]}, MessageError, "committed to another number of steps"),
        (lambda shares: {"backups": shares.backups[:-1]}, MessageError, "backups of another shape"),
        (lambda shares: {"backups": [b"", *shares.backups[1:]]}, MessageError, "backups of another shape"),
    ],
)
def test_shares_of_another_shape_are_refused_and_their_maker_is_out_of_the_round(
    masked: Start, change: Callable[[Any], dict[str, Any]], error: type[ProtocolError], text: str, total: Total
) -> None:
    cohort = masked(Lying(wire.Shares, {2}, change))
    (rejection,) = cohort.rejections
    assert type(rejection.error) is error
    assert text in str(rejection.error)
    assert rejection.envelope.sender == 2
    result = cohort.sum(VECTORS, stream="gradients")
    assert result.contributors == (0, 1, 3, 4)
    assert result.ring.tolist() == total({member: VECTORS[member] for member in result.contributors})


def test_shares_that_do_not_decrypt_put_those_who_got_them_out_of_the_round(masked: Start) -> None:
    """Only they can tell: their machines refuse the inbox, and too few are left."""

    def garbled(shares: Any) -> dict[str, Any]:
        return {"parcels": [wire.Parcel(p.peer, bytes(len(p.ciphertext))) for p in shares.parcels]}

    cohort = masked(Lying(wire.Shares, {2}, garbled))
    assert {rejection.envelope.recipient for rejection in cohort.rejections} == {0, 1, 3, 4}
    assert {type(rejection.error) for rejection in cohort.rejections} == {ShareError}
    with pytest.raises(TooFewSurvivorsError):
        cohort.sum(VECTORS, stream="gradients")


def garbled(openings: Any) -> dict[str, Any]:
    """Every share of an answer is another one."""
    return {"shares": bytes(byte ^ 1 for byte in openings.shares)}


def no_elements(openings: Any) -> dict[str, Any]:
    """Every share of an answer lies beyond the field."""
    return {"shares": b"\xff" * len(openings.shares)}


@pytest.mark.parametrize("change", [garbled, no_elements])
@pytest.mark.parametrize("liar", range(5))
def test_one_wrong_answer_among_more_than_enough_does_not_change_the_sum(
    masked: Start, change: Callable[[Any], dict[str, Any]], liar: int, total: Total
) -> None:
    """Three are needed of five answers, and then of four, which open a dropout's backup as well."""
    cohort = masked(Lying(wire.Openings, {liar}, change), dropout=0.5)
    for vectors in (VECTORS, {member: VECTORS[member] for member in range(5) if member != (liar + 1) % 5}):
        result = cohort.sum(vectors, stream="gradients")
        assert result.ring.tolist() == total(vectors)
    assert cohort.rejections == []


@pytest.mark.parametrize("change", [garbled, no_elements])
@pytest.mark.parametrize("liars", [{0}, {1, 2}])
def test_wrong_answers_that_cannot_be_told_apart_end_the_step_by_name(
    masked: Start, change: Callable[[Any], dict[str, Any]], liars: set[int], total: Total
) -> None:
    """One among just enough, or two among one more: a named error, of which the next step is free."""
    network = Lying(wire.Openings, liars, change)
    cohort = masked(network)
    everybody = tuple(range(5)) if len(liars) == 2 else (0, 1, 2, 3)
    with pytest.raises(ShareError, match=r"member \d's (self-mask|backup)") as caught:
        cohort.sum({member: VECTORS[member] for member in everybody}, stream="gradients")
    assert caught.value.asked_to_open == everybody
    assert {type(rejection.error) for rejection in cohort.rejections} == {TooFewSurvivorsError}
    network.members = set()
    assert cohort.sum(VECTORS, stream="gradients").ring.tolist() == total(VECTORS)


def test_a_wrong_answer_about_a_member_that_vanished_ends_the_step_by_name(masked: Start) -> None:
    """Its share stands last in every answer, and nobody's is to spare."""

    def last_garbled(openings: Any) -> dict[str, Any]:
        return {"shares": openings.shares[:-32] + bytes(byte ^ 1 for byte in openings.shares[-32:])}

    cohort = masked(Lying(wire.Openings, {1}, last_garbled))
    with pytest.raises(ShareError, match="member 4's backup does not fit") as caught:
        cohort.sum({member: VECTORS[member] for member in range(4)}, stream="gradients")
    assert caught.value.asked_to_open == (0, 1, 2, 3)


def test_an_answer_of_another_length_is_none(masked: Start, total: Total) -> None:
    cohort = masked(Lying(wire.Openings, {4}, lambda openings: {"shares": openings.shares[:-32]}))
    assert cohort.sum(VECTORS, stream="gradients").ring.tolist() == total(VECTORS)
    (rejection,) = cohort.rejections
    assert isinstance(rejection.error, MessageError)
    assert "another number of shares" in str(rejection.error)
