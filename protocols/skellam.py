"""Skellam noise, exactly: the difference of two Poisson variables of mean mu / 2 each, which has variance mu.

P(X = x) = exp(-mu) I_|x|(mu), with the modified Bessel function I (Skellam 1946); its use as private noise is due to
Agarwal, Kairouz and Liu (2021), "The Skellam mechanism for differentially private federated learning". Sums of
independent Skellam variables are Skellam variables, so clients' noise adds up without any error.

The magnitude |X|, of weight I_0 at zero and 2 I_k at k, is drawn by inversion (:mod:`~protocols.inversion`, which has
the proof) and gets a fair sign. mu is a rational number. Nothing but ratios of neighbours r_k = I_(k+1)(mu) / I_k(mu)
is needed, since the law sums to one. From I_k = (2 (k + 1) / mu) I_(k+1) + I_(k+2) follows

    r_k = 1 / (2 (k + 1) / mu + r_(k+1)),

which turns bounds on r_(k+1) into tighter ones on r_k, whatever they were at a large k: there 0 and 1. As I_k^2 >=
I_(k-1) I_(k+1) (Amos 1974, "Computation of modified Bessel functions and their ratios"), the ratios go down in k, and
what lies beyond a table is below a geometric series.

One table serves mu up to 2^28. Beyond, up to 2^32, a sample is the sum of up to 16 samples of equal shares of mu, which
is exact too.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

from protocols.enclosures import Cumulative, Enclosure, cumulated
from protocols.errors import TermsError
from protocols.inversion import Integers, Inversion, Law, Source, in_blocks, negated

SMALLEST_VARIANCE, LARGEST_VARIANCE = Fraction(1, 1024), Fraction(2**32)
_LARGEST_TABLE = 2**28
_GUARD_BITS = 64


class HalfSkellam(Law):
    """The law of a Skellam variable's magnitude.

    Args:
        variance: mu > 0.
    """

    def __init__(self, variance: Fraction) -> None:
        self._variance = variance

    def cumulative(self, bits: int) -> Cumulative:
        """Weights relative to that of zero. How far the recurrence runs is a guess that the bounds confirm."""
        work = bits + _GUARD_BITS
        one = 1 << work
        reach = self._reach(work)
        while True:
            ratios = self._ratios(reach, work)
            weight, weights = Enclosure(one, one), [Enclosure(one, one)]
            for k in range(reach - 1):
                weight = weight.times(ratios[k], work)
                if weight.upper < 1 << _GUARD_BITS and ratios[k + 1].upper < one:
                    # This weight and all beyond it: the ratio of its successor to it is the largest from here on.
                    tail = -((-2 * weight.upper << work) // (one - ratios[k + 1].upper))
                    if tail < 1 << _GUARD_BITS:
                        return cumulated(weights, tail, bits)
                weights.append(Enclosure(2 * weight.lower, 2 * weight.upper))
            reach *= 2

    def _reach(self, work: int) -> int:
        """Where the weights have fallen below 2^-work and the starting bounds no longer matter, roughly.

        By Bernstein's inequality for the weights; bounds narrow by the square of what the weights fall by.
        """
        nats = work * math.log(2)
        return 16 + math.ceil(nats / 3 + math.sqrt(nats * nats / 9 + 2 * float(self._variance) * nats))

    def _ratios(self, reach: int, work: int) -> list[Enclosure]:
        """r_0 to r_(reach - 1), from bounds of 0 and 1 on r_reach."""
        top, bottom = self._variance.numerator, self._variance.denominator
        numerator, slope = top << (2 * work), (2 * bottom) << work
        lower, upper = 0, 1 << work
        ratios = []
        for k in range(reach, 0, -1):
            lower, upper = numerator // (slope * k + top * upper), -(-numerator // (slope * k + top * lower))
            ratios.append(Enclosure(lower, upper))
        ratios.reverse()
        return ratios


class Skellam:
    """Samples of the Skellam law around zero. It holds tables and nothing secret.

    Args:
        variance: mu, in [1/1024, 2^32].

    Raises:
        TermsError: it is out of range.
    """

    def __init__(self, variance: Fraction) -> None:
        if not SMALLEST_VARIANCE <= variance <= LARGEST_VARIANCE:
            raise TermsError(
                f"variance is {float(variance):g}: Skellam noise is drawn for {SMALLEST_VARIANCE} to 2^32 (a standard "
                "deviation from 1/32 to 65536); encode with another scale, or use the discrete Gaussian"
            )
        self._shares = math.ceil(variance / _LARGEST_TABLE)
        self._inversion = Inversion(HalfSkellam(variance / self._shares))

    def draw(self, count: int, words: Source) -> Integers:
        """So many independent samples.

        Args:
            count: how many.
            words: where random bits come from.

        Returns:
            ``(count,)``. A sample beyond 2^63, which nobody will ever see, is taken mod 2^64.
        """
        return in_blocks(lambda size: self._drawn(size, words), count)

    def _drawn(self, count: int, words: Source) -> Integers:
        total = self._one(count, words)
        for _ in range(self._shares - 1):
            total += self._one(count, words)
        return total

    def _one(self, count: int, words: Source) -> Integers:
        first = words(count)
        return negated(self._inversion.invert(first, words), first)


@lru_cache(maxsize=4)
def skellam(variance: Fraction) -> Skellam:
    """The sampler for this mu; its tables are made once in a process.

    Raises:
        TermsError: out of range.
    """
    return Skellam(variance)
