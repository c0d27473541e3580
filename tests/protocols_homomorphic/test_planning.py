"""The planner: the cheapest ciphertexts of those considered, and what could be met where nothing can."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import EncodingError, FixedPoint, Terms, TermsError
from protocols.homomorphic.parameters import LARGEST_MODULUS, capacity
from protocols.homomorphic.planning import Plan, encoding_for, plan_streams, plan_sums, sets_of
from protocols.noise import Noise, NoNoise

SHAPES = [(2048, 32), (2048, 40), (2048, 48), (4096, 56)]


@st.composite
def encodings(draw: st.DrawFn) -> FixedPoint:
    bits = draw(st.sampled_from([32, 64]))
    return FixedPoint(
        clip=1.0,
        clients=draw(st.integers(1, 500)),
        ring_bits=bits,
        value_bits=draw(st.none() | st.integers(2, bits)),
        max_weight=draw(st.none() | st.integers(1, 50)),
    )


def bytes_a_value(scheme: str, shape: tuple[int, int], encoding: FixedPoint, *, public: bool) -> float:
    """What a client would upload under a shape, by the definition: fields of the sum side by side, or limbs."""
    degree, modulus_bits = shape
    room = capacity(scheme, degree, modulus_bits, clients=encoding.clients, public=public).message_bits
    levels = 2 * encoding.largest * (encoding.max_weight or 1)
    field = (levels * encoding.clients).bit_length()
    size = modulus_bits / 8 * (2 if public else 1) + (0 if public else 64 / degree)
    if 0 < field <= room:
        return size / (room // field)
    limb = room - (encoding.clients - 1).bit_length()
    return size * math.ceil(levels.bit_length() / limb) if limb > 0 else math.inf


@settings(max_examples=150, deadline=None)
@given(scheme=st.sampled_from(["bfv", "ckks"]), encoding=encodings(), public=st.booleans())
def test_the_cheapest_is_chosen(scheme: str, encoding: FixedPoint, public: bool) -> None:
    plan = plan_sums(scheme, encoding, public=public)
    costs = {shape: bytes_a_value(scheme, shape, encoding, public=public) for shape in SHAPES}
    chosen = (plan.parameters.degree, plan.parameters.modulus_bits)
    assert plan.upload == min(costs.values()) == costs[chosen]
    assert {(c.degree, c.modulus_bits): c.upload for c in plan.considered} == {
        shape: None if math.isinf(cost) else cost for shape, cost in costs.items()
    }
    assert [c.verdict.startswith("chosen") for c in plan.considered].count(True) == 1
    for considered in plan.considered:
        assert considered.security_limit == LARGEST_MODULUS[considered.degree]
        assert considered.modulus_bits <= considered.security_limit
        assert considered.verdict


@settings(max_examples=100, deadline=None)
@given(
    scheme=st.sampled_from(["bfv", "ckks"]), encoding=encodings(), public=st.booleans(), elements=st.integers(0, 10**6)
)
def test_sizes_are_those_of_whole_ciphertexts(scheme: str, encoding: FixedPoint, public: bool, elements: int) -> None:
    plan = plan_sums(scheme, encoding, public=public)
    integers = math.ceil(elements / plan.packing.fields) * plan.packing.limbs
    chunks, size = math.ceil(integers / plan.parameters.degree), plan.parameters.polynomial_bytes
    assert plan.chunks(elements) == chunks
    assert plan.upload_bytes(elements) == chunks * (2 * size if public else size + 64)
    assert plan.sum_bytes(elements) == chunks * 2 * size
    room = plan.upload_bytes(elements) - plan.upload * elements
    assert -1e-6 * elements <= room <= plan.upload_bytes(1) + plan.upload * plan.packing.fields


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
@pytest.mark.parametrize("public", [False, True])
def test_what_cannot_be_met_names_what_can(scheme: str, public: bool) -> None:
    def planned(clients: int) -> Plan:
        return plan_sums(scheme, FixedPoint(clip=1.0, clients=clients, ring_bits=64), public=public)

    with pytest.raises(TermsError, match="at most") as caught:
        planned(1 << 55)
    (largest,) = re.findall(r"at most (\d+) clients", str(caught.value))
    assert planned(int(largest)).packing.limb_bits == 1
    with pytest.raises(TermsError, match=f"at most {largest} clients"):
        planned(int(largest) + 1)


def terms_of(streams: dict[str, FixedPoint], noise: Noise | None = None) -> Terms:
    return Terms(streams=streams, steps=2, noise=noise or NoNoise())


def test_integer_noise_is_not_carried_by_an_approximate_scheme() -> None:
    class Integers(Noise):
        name = "integers"

        def parameters(self) -> dict[str, int]:
            return {}

        def headroom(self) -> int:
            return 1000

        def add(self, ring: np.ndarray) -> np.ndarray:
            return ring + np.uint32(1)

    terms = terms_of({"g": FixedPoint(clip=1.0, clients=4, value_bits=12)}, Integers())
    with pytest.raises(TermsError, match="ckks with integers noise"):
        plan_streams("ckks", terms, public=False)
    (plan,) = plan_streams("bfv", terms, public=False).values()
    assert plan.packing.offset == terms.streams["g"].largest + 1000


def test_a_stream_that_cannot_be_carried_is_named() -> None:
    terms = terms_of(
        {"small": FixedPoint(clip=1.0, clients=2), "many": FixedPoint(clip=1.0, clients=1 << 55, ring_bits=64)}
    )
    with pytest.raises(TermsError, match="stream 'many': bfv sums of"):
        plan_streams("bfv", terms, public=False)


def test_streams_that_are_encoded_alike_share_a_key() -> None:
    alike = FixedPoint(clip=1.0, clients=4)
    plans = plan_streams("bfv", terms_of({"a": alike, "b": alike}), public=True)
    assert len(sets_of(plans.values())) == 1
    plans = plan_streams("bfv", terms_of({"b": FixedPoint(clip=1.0, clients=9), "a": alike}), public=True)
    assert len(sets_of(plans.values())) == 2
    assert sets_of(plans.values()) == sets_of(reversed(plans.values()))


@settings(max_examples=100, deadline=None)
@given(
    precision=st.floats(1e-9, 0.4),
    clients=st.integers(1, 1000),
    clip=st.floats(2**-7, 100, width=32),
    max_weight=st.none() | st.integers(1, 100),
    seed=st.integers(0, 2**32),
)
def test_a_precision_is_kept_with_the_fewest_bits(
    precision: float, clients: int, clip: float, max_weight: int | None, seed: int
) -> None:
    """By brute force: no value is moved further, and with a bit less (or in the smaller ring) some could be."""
    encoding = encoding_for(precision, clients=clients, clip=clip, max_weight=max_weight)
    values = np.random.default_rng(seed).uniform(-encoding.clip, encoding.clip, 200)
    values = np.append(values, [encoding.clip, -encoding.clip, 0.0])
    weight = None if max_weight is None else 1
    decoded = encoding.decode(encoding.encode(values, weight=weight).ring).total
    assert np.abs(decoded - values).max() <= precision * (1 + 1e-12)
    assert encoding.resolution / 2 <= precision
    assert encoding.value_bits is not None

    def coarser(**changes: int) -> bool:
        shape = {"ring_bits": encoding.ring_bits, "value_bits": encoding.value_bits, **changes}
        try:
            other = FixedPoint(clip=clip, clients=clients, max_weight=max_weight, **shape)
        except EncodingError:
            return True
        return other.resolution / 2 > precision

    if encoding.value_bits > 2:
        assert coarser(value_bits=encoding.value_bits - 1)
    if encoding.ring_bits == 64:
        assert coarser(ring_bits=32, value_bits=32)


@pytest.mark.parametrize("precision", [0.0, -1.0, math.nan, math.inf])
def test_a_precision_that_is_none_is_refused(precision: float) -> None:
    with pytest.raises(EncodingError, match="must be a positive number"):
        encoding_for(precision, clients=3)


def test_a_precision_that_no_ring_has_names_the_one_that_can_be_had() -> None:
    with pytest.raises(EncodingError, match="at best") as caught:
        encoding_for(1e-30, clients=3)
    (best,) = re.findall(r"rounded to (\S+) at best", str(caught.value))
    assert encoding_for(float(best) * 1.05, clients=3).resolution / 2 <= float(best) * 1.05
