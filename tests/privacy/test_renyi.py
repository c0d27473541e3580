"""Integer noise: bounds against divergences that are summed up over the integers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from dp_accounting.rdp import rdp_privacy_accountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import skellam

from codream_secure.privacy import gaussian, renyi

Floats = npt.NDArray[np.float64]


def discrete_gaussian(sigma: float, reach: int) -> Floats:
    k = np.arange(-reach, reach + 1)
    weights = np.exp(-(k**2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum())


def divergence(p: Floats, shift: int, order: float) -> float:
    """Rényi divergence of a distribution from itself, moved by ``shift``, where both have mass left in floats."""
    left, right = p[shift:], p[: p.size - shift]
    kept = (left > 1e-280) & (right > 1e-280)
    logs = order * np.log(left[kept]) + (1 - order) * np.log(right[kept])
    return float(np.logaddexp.reduce(logs) / (order - 1))


@pytest.mark.parametrize("clients", [1, 2, 5, 20])
@pytest.mark.parametrize("sigma", [0.5, 0.8, 2.0])
@pytest.mark.parametrize("shift", [1, 3])
def test_a_sum_of_discrete_gaussians_diverges_no_more_than_the_bound(clients: int, sigma: float, shift: int) -> None:
    single = discrete_gaussian(sigma, 40)
    total = np.ones(1)
    for _ in range(clients):
        total = np.convolve(total, single)
    found = renyi.discrete_gaussian_concentration(sigma=sigma, clients=clients, sensitivity=shift, dimension=1)
    for order in (1.01, 1.5, 2.0, 2.5, 4.0):
        bound = order * found**2 / 2
        exact = divergence(total, shift, order)
        assert exact <= bound * (1 + 1e-9)
        if sigma == 2.0:
            assert exact >= 0.999 * bound, "with so much noise the bound is tight"


def test_the_sum_is_not_the_discrete_gaussian_that_it_is_taken_for() -> None:
    """Without tau the bound would be untrue, and with it too below the sigma from which on it is proved."""
    for sigma, holds in ((0.5, True), (0.4, False)):
        single = discrete_gaussian(sigma, 40)
        exact = divergence(np.convolve(single, single), 1, 1.01)
        found = renyi.discrete_gaussian_concentration(sigma=sigma, clients=2, sensitivity=1, dimension=1)
        naive = 1.01 / 2 / (2 * sigma**2)
        assert exact > 1.1 * naive
        assert (exact <= 1.01 / 2 * found**2) is holds


def test_tau_grows_with_coordinates_and_clients_and_goes_with_sigma() -> None:
    def at(sigma: float, clients: int, dimension: int) -> float:
        found = renyi.discrete_gaussian_concentration(
            sigma=sigma, clients=clients, sensitivity=100, dimension=dimension
        )
        return found * math.sqrt(clients) * sigma / 100

    assert at(0.5, 1, 10**6) == 1.0, "one client's noise is a discrete Gaussian"
    # tau = 10 exp(-pi^2 sigma^2) for two clients, worked out by hand; each form of the bound wins once.
    tau = 10 * math.exp(-(math.pi**2))
    assert at(1.0, 2, 100) == pytest.approx(math.sqrt(1 + tau * 50 * 2 / 1e4), rel=1e-12)
    assert at(1.0, 2, 10**6) == pytest.approx(1 + tau * 1000 * math.sqrt(2) / 100, rel=1e-12)
    assert at(4.0, 100, 786_432) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("variance", [2.0, 10.0, 200.0])
@pytest.mark.parametrize("shift", [1, 2])
def test_skellam_noise_diverges_no_more_than_the_bound(variance: float, shift: int) -> None:
    reach = int(12 * math.sqrt(variance)) + 30
    p = skellam.pmf(np.arange(-reach, reach + 1), variance / 2, variance / 2)
    for order in (2, 3, 8):
        bound = renyi.skellam_rdp(variance=variance, l1=shift, l2=shift, orders=np.array([float(order)]))[0]
        exact = divergence(np.asarray(p), shift, order)
        assert exact <= bound
        # Its second term is a bound on little: with much noise, little is left of it.
        assert exact >= (0.98 if variance == 200 else 0.3) * bound


def test_skellam_by_hand() -> None:
    found = renyi.skellam_rdp(variance=10, l1=9, l2=3, orders=np.array([2.0, 200.0]))
    assert found[0] == pytest.approx(2 * 9 / 20 + (3 * 9 + 54) / 400)
    assert found[1] == pytest.approx(200 * 9 / 20 + 27 / 20), "at large orders the other term is smaller"


@pytest.mark.parametrize(("l2", "dimension", "expected"), [(3, 4, 6), (3, 100, 9), (1, 100, 1), (10, 1, 10)])
def test_the_l1_norm_of_integers(l2: float, dimension: int, expected: float) -> None:
    assert renyi.integer_l1(l2, dimension) == expected


@given(rho=st.floats(1e-8, 1e3), delta=st.floats(1e-12, 0.1))
@settings(max_examples=25)
def test_the_conversion_is_that_of_dp_accounting_and_above_the_exact_one(rho: float, delta: float) -> None:
    found = renyi.epsilon_at(delta, renyi.discrete_gaussian_rdp(math.sqrt(2 * rho), renyi.ORDERS), renyi.ORDERS)
    exact = gaussian.epsilon_at(delta, math.sqrt(2 * rho))
    assert found >= exact * (1 - 1e-9)
    # dp-accounting converts no order at or below 1.01.
    orders = renyi.ORDERS[renyi.ORDERS > 1.0101]
    other, _ = rdp_privacy_accountant.compute_epsilon(list(orders), list(orders * rho), delta)
    if other > 1e-6:
        assert renyi.epsilon_at(delta, orders * rho, orders) == pytest.approx(other, rel=1e-9)
        assert found <= other * (1 + 1e-9)


def test_the_grid_of_orders_is_fine_enough() -> None:
    for rho in (1e-6, 1e-3, 0.1, 10.0, 1e3):
        finer = np.sort(np.concatenate([1 + np.geomspace(1e-2, 1e8, 100_000), renyi.ORDERS]))
        found = renyi.epsilon_at(1e-5, renyi.ORDERS * rho, renyi.ORDERS)
        assert found == pytest.approx(renyi.epsilon_at(1e-5, finer * rho, finer), rel=1e-4)
    assert np.array_equal(renyi.WHOLE_ORDERS, np.round(renyi.WHOLE_ORDERS))
    assert renyi.WHOLE_ORDERS.min() == 2
