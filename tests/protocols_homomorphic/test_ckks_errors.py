"""CKKS' errors slot by slot: how large they become under one public key, and when the encoder rounds many alike."""

from __future__ import annotations

import math

import numpy as np
from scipy import integrate, special

from protocols import FixedPoint
from protocols.homomorphic.parameters import (
    DEVIATIONS,
    ERROR_VARIANCE,
    FAILURE_BITS,
    PUBLIC_SLOT_DEVIATIONS,
)
from protocols.homomorphic.planning import plan_sums
from protocols.homomorphic.seal import Seal, _Scratch, backend
from protocols.homomorphic.vectors import BodySum, Key, decrypt_sum, encrypt_vector
from protocols.terms import MAX_STEPS, MAX_VALUES

SEED = bytes(range(64))


def complex_slots(seal: Seal, body: bytes, secret: object) -> np.ndarray:
    """What a chunk (first polynomial, second polynomial) decrypts to before it is rounded."""
    width = seal.parameters.coefficient_bytes
    padded = np.zeros((2 * seal.parameters.degree, 8), np.uint8)
    padded[:, :width] = np.frombuffer(body, np.uint8).reshape(-1, width)
    plaintext = seal._api.Plaintext()
    with _Scratch() as scratch:
        seal._core.Decryptor(seal._context, secret).decrypt(seal._load(padded.view("<u8").ravel(), scratch), plaintext)
    return np.asarray(seal._encoder.decode_complex(plaintext))


def test_under_one_public_key_the_worst_slot_s_error_is_far_above_the_nominal_one_and_covered() -> None:
    """200 ciphertexts of zeros, 2048 slots: each slot's deviation is estimated within 3.5 per cent.

    A slot's variance is G / 2 times the nominal one; that none of 2048 slots reaches 1.8 times the nominal deviation
    has probability (1 - 7.5 exp(-6.5))^2048 = 5e-11, and the mean of G / 2 over all is 1 within 1.6 per cent.
    """
    parameters = plan_sums("ckks", FixedPoint(clip=1.0, clients=4), public=True).parameters
    assert parameters.degree == 4096
    seal, count, size = backend(parameters), 200, parameters.polynomial_bytes
    secret = seal.secret_key(SEED)
    public = seal.load_public_key(seal.public_key(secret))
    first, second, _ = seal.encrypt(np.zeros((count, parameters.degree), np.uint64), public)
    found = np.array(
        [
            complex_slots(seal, first[at * size : (at + 1) * size] + second[at * size : (at + 1) * size], secret)
            for at in range(count)
        ]
    )
    nominal = math.sqrt(ERROR_VARIANCE * (4 / 3 * parameters.degree + 1) * parameters.degree / 2)
    nominal /= 2**parameters.scale_bits
    deviations = np.sqrt((np.abs(found) ** 2).mean(axis=0) / 2)
    assert 0.9 < math.sqrt((deviations**2).mean()) / nominal < 1.1
    worst = float(deviations.max())
    assert worst > 1.8 * nominal
    assert max(np.abs(found.real).max(), np.abs(found.imag).max()) < PUBLIC_SLOT_DEVIATIONS * nominal
    # Within a slot the error is Gaussian: so many of its own deviations are what a round may meet with.
    assert DEVIATIONS * worst < PUBLIC_SLOT_DEVIATIONS * nominal
    assert PUBLIC_SLOT_DEVIATIONS * nominal * math.sqrt(parameters.clients) <= 0.4


def exceeded(deviations: float) -> float:
    """log2 of the probability that a slot's error is larger: over G of the Gamma(2) distribution, in logarithms."""

    def logarithm(g: float) -> float:
        # 2 Q(x) = erfc(x / sqrt(2)) with x = deviations / sqrt(g / 2); erfc(z) = erfcx(z) exp(-z^2).
        z = deviations / math.sqrt(g)
        return math.log(g) - g + math.log(special.erfcx(z)) - z * z

    peak = max(logarithm(g / 10) for g in range(1, 5000))
    area, error = integrate.quad(lambda g: math.exp(logarithm(g) - peak), 1e-3, 500, points=[deviations], limit=500)
    assert error < 1e-6 * area
    return (peak + math.log(area)) / math.log(2)


def test_the_probability_that_is_stated_for_a_slot_is_what_the_integral_gives() -> None:
    """And enough for every integer of a round to keep it below 2^-40; 11.3 deviations would have been far from it."""
    found = exceeded(PUBLIC_SLOT_DEVIATIONS)
    assert round(found) == -93
    assert found + math.log2(MAX_VALUES) + math.log2(MAX_STEPS) + math.log2(8) <= -FAILURE_BITS
    assert exceeded(DEVIATIONS) > -40


def test_the_encoder_s_rounding_of_a_thousand_like_vectors_stays_beside_their_errors() -> None:
    """What it takes off a slot is the same for all of them, so it grows as their number and not as its root."""
    parameters = plan_sums("ckks", FixedPoint(clip=1.0, clients=1000), public=False).parameters
    seal, half = backend(parameters), parameters.degree // 2
    integers = np.random.default_rng(0).integers(-(1 << 20), 1 << 20, parameters.degree)
    with _Scratch() as scratch:
        plaintext = seal._plaintext(integers.view(np.uint64), scratch)
    slots = np.asarray(seal._encoder.decode_complex(plaintext)) - (integers[:half] + 1j * integers[half:])
    rounding = max(np.abs(slots.real).max(), np.abs(slots.imag).max())
    # Three and more standard deviations of a coefficient's rounding, as the worst of 4096 have.
    assert rounding * 2**parameters.scale_bits > 3 * math.sqrt(parameters.degree / 24)
    errors = DEVIATIONS * math.sqrt(1000 * ERROR_VARIANCE * half) / 2**parameters.scale_bits
    assert 1000 * rounding + errors <= 0.4


def test_a_thousand_identical_vectors_decrypt_exactly() -> None:
    encoding = FixedPoint(clip=1.0, clients=1000, value_bits=12)
    plan = plan_sums("ckks", encoding, public=False)
    key = Key(plan.parameters, SEED, secret=True)
    elements = plan.parameters.degree * plan.packing.fields
    row = np.random.default_rng(1).integers(-encoding.largest, encoding.largest, elements, endpoint=True)
    total = BodySum(plan, elements)
    for _ in range(encoding.clients):
        total.add(memoryview(encrypt_vector(plan, row.astype(encoding.dtype), key).body))
    found = decrypt_sum(plan, memoryview(total.body()), key, elements=elements, contributors=1000, dtype=encoding.dtype)
    assert np.array_equal(found, (1000 * row).astype(encoding.dtype))
