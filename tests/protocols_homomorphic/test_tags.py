"""Linear tags against Python's own integers: R from AES in counter mode, R c by hand."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import CiphertextError
from protocols.homomorphic import tags
from protocols.homomorphic.tags import ROWS, TAG_BYTES, add_tags, from_tag_bytes, tag, to_tag_bytes

MODULI = [(4, 0xFFFE_E001), (5, 0xFF_FFFC_0001), (6, 0xFFFF_FFFB_C001), (7, 0xFF_FFFF_FFFC_0001)]
"""Width, and a number below 256^width: linearity does not need it to be prime."""
KEYS = st.binary(min_size=32, max_size=32)


def entries(key: bytes, count: int) -> list[int]:
    """16-bit numbers of AES-256 in counter mode, the counter encrypted block by block."""
    cipher = Cipher(AES(key), ECB()).encryptor()
    blocks = -(-2 * count // 16)
    stream = b"".join(cipher.update(block.to_bytes(16, "big")) for block in range(blocks))
    return [int.from_bytes(stream[at : at + 2], "little") for at in range(0, 2 * count, 2)]


def by_hand(values: list[int], key: bytes, modulus: int, *, block: int = 1 << 16) -> tuple[int, ...]:
    """R c mod q: entries of R stand row by row within a block of the vector."""
    numbers, totals = iter(entries(key, ROWS * len(values))), [0] * ROWS
    for start in range(0, len(values), block):
        part = values[start : start + block]
        for row in range(ROWS):
            totals[row] += sum(next(numbers) * value for value in part)
    return tuple(total % modulus for total in totals)


def written(values: list[int], width: int) -> bytes:
    return b"".join(value.to_bytes(width, "little") for value in values)


@settings(max_examples=60, deadline=None)
@given(key=KEYS, case=st.sampled_from(MODULI), data=st.data())
def test_a_tag_is_the_product_with_the_key_s_matrix(key: bytes, case: tuple[int, int], data: st.DataObject) -> None:
    width, modulus = case
    value = st.integers(0, modulus - 1) | st.just(modulus - 1)
    values = data.draw(st.lists(value, max_size=60))
    assert tag(written(values, width), key=key, width=width, modulus=modulus) == by_hand(values, key, modulus)


def test_a_tag_of_several_blocks_of_the_largest_is_exact() -> None:
    """Double precision does not round: 2^16 products of 36 bits make 52."""
    width, modulus = MODULI[3]
    values, key = [modulus - 1] * ((1 << 16) + 7), bytes(range(32))
    assert tag(written(values, width), key=key, width=width, modulus=modulus) == by_hand(values, key, modulus)


@settings(max_examples=60, deadline=None)
@given(key=KEYS, case=st.sampled_from(MODULI), data=st.data())
def test_tags_add_up_with_the_vectors(key: bytes, case: tuple[int, int], data: st.DataObject) -> None:
    width, modulus = case
    length = data.draw(st.integers(0, 30))
    value = st.integers(0, modulus - 1)
    vectors = data.draw(st.lists(st.lists(value, min_size=length, max_size=length), min_size=1, max_size=5))
    total = (0,) * ROWS
    for vector in vectors:
        total = add_tags(total, tag(written(vector, width), key=key, width=width, modulus=modulus), modulus=modulus)
    added = [sum(column) % modulus for column in zip(*vectors, strict=True)]
    assert tag(written(added, width), key=key, width=width, modulus=modulus) == total


@settings(max_examples=60, deadline=None)
@given(key=KEYS, case=st.sampled_from(MODULI), data=st.data())
def test_a_coefficient_that_was_changed_is_found_out(key: bytes, case: tuple[int, int], data: st.DataObject) -> None:
    """False alarms: 2^-64 an example, for each row needs an entry of 0."""
    width, modulus = case
    values = data.draw(st.lists(st.integers(0, modulus - 1), min_size=1, max_size=30))
    place, by = data.draw(st.integers(0, len(values) - 1)), data.draw(st.integers(1, 1000))
    before = tag(written(values, width), key=key, width=width, modulus=modulus)
    values[place] = (values[place] + by) % modulus
    assert tag(written(values, width), key=key, width=width, modulus=modulus) != before


def test_one_row_lets_a_forgery_pass_once_in_65536(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moving a unit from one coefficient to another goes unnoticed where the two have the same entry.

    4096 coefficients have 8,386,560 pairs, of which 127.97 are expected to be alike. They are pairwise independent, so
    the variance is the mean; the number is close to Poisson's, and 60 to 220 fails with probability below 1e-9.
    """
    monkeypatch.setattr(tags, "ROWS", 1)
    width, modulus = MODULI[1]
    length, key = 4096, bytes(range(32))
    row = entries(key, length)
    alike = Counter(row)
    assert 60 <= sum(count * (count - 1) // 2 for count in alike.values()) <= 220

    def unnoticed(left: int, right: int) -> bool:
        values = [5] * length
        before = tag(written(values, width), key=key, width=width, modulus=modulus)
        values[left], values[right] = 4, 6
        return tag(written(values, width), key=key, width=width, modulus=modulus) == before

    places: dict[int, list[int]] = {}
    for place, entry in enumerate(row):
        places.setdefault(entry, []).append(place)
    twins = [found[:2] for found in places.values() if len(found) > 1][:20]
    assert all(unnoticed(left, right) for left, right in twins)
    assert not any(unnoticed(left, left + 1) for left in range(20) if row[left] != row[left + 1])


def test_four_rows_are_independent() -> None:
    """No two of 64 columns are alike in two rows: expected 0.000003 pairs of rows and columns."""
    rows = np.array(entries(bytes(range(32)), ROWS * 64)).reshape(ROWS, 64)
    for one, other in itertools.combinations(range(64), 2):
        assert (rows[:, one] == rows[:, other]).sum() < 2


def test_a_coefficient_beyond_the_modulus_has_no_tag() -> None:
    with pytest.raises(CiphertextError):
        tag(written([3, 5], 4), key=bytes(32), width=4, modulus=5)


@given(numbers=st.tuples(*[st.integers(0, 2**60)] * ROWS))
def test_tags_are_read_as_they_were_written(numbers: tuple[int, ...]) -> None:
    content = to_tag_bytes(numbers)
    assert len(content) == TAG_BYTES
    assert from_tag_bytes(content) == numbers
