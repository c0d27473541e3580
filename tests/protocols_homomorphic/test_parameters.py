"""Parameters: no more modulus than 128 bits of security allow, and no more message than the errors leave room for."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import TermsError
from protocols.homomorphic.parameters import (
    DEVIATIONS,
    ERROR_BOUND,
    ERROR_VARIANCE,
    LARGEST_MODULUS,
    Parameters,
    capacity,
)
from protocols.homomorphic.seal import backend
from protocols.terms import MAX_STEPS, MAX_VALUES

SHAPES = [(2048, 32), (2048, 40), (2048, 48), (4096, 56)]
STANDARD = {2048: 54, 4096: 109, 8192: 218}
"""Homomorphic Encryption Standard, table 1: bits for 128 bits of security against classical attacks."""
CASES = st.tuples(
    st.sampled_from(["bfv", "ckks"]),
    st.sampled_from(SHAPES),
    st.booleans(),
    st.integers(1, 300) | st.integers(300, 2**20),
)


def made(scheme: str, degree: int, modulus_bits: int, *, public: bool, clients: int) -> Parameters | None:
    """Parameters with all the room that there is, if there is any."""
    room = capacity(scheme, degree, modulus_bits, clients=clients, public=public)
    if room.message_bits < 1:
        return None
    return Parameters(
        scheme=scheme,
        degree=degree,
        modulus_bits=modulus_bits,
        message_bits=room.message_bits,
        scale_bits=room.scale_bits,
        public=public,
        clients=clients,
    )


@given(
    degree=st.sampled_from([1024, 2048, 4096, 8192, 16384]),
    modulus_bits=st.integers(1, 300),
    message_bits=st.integers(-3, 60),
    public=st.booleans(),
    clients=st.integers(1, 1000),
)
def test_nothing_below_128_bits_of_security_can_be_made(
    degree: int, modulus_bits: int, message_bits: int, public: bool, clients: int
) -> None:
    """Nor anything with more message than there is room for."""
    try:
        found = Parameters(
            scheme="bfv",
            degree=degree,
            modulus_bits=modulus_bits,
            message_bits=message_bits,
            scale_bits=0,
            public=public,
            clients=clients,
        )
    except TermsError:
        return
    assert found.modulus_bits <= STANDARD[degree]
    assert 1 <= message_bits <= capacity("bfv", degree, modulus_bits, clients=clients, public=public).message_bits


def test_the_limits_are_no_higher_than_the_standard_s() -> None:
    assert all(bits <= STANDARD[degree] for degree, bits in LARGEST_MODULUS.items())
    for degree, bits in ((1024, 24), (1024, 32), (2048, 56), (4096, 112)):
        with pytest.raises(TermsError):
            Parameters(
                scheme="bfv",
                degree=degree,
                modulus_bits=bits,
                message_bits=2,
                scale_bits=0,
                public=False,
                clients=2,
            )


@pytest.mark.parametrize("bits", [31, 33, 16, 64, 0, -8])
def test_a_modulus_that_is_no_whole_number_of_bytes_is_refused(bits: int) -> None:
    with pytest.raises(TermsError, match="multiple of 8 from 24 to 56"):
        Parameters(scheme="bfv", degree=4096, modulus_bits=bits, message_bits=2, scale_bits=0, public=False, clients=2)


def test_the_standard_deviations_hold_for_every_coefficient_of_a_round() -> None:
    """2 exp(-x^2 / 2) bounds both tails of a Gaussian, and is met by all coefficients of all steps but for 2^-40."""
    tail = math.log2(2) - DEVIATIONS**2 / 2 / math.log(2)
    assert tail + math.log2(MAX_VALUES) + math.log2(MAX_STEPS) <= -40 + 1e-9


@pytest.mark.parametrize("shape", SHAPES)
def test_the_prime_is_of_its_size_and_fits_the_transform(shape: tuple[int, int]) -> None:
    degree, bits = shape
    found = [made(scheme, *shape, public=False, clients=2) for scheme in ("bfv", "ckks")]
    moduli = {backend(parameters).modulus for parameters in found if parameters is not None}
    (prime,) = moduli
    assert prime.bit_length() == bits
    assert prime % (2 * degree) == 1
    assert all(pow(base, prime - 1, prime) == 1 for base in (2, 3, 5, 7, 11, 13))
    assert bits - math.log2(prime) < 0.01


@settings(max_examples=200, deadline=None)
@given(case=CASES)
def test_the_claimed_message_and_the_worst_error_fit_the_modulus_and_one_bit_more_does_not(
    case: tuple[str, tuple[int, int], bool, int],
) -> None:
    """In exact arithmetic: BFV rounds correctly while error * 2^(bits + 1) < q, CKKS while the slots stay apart."""
    scheme, (degree, bits), public, clients = case
    parameters = made(scheme, degree, bits, public=public, clients=clients)
    if parameters is None:
        return
    modulus = backend_modulus(degree, bits)
    message = parameters.message_bits
    variance = Fraction(ERROR_VARIANCE) * (Fraction(4 * degree, 3) + 1 if public else 1)
    if scheme == "bfv":
        if public:
            error = DEVIATIONS * math.sqrt(clients * float(variance)) + clients / 2
        else:
            error = clients * ERROR_BOUND + clients / 2
        assert error * 2 ** (message + 1) < modulus
        assert error * 2 ** (message + 2) >= modulus * 0.99
        return
    slot = math.sqrt(clients * (float(variance) + 1 / 12) * degree / 2)
    assert DEVIATIONS * slot <= 0.4 * 2**parameters.scale_bits
    assert math.sqrt(2) * 2 ** (message - 1) * 2**parameters.scale_bits < modulus / 2
    # Doubles hold 53 bits: the largest scaled slot keeps three bits below the error of a coefficient.
    assert message + parameters.scale_bits + 3 <= 53 + math.log2(math.sqrt(clients * float(variance))) + 0.1


PRIMES: dict[tuple[int, int], int] = {}


def backend_modulus(degree: int, bits: int) -> int:
    """The prime that SEAL takes, asked for once a shape."""
    if (degree, bits) not in PRIMES:
        found = [made(scheme, degree, bits, public=False, clients=1) for scheme in ("bfv", "ckks")]
        PRIMES[degree, bits] = backend(next(p for p in found if p is not None)).modulus
    return PRIMES[degree, bits]


@pytest.mark.parametrize("shape", [(2048, 40), (2048, 48), (4096, 56)])
@pytest.mark.parametrize("clients", [1, 10])
def test_the_worst_symmetric_error_is_rounded_off_and_twice_as_much_is_not(
    shape: tuple[int, int], clients: int
) -> None:
    """A sum by hand: the largest message in every coefficient, plus the worst error of every client, either sign."""
    parameters = made("bfv", *shape, public=False, clients=clients)
    assert parameters is not None
    seal, bits = backend(parameters), parameters.message_bits
    key = seal.secret_key(bytes(64))
    message = (1 << bits) - 1
    worst = clients * ERROR_BOUND + math.ceil(clients / 2)
    beyond = math.ceil(seal.modulus / 2 ** (bits + 1)) + 1
    zero = np.zeros(parameters.degree, np.uint64)
    for error, exact in ((worst, True), (-worst, True), (beyond, False), (-beyond, False)):
        encoded = (round(Fraction(seal.modulus * message, 1 << bits)) + error) % seal.modulus
        found = seal.decrypt(np.full(parameters.degree, encoded, np.uint64), zero, key)
        assert (found.tolist() == [message] * parameters.degree) == exact, error
    assert beyond < 2 * 2 * worst + 4, "a message bit was left unused"
