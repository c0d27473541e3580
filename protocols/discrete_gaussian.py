"""Discrete Gaussian noise, exactly: P(X = x) is proportional to exp(-x^2 / (2 sigma^2)) on the integers.

The law is that of Canonne, Kamath and Steinke (2020), "The discrete Gaussian for differential privacy", section 2; the
sampler is not theirs (their algorithm 3), because most of its time goes into coins that a table makes unnecessary.
sigma^2 is a rational number, all that decides is integers, and the samples follow the law to the last bit:

* sigma < 1024. The magnitude |X| is drawn by inversion (:mod:`~protocols.inversion`, which has the proof) and gets a
  fair sign. A word of 64 random bits decides nearly always.
* sigma >= 1024. Let B = 2^b be such that 512 <= sigma / B < 1024. An integer is uniquely x = m or x = -1 - m with
  m = k B + f with k >= 0 and 0 <= f < B, so |x| = k B + a, where a is f or f + 1. Propose k with probability
  proportional to exp(-(k B)^2 / (2 sigma^2)), by inversion; f uniform in [0, B), which is b random bits; and one of the
  two forms by a fair bit. Then accept with probability exp(-g), where
  g = (x^2 - (k B)^2) / (2 sigma^2) = a (2 k B + a) / (2 sigma^2)
  is not negative. The product of both is exp(-x^2 / (2 sigma^2)): what is accepted follows the law. A proposal is
  rejected with a probability below one in 1000, since g is of the size of B / sigma.

Accepting with probability exp(-g): let U be uniform and its first bits V. Accept if U >= 1 - exp(-g). As
g - g^2 / 2 <= 1 - exp(-g) <= g, V decides unless it falls between these two or on one of them. A table of bounds over
all f and both forms accepts nearly all at once; the rest, about one in a thousand, is compared in rational numbers;
where V does not decide, further bits of U are compared with enclosures of exp(-g) as narrow as they are.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from itertools import count

import numpy as np

from protocols.enclosures import Cumulative, Enclosure, cumulated, exp_minus
from protocols.errors import TermsError
from protocols.inversion import WORD_BITS, Integers, Inversion, Law, Source, Words, in_blocks, negated

SMALLEST_VARIANCE, LARGEST_VARIANCE = Fraction(1, 1024), Fraction(2**104)
_COARSE_VARIANCE = 2**20
_GUARD_BITS = 64


class HalfGaussian(Law):
    """Weights c_k exp(-k^2 / (2 t)) of k = 0, 1, ...: c_k is 2, save that c_0 may be 1.

    With c_0 = 1 it is the law of a discrete Gaussian's magnitude.

    Args:
        variance: t > 0.
        zero: c_0, 1 or 2.
    """

    def __init__(self, variance: Fraction, *, zero: int) -> None:
        self._variance = variance
        self._zero = zero

    def cumulative(self, bits: int) -> Cumulative:
        """Products of the ratios exp(-(2 k + 1) / (2 t)) of neighbours, which go down in k: the tail is geometric."""
        work = bits + _GUARD_BITS
        one = 1 << work
        ratio = exp_minus(1 / (2 * self._variance), work)
        step = ratio.times(ratio, work)
        weight = Enclosure(one, one)
        weights = [Enclosure(self._zero * one, self._zero * one)]
        while True:
            weight = weight.times(ratio, work)
            ratio = ratio.times(step, work)
            if weight.upper < 1 << _GUARD_BITS:
                # This weight and all beyond it: at most weight / (1 - ratio) of its successor to it.
                tail = -((-2 * weight.upper << work) // (one - ratio.upper))
                if tail < 1 << _GUARD_BITS:
                    return cumulated(weights, tail, bits)
            weights.append(Enclosure(2 * weight.lower, 2 * weight.upper))


class DiscreteGaussian:
    """Samples of the discrete Gaussian with parameter sigma^2. It holds tables and nothing secret.

    Args:
        variance: sigma^2, in [1/1024, 2^104]. The variance of the law is below it: by less than one part in a million
            from sigma = 1 on, by 14 % at sigma = 1/2.

    Raises:
        TermsError: it is out of range.
    """

    def __init__(self, variance: Fraction) -> None:
        if not SMALLEST_VARIANCE <= variance <= LARGEST_VARIANCE:
            raise TermsError(
                f"variance is {float(variance):g}: a discrete Gaussian is drawn for {SMALLEST_VARIANCE} to 2^104 "
                "(sigma from 1/32 to 2^52); encode with another scale"
            )
        self._variance = variance
        self._bits = 0
        while variance >= _COARSE_VARIANCE << (2 * self._bits):
            self._bits += 1
        coarse = variance / 4**self._bits
        self._inversion = Inversion(HalfGaussian(coarse, zero=2 if self._bits else 1))
        self._accepted_from = self._thresholds(coarse) if self._bits else np.empty(0, dtype=np.uint64)

    def _thresholds(self, coarse: Fraction) -> Words:
        """From which V on a proposal with k is accepted, whatever f and the form: ceil of 2^v g at a = B.

        The last entry, which also serves all k beyond it, is 2^v: V never reaches that.
        """
        one = 1 << (WORD_BITS - self._bits)
        top, bottom = coarse.numerator, coarse.denominator
        values = [min(one, -(-(2 * k + 1) * bottom * one // (2 * top))) for k in range(len(self._inversion))]
        return np.array([*values, one], dtype=np.uint64)

    def draw(self, count: int, words: Source) -> Integers:
        """So many independent samples.

        Args:
            count: how many.
            words: where random bits come from.

        Returns:
            ``(count,)``. A sample beyond 2^63, which even for the largest sigma has a probability below exp(-2^20), is
            taken mod 2^64.
        """
        return in_blocks(lambda size: self._drawn(size, words), count)

    def _drawn(self, count: int, words: Source) -> Integers:
        first = words(count)
        index = self._inversion.invert(first, words)
        if not self._bits:
            return negated(index, first)
        second = words(count)
        fine = (second & np.uint64((1 << self._bits) - 1)).view(np.int64)
        verdict = second >> np.uint64(self._bits)
        forms = first & np.uint64(1)
        open_ = np.flatnonzero(verdict < self._accepted_from.take(index, mode="clip"))
        drawn = ((index << self._bits) | fine) ^ -forms.view(np.int64)
        again = [
            place
            for place, k, f, form, prefix in zip(
                *(part.tolist() for part in (open_, index[open_], fine[open_], forms[open_], verdict[open_])),
                strict=True,
            )
            if not self.accepts(k, f + form, prefix, words)
        ]
        if again:
            drawn[again] = self._drawn(len(again), words)
        return drawn

    def accepts(self, k: int, a: int, prefix: int, more: Source) -> bool:
        """Whether U >= 1 - exp(-g), for a U that begins with these bits, and g = a (2 k B + a) / (2 sigma^2).

        Args:
            k: of the proposal.
            a: likewise, in [0, B].
            prefix: the first 64 - b bits of U.
            more: where further bits come from.
        """
        top = a * ((k << (self._bits + 1)) + a) * self._variance.denominator
        bottom = 2 * self._variance.numerator
        known = WORD_BITS - self._bits
        if prefix * bottom >= top << known:
            return True
        # (prefix + 1) / 2^known <= g - g^2 / 2, over the common denominator.
        if (prefix + 1) * 2 * bottom * bottom <= top * (2 * bottom - top) << known:
            return False
        return self._decided(Fraction(top, bottom), prefix, known, more)

    @staticmethod
    def _decided(exponent: Fraction, prefix: int, known: int, more: Source) -> bool:
        for _ in count():
            bits = known + WORD_BITS
            one = 1 << bits
            kept = exp_minus(exponent, bits)
            if prefix << WORD_BITS >= one - kept.lower:
                return True
            if (prefix + 1) << WORD_BITS <= one - kept.upper:
                return False
            prefix = (prefix << WORD_BITS) | int(more(1)[0])
            known += WORD_BITS
        raise AssertionError("unreachable")


@lru_cache(maxsize=16)
def discrete_gaussian(variance: Fraction) -> DiscreteGaussian:
    """The sampler for this sigma^2; its tables are made once in a process.

    Raises:
        TermsError: out of range.
    """
    return DiscreteGaussian(variance)
