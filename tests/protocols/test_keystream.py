"""Random words for noise: AES-256 in counter mode under keys of the operating system's, which nothing gives away."""

from __future__ import annotations

import copy
import inspect
import os
import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocols import keystream
from protocols.keystream import Keystream


class Keys:
    """Stands in for the operating system: remembers what it gave."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def __call__(self, size: int) -> bytes:
        self.given.append(bytes([len(self.given) + 1]) * size)
        return self.given[-1]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    given = Keys()
    monkeypatch.setattr(os, "urandom", given)
    return given


def reference(key: bytes, words: int) -> np.ndarray:
    """AES-256 in counter mode over zeros from block 2 on, in one go."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(15) + b"\2")).encryptor()
    return np.frombuffer(encryptor.update(bytes(8 * words)), dtype=np.uint64)


@pytest.mark.parametrize("counts", [(0, 1), (2, 3, 5), (16384, 16384), (16385, 7, 40_001), (1, 100_000)])
def test_words_are_the_keystream_in_order(keys: Keys, counts: tuple[int, ...]) -> None:
    stream = Keystream()
    found = np.concatenate([stream.words(count) for count in counts])
    assert found.dtype == np.uint64
    assert [len(key) for key in keys.given] == [32]
    np.testing.assert_array_equal(found, reference(keys.given[0], sum(counts)))


def test_a_worn_key_is_replaced(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystream, "_KEY_LIFE_BYTES", 1 << 18)
    found = Keystream().words(80_000)
    assert len(keys.given) == 3
    np.testing.assert_array_equal(found, np.concatenate([reference(key, 32768) for key in keys.given])[: len(found)])


def test_every_stream_has_a_key_of_its_own() -> None:
    first, second = Keystream().words(1000), Keystream().words(1000)
    assert (first == second).sum() == 0


def test_there_is_no_way_to_pass_a_key_or_a_seed() -> None:
    assert list(inspect.signature(Keystream).parameters) == []
    with pytest.raises(TypeError):
        Keystream(1)  # type: ignore[call-arg]


def test_nothing_gives_a_key_away(keys: Keys) -> None:
    stream = Keystream()
    stream.words(10)
    assert repr(stream) == str(stream) == "Keystream(...)"
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            duplicate(stream)
    # No attribute is, or shows, a key.
    assert set(Keystream.__slots__) == {"_left", "_stream"}
    assert not hasattr(stream, "__dict__")
    for name in Keystream.__slots__:
        value = getattr(stream, name)
        assert not isinstance(value, bytes | bytearray)
        assert keys.given[0].hex() not in repr(value)
