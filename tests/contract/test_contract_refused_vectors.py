"""Vectors and weights that no protocol takes: refused by name, and another one is taken in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from protocols import ContributionError, FixedPoint, PhaseError, Simulation

Simulate = Callable[..., Simulation]
ByHand = Callable[..., Any]
Drawn = Callable[..., dict[int, np.ndarray]]

ONES = np.ones(3, np.float32)

BAD_VECTORS = {
    "NaN": np.array([1, np.nan, 0], np.float32),
    "infinite": np.array([1, 0, np.inf]),
    "minus infinity": np.array([-np.inf, 0, 1], np.float32),
    "NaN and infinities": np.array([np.inf, np.nan, -np.inf], np.float32),
    "two dimensions": np.ones((1, 3), np.float32),
    "no dimension": np.float32(1).reshape(()),
    "too short": np.ones(2, np.float32),
    "too long": np.ones(4, np.float32),
    "half precision": np.ones(3, np.float16),
    "integers": np.ones(3, np.int64),
    "complex": np.ones(3, np.complex64),
    "foreign byte order": np.ones(3, ">f4"),
    "a list": [1.0, 1.0, 1.0],
    "None": None,
}


@pytest.mark.parametrize("name", BAD_VECTORS)
def test_a_vector_that_cannot_be_summed_is_refused_and_another_one_is_taken(by_hand: ByHand, name: str) -> None:
    cohort = by_hand(range(3))
    cohort.ask("gradients", 3)
    with pytest.raises(ContributionError):
        cohort.clients[1].contribute(BAD_VECTORS[name], stream="gradients")
    assert cohort.answer(dict.fromkeys(range(3), ONES)).total.tolist() == [3.0, 3.0, 3.0]


def test_a_value_beyond_the_bound_is_refused_where_it_is_not_clipped(by_hand: ByHand) -> None:
    streams = {
        "gradients": FixedPoint(clip=1.0, clients=2, excess="refuse"),
        "norm": FixedPoint(clip=1.0, clients=2, excess="refuse", norm="l2"),
    }
    cohort = by_hand([0, 1], streams=streams)
    for stream in streams:
        cohort.ask(stream, 3)
        with pytest.raises(ContributionError, match="beyond the bound of 1.0"):
            cohort.clients[0].contribute(np.array([0.0, 0.0, -1.0000001]), stream=stream)
        vector = np.array([0.0, -1.0, 0.0])
        assert cohort.answer({0: vector, 1: vector}, stream=stream).total.tolist() == [0.0, -2.0, 0.0]


@pytest.mark.parametrize("weight", [None, -1, 6, 1.0, True, np.int64(2), "1"])
def test_a_weight_that_is_none_is_refused_and_another_one_is_taken(by_hand: ByHand, weight: object) -> None:
    cohort = by_hand([0, 1], streams={"gradients": FixedPoint(clip=1.0, clients=2, max_weight=5)})
    cohort.ask("gradients", 3)
    with pytest.raises(ContributionError, match=r"weight is not an integer in \[0, 5\]"):
        cohort.clients[0].contribute(ONES, stream="gradients", weight=weight)
    assert cohort.answer({0: ONES, 1: ONES}, weights={0: 5, 1: 0}).weight == 5


def test_a_weight_for_a_stream_without_weights_is_refused(by_hand: ByHand) -> None:
    cohort = by_hand([0, 1])
    cohort.ask("gradients", 3)
    with pytest.raises(ContributionError, match="set max_weight"):
        cohort.clients[0].contribute(ONES, stream="gradients", weight=1)
    assert cohort.answer({0: ONES, 1: ONES}).weight is None


def test_a_vector_is_handed_over_once_and_only_for_what_was_asked(by_hand: ByHand) -> None:
    streams = {name: FixedPoint(clip=1.0, clients=2) for name in ("gradients", "labels")}
    cohort = by_hand([0, 1], streams=streams)
    with pytest.raises(PhaseError):
        cohort.clients[0].contribute(ONES, stream="gradients")
    cohort.ask("gradients", 3)
    with pytest.raises(PhaseError, match="labels"):
        cohort.clients[0].contribute(ONES, stream="labels")
    assert cohort.answer({0: ONES, 1: ONES}).total.tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(PhaseError):
        cohort.clients[0].contribute(ONES, stream="gradients")


def test_a_client_whose_vector_is_refused_ends_only_that_step(simulate: Simulate, drawn: Drawn) -> None:
    cohort = simulate(range(3))
    with pytest.raises(ContributionError, match="client 1: the value at index 2 is infinite"):
        cohort.sum({0: ONES, 1: np.array([0, 1, -np.inf]), 2: ONES}, stream="gradients")
    assert cohort.sum(dict.fromkeys(range(3), ONES), stream="gradients").total.tolist() == [3.0, 3.0, 3.0]


def test_a_client_that_was_shown_something_else_refuses_to_answer(by_hand: ByHand) -> None:
    cohort = by_hand(range(3))
    for member, request in cohort.server.request("gradients", 3, context=b"dreams").items():
        cohort.clients[member].receive(request)
    for shown in (b"", b"other dreams"):
        with pytest.raises(PhaseError, match="the contexts differ"):
            cohort.clients[1].contribute(ONES, stream="gradients", context=shown)
    for member, client in cohort.clients.items():
        cohort.server.receive(member, client.contribute(ONES, stream="gradients", context=b"dreams"))
    cohort.settle(cohort.server.advance())
    assert cohort.result().total.tolist() == [3.0, 3.0, 3.0]


def test_no_error_holds_a_private_value(by_hand: ByHand) -> None:
    """Of a vector that is refused, the text names a place at most."""
    secrets = np.array([7654.321, -7654.321, np.nan])
    streams = {
        "gradients": FixedPoint(clip=1.0, clients=2, excess="refuse"),
        "norm": FixedPoint(clip=1.0, clients=2, excess="refuse", norm="l2", max_weight=9),
    }
    cohort = by_hand([0, 1], streams=streams, steps=20)
    texts = []
    for stream, weight in (("gradients", None), ("gradients", 7654), ("norm", 7654), ("norm", 3)):
        for vector in (secrets, secrets[:2], secrets[:2].astype(np.float32), secrets[:1], secrets.reshape(1, 3)):
            cohort.ask(stream, vector.size)
            with pytest.raises(ContributionError) as caught:
                cohort.clients[0].contribute(vector, stream=stream, weight=weight)
            texts.append(str(caught.value))
            cohort.settle(cohort.server.advance(), silent=[0, 1])
    assert len(texts) == 20
    assert not any("7654" in text or "321" in text for text in texts)
