"""Normal noise and Poisson samples out of the operating system's randomness, and the grid that noise is added on.

No generator of torch or NumPy is involved and nothing here can be seeded: a run's seed would give the noise away.

**What floating-point noise leaks, and what is done about it.** Which floats x + noise can reach depends on x, so the
low bits of a released float tell about it (Mironov 2012, "On significance of the least significant bits for
differential privacy"). Here contributions are therefore whole multiples of a public unit, shortened to it toward zero,
which never lengthens a vector; their sum is exact; and the noise is rounded to the same grid. For a whole number s,
round(s + g) = s + round(g): what is released is the Gaussian mechanism on s, rounded, and rounding costs no privacy.
Whatever s is, the same values can be reached, so accounting for a Gaussian of the same sigma holds.

**What remains** is how well g follows its law. It is the quantile of a uniform number with 53 significant bits and no
fewer than 2^-65, from ``scipy.special.ndtri``, whose relative error is some 1e-15; a normal number beyond 9.2 is never
drawn, where the law has a mass of 4e-20. That is an approximation, if a close one, and no proof. Noise that follows its
law to the last bit is in :mod:`protocols.discrete_noise`; the sampled steps of DP-SGD have no accountant for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from codream_secure.errors import PrivacyError

Floats = npt.NDArray[np.float64]
Source = Callable[[int], npt.NDArray[np.uint64]]

UNITS = 2**20
"""Units of the grid to C, the bound on one contribution's norm."""
LARGEST_MULTIPLIER = 2.0**28
"""Of noise, against C: sums of 2^31 contributions and their noise are then exact in float64."""
SHORTENED = 1 - 2.0**-20
"""Contributions are scaled to this part of C, so that no rounding of their coordinates takes them beyond C."""


def standard_normal(count: int, words: Source) -> Floats:
    """Independent draws of the standard normal law, one random word each.

    A word's last bit is the sign; the others, and a half, are 2^64 times a uniform number in (0, 1/2), whose quantile
    is the (negative) value. Small ones keep all their bits, so the tails are as fine as the rest.

    Args:
        count: how many, at least 0.
        words: where random words come from: :meth:`protocols.keystream.Keystream.words` of a fresh keystream.

    Returns:
        (count,) float64, all finite.
    """
    drawn = words(count)
    # Rounding to 53 bits may reach 1/2 itself, whose quantile is 0: that is no pole.
    uniform = ((drawn >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64
    signs = 1.0 - 2.0 * (drawn & np.uint64(1)).astype(np.float64)
    normal: Floats = ndtri(uniform) * signs
    return normal


def grid_noise(count: int, noise_multiplier: float, words: Source) -> Floats:
    """Gaussian noise of standard deviation ``noise_multiplier`` C, in whole units of the grid.

    Args:
        count: how many, at least 0.
        noise_multiplier: z, in (0, 2^28].
        words: as for :func:`standard_normal`.

    Returns:
        (count,) float64, whole numbers; C is :data:`UNITS` of them.

    Raises:
        PrivacyError: z is out of range.
    """
    noise: Floats = np.rint(standard_normal(count, words) * (check_multiplier(noise_multiplier) * UNITS))
    return noise


def check_multiplier(noise_multiplier: float) -> float:
    """The noise multiplier, if the grid is fine and wide enough for it.

    Raises:
        PrivacyError: it lies outside of [2^-10, 2^28]; at the lower end a standard deviation is still 1024 units.
    """
    if not 2.0**-10 <= noise_multiplier <= LARGEST_MULTIPLIER:
        raise PrivacyError(
            f"noise_multiplier is {noise_multiplier}: noise is drawn for 2^-10 to 2^28 times the bound C"
        )
    return noise_multiplier


def poisson_sample(count: int, rate: float, words: Source) -> npt.NDArray[np.int64]:
    """Who takes part: each of ``count`` units by a coin of its own, which says yes with probability ``rate``.

    A coin is a 64-bit word, and says yes below floor(rate 2^64). For rates from 2^-11 on that is ``rate`` 2^64 itself,
    a float's binary fraction being finite; for smaller ones the true rate is lower by less than 2^-64: units take part
    no more often than is claimed.

    Args:
        count: how many units there are, at least 0.
        rate: in (0, 1]; at 1 all take part.
        words: as for :func:`standard_normal`.

    Returns:
        Indices of those who take part, ascending; there may be none.

    Raises:
        PrivacyError: the rate is out of range.
    """
    if not 0 < rate <= 1:
        raise PrivacyError(f"rate is {rate}: it must lie in (0, 1]")
    if rate == 1:
        return np.arange(count)
    threshold = math.floor(math.ldexp(rate, 64))
    return np.flatnonzero(words(count) < np.uint64(threshold))
