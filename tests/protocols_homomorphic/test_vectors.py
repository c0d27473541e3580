"""Whole vectors: encrypted, added and decrypted, by as many clients as planned and with the largest values."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import CiphertextError, ContributionError, FixedPoint, NoiseBudgetError
from protocols.homomorphic.coefficients import from_bytes, to_bytes
from protocols.homomorphic.planning import Plan, plan_sums
from protocols.homomorphic.seal import backend
from protocols.homomorphic.vectors import BodySum, Encrypted, Key, decrypt_sum, encrypt_vector

SCHEMES = [(scheme, public) for scheme in ("bfv", "ckks") for public in (False, True)]


def keys(plan: Plan, seed: bytes | None = None) -> tuple[Key, Key]:
    """A secret key, and what clients encrypt with."""
    secret = Key(plan.parameters, seed or os.urandom(64), secret=True)
    if not plan.parameters.public:
        return secret, secret
    content = to_bytes(backend(plan.parameters).public_key(secret.load()), plan.parameters.coefficient_bytes)
    return secret, Key(plan.parameters, content, secret=False)


def added(plan: Plan, bodies: list[Encrypted], elements: int) -> bytearray:
    total = BodySum(plan, elements)
    for body in (encrypted.body for encrypted in bodies):
        assert len(body) == total.expected == plan.upload_bytes(elements)
        total.check(memoryview(body))
        total.add(memoryview(body))
    return total.body()


@pytest.mark.parametrize(("scheme", "public"), SCHEMES)
@pytest.mark.parametrize(
    "encoding",
    [
        FixedPoint(clip=1.0, clients=10),
        FixedPoint(clip=1.0, clients=2, ring_bits=64),
        FixedPoint(clip=1.0, clients=200, value_bits=10),
        FixedPoint(clip=1.0, clients=3, value_bits=2, max_weight=7),
    ],
    ids=["32 bits", "64 bits", "200 clients", "weights"],
)
@pytest.mark.parametrize("kind", ["highest", "lowest", "mixed"])
def test_sums_of_as_many_as_planned_are_exact_at_the_extremes(
    scheme: str, public: bool, encoding: FixedPoint, kind: str
) -> None:
    plan = plan_sums(scheme, encoding, public=public)
    secret, key = keys(plan)
    # One value more than a ciphertext holds, or, of many clients, a few: each encrypts anew, for errors to add up.
    elements = plan.parameters.degree * plan.packing.fields // plan.packing.limbs + 1 if encoding.clients < 20 else 9
    bound, modulus = plan.packing.offset, 1 << encoding.ring_bits
    generator = np.random.default_rng(0)
    signs = generator.choice({"highest": [1], "lowest": [-1], "mixed": [-1, 1]}[kind], elements)
    ring = np.array([int(one) * bound % modulus for one in signs], dtype=encoding.dtype)
    total = added(plan, [encrypt_vector(plan, ring, key) for _ in range(encoding.clients)], elements)
    found = decrypt_sum(
        plan, memoryview(total), secret, elements=elements, contributors=encoding.clients, dtype=encoding.dtype
    )
    expected = [int(one) * bound * encoding.clients % modulus for one in signs]
    assert found.tolist() == expected


@settings(max_examples=25, deadline=None)
@given(
    case=st.sampled_from(SCHEMES),
    clients=st.integers(1, 6),
    elements=st.integers(0, 30),
    bits=st.sampled_from([(32, None), (32, 9), (64, None), (64, 33)]),
    seed=st.integers(0, 2**32),
)
def test_sums_of_any_vectors_are_exact(
    case: tuple[str, bool], clients: int, elements: int, bits: tuple[int, int | None], seed: int
) -> None:
    scheme, public = case
    encoding = FixedPoint(clip=1.0, clients=clients, ring_bits=bits[0], value_bits=bits[1])
    plan = plan_sums(scheme, encoding, public=public)
    secret, key = keys(plan, bytes(range(64)))
    rows = np.random.default_rng(seed).integers(
        -encoding.largest, encoding.largest, (clients, elements), dtype=np.int64, endpoint=True
    )
    total = added(plan, [encrypt_vector(plan, row.astype(encoding.dtype), key) for row in rows], elements)
    found = decrypt_sum(plan, memoryview(total), secret, elements=elements, contributors=clients, dtype=encoding.dtype)
    assert found.tolist() == [sum(column) % (1 << bits[0]) for column in rows.T.tolist()]


@pytest.mark.parametrize(("scheme", "public"), SCHEMES)
def test_what_cannot_be_decrypted_is_refused(scheme: str, public: bool) -> None:
    encoding = FixedPoint(clip=1.0, clients=2)
    plan = plan_sums(scheme, encoding, public=public)
    secret, key = keys(plan)
    ring = np.zeros(5, dtype=encoding.dtype)
    total = memoryview(added(plan, [encrypt_vector(plan, ring, key)], 5))
    shape = {"elements": 5, "dtype": encoding.dtype}
    with pytest.raises(NoiseBudgetError, match="of 3 vectors: its errors are bounded for at most 2"):
        decrypt_sum(plan, total, secret, contributors=3, **shape)
    with pytest.raises(CiphertextError, match="bytes are expected|are expected"):
        decrypt_sum(plan, total[:-1], secret, contributors=1, **shape)
    with pytest.raises(CiphertextError, match="not below the modulus"):
        decrypt_sum(plan, memoryview(b"\xff" * len(total)), secret, contributors=1, **shape)
    with pytest.raises(NoiseBudgetError, match="another key's"):
        decrypt_sum(plan, total, keys(plan)[0], contributors=1, **shape)
    assert decrypt_sum(plan, total, secret, contributors=1, **shape).tolist() == [0] * 5


@pytest.mark.parametrize(("scheme", "public"), SCHEMES)
def test_another_key_is_noticed_however_short_the_vector(scheme: str, public: bool) -> None:
    """Half of all residues are sums of two values: of one integer alone every other key would give a sum."""
    encoding = FixedPoint(clip=1.0, clients=2)
    plan = plan_sums(scheme, encoding, public=public)
    secret, key = keys(plan)
    ring = np.ones(1, dtype=encoding.dtype)
    total = memoryview(added(plan, [encrypt_vector(plan, ring, key)] * 2, 1))
    shape = {"elements": 1, "contributors": 2, "dtype": encoding.dtype}
    for _ in range(12):
        with pytest.raises(NoiseBudgetError, match="another key's"):
            decrypt_sum(plan, total, keys(plan)[0], **shape)
    assert decrypt_sum(plan, total, secret, **shape).tolist() == [2]


@pytest.mark.parametrize("public", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_error_is_rounded_off_up_to_half_a_step_of_the_message_and_no_further(public: bool, sign: int) -> None:
    """Between q/4t and q/2t SEAL reports no noise budget any more, but decrypts, and so the sum is a right one."""
    encoding = FixedPoint(clip=1.0, clients=2)
    plan = plan_sums("bfv", encoding, public=public)
    secret, key = keys(plan)
    rows = [np.arange(5, dtype=encoding.dtype), np.full(5, 7, dtype=encoding.dtype)]
    total = added(plan, [encrypt_vector(plan, row, key) for row in rows], 5)
    modulus, width = backend(plan.parameters).modulus, plan.parameters.coefficient_bytes
    shape = {"elements": 5, "contributors": 2, "dtype": encoding.dtype}
    expected = [7, 8, 9, 10, 11]
    for eighths, found in ((3, expected), (5, [7, 8, 9 + sign, 10, 11])):
        words = from_bytes(memoryview(total), width, modulus)
        words[2] = (int(words[2]) + sign * eighths * (modulus >> plan.parameters.message_bits) // 8) % modulus
        assert decrypt_sum(plan, memoryview(to_bytes(words, width)), secret, **shape).tolist() == found
    # Beyond the vector everybody encrypted zero: what is wrong there is refused.
    words = from_bytes(memoryview(total), width, modulus)
    words[5] = (int(words[5]) + sign * 5 * (modulus >> plan.parameters.message_bits) // 8) % modulus
    with pytest.raises(NoiseBudgetError):
        decrypt_sum(plan, memoryview(to_bytes(words, width)), secret, **shape)


@pytest.mark.parametrize(("scheme", "public"), SCHEMES)
def test_a_body_that_is_none_is_refused(scheme: str, public: bool) -> None:
    plan = plan_sums(scheme, FixedPoint(clip=1.0, clients=2), public=public)
    total = BodySum(plan, 5)
    size = total.expected
    for length in (0, 1, size - 1, size + 1, 2 * size):
        with pytest.raises(CiphertextError, match=f"{size} are expected"):
            total.check(memoryview(bytes(length)))
    with pytest.raises(CiphertextError, match="not below the modulus"):
        total.check(memoryview(b"\xff" * size))
    with pytest.raises(ContributionError, match="beyond the bound"):
        encrypt_vector(plan, np.array([plan.packing.offset + 1], np.uint32), keys(plan)[1])


def test_a_public_key_of_another_length_or_modulus_is_refused() -> None:
    plan = plan_sums("bfv", FixedPoint(clip=1.0, clients=2), public=True)
    size = 2 * plan.parameters.polynomial_bytes
    for content in (b"", bytes(size - 1), bytes(size + 6)):
        with pytest.raises(CiphertextError, match=f"a public key has {size} bytes"):
            Key(plan.parameters, content, secret=False).load()
    with pytest.raises(CiphertextError, match="not below the modulus"):
        Key(plan.parameters, b"\xff" * size, secret=False).load()


def test_processes_that_share_the_work_give_the_same_sums() -> None:
    """Over two blocks of chunks; a key goes to them as a pickle, and its repr shows nothing."""
    encoding = FixedPoint(clip=1.0, clients=2)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        for scheme, public in (("bfv", False), ("ckks", True)):
            plan = plan_sums(scheme, encoding, public=public)
            secret, key = keys(plan)
            elements = 17 * plan.parameters.degree * plan.packing.fields + 1
            rows = np.random.default_rng(0).integers(-encoding.largest, encoding.largest, (2, elements))
            bodies = [encrypt_vector(plan, row.astype(np.uint32), key, executor=executor) for row in rows]
            total = memoryview(added(plan, bodies, elements))
            found = decrypt_sum(plan, total, secret, elements=elements, contributors=2, dtype=encoding.dtype)
            assert np.array_equal(found, rows.sum(axis=0).astype(np.uint32))


def test_a_key_is_sent_whole_and_shows_nothing_of_itself() -> None:
    plan = plan_sums("bfv", FixedPoint(clip=1.0, clients=2), public=False)
    key = Key(plan.parameters, bytes(range(64)), secret=True)
    key.load()
    copy = pickle.loads(pickle.dumps(key))  # noqa: S301
    assert (copy.parameters, copy.material) == (key.parameters, key.material)
    for text in (repr(key), str(key), f"{key}"):
        assert "material" not in text
        assert bytes(range(8)).hex() not in text
        assert repr(bytes(range(48, 60)))[2:-1] not in text
    key.forget()
    assert key.material == b""
