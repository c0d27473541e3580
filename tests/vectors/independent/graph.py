"""Neighbours and thresholds, the probabilities as exact fractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from .bindings import LABELS, sha256, u64


class Topology(NamedTuple):
    degree: int
    threshold: int
    survivors: int
    corrupt: int


def _floor(share: float, size: int) -> int:
    return math.floor(share * size + 1e-9)


def _exactly(population: int, marked: int, drawn: int, count: int) -> Fraction:
    """Hypergeometric: the probability of ``count`` marked ones among ``drawn``."""
    if count < 0 or drawn - count < 0:
        return Fraction(0)
    ways = math.comb(marked, count) * math.comb(population - marked, drawn - count)
    return Fraction(ways, math.comb(population, drawn))


def survivors_needed(size: int, dropout: float) -> int:
    return max(1, size - _floor(dropout, size))


def topology(size: int, *, dropout: float, corruption: float, active: bool, sigma: int, eta: int) -> Topology:
    survivors, corrupt = survivors_needed(size, dropout), _floor(corruption, size)
    if size < 2 or survivors < corrupt + 2 or (active and 2 * survivors <= size + corrupt):
        raise ValueError("these terms cannot be met")
    if not active:
        for degree in range(2, (size - 1) // 2 + 1, 2):
            threshold = _threshold(size, degree, size - survivors, corrupt, sigma, eta)
            if threshold is not None:
                return Topology(degree, threshold, survivors, corrupt)
    return Topology(size - 1, survivors, survivors, corrupt)


def _threshold(size: int, degree: int, dropped: int, corrupt: int, sigma: int, eta: int) -> int | None:
    """The smallest threshold that is private enough, if it is also correct often enough."""
    removed = corrupt + dropped
    split = Fraction(0)
    if removed >= degree:
        runs = Fraction(math.comb(size - degree, removed - degree), math.comb(size, removed))
        split = Fraction(size * size, 2) * runs
    allowed = Fraction(1, 2**sigma) - split
    if allowed <= 0:
        return None
    for threshold in range(degree // 2 + 2, degree + 1):
        exposed = size * sum(_exactly(size - 1, corrupt, degree, count) for count in range(threshold, degree + 1))
        if exposed <= allowed:
            staying = size - 1 - dropped
            failing = size * sum(_exactly(size - 1, staying, degree, count) for count in range(threshold))
            return threshold if failing <= Fraction(1, 2**eta) else None
    return None


def circle(cohort: Sequence[int], seed: bytes) -> list[int]:
    """The cohort in the order that the seed gives."""
    order, counter, words = list(cohort), 0, []
    for last in range(len(order) - 1, 0, -1):
        choices = last + 1
        while True:
            if not words:
                block = sha256(LABELS["graph"], seed, u64(counter))
                words = [int.from_bytes(block[at : at + 8], "big") for at in (0, 8, 16, 24)]
                counter += 1
            word = words.pop(0)
            if word < 2**64 // choices * choices:
                break
        chosen = word % choices
        order[last], order[chosen] = order[chosen], order[last]
    return order


def neighbours(cohort: Sequence[int], degree: int, seed: bytes) -> dict[int, list[int]]:
    """Each member's neighbours in ascending order."""
    size = len(cohort)
    if degree == size - 1:
        return {member: [other for other in cohort if other != member] for member in cohort}
    order = circle(cohort, seed)
    found: dict[int, list[int]] = {}
    for at, member in enumerate(order):
        reach = [*range(-(degree // 2), 0), *range(1, degree // 2 + 1)]
        found[member] = sorted(order[(at + offset) % size] for offset in reach)
    return found
