"""What these sums do not protect against, shown: nobody checks that a contribution is a well-formed encryption."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from protocols import NoiseBudgetError, OpeningError
from protocols.homomorphic.coefficients import from_bytes, to_bytes
from protocols.homomorphic.seal import backend
from protocols.homomorphic.vectors import Encrypted, encrypt_vector


def test_a_client_that_deviates_reads_the_key_off_an_opened_sum(
    make_round: Any, arithmetic: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Server and authority follow the protocol; whoever sees this one sum has the secret key.

    The client adds a constant to the second polynomial of its ciphertext, so that a multiple of the key itself is in
    the sum. Values that leave the upper bits of their field free make it legible; others only have to be known roughly.
    """
    rd = make_round("bfv-authority").open()
    # The vector fills its ciphertext: what everybody leaves zero past its end would show the key as well.
    elements, height = 2048, 1 << 27
    rd.ask(elements)
    parameters = rd.plan.parameters
    modulus, width = backend(parameters).modulus, parameters.coefficient_bytes
    vectors = {member: np.full(elements, 0.01) for member in rd.members}
    rd.collect(rd.contributions({member: vectors[member] for member in (3, 7, 8)}))

    def crafted(*given: Any, **kinds: Any) -> Encrypted:
        body = from_bytes(encrypt_vector(*given, **kinds).body, width, modulus)
        body[parameters.degree] += np.uint64(modulus * height >> parameters.message_bits)
        content = bytearray(to_bytes(body % np.uint64(modulus), width))
        return Encrypted(body=content, polynomials=content)

    monkeypatch.setattr("protocols.homomorphic.client.encrypt_vector", crafted)
    rd.collect(rd.contributions({20: vectors[20]}))
    result = rd.finish(rd.server.advance())
    read_off = np.rint(result.ring.astype(np.int32) / height).astype(int).tolist()
    seal = backend(parameters)
    true = arithmetic.ternary(seal, rd.authority._key(parameters).load())
    assert read_off == true[:elements]


@pytest.mark.parametrize("scheme", ["bfv-authority", "ckks-authority"])
@pytest.mark.parametrize("last", [True, False])
def test_a_second_polynomial_that_becomes_zero_spoils_a_step_and_no_more(
    make_round: Any, read: Callable[[bytes], Any], monkeypatch: pytest.MonkeyPatch, scheme: str, last: bool
) -> None:
    """SEAL takes a ciphertext without a second polynomial for a blunder and throws, in the middle of a body.

    Here in the last chunk of two: the server adds it like any other, and what the authority cannot decrypt it says.
    """
    rd = make_round(scheme).open()
    parameters, elements = rd.plan.parameters, rd.plan.parameters.degree + 100
    if rd.terms.max_values < elements:
        rd = make_round(scheme, max_values=2 * elements).open()
    assert rd.plan.chunks(elements) == 2
    modulus, width, degree = backend(parameters).modulus, parameters.coefficient_bytes, parameters.degree
    rd.ask(elements)
    vectors = rd.vectors(elements)
    before = (3, 7, 8) if last else (3, 7)
    sent = rd.contributions({member: vectors[member] for member in before})
    rd.collect(sent)
    others = [from_bytes(read(message).body, width, modulus)[3 * degree :] for message in sent.values()]
    summed = sum(others) % np.uint64(modulus)

    def crafted(*given: Any, **kinds: Any) -> Encrypted:
        body = from_bytes(encrypt_vector(*given, **kinds).body, width, modulus)
        body[3 * degree :] = (np.uint64(modulus) - summed) % np.uint64(modulus)
        content = bytearray(to_bytes(body, width))
        return Encrypted(body=content, polynomials=content)

    with monkeypatch.context() as patched:
        patched.setattr("protocols.homomorphic.client.encrypt_vector", crafted)
        rd.collect(rd.contributions({20: vectors[20]}))
    assert not rd.server._step.body._totals[1][1].any()
    if not last:
        rd.collect(rd.contributions({8: vectors[8]}))
    (total,) = rd.server.advance().values()
    if last:
        assert not any(read(total).body[-parameters.polynomial_bytes :])
    with pytest.raises(NoiseBudgetError):
        rd.authority.receive(total)
    rd.server.advance()
    with pytest.raises(OpeningError) as caught:
        rd.server.result()
    assert caught.value.asked_to_open == rd.members
    assert rd.sum(vectors).ring.tolist() == rd.ring(vectors)


def test_a_client_that_deviates_is_not_told_from_one_that_does_not(
    make_round: Any, read: Callable[[bytes], Any]
) -> None:
    """Its contribution is vouched for like any other: digest, sealed tag and signature are its own."""
    rd = make_round("bfv-authority").open()
    rd.ask(5)
    sent = rd.contributions(rd.vectors())
    rd.collect(sent)
    total = read(next(iter(rd.server.advance().values())))
    digests = [hashlib.sha256(read(message).body).digest() for message in sent.values()]
    assert [voucher.digest for voucher in total.vouchers] == digests
