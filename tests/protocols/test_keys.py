"""The secrets of pairs and what keeps them, against RFC 5869 and RFC 2104 written out."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from protocols import PeerKeyError
from protocols.keys import (
    PairSecrets,
    RoundKey,
    Secret,
)

SESSION = hashlib.sha256(b"a session").digest()
P = 2**255 - 19


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """RFC 2104."""
    padded = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()


def hkdf_sha256(secret: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869: extract, then expand."""
    key = hmac_sha256(salt or bytes(32), secret)
    block, output, counter = b"", b"", 1
    while len(output) < length:
        block = hmac_sha256(key, block + info + bytes([counter]))
        output, counter = output + block, counter + 1
    return output[:length]


def test_the_oracle_reproduces_the_test_vectors_of_rfc_5869() -> None:
    """Appendix A.1 and A.3."""
    first = hkdf_sha256(b"\x0b" * 22, salt=bytes(range(13)), info=bytes(range(0xF0, 0xFA)), length=42)
    assert first.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
    third = hkdf_sha256(b"\x0b" * 22, salt=b"", info=b"", length=42)
    assert third.hex() == ("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8")


def values(pair: PairSecrets) -> tuple[bytes, bytes, bytes]:
    return bytes(pair.masks.value), bytes(pair.outgoing.value), bytes(pair.incoming.value)


@pytest.mark.parametrize(("me", "peer"), [(0, 1), (7, 3), (2**32 - 1, 0)])
def test_both_ends_of_a_pair_derive_the_same_secrets(me: int, peer: int) -> None:
    mine, theirs = RoundKey(), RoundKey()
    here = values(mine.agree(SESSION, me, peer, theirs.public_key))
    there = values(theirs.agree(SESSION, peer, me, mine.public_key))
    assert here == (there[0], there[2], there[1])
    assert len(set(here)) == 3
    assert {len(secret) for secret in here} == {32}


@pytest.mark.parametrize(("me", "peer"), [(4, 9), (9, 4)])
def test_the_secrets_of_a_pair_are_hkdf_over_the_exchange(me: int, peer: int) -> None:
    """The other end is played by an X25519 key of the test's own."""
    mine, theirs = RoundKey(), X25519PrivateKey.generate()
    their_key = theirs.public_key().public_bytes_raw()
    exchanged = theirs.exchange(X25519PublicKey.from_public_bytes(mine.public_key))
    ends = {me: mine.public_key, peer: their_key}
    info = b"codream-secure masked v1 pair\0" + b"".join(m.to_bytes(4, "big") + ends[m] for m in sorted(ends))
    material = hkdf_sha256(exchanged, salt=SESSION, info=info, length=96)
    masks, outgoing, incoming = values(mine.agree(SESSION, me, peer, their_key))
    assert masks == material[:32]
    from_below, from_above = material[32:64], material[64:]
    assert (outgoing, incoming) == ((from_below, from_above) if me < peer else (from_above, from_below))


def test_a_pairs_secrets_change_with_everything_they_are_bound_to() -> None:
    mine, theirs, third = RoundKey(), RoundKey(), RoundKey()
    agreed = [
        mine.agree(SESSION, 1, 2, theirs.public_key),
        mine.agree(SESSION[::-1], 1, 2, theirs.public_key),
        mine.agree(SESSION, 1, 3, theirs.public_key),
        mine.agree(SESSION, 0, 2, theirs.public_key),
        mine.agree(SESSION, 2, 1, theirs.public_key),
        mine.agree(SESSION, 1, 2, third.public_key),
        RoundKey().agree(SESSION, 1, 2, theirs.public_key),
    ]
    assert len({secret for pair in agreed for secret in values(pair)}) == 3 * len(agreed)


# All encodings of points of order 1, 2, 4 and 8, on the curve and on its twist.
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
    P,
    P + 1,
]


@pytest.mark.parametrize("point", LOW_ORDER)
@pytest.mark.parametrize("high_bit", [0, 1])
def test_a_degenerate_point_is_refused(point: int, high_bit: int) -> None:
    """The result of such an exchange is zero, whoever takes part in it; the highest bit is ignored."""
    key = (point | high_bit << 255).to_bytes(32, "little")
    with pytest.raises(PeerKeyError, match="the key of member 2 is degenerate"):
        RoundKey().agree(SESSION, 1, 2, key)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(PeerKeyError):
        RoundKey().agree(SESSION, 1, 2, bytes([9] * length))


def test_a_round_key_serves_until_it_is_forgotten() -> None:
    theirs = RoundKey()
    with RoundKey() as mine:
        public = mine.public_key
        mine.agree(SESSION, 1, 2, theirs.public_key)
    assert mine.public_key == public
    with pytest.raises(ValueError, match="dropped"):
        mine.agree(SESSION, 1, 2, theirs.public_key)
    mine.forget()


def test_a_secret_shows_itself_to_nobody_by_accident() -> None:
    text = b"0123456789abcdef0123456789abcdef"
    secret = Secret(text)
    assert repr(secret) == str(secret) == f"{secret}" == "Secret(...)"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(secret, protocol=protocol)
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            duplicate(secret)
    with pytest.raises(AttributeError):
        secret.name = "x"  # type: ignore[attr-defined]


def test_secrets_are_not_compared() -> None:
    """Equal contents are not equal secrets: there is no comparison whose time could tell how far they agree."""
    assert Secret(b"x" * 32) != Secret(b"x" * 32)
    assert Secret(b"x" * 32) != b"x" * 32


def test_a_wiped_secret_is_zero_and_gone() -> None:
    original = bytearray(b"k" * 32)
    secret = Secret(original)
    buffer = secret.value
    assert buffer == original
    assert buffer is secret.value
    secret.wipe()
    assert buffer == bytes(32)
    assert original == b"k" * 32
    for use in (lambda: secret.value, lambda: secret.derive(b"label")):
        with pytest.raises(ValueError, match="wiped"):
            use()
    secret.wipe()


def test_a_pair_is_wiped_as_a_whole() -> None:
    pair = RoundKey().agree(SESSION, 1, 2, RoundKey().public_key)
    buffers = [pair.masks.value, pair.outgoing.value, pair.incoming.value]
    assert all(any(buffer) for buffer in buffers)
    pair.wipe()
    assert [bytes(buffer) for buffer in buffers] == [bytes(32)] * 3


@pytest.mark.parametrize("length", [1, 32, 64, 65, 200])
def test_what_is_derived_is_an_hmac(length: int) -> None:
    key, label = os.urandom(length), b"some label"
    assert Secret(key).derive(label) == hmac_sha256(key, label)
