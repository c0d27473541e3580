"""States as bytes: what is refused, and what cannot be read from them."""

from __future__ import annotations

import hashlib
import os

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols import MessageError
from protocols.snapshots import pack, seal_state, unpack, unseal_state

TERMS, OTHER = hashlib.sha256(b"terms").digest(), hashlib.sha256(b"other terms").digest()
KEY = bytes(range(32))


class State(msgspec.Struct, forbid_unknown_fields=True):
    number: int
    secret: bytes


STATE = State(number=3, secret=b"nobody must read this")


def turned(data: bytes) -> list[bytes]:
    """One bit of every byte turned, and the data cut off at every place."""
    flips = [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in range(len(data))]
    return [*flips, *(data[:at] for at in range(len(data))), data + b"\0"]


def test_states_survive_the_way_through_bytes() -> None:
    assert unpack(pack(STATE, TERMS), State, TERMS) == STATE
    assert unseal_state(seal_state(STATE, KEY, TERMS), KEY, State, TERMS) == STATE


def test_no_damage_to_a_servers_state_goes_unnoticed() -> None:
    for data in turned(pack(STATE, TERMS)):
        with pytest.raises(MessageError):
            unpack(data, State, TERMS)


def test_no_damage_to_a_clients_state_goes_unnoticed() -> None:
    for data in turned(seal_state(STATE, KEY, TERMS)):
        with pytest.raises(MessageError, match="does not decrypt"):
            unseal_state(data, KEY, State, TERMS)


def test_a_state_belongs_to_its_terms() -> None:
    with pytest.raises(MessageError, match="other terms"):
        unpack(pack(STATE, TERMS), State, OTHER)
    with pytest.raises(MessageError, match="other terms"):
        unseal_state(seal_state(STATE, KEY, TERMS), KEY, State, OTHER)


class Other(msgspec.Struct, forbid_unknown_fields=True):
    count: int


def test_a_state_of_another_kind_is_refused_as_such() -> None:
    """Whole and under the right key and terms, as after an update of the package."""
    with pytest.raises(MessageError, match="another version of this package, or is of another kind"):
        unpack(pack(STATE, TERMS), Other, TERMS)
    with pytest.raises(MessageError, match="another version of this package, or is of another kind"):
        unseal_state(seal_state(STATE, KEY, TERMS), KEY, Other, TERMS)


@pytest.mark.parametrize("key", [b"", KEY[:16], KEY[:31], KEY + b"\0"])
def test_a_key_has_32_bytes(key: bytes) -> None:
    with pytest.raises(MessageError, match=f"the snapshot key has {len(key)} bytes: 32 are needed"):
        seal_state(STATE, key, TERMS)
    with pytest.raises(MessageError):
        unseal_state(seal_state(STATE, KEY, TERMS), key, State, TERMS)


def test_another_key_opens_nothing() -> None:
    with pytest.raises(MessageError, match="another key"):
        unseal_state(seal_state(STATE, KEY, TERMS), os.urandom(32), State, TERMS)


def test_a_clients_state_is_aes_gcm_under_a_fresh_nonce() -> None:
    """Nonces of 96 random bits: three are equal to one another with probability below 2^-94."""
    sealed = [seal_state(STATE, KEY, TERMS) for _ in range(3)]
    assert len({data[:12] for data in sealed}) == 3
    for data in sealed:
        assert STATE.secret not in data
        plain = AESGCM(KEY).decrypt(data[:12], data[12:], TERMS)
        assert msgspec.msgpack.decode(plain) == {"number": 3, "secret": STATE.secret}
