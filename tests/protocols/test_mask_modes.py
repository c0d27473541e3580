"""The two ways to a keystream are one keystream, whichever is faster here."""

from __future__ import annotations

import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from protocols import masks


@pytest.mark.parametrize("blocks", [1, 5, 8192, 8193])
def test_both_modes_give_the_same_bytes(blocks: int) -> None:
    key, zeros = os.urandom(32), bytes(16 * blocks)
    counter, galois = (Cipher(AES(key), mode).encryptor().update(zeros) for mode in masks.MODES)
    assert counter == galois


@pytest.mark.parametrize("mode", masks.MODES, ids=["counter", "galois"])
@pytest.mark.parametrize("kind", ["<u4", "<u8"])
def test_masks_are_the_same_under_either_mode(mode: object, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = bytes(range(32))
    expected = np.zeros(70_001, kind)
    masks.apply_masks(expected, add=[key])
    monkeypatch.setattr(masks, "_fastest_mode", lambda: mode)
    found = np.zeros(70_001, kind)
    masks.apply_masks(found, add=[key])
    np.testing.assert_array_equal(found, expected)


def test_the_mode_in_use_is_one_of_the_two() -> None:
    assert masks._fastest_mode() in masks.MODES
