"""Coefficients as bytes: exactly what was written is read, and nothing that is no coefficient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import CiphertextError
from protocols.homomorphic.coefficients import from_bytes, to_bytes


@settings(max_examples=150, deadline=None)
@given(width=st.integers(3, 8), data=st.data())
def test_what_was_written_is_read(width: int, data: st.DataObject) -> None:
    modulus = data.draw(st.integers(2, 256**width - 1))
    values = data.draw(st.lists(st.integers(0, modulus - 1), max_size=40))
    content = to_bytes(np.array(values, dtype=np.uint64), width)
    assert content == b"".join(value.to_bytes(width, "little") for value in values)
    for kind in (bytes, bytearray, memoryview):
        assert from_bytes(kind(content), width, modulus).tolist() == values


@settings(max_examples=100, deadline=None)
@given(width=st.integers(3, 7), data=st.data())
def test_a_coefficient_that_is_not_below_the_modulus_is_refused(width: int, data: st.DataObject) -> None:
    modulus = data.draw(st.integers(2, 256**width - 1))
    values = data.draw(st.lists(st.integers(0, modulus - 1), max_size=20))
    bad = data.draw(st.integers(modulus, 256**width - 1) | st.just(modulus))
    values.insert(data.draw(st.integers(0, len(values))), bad)
    content = b"".join(value.to_bytes(width, "little") for value in values)
    with pytest.raises(CiphertextError, match="not below the modulus"):
        from_bytes(content, width, modulus)


@pytest.mark.parametrize("width", [3, 4, 5, 6, 7])
def test_a_part_of_a_coefficient_is_refused(width: int) -> None:
    for length in range(1, 4 * width):
        if length % width:
            with pytest.raises(CiphertextError, match=f"no whole number of coefficients of {width}"):
                from_bytes(bytes(length), width, 2**17)
        else:
            assert from_bytes(bytes(length), width, 2**17).tolist() == [0] * (length // width)
