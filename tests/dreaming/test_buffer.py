"""The dream buffer: order, capacity, and memory of its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codream_secure.dreaming import DreamBuffer


@given(capacity=st.integers(1, 12), sizes=st.lists(st.integers(1, 8), min_size=1, max_size=6))
def test_it_keeps_the_newest_in_order_with_their_labels(capacity: int, sizes: list[int]) -> None:
    buffer, count = DreamBuffer(capacity), 0
    for size in sizes:
        numbers = torch.arange(count, count + size, dtype=torch.float32)
        buffer.add(numbers.reshape(-1, 1, 1, 1), numbers.reshape(-1, 1))
        count += size
    expected = torch.arange(max(0, count - capacity), count, dtype=torch.float32)
    assert torch.equal(buffer.images.flatten(), expected)
    assert torch.equal(buffer.labels.flatten(), expected)
    assert len(buffer) == len(expected)


@pytest.mark.parametrize("filled", [0, 3])
def test_stored_dreams_do_not_change_when_the_optimiser_goes_on(filled: int) -> None:
    """In the published code the entry made at mid-round shared memory with the live dreams."""
    buffer = DreamBuffer(100)
    if filled:
        buffer.add(torch.ones(filled, 1, 2, 2), torch.ones(filled, 10))
    dreams, labels = torch.zeros(4, 1, 2, 2), torch.zeros(4, 10)
    buffer.add(dreams, labels)
    dreams.add_(7)
    labels.add_(7)
    assert torch.equal(buffer.images[filled:], torch.zeros(4, 1, 2, 2))
    assert torch.equal(buffer.labels[filled:], torch.zeros(4, 10))


def test_its_state_can_be_saved_and_restored() -> None:
    buffer, other = DreamBuffer(5), DreamBuffer(5)
    buffer.add(torch.rand(3, 1, 2, 2), torch.rand(3, 10))
    other.load_state_dict(buffer.state_dict())
    assert torch.equal(other.images, buffer.images)
    assert torch.equal(other.labels, buffer.labels)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity is 0"):
        DreamBuffer(0)
    with pytest.raises(ValueError, match="differ in length: 2 and 3"):
        DreamBuffer(5).add(torch.zeros(2, 1, 2, 2), torch.zeros(3, 10))
