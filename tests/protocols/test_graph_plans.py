"""What the plan of a neighbour graph promises, and which plans there cannot be."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from scipy import stats

from protocols import TermsError
from protocols.graph import Topology, plan


def good_thresholds(size: int, degree: int, *, dropped: int, corrupt: int, sigma: int, eta: int) -> list[int]:
    """The smallest threshold that is private, from scipy, if it is correct as well.

    It is at least k/2 + 2, for the sake of graphs that somebody cuts on purpose, and at most k.
    """
    gone, thresholds = corrupt + dropped, np.arange(degree // 2 + 2, degree + 1)
    split = size**2 / 2 * float(stats.hypergeom.pmf(degree, size, gone, degree)) if gone >= degree else 0.0
    exposed = size * stats.hypergeom.sf(thresholds - 1, size - 1, corrupt, degree)
    failed = size * stats.hypergeom.cdf(thresholds - 1, size - 1, size - 1 - dropped, degree)
    private = exposed + split <= 2.0**-sigma
    # The smallest that is private is the likeliest to be correct.
    return [int(t) for t, bad in zip(thresholds[private][:1], failed[private][:1], strict=True) if bad <= 2.0**-eta]


@pytest.mark.parametrize(
    ("size", "dropout", "corruption", "sigma", "eta"),
    [
        (10, 0.1, 0.1, 40, 30),
        (50, 0.1, 0.1, 40, 30),
        (100, 0.1, 0.1, 40, 30),
        (100, 0.3, 1 / 3, 40, 30),
        (100, 0.05, 0.2, 20, 10),
        (300, 0.3, 0.1, 30, 20),
        (500, 0.1, 0.33, 40, 30),
        (1000, 0.3, 0.3, 40, 30),
        (1000, 0.0, 0.0, 1, 1),
        (3000, 0.1, 0.1, 100, 90),
    ],
)
def test_a_plan_is_the_sparsest_that_keeps_all_three_bounds(
    size: int, dropout: float, corruption: float, sigma: int, eta: int
) -> None:
    """Everything is computed again with scipy; a complete graph is planned where no sparse one will do."""
    topology = plan(size, dropout=dropout, corruption=corruption, sigma=sigma, eta=eta)
    dropped, corrupt = round(dropout * size), int(corruption * size + 1e-9)
    assert (topology.size, topology.survivors, topology.corrupt) == (size, size - dropped, corrupt)
    wanted = {"dropped": dropped, "corrupt": corrupt, "sigma": sigma, "eta": eta}
    for degree in range(2, (size - 1) // 2 + 1, 2):
        if good := good_thresholds(size, degree, **wanted):
            assert (topology.degree, [topology.threshold]) == (degree, good)
            break
    else:
        assert topology.complete
        assert topology.threshold == topology.survivors


def test_large_cohorts_with_few_colluders_are_wired_sparsely() -> None:
    """The orders of magnitude that Bell et al. give in their table 1: tens of neighbours for thousands of members."""
    degrees = {size: plan(size, dropout=0.05, corruption=0.05).degree for size in (100, 1000, 10_000)}
    assert degrees[100] < 30
    assert degrees[1000] < 60
    assert degrees[10_000] < 60


@pytest.mark.parametrize("size", [2, 3, 4, 5, 10, 50, 200])
def test_facing_an_active_server_the_graph_is_complete(size: int) -> None:
    topology = plan(size, dropout=0.3, corruption=1 / 3, active=True)
    assert topology.complete
    assert topology.degree == size - 1
    assert topology.threshold == topology.survivors
    # Two sets of survivors share this many members at least: one more than may be corrupt.
    assert 2 * topology.survivors - size > topology.corrupt


@pytest.mark.parametrize("active", [False, True])
def test_a_feasible_plan_leaves_more_survivors_than_colluders(active: bool) -> None:
    """Over a grid of cohorts: what is planned can be opened by those who stay and not by those who collude."""
    planned = 0
    for size, dropout, corruption in itertools.product(range(2, 40), (0, 0.1, 0.25, 0.5), (0, 0.1, 0.3, 0.6)):
        try:
            topology = plan(size, dropout=dropout, corruption=corruption, active=active)
        except TermsError:
            continue
        planned += 1
        assert topology.corrupt + 2 <= topology.survivors <= size
        assert not active or 2 * topology.survivors - size > topology.corrupt
        assert 1 <= topology.threshold <= topology.survivors
        assert topology.threshold <= topology.degree + 1
        if topology.complete:
            assert topology.corrupt < topology.threshold
        else:
            assert topology.degree // 2 + 2 <= topology.threshold <= topology.degree
    assert planned > 100


def refusal(size: int, dropout: float, corruption: float, *, active: bool) -> TermsError | None:
    """Why there is no plan."""
    try:
        plan(size, dropout=dropout, corruption=corruption, active=active)
    except TermsError as error:
        return error
    return None


@pytest.mark.parametrize("active", [False, True])
def test_advice_that_is_followed_leads_to_a_plan(active: bool) -> None:
    """To lower dropout or corruption until two honest members are left, and dropout to what the message says."""
    sizes, shares = (*range(2, 60), 100, 333, 400), (0.0, 0.2, 0.4, 0.5, 0.7, 0.95)
    advised = {"honest": 0, "vanish": 0}
    for size, dropout, corruption in itertools.product(sizes, shares, shares):
        error = refusal(size, dropout, corruption, active=active)
        if error and "lower dropout or corruption" in str(error):
            advised["honest"] += 1
            survivors, corrupt = re.findall(r"over (\d+), and (\d+) may", str(error))[0]
            assert int(survivors) - int(corrupt) < 2
            dropout, corruption = 0.0, min(corruption, (size - 2) / size)
            error = refusal(size, dropout, corruption, active=active)
        if error:
            advised["vanish"] += 1
            (allowed,) = re.findall(r"\(dropout <= ([0-9.]+)\)", str(error))
            error = refusal(size, float(allowed), corruption, active=active)
        assert error is None, (size, dropout, corruption)
    assert advised["honest"] > 100
    assert (advised["vanish"] > 100) == active


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 1, "dropout": 0, "corruption": 0}, "1 member.* at least 2"),
        ({"size": 0, "dropout": 0, "corruption": 0}, "0 member"),
        ({"size": 5, "dropout": 1.0, "corruption": 0}, "dropout is 1.0"),
        ({"size": 5, "dropout": -0.1, "corruption": 0}, "dropout is -0.1"),
        ({"size": 5, "dropout": 0, "corruption": 1.5}, "corruption is 1.5"),
        ({"size": 10, "dropout": 0.5, "corruption": 0.5}, "over 5, and 5 may collude.*over 0 honest"),
        ({"size": 10, "dropout": 0.5, "corruption": 0.4}, "over 5, and 4 may collude.*over 1 honest"),
        ({"size": 10, "dropout": 0.4, "corruption": 0.3, "active": True}, "at most 3 may vanish"),
        ({"size": 10, "dropout": 0.3, "corruption": 0.4, "active": True}, "at most 2 may vanish"),
    ],
)
def test_plans_that_cannot_be_are_refused(arguments: dict[str, float], message: str) -> None:
    size = arguments.pop("size")
    with pytest.raises(TermsError, match=message):
        plan(int(size), **arguments)


def test_shares_of_a_cohort_are_not_fooled_by_floating_point() -> None:
    """0.1 * 30 and 0.07 * 100 are a little more than they should be, 0.29 * 100 a little less."""
    for size, share, count in ((30, 0.1, 3), (100, 0.07, 7), (100, 0.29, 29), (10, 0.3, 3), (3, 1 / 3, 1)):
        assert plan(size, dropout=share, corruption=0).survivors == size - count
        assert plan(size, dropout=0, corruption=share).corrupt == count


def test_a_topology_knows_whether_it_is_complete() -> None:
    fields = {"threshold": 3, "survivors": 3, "corrupt": 0}
    assert Topology(size=5, degree=4, **fields).complete
    assert not Topology(size=6, degree=4, **fields).complete
