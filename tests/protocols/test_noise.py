"""Noise in the ring: none changes nothing, some is in the sum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from protocols import FixedPoint, Noise, NoNoise, Simulation, Terms, TermsError, available_protocols, make_protocol
from protocols.encoding import Ring


class Three(Noise):
    """Adds three units to every element; as good as any noise for finding it again."""

    name = "three"

    def parameters(self) -> dict[str, int | float | str]:
        return {}

    def headroom(self) -> int:
        return 3

    def add(self, ring: Ring) -> Ring:
        return ring + ring.dtype.type(3)


def test_no_noise_hands_the_vector_back() -> None:
    ring = np.array([0, 1, 2**32 - 1], "<u4")
    assert NoNoise().headroom() == 0
    assert NoNoise().parameters() == {}
    assert NoNoise().add(ring) is ring
    assert ring.tolist() == [0, 1, 2**32 - 1]


CARRYING = [name for name in available_protocols() if make_protocol(name).carries_noise]


@pytest.mark.parametrize("name", available_protocols())
def test_noise_that_cannot_be_carried_is_refused_with_the_reason(name: str) -> None:
    terms = Terms(streams={"gradients": FixedPoint(clip=1.0, clients=3, value_bits=12)}, steps=1, noise=Three())
    cohort = Simulation(make_protocol(name), range(3), terms=terms)
    if name in CARRYING:
        cohort.open()
        return
    with pytest.raises(TermsError, match="three noise: integer noise is accounted for to the last unit"):
        cohort.open()


@pytest.mark.parametrize("name", CARRYING)
@pytest.mark.parametrize("ring_bits", [32, 64])
def test_the_noise_of_every_contributor_is_in_the_sum(name: str, ring_bits: int) -> None:
    encoding = FixedPoint(clip=1.0, clients=4, ring_bits=ring_bits, value_bits=ring_bits - 8)
    silent = Terms(streams={"gradients": encoding}, steps=2)
    vectors = {member: np.linspace(-1, 1, 9) / (member + 1) for member in range(4)}
    rings = []
    for terms in (silent, replace(silent, noise=Three())):
        cohort = Simulation(make_protocol(name), range(4), terms=terms)
        cohort.open()
        rings.append([cohort.sum(vectors, stream="gradients").ring.astype(np.int64)])
        del vectors[3]
        rings[-1].append(cohort.sum(vectors, stream="gradients").ring.astype(np.int64))
        vectors[3] = np.linspace(-1, 1, 9) / 4
    wrap = 1 << 32 if ring_bits == 32 else 0
    for without, noisy, contributors in zip(*rings, (4, 3), strict=True):
        difference = noisy - without
        assert ((difference % wrap if wrap else difference) == 3 * contributors).all()


@pytest.mark.parametrize("name", CARRYING)
def test_noise_is_kept_off_the_weight(name: str) -> None:
    """The sum of the weights is what the noisy sum is divided by; it stays exact."""
    encoding = FixedPoint(clip=1.0, clients=3, max_weight=100, value_bits=12)
    terms = Terms(streams={"gradients": encoding}, steps=1, noise=Three())
    cohort = Simulation(make_protocol(name), range(3), terms=terms)
    cohort.open()
    weights = {0: 100, 1: 0, 2: 7}
    result = cohort.sum({member: np.zeros(4) for member in range(3)}, stream="gradients", weights=weights)
    assert result.weight == 107
    assert result.ring.tolist() == [9, 9, 9, 9, 107]
