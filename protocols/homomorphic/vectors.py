"""Whole vectors: a client's ring elements as ciphertexts, sums of them, and back.

A *body* is what travels. A client's is all first polynomials, then a seed for each second one; or, under a public key,
all second polynomials. A sum's is all first, then all second polynomials. Polynomials add up coefficient by
coefficient, whoever adds them, so they, and not seeds, are what linear tags are made of: of both, because a server that
could change second polynomials alone would add multiples of the secret key to the sum.

Chunks of bodies are taken one by one; only who encrypts holds the whole vector several times. SEAL holds the
interpreter's lock; who wants several cores hands over a :class:`concurrent.futures.ProcessPoolExecutor`, whose
processes are then sent key and plaintext through pipes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from protocols.encoding import Ring
from protocols.errors import CiphertextError, NoiseBudgetError
from protocols.homomorphic.coefficients import Coefficients, from_bytes, to_bytes
from protocols.homomorphic.packing import Integers
from protocols.homomorphic.parameters import Parameters
from protocols.homomorphic.planning import SEED_BYTES, Plan
from protocols.homomorphic.seal import EXHAUSTED, backend

_BLOCK_CHUNKS = 16


class Key:
    """A key for one set of parameters, in the form that other processes can be sent, and as SEAL's object.

    Args:
        parameters: what it is for.
        material: the 64-byte seed of a secret key, or the coefficients of a public one. No ``repr`` shows it.
        secret: which of the two it is.
    """

    def __init__(self, parameters: Parameters, material: bytes, *, secret: bool) -> None:
        self.parameters = parameters
        self.material = material
        self._secret = secret
        self._loaded: Any = None

    def load(self) -> Any:
        """SEAL's object.

        Raises:
            CiphertextError: the coefficients are none of a public key.
        """
        if self._loaded is None:
            seal = backend(self.parameters)
            if self._secret:
                self._loaded = seal.secret_key(self.material)
            else:
                if len(self.material) != 2 * self.parameters.polynomial_bytes:
                    raise CiphertextError(f"a public key has {2 * self.parameters.polynomial_bytes} bytes")
                width = self.parameters.coefficient_bytes
                self._loaded = seal.load_public_key(from_bytes(self.material, width, seal.modulus))
        return self._loaded

    def forget(self) -> None:
        """Drop both forms."""
        self.material, self._loaded = b"", None

    def __getstate__(self) -> tuple[Parameters, bytes, bool]:
        return self.parameters, self.material, self._secret

    def __setstate__(self, state: tuple[Parameters, bytes, bool]) -> None:
        self.parameters, self.material, self._secret = state
        self._loaded = None


@dataclass(frozen=True, kw_only=True)
class Encrypted:
    """One client's vector.

    Attributes:
        body: what travels.
        polynomials: all first and all second polynomials: what adds up. Under a public key the same as the body.
    """

    body: bytearray
    polynomials: bytearray


def encrypt_vector(plan: Plan, ring: Ring, key: Key, *, executor: Executor | None = None) -> Encrypted:
    """Encrypt a client's vector.

    Args:
        plan: of the stream.
        ring: ``(d,)``, the encoded vector with its noise.
        key: the secret key, or a public one where the plan says so.
        executor: processes that share the work.

    Raises:
        ContributionError: an element is beyond the bound of the stream.
    """
    packed = plan.packing.pack(ring)
    size, chunks = plan.parameters.polynomial_bytes, plan.chunks(len(ring))
    integers = np.zeros((chunks, plan.parameters.degree), dtype=np.uint64)
    integers.reshape(-1)[: len(packed)] = packed - _centre(plan)
    polynomials, all_seeds = bytearray(2 * chunks * size), bytearray()
    starts = range(0, chunks, _BLOCK_CHUNKS)
    blocks = [integers[start : start + _BLOCK_CHUNKS] for start in starts]
    run = map if executor is None else executor.map
    for start, (first, second, seeds) in zip(starts, run(_encrypt, [key] * len(blocks), blocks), strict=True):
        for part, at in ((first, start * size), (second, (chunks + start) * size)):
            polynomials[at : at + len(part)] = part
        all_seeds += seeds
    if plan.parameters.public:
        return Encrypted(body=polynomials, polynomials=polynomials)
    return Encrypted(body=polynomials[: chunks * size] + all_seeds, polynomials=polynomials)


def _encrypt(key: Key, block: Integers) -> tuple[bytes, bytes, bytes]:
    return backend(key.parameters).encrypt(block, key.load())


class BodySum:
    """The sum of clients' bodies, as it grows: two polynomials a chunk, of 8 bytes a coefficient.

    Bodies with seeds are expanded and added by SEAL. Those of a public key are whole already, and added modulo q: SEAL
    would throw at a sum whose second polynomial is zero, which a client can bring about in the middle of a body.

    Args:
        plan: of the stream.
        elements: d, ring elements of every vector.
    """

    def __init__(self, plan: Plan, elements: int) -> None:
        self._plan = plan
        self._seal = backend(plan.parameters)
        self._totals: list[Any] = [None] * plan.chunks(elements)
        self.expected = plan.upload_bytes(elements)
        """Bytes of a client's body."""

    def check(self, body: memoryview) -> None:
        """Return if the body is one that can be added.

        Raises:
            CiphertextError: another length, or a coefficient that is not below the modulus.
        """
        if len(body) != self.expected:
            raise CiphertextError(f"the ciphertexts have {len(body)} bytes, where {self.expected} are expected")
        if self._plan.parameters.public:
            for _ in polynomial_pairs(body, self._plan.parameters, len(self._totals)):
                pass
        else:
            for _ in self._seeded(body):
                pass

    def add(self, body: memoryview) -> None:
        """Add a body that :meth:`check` has passed."""
        if not self._plan.parameters.public:
            for place, (first, seed) in enumerate(self._seeded(body)):
                self._totals[place] = self._seal.add(self._totals[place], first, seed)
            return
        modulus = np.uint64(self._seal.modulus)
        for place, pair in enumerate(polynomial_pairs(body, self._plan.parameters, len(self._totals))):
            total = self._totals[place]
            self._totals[place] = np.stack(pair) if total is None else (total + np.stack(pair)) % modulus

    def _seeded(self, body: memoryview) -> Iterator[tuple[Coefficients, bytes]]:
        parameters, count = self._plan.parameters, len(self._totals)
        size = parameters.polynomial_bytes
        for place in range(count):
            first = from_bytes(
                body[place * size : (place + 1) * size], parameters.coefficient_bytes, self._seal.modulus
            )
            seed = count * size + place * SEED_BYTES
            yield first, bytes(body[seed : seed + SEED_BYTES])

    def body(self) -> bytearray:
        """The sum's body; the memory of the sum is given up meanwhile."""
        parameters, count = self._plan.parameters, len(self._totals)
        size, width = parameters.polynomial_bytes, parameters.coefficient_bytes
        body = bytearray(2 * count * size)
        for place, total in enumerate(self._totals):
            first, second = total if parameters.public else self._seal.polynomials(total)
            self._totals[place] = None
            body[place * size : (place + 1) * size] = to_bytes(first, width)
            body[(count + place) * size : (count + place + 1) * size] = to_bytes(second, width)
        return body


def polynomial_pairs(
    body: memoryview, parameters: Parameters, chunks: int
) -> Iterator[tuple[Coefficients, Coefficients]]:
    """First and second polynomials of a body that holds all of both.

    Raises:
        CiphertextError: a coefficient is not below the modulus.
    """
    size, width, modulus = parameters.polynomial_bytes, parameters.coefficient_bytes, backend(parameters).modulus
    for place in range(chunks):
        first = body[place * size : (place + 1) * size]
        second = body[(chunks + place) * size : (chunks + place + 1) * size]
        yield from_bytes(first, width, modulus), from_bytes(second, width, modulus)


def decrypt_sum(
    plan: Plan, body: memoryview, key: Key, *, elements: int, contributors: int, dtype: np.dtype[Any]
) -> Ring:
    """The sum in the ring, with all errors rounded off.

    Args:
        plan: of the stream.
        body: of the sum.
        key: the secret key.
        elements: d.
        contributors: how many vectors are in it.
        dtype: of the ring.

    Raises:
        CiphertextError: another length, or a coefficient that is not below the modulus.
        NoiseBudgetError: more contributors than was planned for, errors that cannot be rounded off, or another key's.
    """
    if contributors > plan.parameters.clients:
        raise NoiseBudgetError(
            f"the sum is of {contributors} vectors: its errors are bounded for at most {plan.parameters.clients}"
        )
    if len(body) != plan.sum_bytes(elements):
        raise CiphertextError(f"the sum has {len(body)} bytes, where {plan.sum_bytes(elements)} are expected")
    seal, chunks, degree = backend(plan.parameters), plan.chunks(elements), plan.parameters.degree
    integers = np.zeros(chunks * degree, dtype=np.uint64)
    for place, (first, second) in enumerate(polynomial_pairs(body, plan.parameters, chunks)):
        integers[place * degree : (place + 1) * degree] = seal.decrypt(first, second, key.load())
    used = plan.packing.integers(elements)
    sums = integers[:used] + np.uint64(int(_centre(plan)) * contributors % (1 << 64))
    # What decrypts under another key, or beyond the errors' bound, is spread over all residues: past the vector's end,
    # where everybody encrypts zeros, and within it, where a sum has a largest value.
    if integers[used:].any() or not plan.packing.possible(sums, contributors=contributors):
        raise NoiseBudgetError(EXHAUSTED)
    return plan.packing.unpack(sums, elements=elements, contributors=contributors, dtype=dtype)


def _centre(plan: Plan) -> np.uint64:
    """What CKKS takes off every integer, so that its magnitude is halved."""
    return np.uint64((plan.packing.largest + 1) // 2 if plan.parameters.scheme == "ckks" else 0)
