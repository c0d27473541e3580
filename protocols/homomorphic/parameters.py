"""Parameters of a lattice ciphertext, what they can carry, and how safe they are.

Both schemes encrypt a polynomial of ``degree`` coefficients modulo one prime q of ``modulus_bits`` bits; there is no
second prime, because nothing but additions ever happens to a ciphertext. A fresh ciphertext holds the message and an
error; errors add up with the messages, and the sum decrypts correctly as long as they stay below a bound that is known
beforehand. The error of one coefficient is, in units of SEAL's centred binomial distribution (21 coin pairs: variance
10.5, magnitude at most 21; SEAL 4.0, ``util/rlwe.cpp``),

=========== ======================= =================================================================================
symmetric   e                       the key's holder encrypts; at most 21 in magnitude
public key  e u + e1 + s e2         with ternary u and s of variance 2/3: variance 10.5 (4/3 degree + 1). It is bounded
                                    by so many standard deviations that, over all that one round can send, an error is
                                    larger with probability 2^-40
=========== ======================= =================================================================================

**Security.** 128 bits against the best classical attacks known need, with ternary secrets, a modulus of at most the
bits in :data:`LARGEST_MODULUS`: the lesser of the Homomorphic Encryption Standard (Albrecht et al. 2018) and
the newer Security Guidelines for Implementing Homomorphic Encryption (Bossuat et al. 2024, uniform ternary secrets).
Both assume Gaussian errors of standard deviation 3.2; SEAL's binomial ones have 3.24.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from protocols.errors import TermsError
from protocols.terms import MAX_STEPS, MAX_VALUES

Scheme = Literal["bfv", "ckks"]

LARGEST_MODULUS = {2048: 53, 4096: 106, 8192: 214}
"""Degree to the most bits of modulus that keep 128 bits of security."""

ERROR_VARIANCE, ERROR_BOUND = 10.5, 21
FAILURE_BITS = 40
_MOST_LIMBS = 8
_ROUND_BITS = FAILURE_BITS + math.log2(MAX_VALUES) + math.log2(MAX_STEPS) + math.log2(_MOST_LIMBS)
"""-log2 of what may go wrong at one coefficient, so that 2^-40 bounds a whole round."""
DEVIATIONS = math.sqrt(2 * math.log(2) * (_ROUND_BITS + 1))
"""Standard deviations that a Gaussian error stays within with that probability: 11.3."""
PUBLIC_SLOT_DEVIATIONS = 34.0
"""The same for a slot of CKKS under a public key.

There the error is e(z) U + s(z) V + ... at a root of unity z, with e and s the same in the whole round and U, V
Gaussian. |e(z)|^2 and |s(z)|^2 are exponentially distributed over the slots, so that a slot's variance is G/2 times the
nominal one with G of the Gamma(2) distribution; the integral of g exp(-g) 2 Q(34 / sqrt(g / 2)) dg is 2^-93.
"""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """One way to encrypt integers so that sums of ciphertexts decrypt to sums of the integers.

    Attributes:
        scheme: BFV, whose plaintext is a polynomial modulo 2^message_bits, or CKKS, whose plaintext is a vector of
            degree / 2 complex numbers, each carrying an integer in its real and another in its imaginary part.
        degree: coefficients of a polynomial, and integers in a ciphertext.
        modulus_bits: size of the prime q, a multiple of 8.
        message_bits: the sum of the integers of one coefficient stays below 2^message_bits.
        scale_bits: CKKS multiplies numbers by 2^scale_bits before it rounds them; 0 with BFV.
        public: whether clients encrypt with a public key.
        clients: at most so many ciphertexts are added.
    """

    scheme: Scheme
    degree: int
    modulus_bits: int
    message_bits: int
    scale_bits: int
    public: bool
    clients: int

    def __post_init__(self) -> None:
        if self.modulus_bits % 8 or not 24 <= self.modulus_bits <= 56:
            raise TermsError(f"modulus_bits is {self.modulus_bits}: use a multiple of 8 from 24 to 56")
        if self.modulus_bits > LARGEST_MODULUS.get(self.degree, 0):
            raise TermsError(
                f"degree {self.degree} with a modulus of {self.modulus_bits} bits is below 128 bits of security: "
                f"use one of {LARGEST_MODULUS}"
            )
        largest = capacity(
            self.scheme, self.degree, self.modulus_bits, clients=self.clients, public=self.public
        ).message_bits
        if not 1 <= self.message_bits <= largest:
            raise TermsError(
                f"message_bits is {self.message_bits}: sums of {self.clients} such ciphertexts hold 1 to {largest} bits"
            )

    def __str__(self) -> str:
        """All of the above in a fixed form: keys are derived from it, and parties compare it."""
        kind = "public" if self.public else "secret"
        return (
            f"{self.scheme} degree={self.degree} modulus={self.modulus_bits} message={self.message_bits} "
            f"scale={self.scale_bits} {kind} clients={self.clients}"
        )

    @property
    def coefficient_bytes(self) -> int:
        """Bytes of one coefficient on the wire."""
        return self.modulus_bits // 8

    @property
    def polynomial_bytes(self) -> int:
        """Bytes of one polynomial on the wire."""
        return self.degree * self.coefficient_bytes


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a modulus has room for beside the errors.

    Attributes:
        message_bits: of the sum; 0 or less if there is no room.
        scale_bits: CKKS' scale; 0 with BFV.
    """

    message_bits: int
    scale_bits: int


def capacity(scheme: Scheme, degree: int, modulus_bits: int, *, clients: int, public: bool) -> Capacity:
    """Room for the sum of ``clients`` messages under the largest prime of that size.

    BFV rounds correctly while the error is below q / 2^(message_bits + 1). CKKS has to tell integers apart: the error
    in a slot, which sums the errors of all coefficients times roots of unity, must stay below 0.4 of the scale (the
    rest is for the rounding of double-precision transforms), and the scaled message below q / 2.
    """
    # Primes are the largest of their size, so log2 q is short of modulus_bits by far less than this.
    room = modulus_bits - 0.01
    if scheme == "bfv":
        # SEAL rounds q m / 2^message_bits to an integer: half a unit of error a ciphertext.
        error = _coefficient_error(degree, clients=clients, public=public) + clients / 2
        return Capacity(message_bits=math.floor(room - math.log2(error) - 1), scale_bits=0)
    deviation = math.sqrt(clients * _variance(degree, public=public))
    factor = PUBLIC_SLOT_DEVIATIONS if public else DEVIATIONS
    error = factor * deviation * math.sqrt(degree / 2)
    # The encoder rounds each coefficient, with variance 1/12; clients with the same vector round it alike.
    error += clients * DEVIATIONS * math.sqrt(degree / 24)
    scale_bits = math.ceil(math.log2(2.5 * error))
    # The integers of a slot are centred: each part is below 2^(message_bits - 1), the slot below sqrt(2) times that,
    # and no coefficient exceeds the largest slot.
    message_bits = math.floor(room - 1 - scale_bits + 0.5)
    # Doubles hold 53 bits. The decoder's rounding of a coefficient stays an eighth of its error; that of the
    # transforms, a few units in the last place of the largest slot, a hundredth of an integer.
    exact = min(44, math.floor(53 + math.log2(deviation) - 3 - scale_bits))
    return Capacity(message_bits=min(message_bits, exact), scale_bits=scale_bits)


def _variance(degree: int, *, public: bool) -> float:
    return ERROR_VARIANCE * ((4 / 3 * degree + 1) if public else 1)


def _coefficient_error(degree: int, *, clients: int, public: bool) -> float:
    if not public:
        return clients * ERROR_BOUND
    worst = clients * ERROR_BOUND * (2 * degree + 1)
    return min(DEVIATIONS * math.sqrt(clients * _variance(degree, public=True)), worst)
