"""Exact sampling by inversion: a table decides nearly every draw, and unbounded integers decide the rest.

Let U be uniform on [0, 1), its bits drawn one after the other, and F_0 < F_1 < ... the cumulative probabilities of a
law on 0, 1, 2, .... How many F_k are at most U has exactly that law. The first 63 bits of U, an integer W, leave U
anywhere in [W, W + 1) 2^-63. The table holds integers T_k <= H_k <= T_k + 1 with T_k = floor of a lower and H_k = floor
of an upper bound on 2^63 F_k. Then

* W < T_k implies U < F_k, because W + 1 <= T_k <= 2^63 F_k;
* W > H_k implies U > F_k, because W >= H_k + 1 > 2^63 F_k;

so unless T_k <= W <= H_k for some k, the first 63 bits decide. Otherwise (with probability of about 2^-63 for each F_k,
whatever lies beyond the table being one of these cases too) further bits of U are drawn, 64 at a time, and compared
with enclosures of the F_k that are as narrow, until they decide. That happens with probability one, and the result
differs from the law by nothing at all: no probability was rounded, only the time at which it is known. This is the lazy
comparison of Knuth and Yao (1976), "The complexity of nonuniform random number generation".

Lookups depend on what is drawn, so the time they take is not constant: who can measure single cache lines of a
client's processor is not kept from its noise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.enclosures import Cumulative

Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Source = Callable[[int], Words]
"""Gives so many fresh, independent, uniform words of 64 bits."""

WORD_BITS = 64
PREFIX_BITS = 63
_FIRST_BITS = 128
_MIN_GUIDE_BITS, _MAX_GUIDE_BITS = 10, 22
_BLOCK = 1 << 14


class Law(ABC):
    """A law on the integers k >= 0 whose cumulative probabilities can be enclosed as tightly as one likes."""

    @abstractmethod
    def cumulative(self, bits: int) -> Cumulative:
        """Enclosures at ``bits``, whose width and whose rest beyond the last go to zero as ``bits`` grows."""


class Inversion:
    """Draws from a law.

    Args:
        law: what is drawn from.
    """

    def __init__(self, law: Law) -> None:
        self._law = law
        self._levels: dict[int, Cumulative] = {}
        self._lower, self._upper = self._prefixes()
        self._guide, self._shift = self._guides()

    def __len__(self) -> int:
        """Boundaries in the table."""
        return len(self._lower)

    def _prefixes(self) -> tuple[Words, Words]:
        """T and H. The last entry stands for all F_k that begin with 63 ones, and for those beyond any table."""
        for bits in count(_FIRST_BITS, WORD_BITS):
            bounds = self._law.cumulative(bits)
            last = (1 << PREFIX_BITS) - 1
            kept = bisect_left(bounds.lower, last << (bits - PREFIX_BITS))
            lower = [bound >> (bits - PREFIX_BITS) for bound in bounds.lower[:kept]] + [last]
            upper = [bound >> (bits - PREFIX_BITS) for bound in bounds.upper[:kept]] + [last]
            if kept < len(bounds.lower) and all(high - low <= 1 for low, high in zip(lower, upper, strict=True)):
                break
        return np.array(lower, dtype=np.uint64), np.array(upper, dtype=np.uint64)

    def _guides(self) -> tuple[npt.NDArray[np.signedinteger[Any]], np.uint64]:
        """What a word's first bits alone decide: the result, or -1 where they do not."""
        bits = min(max((32 * len(self)).bit_length(), _MIN_GUIDE_BITS), _MAX_GUIDE_BITS)
        width = np.uint64(PREFIX_BITS - bits)
        cells = np.arange(1 << bits, dtype=np.uint64) << width
        kind = np.int16 if len(self) < 1 << 15 else np.int32
        guide: npt.NDArray[np.signedinteger[Any]] = np.searchsorted(self._lower, cells, side="right").astype(kind)
        for bounds in (self._lower, self._upper):
            guide[np.minimum(bounds >> width, np.uint64(guide.size - 1))] = -1
        return guide, np.uint64(WORD_BITS - bits)

    def invert(self, words: Words, more: Source) -> Integers:
        """One draw for each word, from its upper 63 bits; the lowest is left for other uses.

        Args:
            words: ``(n,)`` uniform.
            more: where further bits come from.
        """
        found = self._guide.take((words >> self._shift).view(np.int64), mode="clip")
        open_ = np.flatnonzero(found < 0)
        result = found.astype(np.int64)
        if open_.size:
            prefixes = words[open_] >> np.uint64(1)
            ranks = np.searchsorted(self._lower, prefixes, side="right")
            result[open_] = ranks
            # The rank is at least one where the word is not below the whole table.
            undecided = (ranks > 0) & (prefixes <= self._upper[ranks - 1])
            for place in np.flatnonzero(undecided):
                result[open_[place]] = wrapped(self.resolve(int(prefixes[place]), more))
        return result

    def resolve(self, prefix: int, more: Source) -> int:
        """The draw of a U that begins with these 63 bits, by unbounded integers; exact for any prefix."""
        known = PREFIX_BITS
        for bits in count(_FIRST_BITS, WORD_BITS):
            if bits not in self._levels:
                self._levels[bits] = self._law.cumulative(bits)
            bounds = self._levels[bits]
            # Boundaries that are surely at most U, and those that are perhaps below its upper end.
            sure = bisect_right(bounds.upper, prefix << (bits - known))
            perhaps = bisect_left(bounds.lower, (prefix + 1) << (bits - known))
            if sure == perhaps < len(bounds.lower):
                return sure
            prefix = (prefix << WORD_BITS) | int(more(1)[0])
            known += WORD_BITS
        raise AssertionError("unreachable")


def wrapped(value: int) -> int:
    """A value mod 2^64, from -2^63 on: what any ring that it is added to would make of it."""
    return ((value + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


def in_blocks(draw: Callable[[int], Integers], count: int) -> Integers:
    """So many draws, made a block at a time so that all that they take stays in the processor's cache."""
    drawn = np.empty(count, dtype=np.int64)
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        drawn[start : start + size] = draw(size)
    return drawn


def negated(magnitudes: Integers, words: Words) -> Integers:
    """With a fair sign from each word's lowest bit; a zero stays one."""
    signs = -(words & np.uint64(1)).view(np.int64)
    return (magnitudes ^ signs) - signs
