"""Real numbers between two integers: rigorous bounds on probabilities, to as many bits as are asked for.

A number x >= 0 is enclosed at ``bits`` by integers ``lower <= 2^bits x <= upper``. Every operation rounds the lower end
down and the upper end up, in Python's unbounded integers; nothing here is a float.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import accumulate
from typing import NamedTuple


class Enclosure(NamedTuple):
    """Integers below and above a real number times 2^bits; who holds it knows the bits."""

    lower: int
    upper: int

    def times(self, other: Enclosure, bits: int) -> Enclosure:
        """The product, at the same bits as both factors."""
        return Enclosure((self.lower * other.lower) >> bits, -((-self.upper * other.upper) >> bits))


class Cumulative(NamedTuple):
    """Enclosures of F_k = P(X <= k) for k = 0, 1, ..., at some bits: two ascending lists of the same length.

    The law may go on beyond the last k; what is left there is less than one unit in the last bit or two.
    """

    lower: list[int]
    upper: list[int]


def exp_minus(x: Fraction, bits: int) -> Enclosure:
    """e^-x for x >= 0.

    The argument is halved until it is at most one. There the partial sums of the alternating series lie on either side
    of the limit in turn, since its terms shrink; they are exact over a common denominator, and only the last two are
    rounded. Squaring them undoes the halving.
    """
    halvings = (x.numerator // x.denominator).bit_length()
    work = bits + 2 * halvings + 8
    top, bottom = x.numerator, x.denominator << halvings
    # total / scale is the sum up to the term power / scale = (-x)^order / order!.
    total, power, scale, order = 1, 1, 1, 0
    while order % 2 == 0 or abs(power) << work >= scale:
        order += 1
        scale *= bottom * order
        power *= -top
        total = total * bottom * order + power
    # Its last term is negative: this sum is below, and the one before it above.
    found = Enclosure((total << work) // scale, -(((power - total) << work) // scale))
    for _ in range(halvings):
        found = found.times(found, work)
    return Enclosure(found.lower >> (work - bits), -(-found.upper >> (work - bits)))


def cumulated(weights: Iterable[Enclosure], tail: int, bits: int) -> Cumulative:
    """The cumulative probabilities of a law that is known up to a factor.

    Args:
        weights: of k = 0, 1, ..., all at the same bits.
        tail: an upper bound on the sum of the weights beyond those, at those bits; 0 is a lower bound.
        bits: of the result.
    """
    pairs = list(weights)
    lower = list(accumulate(weight.lower for weight in pairs))
    upper = list(accumulate(weight.upper for weight in pairs))
    least, most = lower[-1], upper[-1] + tail
    one = 1 << bits
    return Cumulative(
        [(sum_ << bits) // most for sum_ in lower],
        [min(one, -((-sum_ << bits) // least)) for sum_ in upper],
    )
