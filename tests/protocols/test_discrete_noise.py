"""Noise that clients share out: who adds how much, what is agreed on, what is refused, and what nobody can repeat."""

from __future__ import annotations

import inspect
import math
import os
import pickle
import random
from dataclasses import FrozenInstanceError, fields, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import (
    DiscreteGaussianNoise,
    Dropouts,
    FixedPoint,
    NoNoise,
    Phase,
    Simulation,
    SkellamNoise,
    Terms,
    TermsError,
    TooFewSurvivorsError,
    available_protocols,
    make_protocol,
)
from protocols.discrete_noise import SharedNoise
from protocols.keystream import Keystream

KINDS = [DiscreteGaussianNoise, SkellamNoise]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def noise_of(kind: type[SharedNoise], variance: Any = 100, **changes: Any) -> SharedNoise:
    return kind(variance, **{"clients": 4, "values": 1000, "steps": 10, **changes})


@kinds
def test_honest_survivors_share_the_variance(kind: type[SharedNoise]) -> None:
    noise = noise_of(kind, 100, clients=10, dropouts=2, colluders=1)
    assert noise.honest == 7
    assert noise.client_variance == Fraction(100, 7)
    assert noise.contributors() == 8
    assert noise.honest * noise.client_variance == noise.variance
    assert Fraction(noise.client_sigma) ** 2 <= noise.client_variance
    assert noise.client_sigma == pytest.approx(math.sqrt(100 / 7), rel=1e-15)
    assert noise_of(kind, 36, clients=1).client_sigma == 6


@kinds
def test_parameters_say_all_that_has_to_be_agreed_on(kind: type[SharedNoise]) -> None:
    noise = noise_of(kind, Fraction(100, 3), dropouts=1, colluders=1)
    assert noise.parameters() == {
        "variance": "100/3",
        "clients": 4,
        "values": 1000,
        "steps": 10,
        "dropouts": 1,
        "colluders": 1,
    }
    assert set(noise.parameters()) == {field.name for field in fields(noise)}
    terms = Terms(streams={"g": FixedPoint(clip=1.0, clients=8, value_bits=16)}, steps=10, noise=noise)
    digests = {terms.digest("masked"), replace(terms, noise=NoNoise()).digest("masked")}
    for change in (
        {"variance": 33},
        {"clients": 5},
        {"values": 1001},
        {"steps": 11},
        {"dropouts": 0},
        {"colluders": 0},
    ):
        digests.add(replace(terms, noise=replace(noise, **change)).digest("masked"))
    assert len(digests) == 8


def test_numbers_that_are_equal_are_the_same_terms_however_they_are_spelt() -> None:
    spelt = [noise_of(SkellamNoise, value) for value in (0.5, Fraction(1, 2), np.float64(0.5))]
    spelt.append(noise_of(SkellamNoise, 0.5, clients=np.int64(4)))
    assert len({noise.parameters()["variance"] for noise in spelt}) == len(set(spelt)) == 1
    assert type(spelt[-1].parameters()["clients"]) is int


def test_headroom_of_the_discrete_gaussian() -> None:
    """r sigma with r = sqrt(2 ln(2 d T / p)), of one client, rounded up."""
    noise = noise_of(DiscreteGaussianNoise, 3 * 2.0**20, values=786_432, steps=200, dropouts=1)
    r = math.sqrt(2 * math.log(2 * 786_432 * 200 / 1e-12))
    assert noise.headroom() == math.ceil(r * 1024)
    assert 9.5 < r < 10


def test_headroom_of_skellam_noise_is_a_little_more() -> None:
    """Its tails are heavier, by the less the larger its variance. The bound holds: against the exact tail."""
    from scipy import stats

    for variance in (0.01, 1, 1000, 1e6):
        noise = noise_of(SkellamNoise, variance, clients=1)
        gaussian = math.sqrt(2 * variance * math.log(2 * 10_000 / 1e-12))
        assert gaussian < noise.headroom() < gaussian + math.log(2 * 10_000 / 1e-12)
        assert 2 * stats.skellam.sf(noise.headroom(), variance / 2, variance / 2) < 1e-12 / 10_000


@kinds
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"clients": 0}, "clients is 0"),
        ({"clients": 2.5}, "clients is 2.5: it must be an integer"),
        ({"values": 0}, "values is 0"),
        ({"steps": 10**10}, "steps is 10000000000"),
        ({"dropouts": -1}, "dropouts is -1"),
        ({"colluders": -1}, "colluders is -1"),
        ({"dropouts": 2, "colluders": 2}, "of 4 clients 2 may drop out and 2 collude: .*lower dropouts or colluders"),
        ({"variance": math.nan}, "variance is nan: it must be a finite number"),
        ({"variance": math.inf}, "variance is inf: it must be a finite number"),
        ({"variance": "much"}, "variance is 'much'"),
        ({"variance": None}, "variance is None"),
        ({"variance": 0}, "variance is 0.*encode with another scale"),
        ({"variance": -1}, "variance is -1"),
        ({"variance": 2.0**200}, "encode with another scale"),
        ({"variance": Fraction(10**90 + 1, 10**90)}, "more than 256 bits"),
    ],
)
def test_what_cannot_be_is_refused(kind: type[SharedNoise], changes: dict[str, Any], match: str) -> None:
    with pytest.raises(TermsError, match=match):
        noise_of(kind, **changes)


def test_a_discrete_gaussian_too_narrow_for_its_accounting_is_refused() -> None:
    assert noise_of(DiscreteGaussianNoise, 1).client_sigma == 0.5
    with pytest.raises(TermsError, match=r"each client would add 0.2475: discrete_gaussian noise takes 0.25 to"):
        noise_of(DiscreteGaussianNoise, 0.99)


@kinds
@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
def test_noise_is_added_in_the_ring_and_the_argument_is_unchanged(kind: type[SharedNoise], dtype: str) -> None:
    top = np.iinfo(dtype).max
    ring = np.array([0, 5, top, top // 2] * 500, dtype=dtype)
    ring.flags.writeable = False
    before = ring.copy()
    noised = noise_of(kind, 400).add(ring)
    np.testing.assert_array_equal(ring, before)
    assert noised.dtype == ring.dtype
    assert noised.shape == ring.shape
    assert not np.shares_memory(noised, ring)
    difference = (noised - ring).view(dtype.replace("u", "i")).astype(np.int64)
    assert 0 < np.abs(difference).max() <= noise_of(kind, 400).headroom()
    assert (difference < 0).any()
    assert (difference > 0).any()


@kinds
@pytest.mark.parametrize("length", [0, 1, 16384, 3 * 2**18 + 1])
def test_vectors_of_any_length_take_noise(kind: type[SharedNoise], length: int) -> None:
    noised = noise_of(kind, 400).add(np.zeros(length, dtype="<u4"))
    assert len(noised) == length
    # The last block is not forgotten: none of 1000 values is 0 but by a chance of 1e-400 or less for all.
    assert length < 1000 or noised[-1000:].any()


def test_noise_beyond_what_a_ring_holds_wraps_in_it() -> None:
    noised = noise_of(DiscreteGaussianNoise, Fraction(2**90), clients=1).add(np.zeros(1000, dtype="<u4"))
    assert (noised >> np.uint32(31)).mean() == pytest.approx(0.5, abs=0.2)


# What nobody can repeat or find out


def seeded() -> None:
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)


@kinds
def test_seeds_do_not_reach_the_noise(kind: type[SharedNoise]) -> None:
    ring, drawn = np.zeros(1000, dtype="<u4"), []
    for _ in range(2):
        seeded()
        drawn.append(noise_of(kind, 2.0**20).add(ring))
    # Two independent draws agree in one place of 3000 or so.
    assert (drawn[0] == drawn[1]).sum() < 20
    parameters = {*inspect.signature(kind).parameters, *inspect.signature(kind.add).parameters}
    assert parameters == {"variance", "clients", "values", "steps", "dropouts", "colluders", "self", "ring"}


@kinds
def test_the_same_object_its_copies_and_its_forks_draw_anew(
    kind: type[SharedNoise], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bytes] = []
    genuine = os.urandom

    def urandom(size: int) -> bytes:
        given.append(genuine(size))
        return given[-1]

    monkeypatch.setattr(os, "urandom", urandom)
    noise = noise_of(kind, 2.0**20)
    again = pickle.loads(pickle.dumps(noise))  # noqa: S301
    assert again == noise
    ring = np.zeros(1000, dtype="<u4")
    first, second, third = noise.add(ring), noise.add(ring), again.add(ring)
    assert len(set(given)) == len(given) == 3
    for left, right in ((first, second), (first, third), (second, third)):
        assert (left == right).sum() < 20
    # An object holds no state at all, so none can be copied, printed, or be found in an error.
    shown = repr(noise).encode() + pickle.dumps(noise) + repr(vars(noise)).encode()
    for key in given:
        assert key not in shown
        assert key.hex().encode() not in shown
    assert set(vars(noise)) == {field.name for field in fields(noise)}
    with pytest.raises(FrozenInstanceError):
        noise.variance = 1  # type: ignore[misc]


@kinds
def test_an_error_while_noise_is_drawn_tells_nothing(kind: type[SharedNoise], monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[bytes] = []
    genuine, words = os.urandom, Keystream.words

    def urandom(size: int) -> bytes:
        keys.append(genuine(size))
        return keys[-1]

    def failing(stream: Keystream, count: int) -> Any:
        words(stream, count)
        raise MemoryError(f"no room for {count} words in {stream!r}")

    monkeypatch.setattr(os, "urandom", urandom)
    monkeypatch.setattr(Keystream, "words", failing)
    with pytest.raises(MemoryError) as caught:
        noise_of(kind).add(np.zeros(10, dtype="<u4"))
    assert keys[0].hex() not in str(caught.value)
    assert repr(keys[0]) not in str(caught.value)


# In sums


@kinds
def test_terms_refuse_noise_that_could_make_a_sum_wrap(kind: type[SharedNoise]) -> None:
    encoding = FixedPoint(clip=1.0, clients=4, value_bits=20)
    assert Terms(streams={"g": encoding}, steps=1, noise=noise_of(kind, 2.0**30), dropout=0.0)
    with pytest.raises(TermsError, match=f"with {kind.name} noise the sum could wrap; lower value_bits"):
        Terms(streams={"g": FixedPoint(clip=1.9999, clients=4)}, steps=1, noise=noise_of(kind, 2.0**30), dropout=0.0)


@kinds
@pytest.mark.parametrize("protocol", [name for name in available_protocols() if make_protocol(name).carries_noise])
def test_sums_with_less_noise_than_was_accounted_for_are_not_opened(kind: type[SharedNoise], protocol: str) -> None:
    """By the terms, at both sides; and at run time if more vanish than may."""
    encoding = FixedPoint(clip=1.0, clients=10, value_bits=16)
    noise = noise_of(kind, clients=10, dropouts=2)
    with pytest.raises(TermsError, match="of a cohort of 10 sums of 7 would be opened .* counts on 8 contributions"):
        Terms(streams={"g": encoding}, steps=1, noise=noise, dropout=0.3).survivors(10)
    terms = Terms(streams={"g": encoding}, steps=1, noise=noise, dropout=0.2)
    assert terms.survivors(10) == 8
    with pytest.raises(TermsError, match="of a cohort of 7 sums of 6 would be opened"):
        terms.survivors(7)
    for vanished in (2, 3):
        network = Dropouts(lambda phase, step, member, last=10 - vanished: phase is Phase.COLLECT and member >= last)
        cohort = Simulation(make_protocol(protocol), range(10), terms=terms, network=network)
        cohort.open()
        vectors = {member: np.zeros(5, dtype=np.float32) for member in range(10)}
        if vanished == 2:
            assert len(cohort.sum(vectors, stream="g").contributors) == 8
        else:
            with pytest.raises(TooFewSurvivorsError):
                cohort.sum(vectors, stream="g")


# What the noise is measured against: vectors rounded toward zero


@settings(max_examples=150, deadline=None)
@given(
    clip=st.floats(2.0**-10, 2.0**10, width=32),
    values=st.lists(st.floats(-(2.0**20), 2.0**20, width=32), min_size=1, max_size=40),
    value_bits=st.integers(4, 30),
    at_the_bound=st.booleans(),
)
def test_no_integer_vector_is_longer_than_its_bound(
    clip: float, values: list[float], value_bits: int, at_the_bound: bool
) -> None:
    """sum q^2 <= floor((s C)^2), in integers, which is floor(s C)^2 where s C is whole; that holds for clips of
    ``value_bits`` bits or less, such as powers of two. In general the whole number to account with is ceil(s C)."""
    if at_the_bound:
        clip = float(2.0 ** round(math.log2(clip)))
    encoding = FixedPoint(clip=clip, clients=2, value_bits=value_bits, rounding="toward_zero", norm="l2")
    vector = np.array(values, dtype=np.float32)
    signed = encoding.encode(vector).ring.view(np.int32)
    squared = sum(int(value) ** 2 for value in signed)
    scaled = Fraction(encoding.clip) * Fraction(2) ** encoding.exponent
    assert squared == FixedPoint.value_norm_squared(signed) <= encoding.largest_norm_squared <= encoding.largest**2
    assert encoding.largest == math.ceil(scaled)
    if scaled.denominator == 1:
        assert squared <= math.floor(scaled) ** 2
    assert not at_the_bound or scaled.denominator == 1
