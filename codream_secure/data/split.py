"""Holding out part of a training set, class by class."""

from __future__ import annotations

import numpy as np
import torch

from codream_secure.errors import PartitionError

# Mixed into the seed, so that a hold-out and a partition drawn with the same seed are independent.
_DOMAIN = 0x401D


def hold_out(labels: torch.Tensor, count: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw ``count`` held-out samples, each class in proportion to its size.

    Shares are rounded by largest remainder, ties to the lower label. No class gives away its last
    sample unless ``count`` cannot be reached otherwise.

    Args:
        labels: int64 tensor (N,).
        count: How many to hold out, 0..N-1.
        seed: Non-negative; the result depends on the arguments alone.

    Returns:
        Remaining and held-out indices, each int64 and ascending; together 0..N-1, each once.

    Raises:
        PartitionError: ``count`` or ``seed`` is out of range, or labels are not int64 of shape (N,).
    """
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise PartitionError(f"labels must be int64 of shape (N,), got {labels.dtype} of shape {tuple(labels.shape)}")
    if not 0 <= count < max(len(labels), 1):
        raise PartitionError(
            f"count is {count}, but there are {len(labels)} samples: "
            f"between 0 and {max(len(labels) - 1, 0)} can be held out"
        )
    if seed < 0:
        raise PartitionError(f"seed is {seed}, but it must be 0 or more")
    classes = labels.cpu().numpy()
    rng = np.random.default_rng([seed, _DOMAIN])
    values, sizes = np.unique(classes, return_counts=True)
    held = np.zeros(len(classes), dtype=bool)
    for value, share in zip(values, _proportional_shares(sizes, count), strict=True):
        held[rng.permutation(np.flatnonzero(classes == value))[:share]] = True
    return torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))


def _proportional_shares(sizes: np.ndarray, count: int) -> np.ndarray:
    capacity = sizes - 1 if count <= (sizes - 1).sum() else sizes
    wanted = count * sizes / max(int(sizes.sum()), 1)
    shares: np.ndarray = np.minimum(np.floor(wanted).astype(np.int64), capacity)
    while shares.sum() < count:
        shares[np.argmax(np.where(shares < capacity, wanted - shares, -np.inf))] += 1
    return shares


def stratified_fifth(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fixed 80/20 split for sets without an official test part: training and test indices, ascending.

    The test part is a fifth, rounded up. No seed: a test set that changed with one could not be compared.
    """
    train, test = hold_out(torch.from_numpy(labels), -(-len(labels) // 5), seed=0)
    return train.numpy(), test.numpy()
