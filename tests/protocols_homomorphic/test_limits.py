"""What these sums do not protect against, shown: nobody checks that a contribution is a well-formed encryption."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

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
    elements, height = 2000, 1 << 27
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
