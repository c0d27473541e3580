"""The closed form, against published figures, an integral and two other accountants."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant
from scipy.integrate import quad
from scipy.stats import norm

from codream_secure.errors import PrivacyError
from codream_secure.privacy import Adjacency, gaussian, loss, noise_multiplier_for

DELTA = 1e-5

# T, z, closed form, RDP of opacus; all at delta = 1e-5.
TABLE = [
    (200, 5, 15.456, 16.513),
    (200, 20, 2.943, 3.189),
    (200, 100, 0.497, 0.546),
    (2000, 20, 11.480, 12.302),
    (2000, 100, 1.760, 1.914),
]


@pytest.mark.parametrize(("steps", "multiplier", "exact", "rdp"), TABLE)
def test_the_table_to_its_digits(steps: int, multiplier: float, exact: float, rdp: float) -> None:
    mu = math.sqrt(steps) / multiplier
    assert gaussian.epsilon_at(DELTA, mu) == pytest.approx(exact, abs=5e-4)
    assert loss.epsilon_at(DELTA, mu, sampled=(), adjacency=Adjacency.ADD_REMOVE) == pytest.approx(exact, abs=5e-4)
    accountant = RDPAccountant()
    accountant.history = [(float(multiplier), 1.0, steps)]
    assert accountant.get_epsilon(DELTA) == pytest.approx(rdp, abs=5e-4)


@pytest.mark.parametrize(
    ("steps", "epsilon", "multiplier"),
    [(200, 1, 52.8), (200, 3, 19.7), (200, 8, 8.5), (2000, 1, 166.8), (2000, 3, 62.2), (2000, 8, 26.8)],
)
def test_the_noise_for_an_epsilon(steps: int, epsilon: float, multiplier: float) -> None:
    found = noise_multiplier_for(epsilon, DELTA, count=steps)
    assert found == pytest.approx(multiplier, abs=0.05)
    spent = gaussian.epsilon_at(DELTA, math.sqrt(steps) / found)
    assert spent <= epsilon
    assert spent == pytest.approx(epsilon, rel=1e-8)
    doubled = noise_multiplier_for(epsilon, DELTA, count=steps, adjacency=Adjacency.REPLACE_ONE)
    assert doubled == pytest.approx(2 * found)


@pytest.mark.parametrize("mu", [0.05, 0.7, 3.0, 12.0])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, 2.0])
def test_delta_is_the_hockey_stick_divergence(mu: float, share: float) -> None:
    """The integral of p - e^epsilon q over where it is positive, of two normal densities mu apart."""
    epsilon = share * (mu * mu / 2 + 2 * mu)
    start = epsilon / mu + mu / 2

    def excess(x: float) -> float:
        return float(norm.pdf(x, loc=mu) - math.exp(epsilon) * norm.pdf(x))

    # Two pieces: beyond the mean of p, the integrand is one falling tail.
    middle = max(start, mu) + 3
    expected = quad(excess, start, middle, epsabs=0, epsrel=1e-11)[0]
    expected += quad(excess, middle, math.inf, epsabs=0, epsrel=1e-11)[0]
    assert math.exp(gaussian.log_delta(epsilon, mu)) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(("mu", "epsilon"), [(1.0, 60.0), (5.0, 400.0), (20.0, 1500.0)])
def test_delta_far_in_the_tail_where_plain_floats_have_nothing_left(mu: float, epsilon: float) -> None:
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        m, e = mpmath.mpf(mu), mpmath.mpf(epsilon)
        # In terms of erfc, which keeps its relative accuracy where the distribution function is almost 0.
        first = mpmath.erfc((e / m - m / 2) / mpmath.sqrt(2)) / 2
        second = mpmath.exp(e) * mpmath.erfc((e / m + m / 2) / mpmath.sqrt(2)) / 2
        expected = float(mpmath.log(first - second))
    assert expected < -150
    assert gaussian.log_delta(epsilon, mu) == pytest.approx(expected, rel=1e-12)


def test_delta_is_almost_1_where_there_is_almost_no_noise() -> None:
    assert gaussian.log_delta(0.0, 80.0) == pytest.approx(0, abs=1e-12)
    assert gaussian.log_delta(5000.0, 100.0) == pytest.approx(math.log(0.5), abs=0.02)


@pytest.mark.parametrize("mu", [1e-300, 1e-8, 1e-3, 1.0, 1e3, 1e8, 1e100, 1e160])
@pytest.mark.parametrize("delta", [1e-300, 1e-5, 0.9])
def test_no_amount_of_noise_breaks_it(mu: float, delta: float) -> None:
    found = gaussian.epsilon_at(delta, mu)
    assert found >= 0
    if 1 <= mu <= 1e100 and delta < 0.1:
        assert found == pytest.approx(mu * mu / 2, rel=100 / mu)
        assert found >= mu * mu / 2
    if mu == 1e160:
        assert math.isinf(found)


def test_none_released_costs_nothing() -> None:
    assert gaussian.epsilon_at(DELTA, 0.0) == 0.0


@given(mu=st.floats(1e-3, 1e3), delta=st.floats(1e-12, 0.1))
def test_epsilon_and_mu_undo_each_other(mu: float, delta: float) -> None:
    epsilon = gaussian.epsilon_at(delta, mu)
    if epsilon > 1e-6:
        assert gaussian.mu_at(epsilon, delta) == pytest.approx(mu, rel=1e-6)
        assert gaussian.log_delta(epsilon, mu) <= math.log(delta), "rounded to the safe side"
        assert gaussian.log_delta(epsilon * (1 - 1e-6), mu) > math.log(delta), "and not far to it"


@pytest.mark.parametrize(
    ("epsilon", "delta", "message"),
    [(0, DELTA, "epsilon is 0"), (math.inf, DELTA, "epsilon is inf"), (1, 0, "delta is 0"), (1, 1.5, "delta is 1.5")],
)
def test_what_has_no_answer_is_refused(epsilon: float, delta: float, message: str) -> None:
    with pytest.raises(PrivacyError, match=message):
        noise_multiplier_for(epsilon, delta, count=10)


@pytest.mark.parametrize("change", [{"count": 0}, {"count": 2.0}, {"sample_rate": 0}, {"sample_rate": 1.5}])
def test_settings_of_the_noise_are_checked(change: dict[str, float]) -> None:
    with pytest.raises(PrivacyError, match=next(iter(change))):
        noise_multiplier_for(1, DELTA, **{"count": 10, **change})  # type: ignore[arg-type]
