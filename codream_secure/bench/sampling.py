"""What a sample of exact noise costs: our samplers beside the published algorithm in vectorised NumPy, in one process.

The yardstick is algorithm 3 of Canonne, Kamath and Steinke (2020), "The discrete Gaussian for differential privacy",
run for all samples at once: every coin that is still to be thrown is one element of an array. Its random numbers come
from NumPy's generator, which is faster than AES and no secret to anybody: for timing, and in its favour. Its coins are
exact, in 64-bit integers, as long as their numerators fit, up to a sigma of about 5500; beyond, they are floats, and
``yardstick_exact`` says so. Ours are exact throughout, with random words from AES-256.

There is no other sampler of discrete Gaussians among this package's dependencies: opacus and dp-accounting draw from
continuous laws.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from protocols.discrete_gaussian import DiscreteGaussian
from protocols.keystream import Keystream
from protocols.skellam import LARGEST_VARIANCE, Skellam

SAMPLES = 786_432
"""256 dreams of 3x32x32."""
SIGMAS = ("0.3", "1", "3.7", "100", "1000", "5000", "65536", "1048576", "4294967296")
_TRIES = 5
_REACH = 45
"""No discrete Laplace variable of scale t is thought to exceed 45 t: the probability is e^-45."""

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class SamplingRow:
    """One standard deviation. Times are those of the fastest of five tries, in microseconds a sample.

    Attributes:
        sigma: of the law, as a decimal.
        discrete_gaussian_us: ours.
        skellam_us: ours, of variance sigma^2; None where it is not drawn.
        yardstick_us: the published algorithm for the discrete Gaussian.
        yardstick_exact: whether its coins were thrown in integers.
        ratio: yardstick over our discrete Gaussian.
        tables_s: seconds that our discrete Gaussian's tables took, once.
        skellam_tables_s: likewise.
    """

    sigma: str
    discrete_gaussian_us: float
    skellam_us: float | None
    yardstick_us: float
    yardstick_exact: bool
    ratio: float
    tables_s: float
    skellam_tables_s: float | None


class PublishedSampler:
    """Algorithm 3 of the paper on arrays.

    Args:
        variance: sigma^2 > 0.
        generator: where uniform integers come from.
    """

    def __init__(self, variance: Fraction, generator: np.random.Generator) -> None:
        self._top, self._bottom = variance.numerator, variance.denominator
        self._generator = generator
        # floor(sigma) + 1, as the paper has it.
        self._scale = math.isqrt(self._top // self._bottom) + 1
        self.exact = (_REACH * self._scale**2 * self._bottom + self._top) ** 2 < 2**63

    def draw(self, count: int) -> Integers:
        """So many samples."""
        drawn = np.empty(count, dtype=np.int64)
        missing = np.arange(count)
        while missing.size:
            laplace = self._laplace(missing.size)
            taken = self._accepted(np.abs(laplace))
            drawn[missing[taken]] = laplace[taken]
            missing = missing[~taken]
        return drawn

    def _accepted(self, magnitudes: Integers) -> Flags:
        """Coins of exp(-(|y| - sigma^2 / t)^2 / (2 sigma^2))."""
        if not self.exact:
            sigma = (self._top / self._bottom) ** 0.5
            exponents = (magnitudes / sigma - sigma / self._scale) ** 2 / 2
            return self._generator.random(len(magnitudes)) < np.exp(-exponents)
        numerators = (magnitudes * (self._scale * self._bottom) - self._top) ** 2
        return self._exponential(numerators, 2 * self._top * self._bottom * self._scale**2)

    def _laplace(self, count: int) -> Integers:
        """Algorithm 2's discrete Laplace variables of scale t, a whole number."""
        drawn = np.empty(count, dtype=np.int64)
        missing = np.arange(count)
        while missing.size:
            remainders = self._generator.integers(0, self._scale, missing.size)
            kept = self._small(remainders, self._scale)
            negative = self._generator.integers(0, 2, missing.size) == 1
            quotients = self._geometric(missing.size)
            magnitudes = remainders + self._scale * quotients
            kept &= ~(negative & (magnitudes == 0))
            drawn[missing[kept]] = np.where(negative, -magnitudes, magnitudes)[kept]
            missing = missing[~kept]
        return drawn

    def _geometric(self, count: int) -> Integers:
        """How many coins of exp(-1) show heads before the first tail."""
        heads = np.zeros(count, dtype=np.int64)
        going = np.arange(count)
        while going.size:
            going = going[self._small(np.ones(going.size, dtype=np.int64), 1)]
            heads[going] += 1
        return heads

    def _exponential(self, numerators: Integers, denominator: int) -> Flags:
        """Coins of exp(-n / d) for any n >= 0: one of exp(-1) for each whole unit, and one for what is left."""
        units, rest = np.divmod(numerators, denominator)
        heads = self._small(rest, denominator)
        going = np.flatnonzero(heads & (units > 0))
        while going.size:
            kept = self._small(np.ones(going.size, dtype=np.int64), 1)
            heads[going[~kept]] = False
            units[going] -= 1
            going = going[kept & (units[going] > 0)]
        return heads

    def _small(self, numerators: Integers, denominator: int) -> Flags:
        """Algorithm 1's coins of exp(-n / d) for 0 <= n <= d: whether the first tail of coins n / (d k) has odd k."""
        heads = np.zeros(len(numerators), dtype=np.bool_)
        going = np.arange(len(numerators))
        k = 1
        while going.size:
            # A coin of n / (d k) as one of n / d and one of 1 / k, so that no product leaves 64 bits.
            more = self._generator.integers(0, denominator, going.size) < numerators[going]
            more &= self._generator.integers(0, k, going.size) == 0
            heads[going[~more]] = k % 2 == 1
            going = going[more]
            k += 1
        return heads


def bench_sampling(sigmas: Sequence[str] = SIGMAS, *, samples: int = SAMPLES) -> list[SamplingRow]:
    """Time all samplers at these standard deviations.

    Args:
        sigmas: decimals.
        samples: drawn in each try.
    """
    return [_row(sigma, samples) for sigma in sigmas]


def _row(sigma: str, samples: int) -> SamplingRow:
    variance, words = Fraction(sigma) ** 2, Keystream().words
    gaussian, tables_s = _timed(lambda: DiscreteGaussian(variance))
    published = PublishedSampler(variance, np.random.default_rng())
    ours = _per_sample(lambda: gaussian.draw(samples, words), samples)
    theirs = _per_sample(lambda: published.draw(samples), samples)
    skellam_us = skellam_tables_s = None
    if variance <= LARGEST_VARIANCE:
        skellam, skellam_tables_s = _timed(lambda: Skellam(variance))
        skellam_us = _per_sample(lambda: skellam.draw(samples, words), samples)
    return SamplingRow(
        sigma=sigma,
        discrete_gaussian_us=ours,
        skellam_us=skellam_us,
        yardstick_us=theirs,
        yardstick_exact=published.exact,
        ratio=theirs / ours,
        tables_s=tables_s,
        skellam_tables_s=skellam_tables_s,
    )


def sampling_table(rows: Sequence[SamplingRow]) -> Table:
    """For people."""
    table = Table(title="Exact noise, microseconds a sample", title_justify="left")
    for index, heading in enumerate(
        ("sigma", "discrete\nGaussian", "Skellam", "published\nalgorithm", "over\nours", "tables", "Skellam\ntables")
    ):
        table.add_column(heading, justify="right" if index else "left")
    for row in rows:
        table.add_row(
            row.sigma,
            f"{row.discrete_gaussian_us:.4f}",
            "-" if row.skellam_us is None else f"{row.skellam_us:.4f}",
            f"{row.yardstick_us:.4f}{'' if row.yardstick_exact else ' *'}",
            f"{row.ratio:.0f}x",
            f"{1e3 * row.tables_s:.0f} ms",
            "-" if row.skellam_tables_s is None else f"{1e3 * row.skellam_tables_s:.0f} ms",
        )
    table.caption = "* with floats for its last coin: not exact"
    return table


def _timed(make: Callable[[], Made]) -> tuple[Made, float]:
    started = time.perf_counter()
    made = make()
    return made, time.perf_counter() - started


def _per_sample(draw: Callable[[], object], samples: int) -> float:
    """Microseconds, in the best of several tries."""
    return min(_timed(draw)[1] for _ in range(_TRIES)) / samples * 1e6


def main() -> None:
    """Print the table for this machine."""
    Console().print(sampling_table(bench_sampling()))


if __name__ == "__main__":
    main()
