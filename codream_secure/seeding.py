"""Randomness that depends on where it is used and on nothing else.

Every random choice of a run draws from a stream derived from the run's seed and a label of its place, such as
``(round 3, client 1, "distil")``. No stream depends on what ran before it, so a run that is resumed after a kill needs
no saved generator state and still ends with the same bits. These seeds serve simulation only: keys, masks and privacy
noise never come from here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *place: str | int) -> int:
    """A seed in [0, 2**63) for one place of one run, by SHA-256 over an unambiguous encoding."""
    digest = hashlib.sha256(repr((seed, *place)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *place: str | int) -> torch.Generator:
    """A fresh CPU generator for that place. Drawing on the CPU keeps CPU and GPU runs on the same numbers."""
    return torch.Generator().manual_seed(derive_seed(seed, *place))


@contextmanager
def seeded(seed: int, *place: str | int) -> Iterator[None]:
    """Seed torch's global generators inside the block (weight initialisation, dropout) and restore them after it."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive_seed(seed, *place))
        yield
