"""Noise that clients share out among themselves: integers of an exact law, from each of them a part.

With K clients, of whom at most D drop out of a sum and at most t collude with the server (and tell it their noise, or
add none), the noise of K - D - t honest clients is sure to be in what is opened, and unknown to the others. Each adds
noise of variance V / (K - D - t), so that V is sure to be there (Kairouz, Liu and Steinke 2021, "The distributed
discrete Gaussian mechanism for federated learning with secure aggregation"). A sum of fewer than K - D contributions
must not be opened: :class:`~protocols.terms.Terms` refuses cohorts and shares of dropout that would allow it.

Nothing here can be seeded. Each vector's noise comes out of a :class:`~protocols.keystream.Keystream` of its own, keyed
by the operating system.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar, Protocol

import numpy as np

from protocols import discrete_gaussian, skellam
from protocols.encoding import Ring, whole
from protocols.errors import TermsError
from protocols.inversion import Integers, Source
from protocols.keystream import Keystream
from protocols.noise import Noise

WRAP_PROBABILITY = 1e-12
"""p: a run's sums wrap, because of noise, with at most this probability."""
SMALLEST_DISCRETE_GAUSSIAN_VARIANCE = Fraction(1, 4)
"""Of one client. With less, the sum is too far from a discrete Gaussian for the bound on its privacy to say much."""
_MAX_CLIENTS, _MAX_VALUES, _MAX_STEPS, _MAX_VARIANCE_BITS = 10**6, 2**40, 10**9, 256
_BLOCK = 1 << 18


class Sampler(Protocol):
    """Draws independent integers of one law."""

    def draw(self, count: int, words: Source) -> Integers:
        """So many, from these random words."""


@dataclass(frozen=True)
class SharedNoise(Noise):
    """What both laws have in common.

    Args:
        variance: V > 0, in squared ring units: what the honest survivors' noise adds up to at least. Any rational
            number, a float being the binary fraction that it is.
        clients: K, size of the cohort.
        values: d, coordinates of a vector, or an upper bound.
        steps: T, sums of a run, likewise. These two count only in :meth:`headroom`.
        dropouts: D, at most so many clients' contributions are missing from a sum that is opened.
        colluders: t, at most so many of the others are not honest.

    Raises:
        TermsError: an argument is out of range, nobody honest is left, or a client's share of the variance is outside
            of what can be drawn.
    """

    variance: Fraction | float
    clients: int = field(kw_only=True)
    values: int = field(kw_only=True)
    steps: int = field(kw_only=True)
    dropouts: int = field(default=0, kw_only=True)
    colluders: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        for name, least, most in (
            ("clients", 1, _MAX_CLIENTS),
            ("values", 1, _MAX_VALUES),
            ("steps", 1, _MAX_STEPS),
            ("dropouts", 0, _MAX_CLIENTS),
            ("colluders", 0, _MAX_CLIENTS),
        ):
            value = whole(name, getattr(self, name), TermsError)
            if not least <= value <= most:
                raise TermsError(f"{name} is {value}: it must lie between {least} and {most}")
            object.__setattr__(self, name, value)
        if self.honest < 1:
            raise TermsError(
                f"of {self.clients} clients {self.dropouts} may drop out and {self.colluders} collude: nobody's noise "
                f"is sure to be there; lower dropouts or colluders, so that together they are below {self.clients}"
            )
        try:
            object.__setattr__(self, "variance", Fraction(self.variance))
        except (TypeError, ValueError, OverflowError):
            raise TermsError(f"variance is {self.variance!r}: it must be a finite number") from None
        share = self.client_variance
        if max(share.numerator.bit_length(), share.denominator.bit_length()) > _MAX_VARIANCE_BITS:
            raise TermsError(
                f"variance has more than {_MAX_VARIANCE_BITS} bits as a fraction: round it, upwards, to a float"
            )
        least_share, largest_share = self._range()
        if not least_share <= share <= largest_share:
            raise TermsError(
                f"variance is {float(self.variance):g}, so that each client would add {float(share):g}: {self.name} "
                f"noise takes {float(least_share):g} to {float(largest_share):g} a client; encode with another scale"
            )

    @property
    def honest(self) -> int:
        """K - D - t: how many clients' noise is sure to be in a sum and to stay unknown."""
        return self.clients - self.dropouts - self.colluders

    @property
    def client_variance(self) -> Fraction:
        """V / (K - D - t), the parameter of one client's noise, exactly."""
        return Fraction(self.variance) / self.honest

    @property
    def client_sigma(self) -> float:
        """Its square root, rounded down, for accountants: no more is claimed than what is added."""
        sigma = math.sqrt(self.client_variance)
        while Fraction(sigma) ** 2 > self.client_variance:
            sigma = math.nextafter(sigma, 0.0)
        return sigma

    def contributors(self) -> int:
        return self.clients - self.dropouts

    def parameters(self) -> Mapping[str, int | float | str]:
        return {
            "variance": str(self.variance),
            "clients": self.clients,
            "values": self.values,
            "steps": self.steps,
            "dropouts": self.dropouts,
            "colluders": self.colluders,
        }

    def add(self, ring: Ring) -> Ring:
        """The vector with this client's noise, mod 2^32 or 2^64, as a new array.

        No value is clipped: noise beyond :meth:`headroom` is added as it is, for clipping would change the law that the
        privacy rests on, while what it endangers, that a sum wraps, has its probability accounted for there.

        Args:
            ring: ``(d,)`` uint32 or uint64.
        """
        sampler, words = self._sampler(), Keystream().words
        noised = np.empty_like(ring)
        for start in range(0, len(ring), _BLOCK):
            block = ring[start : start + _BLOCK]
            np.add(block, sampler.draw(len(block), words).astype(ring.dtype), out=noised[start : start + _BLOCK])
        return noised

    def headroom(self) -> int:
        """The magnitude h that one client's noise exceeds, in a given coordinate, with probability p / (d T) at most.

        A sum of n clients' noise then exceeds n h with no higher probability. So if ``n (largest + h)`` does not wrap,
        as :class:`~protocols.terms.Terms` makes sure, no coordinate of any of T sums does, but for p = 1e-12.
        """
        return math.ceil(
            self._tail(float(self.client_variance), math.log(2 * self.values * self.steps / WRAP_PROBABILITY))
        )

    @abstractmethod
    def _range(self) -> tuple[Fraction, Fraction]:
        """Smallest and largest variance of one client's noise."""

    @abstractmethod
    def _tail(self, variance: float, nats: float) -> float:
        """A bound that noise stays below on either side, but for a probability of 2 exp(-nats)."""

    @abstractmethod
    def _sampler(self) -> Sampler:
        """For one client's noise."""


@dataclass(frozen=True)
class DiscreteGaussianNoise(SharedNoise):
    """Discrete Gaussian noise from every client, of parameter sigma^2 = V / (K - D - t) of at least 1/4.

    ``variance`` is the sum of the honest parameters. The variance of the law itself is smaller by one part in a million
    at sigma = 1, ever less beyond, but by 14 % at sigma = 1/2; accounting goes by the parameter.

    The sum is not itself a discrete Gaussian; accounting has to use the bound for sums (theorem 1 of the paper above).
    """

    name: ClassVar[str] = "discrete_gaussian"

    def _range(self) -> tuple[Fraction, Fraction]:
        return SMALLEST_DISCRETE_GAUSSIAN_VARIANCE, discrete_gaussian.LARGEST_VARIANCE

    def _tail(self, variance: float, nats: float) -> float:
        """r sigma with r = sqrt(2 ln(2 d T / p)): the law and its sums are sub-Gaussian (corollary 17 of CKS 2020)."""
        return math.sqrt(2 * variance * nats)

    def _sampler(self) -> Sampler:
        return discrete_gaussian.discrete_gaussian(self.client_variance)


@dataclass(frozen=True)
class SkellamNoise(SharedNoise):
    """Skellam noise from every client, of variance V / (K - D - t). A sum of it is Skellam noise of as many shares."""

    name: ClassVar[str] = "skellam"

    def _range(self) -> tuple[Fraction, Fraction]:
        return skellam.SMALLEST_VARIANCE, skellam.LARGEST_VARIANCE

    def _tail(self, variance: float, nats: float) -> float:
        """By Bernstein's inequality: ln E exp(u X) = V (cosh u - 1) <= V u^2 / (2 (1 - u / 3))."""
        return nats / 3 + math.sqrt(nats * nats / 9 + 2 * variance * nats)

    def _sampler(self) -> Sampler:
        return skellam.skellam(self.client_variance)
