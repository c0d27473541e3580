"""Ciphertexts look uniform whatever they hold: chi-square tests of bytes, each with a false-alarm rate of 1e-9."""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy.stats import chi2

from protocols import FixedPoint
from protocols.homomorphic.coefficients import to_bytes
from protocols.homomorphic.planning import Plan, plan_sums
from protocols.homomorphic.seal import backend
from protocols.homomorphic.vectors import BodySum, Key, encrypt_vector

CASES = [
    (scheme, public, value)
    for scheme in ("bfv", "ckks")
    for public in (False, True)
    for value in ("zero", "highest", "lowest")
]
CHUNKS = 12
LIMIT = float(chi2.isf(1e-9, 255))


def statistic(content: np.ndarray) -> float:
    """Of bytes against the uniform distribution: chi-square with 255 degrees of freedom."""
    counts = np.bincount(content, minlength=256)
    expected = content.size / 256
    return float(((counts - expected) ** 2).sum() / expected)


def body_of(scheme: str, public: bool, value: str) -> tuple[Plan, bytearray, int]:
    """A constant vector, encrypted under a fresh key."""
    encoding = FixedPoint(clip=1.0, clients=3)
    plan = plan_sums(scheme, encoding, public=public)
    key = Key(plan.parameters, os.urandom(64), secret=True)
    if public:
        content = to_bytes(backend(plan.parameters).public_key(key.load()), plan.parameters.coefficient_bytes)
        key = Key(plan.parameters, content, secret=False)
    elements = CHUNKS * plan.parameters.degree * plan.packing.fields // plan.packing.limbs
    element = {"zero": 0, "highest": plan.packing.offset, "lowest": -plan.packing.offset}[value] % 2**32
    return plan, encrypt_vector(plan, np.full(elements, element, np.uint32), key).body, elements


@pytest.mark.parametrize(("scheme", "public", "value"), CASES)
def test_polynomials_of_a_constant_vector_are_uniform(scheme: str, public: bool, value: str) -> None:
    """The primes are below a power of 256 by less than 2^-17 of it, which no test of this size sees.

    Each byte of a coefficient is tested by itself, and the differences of neighbours.
    """
    plan, body, elements = body_of(scheme, public, value)
    width = plan.parameters.coefficient_bytes
    size = plan.chunks(elements) * plan.parameters.polynomial_bytes * (2 if public else 1)
    content = np.frombuffer(body, np.uint8)[:size].reshape(-1, width)
    assert len(content) == plan.chunks(elements) * plan.parameters.degree * (2 if public else 1)
    for place in range(width):
        assert statistic(content[:, place]) < LIMIT, place
        assert statistic(np.diff(content[:, place])) < LIMIT, place


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
def test_second_polynomials_expand_from_fresh_seeds_and_are_uniform(scheme: str) -> None:
    plan, body, elements = body_of(scheme, False, "zero")
    total = BodySum(plan, elements)
    total.add(memoryview(body))
    width, chunks = plan.parameters.coefficient_bytes, plan.chunks(elements)
    seeds = {bytes(body[len(body) - 64 * (chunks - at) :][:64]) for at in range(chunks)}
    assert len(seeds) == chunks
    both = np.frombuffer(total.body(), np.uint8)
    content = both[len(both) // 2 :].reshape(-1, width)
    for place in range(width):
        assert statistic(content[:, place]) < LIMIT, place


def test_the_statistic_sees_what_is_not_uniform() -> None:
    """Of 24,576 bytes, a bias of one part in ten in half of the values."""
    generator = np.random.default_rng(0)
    flat = generator.integers(0, 256, 24_576).astype(np.uint8)
    assert statistic(flat) < LIMIT
    biased = np.where(generator.random(flat.size) < 0.2, flat & 0x7F, flat)
    assert statistic(biased) > LIMIT
