"""What every protocol has to give: the fixed-point sum over the contributors, to the last bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protocols import AUTHORITY, FixedPoint, ProtocolError, Simulation, SumProtocol, Terms, make_protocol

Simulate = Callable[..., Simulation]
ExactSum = Callable[..., tuple[list[int], list[float]]]
Drawn = Callable[..., dict[int, np.ndarray]]

VALUES = st.floats(-4, 4, width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-30, 1.5 * 2.0**-29])
FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(vectors=st.integers(0, 12).flatmap(lambda length: hnp.arrays(np.float32, (3, length), elements=VALUES)))
def test_the_sum_is_the_fixed_point_sum_to_the_last_bit(
    simulate: Simulate, exact_sum: ExactSum, vectors: np.ndarray
) -> None:
    cohort = simulate([0, 1, 2])
    handed = dict(enumerate(vectors))
    result = cohort.sum(handed, stream="gradients")
    ring, total = exact_sum(handed, FixedPoint(clip=1.0, clients=3))
    assert result.ring.tolist() == ring
    assert result.total.tolist() == total
    assert result.contributors == (0, 1, 2)
    assert result.weight is None


@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_weighted_mean_needs_no_weight_in_clear(
    simulate: Simulate, exact_sum: ExactSum, drawn: Drawn, ring_bits: int, dtype: type
) -> None:
    encoding = FixedPoint(clip=1.0, clients=4, max_weight=1000, ring_bits=ring_bits)
    vectors = {member: vector.astype(dtype) for member, vector in drawn(range(4), 30).items()}
    weights = {0: 1, 1: 1000, 2: 0, 3: 37}
    result = simulate(range(4), streams={"gradients": encoding}).sum(vectors, stream="gradients", weights=weights)
    ring, total = exact_sum(vectors, encoding, weights=weights)
    assert result.ring.tolist() == ring
    assert result.total.tolist() == total
    assert result.weight == 1038
    assert result.mean().tolist() == [value / 1038 for value in total]
    clipped = sum(weights[m] * np.clip(vectors[m].astype(np.float64), -1, 1) for m in range(4))
    assert np.abs(result.mean() - clipped / 1038).max() <= encoding.resolution / 2


def test_a_mean_without_weights_divides_by_the_contributors(simulate: Simulate) -> None:
    vectors = {0: np.array([0.5, 1.0]), 2: np.array([0.25, -1.0]), 3: np.array([0.0, 0.75])}
    result = simulate(range(4)).sum(vectors, stream="gradients")
    assert result.contributors == (0, 2, 3)
    assert result.mean().tolist() == [0.25, 0.25]


def test_a_mean_whose_weights_are_all_zero_is_refused(simulate: Simulate) -> None:
    terms = {"streams": {"gradients": FixedPoint(clip=1.0, clients=2, max_weight=5)}}
    result = simulate([0, 1], **terms).sum(
        {0: np.ones(2), 1: np.ones(2)}, stream="gradients", weights=dict.fromkeys((0, 1), 0)
    )
    assert (result.weight, result.total.tolist()) == (0, [0.0, 0.0])
    with pytest.raises(ProtocolError, match="weights sum to 0"):
        result.mean()


@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_values_with_the_largest_weights_do_not_wrap(simulate: Simulate, ring_bits: int, sign: int) -> None:
    """1.9999999 is just below a power of two, so that its largest integer comes close to what the ring holds."""
    clip = float(np.nextafter(np.float32(2), np.float32(0)))
    encoding = FixedPoint(clip=clip, clients=8, max_weight=7, ring_bits=ring_bits)
    vectors = {member: np.full(3, 1e9 * sign) for member in range(8)}
    result = simulate(range(8), streams={"gradients": encoding}).sum(
        vectors, stream="gradients", weights=dict.fromkeys(range(8), 7)
    )
    assert result.weight == 56
    assert abs(result.total / sign - 56 * clip).max() <= 56 * encoding.resolution


@pytest.mark.parametrize("length", [0, 1])
@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("max_weight", [None, 9])
def test_empty_and_one_element_vectors_are_summed(
    simulate: Simulate, exact_sum: ExactSum, drawn: Drawn, length: int, ring_bits: int, max_weight: int | None
) -> None:
    encoding = FixedPoint(clip=1.0, clients=3, ring_bits=ring_bits, max_weight=max_weight)
    vectors, weights = drawn(range(3), length), None if max_weight is None else {0: 2, 1: 9, 2: 0}
    result = simulate(range(3), streams={"gradients": encoding}).sum(vectors, stream="gradients", weights=weights)
    ring, total = exact_sum(vectors, encoding, weights=weights)
    assert (result.ring.tolist(), result.total.tolist()) == (ring, total)
    assert result.weight == (None if max_weight is None else 11)


@pytest.mark.parametrize("length", [100_003, pytest.param(5_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ring_bits", [32, 64])
def test_long_vectors_are_summed_exactly(simulate: Simulate, drawn: Drawn, length: int, ring_bits: int) -> None:
    """With a bound of 1 and three clients the scale is 2^29, or 2^61 where a sum in float64 would not be exact."""
    vectors = drawn(range(3), length)
    terms = {"streams": {"gradients": FixedPoint(clip=1.0, clients=3, ring_bits=ring_bits)}}
    result = simulate(range(3), **terms).sum(vectors, stream="gradients")
    scale = {32: 2.0**29, 64: 2.0**61}[ring_bits]
    integers = [np.rint(np.clip(v.astype(np.float64), -1, 1) * scale).astype(np.int64) for v in vectors.values()]
    assert np.array_equal(result.ring, sum(integers).astype(result.ring.dtype))


@pytest.mark.parametrize("members", [[3, 70, 1000, 2**32 - 1], [5, 6], [*range(100, 110)]])
def test_members_may_have_any_numbers(
    simulate: Simulate, exact_sum: ExactSum, drawn: Drawn, members: list[int]
) -> None:
    vectors = drawn(members, 5)
    result = simulate(members).sum(vectors, stream="gradients")
    assert result.ring.tolist() == exact_sum(vectors, FixedPoint(clip=1.0, clients=len(members)))[0]
    assert result.contributors == tuple(members)


def test_one_round_sums_several_streams_in_any_order(simulate: Simulate, exact_sum: ExactSum, drawn: Drawn) -> None:
    streams = {
        "gradients": FixedPoint(clip=1.0, clients=3),
        "labels": FixedPoint(clip=0.3, clients=3, ring_bits=64),
        "counts": FixedPoint(clip=1e6, clients=3, max_weight=11, value_bits=12),
    }
    cohort = simulate(range(3), streams=streams, steps=9)
    for step, name in enumerate(["counts", "gradients", "labels", "labels", "gradients", "counts"]):
        vectors = {m: v * streams[name].clip for m, v in drawn(range(3), 1 + 7 * (step % 3), seed=step).items()}
        weights = {0: 11, 1: 0, 2: step} if streams[name].max_weight else None
        result = cohort.sum(vectors, stream=name, weights=weights)
        assert result.ring.tolist() == exact_sum(vectors, streams[name], weights=weights)[0], (step, name)


@pytest.mark.parametrize("steps", [30, pytest.param(500, marks=pytest.mark.slow)])
def test_many_steps_follow_one_set_up(simulate: Simulate, exact_sum: ExactSum, drawn: Drawn, steps: int) -> None:
    """Every step has other vectors, and every third loses somebody."""
    cohort = simulate(range(4), steps=steps)
    encoding = FixedPoint(clip=1.0, clients=4)
    for step in range(steps):
        vectors = drawn(range(4), 6, seed=step)
        if step % 3 == 2:
            del vectors[step % 4]
        result = cohort.sum(vectors, stream="gradients")
        assert result.ring.tolist() == exact_sum(vectors, encoding)[0], step
    assert cohort.rejections == []
    assert cohort.steps_left == 0


def test_every_protection_gives_the_same_integers(
    protocol: SumProtocol, make_terms: Callable[..., Terms], drawn: Drawn
) -> None:
    """Sums under a protection and without any, of the same vectors and with the same ones missing."""
    encodings = itertools.product((32, 64), (None, 50), ("nearest", "toward_zero"), ("linf", "l2"))
    streams = {
        f"{bits} {weight} {rounding} {norm}": FixedPoint(
            clip=0.7, clients=5, ring_bits=bits, max_weight=weight, rounding=rounding, norm=norm
        )
        for bits, weight, rounding, norm in encodings
    }
    terms = make_terms(5, streams=streams, steps=len(streams))
    protected = Simulation(protocol, range(5), terms=terms)
    clear = Simulation(make_protocol("plain"), range(5), terms=terms)
    protected.open()
    clear.open()
    for seed, (name, encoding) in enumerate(streams.items()):
        vectors = drawn(range(5), 40, seed=seed)
        if seed % 2:
            del vectors[seed % 5]
        weights = None if encoding.max_weight is None else {member: 7 * member for member in range(5)}
        ours, theirs = (cohort.sum(vectors, stream=name, weights=weights) for cohort in (protected, clear))
        assert ours.ring.tolist() == theirs.ring.tolist(), name
        assert ours.total.tolist() == theirs.total.tolist(), name
        assert (ours.weight, ours.contributors) == (theirs.weight, theirs.contributors)


def test_the_threat_model_says_who_learns_what(protocol: SumProtocol) -> None:
    model = protocol.threat_model
    for party in ("passive_server", "active_server", "clients", "collusion", "dropouts", "outsider", "assumes"):
        assert len(getattr(model, party).split()) >= 5, party


@pytest.mark.parametrize("members", [[0, 1, 2], [7, 8]])
def test_bytes_and_seconds_are_counted_by_phase(
    simulate: Simulate, drawn: Drawn, protocol: SumProtocol, members: list[int]
) -> None:
    cohort = simulate(members)
    before = {member: cohort.costs.of(member, "step").sent for member in members}
    for _ in range(2):
        cohort.sum(drawn(members, 100), stream="gradients")
    assert before == dict.fromkeys(members, 0)
    others = [*members, *([AUTHORITY] if protocol.has_authority else [])]
    for party in (-1, *others):
        setup, step = cohort.costs.of(party, "setup"), cohort.costs.of(party, "step")
        assert setup.sent > 0 or party != -1
        assert step.sent > 0
        assert step.received > 0
        assert step.cpu_seconds > 0
        assert setup.cpu_seconds > 0
    for phase in ("setup", "step"):
        server = cohort.costs.of(-1, phase)
        assert server.sent == sum(cohort.costs.of(party, phase).received for party in others)
        assert server.received == sum(cohort.costs.of(party, phase).sent for party in others)
    assert all(cohort.costs.of(member, "step").sent >= 2 * 400 for member in members)
