"""Terms: what they refuse, and one fingerprint for all that parties have to agree on."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import CohortError, FixedPoint, Noise, NoNoise, Terms, TermsError
from protocols.encoding import Ring
from protocols.graph import plan
from protocols.terms import MAX_COHORT, MAX_MEMBER, MAX_STEPS, MAX_VALUES, check_cohort

STREAM = FixedPoint(clip=1.0, clients=10)
TERMS = Terms(streams={"gradients": STREAM}, steps=5)


class Loud(Noise):
    """Noise of a given size, for its headroom."""

    name = "loud"

    def __init__(self, size: int) -> None:
        self.size = size

    def parameters(self) -> dict[str, int | float | str]:
        return {"size": self.size}

    def headroom(self) -> int:
        return self.size

    def add(self, ring: Ring) -> Ring:
        return ring + ring.dtype.type(self.size)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"streams": {}}, "streams is empty"),
        ({"streams": {"": STREAM}}, "stream ''"),
        ({"streams": {"x" * 65: STREAM}}, "1 to 64 printable ASCII"),
        ({"streams": {"größe": STREAM}}, "printable ASCII"),
        ({"streams": {"tab\t": STREAM}}, "printable ASCII"),
        ({"steps": 0}, "steps is 0: it must lie between 1 and 1000000"),
        ({"steps": MAX_STEPS + 1}, "steps is 1000001"),
        ({"min_cohort": 0}, "min_cohort is 0: it must lie between 1 and 100000"),
        ({"min_cohort": MAX_COHORT + 1}, "min_cohort is 100001"),
        ({"sigma": 0}, "sigma is 0: it must lie between 1 and 128"),
        ({"sigma": 129}, "sigma is 129"),
        ({"eta": 0}, "eta is 0"),
        ({"eta": 129}, "eta is 129"),
        ({"max_values": 0}, "max_values is 0"),
        ({"max_values": MAX_VALUES + 1}, "max_values is 268435457"),
        ({"steps": 5.0}, "steps is 5.0: it must be an integer"),
        ({"sigma": "40"}, "sigma is '40': it must be an integer"),
        ({"min_cohort": 2.5}, "min_cohort is 2.5: it must be an integer"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"corruption": -0.1}, "corruption is -0.1"),
        ({"corruption": 1}, "corruption is 1"),
    ],
)
def test_terms_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TermsError, match=message):
        Terms(**({"streams": {"gradients": STREAM}, "steps": 5} | changes))


def test_the_limits_themselves_are_taken() -> None:
    Terms(streams={"x" * 64: STREAM}, steps=MAX_STEPS, sigma=128, eta=128, max_values=MAX_VALUES, dropout=0.0)
    Terms(streams={"a b-c_d~": STREAM}, steps=1, sigma=1, eta=1, max_values=1, corruption=0.0)


@pytest.mark.parametrize("max_weight", [None, 7])
@pytest.mark.parametrize("ring_bits", [32, 64])
def test_noise_has_to_fit_above_the_largest_sum(max_weight: int | None, ring_bits: int) -> None:
    encoding = FixedPoint(clip=1.0, clients=10, max_weight=max_weight, ring_bits=ring_bits)
    room = (2 ** (ring_bits - 1) - 1) // 10 - encoding.largest * (max_weight or 1)
    assert room > 0
    Terms(streams={"gradients": encoding}, steps=1, noise=Loud(room))
    with pytest.raises(TermsError, match="with loud noise the sum could wrap; lower value_bits"):
        Terms(streams={"labels": encoding, "gradients": encoding}, steps=1, noise=Loud(room + 1))


FIELDS: dict[str, Any] = {
    "steps": 6,
    "dropout": 0.2,
    "corruption": 0.25,
    "active": True,
    "sigma": 41,
    "eta": 31,
    "max_values": 1000,
    "noise": Loud(1),
    "min_cohort": 3,
}
ENCODINGS: dict[str, Any] = {
    "clip": 1.5,
    "clients": 11,
    "max_weight": 3,
    "ring_bits": 64,
    "value_bits": 20,
    "rounding": "stochastic",
    "norm": "l2",
    "excess": "refuse",
}


def test_every_field_changes_the_digest() -> None:
    """All but equal terms have other digests; a field that is added later has to be added here and to the digest."""
    changed = [replace(TERMS, **{name: value}) for name, value in FIELDS.items()]
    fields = {name: getattr(STREAM, name) for name in ENCODINGS}
    changed += [
        replace(TERMS, streams={"gradients": FixedPoint(**(fields | {name: value}))})
        for name, value in ENCODINGS.items()
    ]
    changed += [replace(TERMS, noise=Loud(2)), replace(TERMS, streams={"labels": STREAM})]
    changed += [replace(TERMS, streams={"gradients": STREAM, "labels": STREAM})]
    digests = {terms.digest("plain") for terms in [TERMS, *changed]} | {TERMS.digest("masked")}
    assert len(digests) == len(changed) + 2
    assert {*FIELDS, "streams"} == set(Terms.__dataclass_fields__)
    assert {*ENCODINGS, "exponent", "largest"} == set(FixedPoint.__dataclass_fields__)


def test_the_digest_is_sha256_over_this_text() -> None:
    """Written out once by hand, so that no change of representation goes unnoticed."""
    text = (
        '{"active":false,"corruption":"0x1.5555555555555p-2","dropout":"0x1.3333333333333p-2","eta":30,'
        '"max_values":268435456,"min_cohort":null,"noise":{"name":"loud","parameters":{"size":["int",1]}},"protocol":"masked","sigma":40,'
        '"steps":5,"streams":{"gradients":{"clients":10,"clip":"0x1.0000000000000p+0","excess":"clip","exponent":27,'
        '"largest":134217728,"max_weight":null,"norm":"linf","ring_bits":32,"rounding":"nearest","value_bits":null}}}'
    )
    terms = replace(TERMS, noise=Loud(1))
    assert terms.digest("masked") == hashlib.sha256(b"codream-secure terms v1\0" + text.encode()).digest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"dropout": 0}, {"dropout": 0.0}),
        ({"corruption": 0}, {"corruption": 0.0}),
        ({"dropout": 0.0}, {"dropout": -0.0}),
        ({"steps": 7, "active": True}, {"steps": np.int64(7), "active": 1}),
        ({"streams": {"gradients": FixedPoint(clip=1.0, clients=np.int32(10))}}, {"streams": {"gradients": STREAM}}),
        ({"streams": {"gradients": FixedPoint(clip=1, clients=10)}}, {"streams": {"gradients": STREAM}}),
        ({"streams": {"a": STREAM, "b": STREAM}}, {"streams": {"b": STREAM, "a": STREAM}}),
        (
            {"streams": {"a": FixedPoint(clip=0.1, clients=2)}},
            {"streams": {"a": FixedPoint(clip=np.float32(0.1), clients=2)}},
        ),
    ],
)
def test_terms_that_mean_the_same_are_equal_and_have_the_same_digest(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert replace(TERMS, **one).digest("plain") == replace(TERMS, **other).digest("plain")
    assert replace(TERMS, **one) == replace(TERMS, **other)


@pytest.mark.parametrize(
    ("size", "dropout", "left"),
    [(10, 0.3, 7), (10, 0.0, 10), (10, 0.29, 8), (3, 0.3, 3), (1, 0.9, 1), (2, 0.99, 1), (30, 0.1, 27), (10, 0.999, 1)],
)
def test_all_but_the_share_that_may_vanish_must_be_left(size: int, dropout: float, left: int) -> None:
    """0.1 * 30 is a little more than 3 in floating point, and 0.3 * 10 a little less."""
    terms = replace(TERMS, streams={"gradients": FixedPoint(clip=1.0, clients=30)}, dropout=dropout)
    assert terms.survivors(size) == left


def test_a_topology_is_what_is_planned_for_these_terms() -> None:
    terms = Terms(
        streams={"gradients": FixedPoint(clip=1.0, clients=200)}, steps=1, dropout=0.1, corruption=0.1, sigma=30, eta=20
    )
    assert terms.topology(200) == plan(200, dropout=0.1, corruption=0.1, sigma=30, eta=20)
    assert replace(terms, active=True).topology(200) == plan(200, dropout=0.1, corruption=0.1, active=True)


class Odd(Loud):
    """Noise with a parameter of any type."""

    def __init__(self, value: Any) -> None:
        super().__init__(1)
        self.value = value

    def parameters(self) -> dict[str, Any]:
        return {"value": self.value}


def test_numbers_and_texts_are_different_parameters() -> None:
    values = [1, 1.0, "1", "0x1.0000000000000p+0", 2, 0.5]
    assert len({replace(TERMS, noise=Odd(value)).digest("plain") for value in values}) == len(values)


@pytest.mark.parametrize("value", [True, None, np.float64(1.0), np.int64(1), [1], b"1", "größe"])
def test_a_parameter_without_one_spelling_is_refused(value: Any) -> None:
    with pytest.raises(TermsError, match="noise parameter 'value' is"):
        replace(TERMS, noise=Odd(value)).digest("plain")


def test_fewer_members_than_the_terms_ask_for_are_refused() -> None:
    assert TERMS.survivors(1) == 1
    terms = replace(TERMS, min_cohort=4)
    assert terms.survivors(4) == terms.topology(4).survivors == 3
    for method in (terms.survivors, terms.topology):
        with pytest.raises(TermsError, match="3 members: the terms ask for at least 4"):
            method(3)


def test_terms_do_not_change_when_the_streams_that_were_handed_in_do() -> None:
    streams = {"gradients": STREAM}
    terms = Terms(streams=streams, steps=5)
    before = terms.digest("plain")
    streams["labels"] = STREAM
    assert list(terms.streams) == ["gradients"]
    assert terms.digest("plain") == before


def test_terms_can_be_copied() -> None:
    terms = Terms(streams={"gradients": STREAM}, steps=5)
    assert copy.deepcopy(terms).digest("masked") == terms.digest("masked")


def test_more_members_than_an_encoding_is_made_for_are_refused() -> None:
    terms = Terms(streams={"wide": FixedPoint(clip=1.0, clients=99), "narrow": STREAM}, steps=1)
    assert terms.survivors(10) == terms.topology(10).survivors == 7
    for method in (terms.survivors, terms.topology):
        with pytest.raises(TermsError, match="11 members, but stream 'narrow' is encoded for at most 10"):
            method(11)


@given(st.sets(st.integers(0, MAX_MEMBER), max_size=20))
def test_distinct_members_in_ascending_order_are_a_cohort(members: set[int]) -> None:
    assert check_cohort(sorted(members)) == tuple(sorted(members))
    if len(members) > 1:
        with pytest.raises(CohortError, match="not in ascending order"):
            check_cohort(sorted(members, reverse=True))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([0, 0], "repeated"),
        ([1, 0], "not in ascending order"),
        ([-1], r"not in \[0, 4294967295\]"),
        ([MAX_MEMBER + 1], r"not in \[0, 4294967295\]"),
        ([False, True], "not an integer"),
        ([0.0], "not an integer"),
        (["0"], "not an integer"),
        ([None], "not an integer"),
        ([np.int64(3)], "not an integer"),
        (range(MAX_COHORT + 1), "100001 members"),
    ],
)
def test_a_cohort_that_cannot_be_is_refused(members: Any, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        check_cohort(members)


def test_no_noise_is_the_default() -> None:
    assert isinstance(TERMS.noise, NoNoise)
