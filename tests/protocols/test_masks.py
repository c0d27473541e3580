"""Masks, against AES-256 in counter mode called in one go, and HMAC-SHA256 written out."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.holdings import Holdings
from protocols.keys import Secret, request_context
from protocols.masks import apply_masks, next_root, pair_mask_key, pair_seed, self_mask_key

# A block of masking has 128 KiB: 32768 elements of 4 bytes, 16384 of 8.
LENGTHS = [0, 1, 2, 3, 5, 16383, 16384, 16385, 32767, 32768, 32769, 65537, 100_001]


def keystream(key: bytes, dtype: str, length: int) -> np.ndarray:
    """AES-256-CTR from counter block 2, by decrypting zeros in one call."""
    decryptor = Cipher(algorithms.AES256(key), modes.CTR(bytes(15) + b"\2")).decryptor()
    count = length * np.dtype(dtype).itemsize
    return np.frombuffer(decryptor.update(bytes(count)) + decryptor.finalize(), dtype=dtype)


def drawn(dtype: str, length: int) -> np.ndarray:
    return np.random.default_rng(length).integers(0, np.iinfo(dtype).max, length, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
@pytest.mark.parametrize("length", LENGTHS)
def test_masks_are_the_keystreams_of_their_keys(dtype: str, length: int) -> None:
    added, subtracted = [os.urandom(32) for _ in range(3)], [os.urandom(32) for _ in range(2)]
    ring = drawn(dtype, length)
    expected = ring.copy()
    for key in added:
        expected += keystream(key, dtype, length)
    for key in subtracted:
        expected -= keystream(key, dtype, length)
    apply_masks(ring, add=added, subtract=subtracted)
    assert np.array_equal(ring, expected)
    assert ring.dtype == dtype


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
@pytest.mark.parametrize("length", LENGTHS)
def test_what_was_added_can_be_taken_off(dtype: str, length: int) -> None:
    keys = [os.urandom(32) for _ in range(4)]
    ring = drawn(dtype, length)
    original = ring.copy()
    apply_masks(ring, add=keys[:2], subtract=keys[2:])
    assert length < 3 or not np.array_equal(ring, original)
    apply_masks(ring, add=keys[2:], subtract=keys[:2])
    assert np.array_equal(ring, original)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.binary(min_size=32, max_size=32), max_size=5), st.integers(0, 40), st.sampled_from(["<u4", "<u8"]))
def test_equal_keys_on_both_sides_cancel(keys: list[bytes], length: int, dtype: str) -> None:
    ring = drawn(dtype, length)
    original = ring.copy()
    apply_masks(ring, add=iter(keys), subtract=iter(keys))
    assert np.array_equal(ring, original)


def test_no_mask_changes_nothing() -> None:
    ring = drawn("<u4", 10)
    original = ring.copy()
    apply_masks(ring)
    assert np.array_equal(ring, original)


def test_a_slice_is_masked_where_it_lies() -> None:
    whole = np.zeros(100, "<u4")
    key = os.urandom(32)
    apply_masks(whole[10:90], add=[key])
    assert np.array_equal(whole[10:90], keystream(key, "<u4", 80))
    assert not whole[:10].any()
    assert not whole[90:].any()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """RFC 2104, for keys of at most one block."""
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()


def test_the_keys_are_hmacs_under_their_labels() -> None:
    root, prefix = os.urandom(32), b"codream-secure masked v1 "
    request = request_context(7, "gradients", 3, b"dreams")
    assert bytes(next_root(Secret(root)).value) == hmac_sha256(root, prefix + b"next root\0")
    seed = pair_seed(Secret(root))
    assert seed == hmac_sha256(root, prefix + b"pairwise seed\0")
    assert pair_mask_key(seed, request) == hmac_sha256(seed, prefix + b"pairwise mask\0" + request)
    assert self_mask_key(Secret(root), request) == hmac_sha256(root, prefix + b"self mask\0" + request)


def test_every_step_pair_purpose_and_request_has_its_own_key() -> None:
    requests = [
        request_context(step, stream, values, context)
        for step in (0, 1)
        for stream in ("a", "b")
        for values in (3, 4)
        for context in (b"", b"\0")
    ]
    keys: list[bytes] = []
    for _ in range(3):
        root = Secret(os.urandom(32))
        for _ in range(50):
            keys += [bytes(root.value), pair_seed(root)]
            keys += [pair_mask_key(pair_seed(root), request) for request in requests]
            keys += [self_mask_key(root, request) for request in requests]
            root = next_root(root)
    assert len(set(keys)) == len(keys) == 3 * 50 * (2 + 2 * 16)
    assert {len(key) for key in keys} == {32}


def test_a_root_that_is_moved_on_stays_for_its_owner_to_wipe() -> None:
    root = Secret(bytes(32))
    after = next_root(root)
    assert bytes(root.value) == bytes(32) != bytes(after.value)
    root.wipe()
    assert any(after.value)


# What a client keeps of them


def held(steps: int) -> tuple[Holdings, dict[int, bytes], list[bytes], dict[int, bytes]]:
    """Member 5 with neighbours 3 and 8, and what it was given."""
    roots = {peer: os.urandom(32) for peer in (3, 8)}
    selves = [os.urandom(32) for _ in range(steps)]
    batches = {member: os.urandom(64 * steps) for member in (3, 5, 8)}
    holdings = Holdings(
        5,
        roots={peer: Secret(root) for peer, root in roots.items()},
        selves=[Secret(secret) for secret in selves],
        batches={member: bytearray(batch) for member, batch in batches.items()},
    )
    return holdings, roots, selves, batches


def root_at(root: bytes, step: int) -> bytes:
    """A root that was moved on so often."""
    for _ in range(step):
        root = hmac_sha256(root, b"codream-secure masked v1 next root\0")
    return root


def test_masks_shared_with_members_above_are_added_and_with_those_below_subtracted() -> None:
    """Step by step, and with steps left out, at which this client had no vector."""
    holdings, roots, selves, _ = held(9)
    for step in (0, 1, 4, 8):
        request = request_context(step, "gradients", 3, b"")
        keys = {peer: pair_mask_key(pair_seed(Secret(root_at(root, step))), request) for peer, root in roots.items()}
        own = self_mask_key(Secret(selves[step]), request)
        assert holdings.mask_keys(step, request) == ([own, keys[8]], [keys[3]])


def test_nothing_is_left_that_would_make_the_masks_of_a_step_again() -> None:
    holdings, roots, selves, _ = held(5)
    before = [*(root.value for root in holdings.roots.values()), *(secret.value for secret in holdings.selves)]
    holdings.mask_keys(2, b"request")
    assert [bytes(buffer) for buffer in before[:5]] == [bytes(32)] * 5
    assert [bytes(buffer) for buffer in before[5:]] == selves[3:]
    assert {peer: bytes(root.value) for peer, root in holdings.roots.items()} == {
        peer: root_at(root, 3) for peer, root in roots.items()
    }
    for step in range(3):
        with pytest.raises(ValueError, match="wiped"):
            holdings.mask_keys(step, b"request")


def test_of_each_member_one_share_is_given_and_the_other_is_gone() -> None:
    holdings, _, _, batches = held(3)
    buffers = dict(holdings.batches)

    def share(member: int, step: int, kind: int) -> bytes:
        return batches[member][64 * step + 32 * kind :][:32]

    assert holdings.shares(0, {8}) == share(3, 0, 0) + share(5, 0, 0) + share(8, 0, 1)
    assert holdings.shares(2, {3}) == share(3, 2, 1) + share(5, 2, 0) + share(8, 2, 0)
    assert {bytes(buffer) for buffer in buffers.values()} == {bytes(3 * 64)}
    assert set(holdings.group) == {3, 5, 8}


def test_only_shares_of_steps_to_come_are_left() -> None:
    holdings, _, _, batches = held(4)
    for step in (0, 2):
        holdings.shares(step, set())
        over = 64 * (step + 1)
        for member, batch in holdings.batches.items():
            assert bytes(batch) == bytes(over) + batches[member][over:]


def test_holdings_are_wiped_as_a_whole() -> None:
    holdings, _, _, _ = held(4)
    secrets = [*holdings.roots.values(), *holdings.selves]
    buffers = [*(secret.value for secret in secrets), *holdings.batches.values()]
    holdings.wipe()
    assert not any(any(buffer) for buffer in buffers)
