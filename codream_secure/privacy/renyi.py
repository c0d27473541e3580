"""Integer noise that clients add themselves, accounted for by Rényi divergences (RDP).

A bound on the divergence of order a > 1 for each release adds up over releases, and the sum turns into an epsilon at
every order; the least of them counts. Pure functions of floats.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from codream_secure.privacy import checks

Floats = npt.NDArray[np.float64]

ORDERS: Floats = 1 + np.geomspace(1e-2, 1e8, 4_000)
"""Orders a, close enough together that a finer grid changes an epsilon by less than 1e-4 of itself."""
WHOLE_ORDERS: Floats = np.unique(np.concatenate([np.arange(2, 512), np.round(np.geomspace(512, 1e8, 2_000))]))
"""Whole orders: Skellam noise's bound is proved for no others."""


def gaussian_rdp(mu: float, orders: Floats) -> Floats:
    """a mu^2 / 2: composed Gaussians (Mironov 2017, corollary 3); mu is that of the closed form."""
    return orders * (mu * mu / 2)


def discrete_gaussian_concentration(*, sigma: float, clients: int, sensitivity: float, dimension: int) -> float:
    """e, such that a sum with every client's discrete Gaussian noise is e^2 / 2-concentrated (zCDP).

    The sum is no discrete Gaussian but close to one: tau bounds by how much, per coordinate. Kairouz, Liu and Steinke
    2021, "The distributed discrete Gaussian mechanism for federated learning with secure aggregation", section 3.

    Args:
        sigma: parameter of each client's noise, at least 1/2.
        clients: n, whose noise is in the sum.
        sensitivity: L2 distance between the sums of two neighbouring data sets.
        dimension: d.
    """
    k = np.arange(1, clients, dtype=np.float64)
    tau = 10 * float(np.exp(-2 * math.pi**2 * sigma**2 * k / (k + 1)).sum())
    deviation = math.sqrt(clients) * sigma
    return min(
        math.sqrt((sensitivity / deviation) ** 2 + tau * dimension / 2),
        sensitivity / deviation + tau * math.sqrt(dimension),
    )


def discrete_gaussian_rdp(concentration: float, orders: Floats) -> Floats:
    """a e^2 / 2: what being e^2 / 2-concentrated means (Bun and Steinke 2016, definition 1.1)."""
    return orders * (concentration**2 / 2)


def skellam_rdp(*, variance: float, l1: float, l2: float, orders: Floats) -> Floats:
    """Divergences of a sum with Skellam noise (Agarwal, Kairouz and Liu 2021, corollary 3.6).

    Args:
        variance: V, of the whole noise in a coordinate of the sum.
        l1: L1 distance between the sums of two neighbouring data sets.
        l2: their L2 distance.
        orders: whole numbers of at least 2.
    """
    extra = np.minimum(((2 * orders - 1) * l2**2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
    return orders * (l2**2 / (2 * variance)) + extra


def integer_l1(l2: float, dimension: int) -> float:
    """Largest L1 norm of an integer vector of this L2 norm: an integer is no larger than its square."""
    return min(math.sqrt(dimension) * l2, l2 * l2)


def epsilon_at(delta: float, rdp: Floats, orders: Floats) -> float:
    """The smallest epsilon >= 0 that these divergences allow at ``delta``.

    Canonne, Kamath and Steinke 2020, proposition 12; also Balle, Barthe, Gaboardi, Hsu and Sato 2020, theorem 21.

    Raises:
        PrivacyError: delta does not lie in (0, 1).
    """
    checks.probability("delta", delta)
    found = rdp + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    return max(0.0, float(found.min()))
