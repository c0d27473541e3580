"""Packing against Python's own integers: whatever is packed, the sum of the packed is the sum in the ring."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import ContributionError, EncodingError, FixedPoint, TermsError
from protocols.homomorphic.packing import Packing


@st.composite
def packings(draw: st.DrawFn) -> tuple[FixedPoint, int, Packing]:
    """An encoding, its noise's headroom, and a packing into integers of some size."""
    ring_bits = draw(st.sampled_from([32, 64]))
    clients = draw(st.integers(1, 300))
    try:
        encoding = FixedPoint(
            clip=1.0,
            clients=clients,
            ring_bits=ring_bits,
            value_bits=draw(st.none() | st.integers(2, ring_bits)),
            max_weight=draw(st.none() | st.integers(1, 100)),
        )
    except EncodingError:
        encoding = FixedPoint(clip=1.0, clients=clients, ring_bits=64)
    # Headroom takes part in the bound that the terms hold: clients * (largest + headroom) < 2^(ring_bits - 1).
    room = ((1 << (encoding.ring_bits - 1)) - 1) // clients - encoding.largest * (encoding.max_weight or 1)
    headroom = draw(st.integers(0, max(room, 0)))
    message_bits = draw(st.integers((clients - 1).bit_length() + 1, 50))
    return encoding, headroom, Packing.fit(encoding, headroom=headroom, message_bits=message_bits)


@settings(max_examples=150, deadline=None)
@given(case=packings(), elements=st.integers(0, 20), data=st.data())
def test_the_sum_of_the_packed_is_the_sum_in_the_ring(
    case: tuple[FixedPoint, int, Packing], elements: int, data: st.DataObject
) -> None:
    encoding, _, packing = case
    contributors = data.draw(st.integers(1, min(encoding.clients, 6)))
    bound = packing.offset
    element = st.integers(-bound, bound) | st.sampled_from([-bound, bound, 0])
    vectors = data.draw(
        st.lists(st.lists(element, min_size=elements, max_size=elements), min_size=contributors, max_size=contributors)
    )
    modulus = 1 << encoding.ring_bits
    sums = [0] * packing.integers(elements)
    for vector in vectors:
        packed = packing.pack(np.array([value % modulus for value in vector], dtype=encoding.dtype)).tolist()
        assert len(packed) == len(sums)
        assert all(0 <= integer <= packing.largest for integer in packed)
        sums = [total + integer for total, integer in zip(sums, packed, strict=True)]
    found = packing.unpack(
        np.array(sums, dtype=np.uint64), elements=elements, contributors=contributors, dtype=encoding.dtype
    )
    assert found.tolist() == [sum(column) % modulus for column in zip(*vectors, strict=True)]
    assert found.dtype == encoding.dtype


@settings(max_examples=100, deadline=None)
@given(case=packings())
def test_sums_of_the_largest_stay_within_the_message(case: tuple[FixedPoint, int, Packing]) -> None:
    """With every planned client at its largest, nothing carries from one field to the next or beyond the integer."""
    encoding, headroom, packing = case
    assert packing.offset == encoding.largest * (encoding.max_weight or 1) + headroom
    assert encoding.clients * packing.largest < 1 << packing.message_bits
    if packing.limbs == 1:
        assert encoding.clients * 2 * packing.offset < 1 << packing.field_bits
    else:
        assert packing.fields == 1
        assert 2 * packing.offset < 1 << packing.limbs * packing.limb_bits
        assert 2 * packing.offset >= 1 << (packing.limbs - 1) * packing.limb_bits


@settings(max_examples=100, deadline=None)
@given(case=packings(), beyond=st.integers(1, 2**20), sign=st.sampled_from([-1, 1]))
def test_an_element_beyond_the_bound_is_refused(case: tuple[FixedPoint, int, Packing], beyond: int, sign: int) -> None:
    encoding, _, packing = case
    modulus = 1 << encoding.ring_bits
    element = sign * (packing.offset + beyond)
    if -packing.offset <= (element + modulus // 2) % modulus - modulus // 2 <= packing.offset:
        return  # so far beyond that the ring has come round
    with pytest.raises(ContributionError, match="beyond the bound"):
        packing.pack(np.array([0, element % modulus], dtype=encoding.dtype))


def test_fields_are_as_many_as_fit_and_limbs_as_few() -> None:
    encoding = FixedPoint(clip=127 / 128, clients=10, value_bits=8)
    # Up to 2 * 127, of ten clients, takes 12 bits.
    assert Packing.fit(encoding, headroom=0, message_bits=11).limbs == 2
    for message_bits, fields in ((12, 1), (23, 1), (24, 2), (36, 3), (47, 3)):
        packing = Packing.fit(encoding, headroom=0, message_bits=message_bits)
        assert (packing.fields, packing.limbs) == (fields, 1)


@pytest.mark.parametrize(("clients", "least"), [(1, 1), (2, 2), (3, 3), (10, 5), (1000, 11)])
def test_a_message_without_room_for_carries_is_refused(clients: int, least: int) -> None:
    encoding = FixedPoint(clip=1.0, clients=clients)
    with pytest.raises(TermsError, match=f"sums of {clients} clients have no room in {least - 1} bits"):
        Packing.fit(encoding, headroom=0, message_bits=least - 1)
    assert Packing.fit(encoding, headroom=0, message_bits=least).limb_bits == 1


@pytest.mark.parametrize("bits", [20, 34, 40])
def test_sums_that_nobody_can_have_made_are_told_from_others(bits: int) -> None:
    """Of elements in one integer, of several in one, and of limbs: the largest sum is possible, one more is not."""
    encoding = FixedPoint(clip=1.0, clients=4, ring_bits=64, value_bits=8 if bits == 20 else 60)
    packing = Packing.fit(encoding, headroom=0, message_bits=bits)
    highest = np.full(6, encoding.largest, np.uint64)
    for contributors in (1, 4):
        sums = packing.pack(highest) * np.uint64(contributors)
        assert packing.possible(sums, contributors=contributors)
        # The highest limb stands last.
        sums[-1] = max(sums.max(), contributors * packing.largest) + 1 if packing.limbs == 1 else sums[-1] + 1
        assert not packing.possible(sums, contributors=contributors)
    assert packing.possible(np.zeros(0, np.uint64), contributors=1)
