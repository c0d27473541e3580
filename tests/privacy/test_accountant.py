"""Which accountant is chosen, what it finds, and which claims are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from dp_accounting import dp_event, pld
from dp_accounting.privacy_accountant import NeighboringRelation
from hypothesis import given
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant

from codream_secure.errors import PrivacyError
from codream_secure.privacy import (
    Accountant,
    Adjacency,
    Adversary,
    DiscreteGaussianSum,
    ExactRelease,
    GaussianRelease,
    PrivacyStatement,
    PrivacyUnit,
    Release,
    SampledGaussianRelease,
    SkellamSum,
    noise_multiplier_for,
    spent,
)

DELTA = 1e-5
SUMS = DiscreteGaussianSum("sums", sigma=1e5, clients=50, sensitivity=65_536, dimension=786_432, count=20)
SKELLAM = SkellamSum("sums", variance=1e10, clients=50, sensitivity=65_536, dimension=786_432, count=20)


def account(*events: Release, **changes: Any) -> PrivacyStatement:
    settings: dict[str, Any] = {
        "delta": DELTA,
        "unit": PrivacyUnit.CLIENT,
        "adjacency": Adjacency.ADD_REMOVE,
        "adversary": Adversary.SUM_SERVER,
    }
    return spent(events, **{**settings, **changes})


def test_gaussians_compose_in_closed_form() -> None:
    found = account(GaussianRelease("updates", 20, count=100), GaussianRelease("labels", 40, count=400))
    assert found.accountant is Accountant.CLOSED_FORM
    assert found.epsilon == pytest.approx(2.943, abs=5e-4)
    assert found.releases == ("updates", "labels")


def test_replacing_one_is_as_bad_as_half_the_noise() -> None:
    replaced = account(GaussianRelease("updates", 20, count=200), adjacency=Adjacency.REPLACE_ONE)
    assert replaced.epsilon == account(GaussianRelease("updates", 10, count=200)).epsilon
    accountant = pld.PLDAccountant(NeighboringRelation.REPLACE_ONE)
    accountant.compose(dp_event.GaussianDpEvent(20), 200)
    assert replaced.epsilon == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-4)
    assert account(SUMS, adjacency=Adjacency.REPLACE_ONE).epsilon > 1.9 * account(SUMS).epsilon
    assert account(SKELLAM, adjacency=Adjacency.REPLACE_ONE).epsilon > 1.9 * account(SKELLAM).epsilon


def test_sampled_gaussians_are_accounted_for_by_their_loss_distribution() -> None:
    step = SampledGaussianRelease("training", 1.0, sample_rate=0.01, steps=1000)
    found = account(step, unit=PrivacyUnit.EXAMPLE)
    assert found.accountant is Accountant.PLD
    rdp = RDPAccountant()
    rdp.history = [(1.0, 0.01, 1000)]
    assert found.epsilon == pytest.approx(1.828, abs=1e-3)
    assert found.epsilon < rdp.get_epsilon(DELTA) < 1.2 * found.epsilon
    replaced = account(step, unit=PrivacyUnit.EXAMPLE, adjacency=Adjacency.REPLACE_ONE)
    assert replaced.epsilon == pytest.approx(2.843, abs=1e-3)


def test_a_gaussian_beside_sampled_ones_composes_with_them() -> None:
    moments = GaussianRelease("moments", 10)
    training = SampledGaussianRelease("training", 2.0, sample_rate=0.05, steps=50)
    alone = account(training, unit=PrivacyUnit.EXAMPLE)
    both = account(moments, training, unit=PrivacyUnit.EXAMPLE)
    accountant = pld.PLDAccountant()
    accountant.compose(dp_event.GaussianDpEvent(10))
    accountant.compose(dp_event.PoissonSampledDpEvent(0.05, dp_event.GaussianDpEvent(2.0)), 50)
    assert both.epsilon == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-3)
    assert both.epsilon > alone.epsilon
    assert both.accountant is Accountant.PLD


def test_everybody_sampled_is_nobody_sampled() -> None:
    whole = SampledGaussianRelease("updates", 20, sample_rate=1, steps=200)
    assert account(whole) == account(GaussianRelease("updates", 20, count=200))


@pytest.mark.parametrize("event", [SUMS, SKELLAM])
def test_integer_noise_of_this_size_costs_what_gaussian_noise_would(event: Release) -> None:
    found = account(event)
    z = 1e5 * math.sqrt(50) / 65_536
    rdp = RDPAccountant()
    rdp.history = [(z, 1.0, 20)]
    assert found.accountant is Accountant.RDP
    assert found.epsilon == pytest.approx(rdp.get_epsilon(DELTA), rel=2e-3)
    assert found.epsilon > account(GaussianRelease("updates", z, count=20)).epsilon


@pytest.mark.parametrize("adjacency", list(Adjacency))
def test_a_skellam_sum_by_hand(adjacency: Adjacency) -> None:
    """Few ring units of noise, where the L1 norm counts: 10 clients of variance 2, D = 3 in 4 coordinates."""
    factor = 2 if adjacency is Adjacency.REPLACE_ONE else 1
    variance, l2, l1 = 20, 3 * factor, 6 * factor
    expected = min(
        order * l2**2 / (2 * variance)
        + min(((2 * order - 1) * l2**2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
        + math.log(1 - 1 / order)
        - (math.log(DELTA) + math.log(order)) / (order - 1)
        for order in range(2, 200)
    )
    found = account(SkellamSum("sums", variance=2, clients=10, sensitivity=3, dimension=4), adjacency=adjacency)
    assert found.epsilon == pytest.approx(expected, rel=1e-12)


def test_integer_noise_of_both_kinds_composes_with_gaussians() -> None:
    gaussians = GaussianRelease("labels", 1e5 * math.sqrt(50) / 65_536, count=20)
    three = account(SUMS, SKELLAM, gaussians)
    assert three.accountant is Accountant.RDP
    assert three.epsilon == pytest.approx(account(SUMS.times(3)).epsilon, rel=5e-3)


def test_what_touches_no_data_costs_nothing_and_what_does_without_noise_everything() -> None:
    public = ExactRelease("initial dreams", "drawn from noise", private_data=False)
    assert account(public).epsilon == 0
    assert account().releases == ()
    noised = GaussianRelease("updates", 20, count=200)
    assert account(public, noised).epsilon == account(noised).epsilon
    assert account(public, noised).releases == ("initial dreams", "updates")
    exact = account(noised, ExactRelease("sample counts", "the weights need them", private_data=True))
    assert math.isinf(exact.epsilon)
    assert exact.accountant is Accountant.NONE
    assert "infinite" in str(exact)


def test_no_accountant_covers_sampling_and_integer_noise_together() -> None:
    training = SampledGaussianRelease("training", 1.0, sample_rate=0.01, steps=10)
    with pytest.raises(PrivacyError, match=r"no accountant covers both 'training'.*'sums'"):
        account(training, SUMS, unit=PrivacyUnit.EXAMPLE)


@pytest.mark.parametrize("unit", [PrivacyUnit.CLIENT, PrivacyUnit.LOCAL])
@pytest.mark.parametrize("adversary", list(Adversary))
def test_sampling_clients_amplifies_only_against_those_who_do_not_see_it(
    unit: PrivacyUnit, adversary: Adversary
) -> None:
    sampled = SampledGaussianRelease("updates", 2.0, sample_rate=0.1, steps=5)
    if unit is PrivacyUnit.CLIENT and adversary is Adversary.RECIPIENT:
        found = account(sampled, unit=unit, adversary=adversary)
        assert found.epsilon < account(GaussianRelease("updates", 2.0, count=5)).epsilon
    else:
        with pytest.raises(PrivacyError, match="amplification by sampling"):
            account(sampled, unit=unit, adversary=adversary)


@pytest.mark.parametrize("event", [SUMS, SKELLAM])
def test_others_noise_hides_no_message_that_is_seen_alone(event: Release) -> None:
    with pytest.raises(PrivacyError, match="noise of 50 clients"):
        account(event, adversary=Adversary.SERVER)
    with pytest.raises(PrivacyError, match="noise of 50 clients"):
        account(event, unit=PrivacyUnit.LOCAL)


def test_a_message_with_its_own_integer_noise_may_be_seen_alone() -> None:
    own = DiscreteGaussianSum("messages", sigma=1e6, clients=1, sensitivity=65_536, dimension=640)
    assert 0 < account(own, unit=PrivacyUnit.LOCAL, adversary=Adversary.SERVER).epsilon < 1


@given(
    z=st.floats(0.5, 500),
    more=st.floats(1.01, 10),
    count=st.integers(1, 5000),
    extra=st.integers(1, 5000),
    adjacency=st.sampled_from(Adjacency),
)
def test_epsilon_grows_with_the_count_and_falls_with_the_noise(
    z: float, more: float, count: int, extra: int, adjacency: Adjacency
) -> None:
    base = account(GaussianRelease("updates", z, count=count), adjacency=adjacency).epsilon
    longer = account(GaussianRelease("updates", z, count=count + extra), adjacency=adjacency).epsilon
    noisier = account(GaussianRelease("updates", z * more, count=count), adjacency=adjacency).epsilon
    assert noisier < base < longer


@given(
    sigma=st.floats(0.5, 1e4),
    more=st.floats(1.01, 10),
    clients=st.integers(1, 200),
    count=st.integers(1, 100),
    kind=st.sampled_from([SUMS, SKELLAM]),
)
def test_integer_noise_too(sigma: float, more: float, clients: int, count: int, kind: Release) -> None:
    def at(sigma: float, clients: int, count: int) -> float:
        shape = {"clients": clients, "sensitivity": 1000, "dimension": 5000, "count": count}
        if kind is SUMS:
            return account(DiscreteGaussianSum("sums", sigma=sigma, **shape)).epsilon
        return account(SkellamSum("sums", variance=sigma**2, **shape)).epsilon

    base = at(sigma, clients, count)
    assert at(sigma * more, clients, count) <= base < at(sigma, clients, count + 1)


def test_noise_for_sampled_steps_stays_within_the_epsilon() -> None:
    found = noise_multiplier_for(2.0, DELTA, count=50, sample_rate=0.05)
    step = SampledGaussianRelease("training", found, sample_rate=0.05, steps=50)
    epsilon = account(step, unit=PrivacyUnit.EXAMPLE).epsilon
    assert 1.99 < epsilon <= 2.0
    assert found < noise_multiplier_for(2.0, DELTA, count=50) / 5


def test_too_little_noise_to_be_accounted_for_is_refused_rather_than_tried() -> None:
    sampled = SampledGaussianRelease("training", 1e-5, sample_rate=0.1, steps=10)
    with pytest.raises(PrivacyError, match="use a larger noise multiplier"):
        account(sampled, unit=PrivacyUnit.EXAMPLE)


@pytest.mark.parametrize("delta", [0, 1, -1e-5, math.nan, True])
def test_a_delta_that_is_none_is_refused(delta: float) -> None:
    with pytest.raises(PrivacyError, match="delta is"):
        account(GaussianRelease("updates", 20), delta=delta)


@pytest.mark.parametrize("sample_rate", [1.0, 0.2])
def test_noise_beside_other_releases_leaves_room_for_them(sample_rate: float) -> None:
    beside = 0.4
    multiplier = noise_multiplier_for(3.0, 1e-5, count=100, sample_rate=sample_rate, beside=beside)
    together = spent(
        [
            SampledGaussianRelease("steps", multiplier, sample_rate=sample_rate, steps=100),
            GaussianRelease("moments", 1 / beside),
        ],
        delta=1e-5,
        unit=PrivacyUnit.EXAMPLE,
        adjacency=Adjacency.ADD_REMOVE,
        adversary=Adversary.SERVER,
    )
    assert 2.99 < together.epsilon <= 3.0
    with pytest.raises(PrivacyError, match="something has to be left"):
        noise_multiplier_for(3.0, 1e-5, count=100, sample_rate=sample_rate, beside=2.0)
