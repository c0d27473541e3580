"""From a budget to norms and noise: nothing is spent beyond it, and nothing much is left over."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codream_secure.errors import PrivacyError
from codream_secure.privacy import Adjacency, Adversary, Budget, PrivacyUnit, spent
from codream_secure.privacy.gaussian import mu_at
from codream_secure.privacy.planning import Cohort, NoisySums, PlannedSums, make_noisy_sums, plan_noisy_sums
from protocols import Terms, TermsError

DREAMS = PlannedSums(stream="dream_updates", count=60, values=2048, share=0.7)
EVERYBODY = Cohort(clients=20)
LABELS = PlannedSums(stream="soft_labels", count=3, values=320, share=0.3)


def plan(
    *planned: PlannedSums,
    epsilon: float = 3.0,
    mechanism: str = "discrete_gaussian",
    cohort: Cohort = EVERYBODY,
    adjacency: Adjacency = Adjacency.ADD_REMOVE,
) -> NoisySums:
    return plan_noisy_sums(
        planned or (DREAMS, LABELS),
        mechanism=mechanism,
        cohort=cohort,
        unit=PrivacyUnit.CLIENT,
        adjacency=adjacency,
        adversary=Adversary.SUM_SERVER,
        budget=Budget(epsilon, 1e-5),
    )


def cost(sums: NoisySums, *planned: PlannedSums, adjacency: Adjacency = Adjacency.ADD_REMOVE) -> float:
    events = [sums.event(each.stream, values=each.values, count=each.count) for each in planned or (DREAMS, LABELS)]
    return spent(
        events, delta=1e-5, unit=PrivacyUnit.CLIENT, adjacency=adjacency, adversary=Adversary.SUM_SERVER
    ).epsilon


@pytest.mark.parametrize("mechanism", ["discrete_gaussian", "skellam"])
@pytest.mark.parametrize("adjacency", list(Adjacency))
@settings(max_examples=15, deadline=None)
@given(
    epsilon=st.floats(0.5, 20),
    clients=st.integers(2, 100),
    missing=st.integers(0, 40),
    colluders=st.integers(0, 3),
)
def test_a_plan_uses_up_its_budget_and_no_more(
    mechanism: str, adjacency: Adjacency, epsilon: float, clients: int, missing: int, colluders: int
) -> None:
    cohort = Cohort(clients=clients, dropouts=min(missing, clients // 2), colluders=min(colluders, clients // 2 - 1))
    sums = plan(epsilon=epsilon, mechanism=mechanism, cohort=cohort, adjacency=adjacency)
    found = cost(sums, adjacency=adjacency)
    # Skellam's extra terms depend on the norm, which goes in steps of a factor of two.
    assert 0.97 * epsilon <= found <= epsilon


def test_multipliers_are_those_of_a_gaussian_split_by_mu_squared() -> None:
    """Oracle: z_i = sqrt(N_i / (w_i mu^2)), but for the Rényi bound, which asks for 3 to 9 % more noise."""
    sums, mu = plan(epsilon=8.0), mu_at(8.0, 1e-5)
    for each in (DREAMS, LABELS):
        exact = math.sqrt(each.count / each.share) / mu
        assert 1.02 * exact < sums.multiplier(each.stream) < 1.10 * exact


def test_shares_are_relative() -> None:
    alone = PlannedSums(stream="soft_labels", count=3, values=320, share=0.3)
    whole = PlannedSums(stream="soft_labels", count=3, values=320, share=1.0)
    assert plan(alone).multiplier("soft_labels") == pytest.approx(plan(whole).multiplier("soft_labels"), rel=1e-4)


@pytest.mark.parametrize("mechanism", ["discrete_gaussian", "skellam"])
@pytest.mark.parametrize("clients", [1, 4, 100])
def test_the_terms_of_a_round_take_every_plan(mechanism: str, clients: int) -> None:
    """Terms refuse streams whose sums could wrap: an independent check of the room that was planned."""
    sums = plan(mechanism=mechanism, cohort=Cohort(clients=clients))
    terms = Terms(streams={name: sums.encoding(name) for name in sums.norms}, steps=10, dropout=0.0, noise=sums.noise)
    assert terms.survivors(clients) == clients
    for name, norm in sums.norms.items():
        assert terms.streams[name].largest == norm
        assert terms.streams[name].resolution == 1.0


def test_honest_noise_alone_makes_the_multiplier() -> None:
    cohort = Cohort(clients=10, dropouts=3, colluders=2)
    sums = plan(cohort=cohort)
    event = sums.event("soft_labels", values=320)
    sure = math.sqrt(5) * sums.noise.client_sigma / sums.norms["soft_labels"]
    assert event.clients == 5
    assert sums.multiplier("soft_labels") == pytest.approx(sure, rel=1e-12)


def test_the_server_adds_all_noise_at_once() -> None:
    sums = plan(cohort=Cohort(clients=50, by_server=True))
    assert sums.noise.clients == sums.noise.honest == 1
    assert sums.event("soft_labels", values=320).clients == 1


def test_a_given_multiplier_is_that_of_the_first_stream() -> None:
    sums = plan_noisy_sums(
        (DREAMS, LABELS),
        mechanism="discrete_gaussian",
        cohort=EVERYBODY,
        unit=PrivacyUnit.CLIENT,
        adjacency=Adjacency.ADD_REMOVE,
        adversary=Adversary.SUM_SERVER,
        noise_multiplier=20.0,
    )
    assert sums.multiplier("dream_updates") == pytest.approx(20.0, rel=1e-5)
    assert sums.multiplier("soft_labels") == pytest.approx(20.0 * math.sqrt(3 / 0.3 / (60 / 0.7)), rel=1e-5)


def test_nobody_honest_is_refused() -> None:
    with pytest.raises(TermsError, match="4 clients 2 may drop out and 2 collude"):
        plan(cohort=Cohort(clients=4, dropouts=2, colluders=2))


def test_contributions_that_rounding_would_wipe_out_are_refused() -> None:
    wide = PlannedSums(stream="dream_updates", count=60, values=2**24, share=1.0)
    with pytest.raises(PrivacyError, match="16777216 coordinates"):
        plan(wide, mechanism="skellam", epsilon=0.1)


def test_nothing_planned_and_no_budget_are_refused() -> None:
    with pytest.raises(PrivacyError, match="no sum is planned"):
        plan_noisy_sums(
            (),
            mechanism="skellam",
            cohort=Cohort(clients=2),
            unit=PrivacyUnit.CLIENT,
            adjacency=Adjacency.ADD_REMOVE,
            adversary=Adversary.SUM_SERVER,
        )
    with pytest.raises(PrivacyError, match="budget is missing"):
        plan_noisy_sums(
            (DREAMS,),
            mechanism="skellam",
            cohort=Cohort(clients=2),
            unit=PrivacyUnit.CLIENT,
            adjacency=Adjacency.ADD_REMOVE,
            adversary=Adversary.SUM_SERVER,
        )


def test_streams_too_far_apart_and_noise_beyond_the_ring_are_refused() -> None:
    with pytest.raises(PrivacyError, match="too far apart"):
        make_noisy_sums(
            (DREAMS, LABELS),
            {"dream_updates": 1e9, "soft_labels": 1.0},
            mechanism="discrete_gaussian",
            cohort=Cohort(clients=2),
        )
    with pytest.raises(PrivacyError, match="does not fit into 32 bits"):
        make_noisy_sums((DREAMS,), {"dream_updates": 1e12}, mechanism="discrete_gaussian", cohort=Cohort(clients=2))
