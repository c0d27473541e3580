"""Neighbour graphs as they are drawn, and the bounds on them against simulation, enumeration and scipy."""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from collections.abc import Iterable

import numpy as np
import pytest
from scipy import stats

from protocols.graph import exposure_bound, failure_bound, neighbours, neighbours_of, split_bound


def seed_of(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def circulant(size: int, degree: int) -> list[set[int]]:
    """The graph of the circle 0, 1, ..., n - 1 before members are put on its places."""
    half = degree // 2
    return [{(at + offset) % size for offset in range(-half, half + 1) if offset} for at in range(size)]


def connected(joined: dict[int, Iterable[int]] | list[set[int]], left: set[int]) -> bool:
    """Whether those who are left are in one piece, by searching from any of them."""
    reached: set[int] = set()
    border = set(itertools.islice(left, 1))
    while border:
        reached |= border
        border = {other for member in border for other in joined[member] if other in left} - reached
    return reached == left


# The graph


@pytest.mark.parametrize(("size", "degree"), [(5, 2), (10, 4), (11, 10), (12, 4), (40, 6), (101, 20), (200, 36)])
def test_a_graph_is_regular_and_symmetric(size: int, degree: int) -> None:
    cohort = [7 * member + 3 for member in range(size)]
    joined = neighbours(cohort, degree, seed_of(size))
    assert joined.keys() == set(cohort)
    for member, near in joined.items():
        assert len(set(near)) == len(near) == degree
        assert list(near) == sorted(near)
        assert member not in near
        assert all(member in joined[other] for other in near)
    assert connected(joined, set(cohort))


def test_everybody_computes_the_same_graph() -> None:
    cohort = range(30)
    once, again = (neighbours(cohort, 6, seed_of(1)) for _ in range(2))
    assert once == again == neighbours(tuple(cohort), 6, bytes(seed_of(1)))
    assert once != neighbours(cohort, 6, seed_of(2))


def test_a_graph_depends_on_places_in_the_cohort_and_not_on_numbers() -> None:
    numbers = [3, 10, 11, 500, *range(600, 620), 2**32 - 1]
    named, plain = neighbours(numbers, 6, seed_of(5)), neighbours(range(25), 6, seed_of(5))
    at = {number: place for place, number in enumerate(numbers)}
    assert {at[member]: tuple(at[other] for other in near) for member, near in named.items()} == plain


@pytest.mark.parametrize(("size", "degree"), [(2, 1), (9, 2), (10, 9), (30, 6)])
def test_a_member_finds_its_own_neighbours_alone(size: int, degree: int) -> None:
    cohort = [5 * place + 1 for place in range(size)]
    joined = neighbours(cohort, degree, seed_of(3))
    assert {member: neighbours_of(member, cohort, degree, seed_of(3)) for member in cohort} == joined


def circle(size: int, seed: bytes) -> list[int]:
    """The order on the circle, as it is described: Fisher and Yates from the end, with unbiased words of SHA-256."""
    stream = itertools.count()
    words: list[int] = []
    order = list(range(size))
    for last in reversed(range(1, size)):
        while True:
            if not words:
                text = b"codream-secure masked v1 graph\0" + seed + next(stream).to_bytes(8, "big")
                words = [word for (word,) in struct.iter_unpack(">Q", hashlib.sha256(text).digest())]
            word = words.pop(0)
            if word < 2**64 // (last + 1) * (last + 1):
                break
        chosen = word % (last + 1)
        order[last], order[chosen] = order[chosen], order[last]
    return order


@pytest.mark.parametrize(("size", "degree"), [(7, 2), (12, 4), (101, 20)])
def test_the_graph_is_the_one_that_is_described(size: int, degree: int) -> None:
    for number in range(20):
        order = circle(size, seed_of(number))
        assert sorted(order) == list(range(size))
        joined = neighbours(range(size), degree, seed_of(number))
        for place, near in enumerate(circulant(size, degree)):
            assert joined[order[place]] == tuple(sorted(order[other] for other in near))


def test_the_complete_graph_needs_no_seed() -> None:
    for size in (2, 3, 10):
        joined = neighbours(range(size), size - 1, b"")
        assert joined == {member: tuple(m for m in range(size) if m != member) for member in range(size)}
        assert joined == neighbours(range(size), size - 1, seed_of(1))


@pytest.mark.parametrize(("size", "degree"), [(9, 2), (24, 6)])
def test_every_two_members_are_neighbours_equally_often(size: int, degree: int) -> None:
    """Over 4000 seeds, by chi-squared; the seeds are fixed. Each member has the others as neighbours at k / (n - 1)."""
    seeds, counts = 4000, np.zeros((size, size), int)
    for number in range(seeds):
        for member, near in neighbours(range(size), degree, seed_of(number)).items():
            counts[member, list(near)] += 1
    share = degree / (size - 1)
    observed = counts[np.triu_indices(size, 1)]
    assert observed.sum() == seeds * size * degree / 2
    chi = ((observed - seeds * share) ** 2 / (seeds * share * (1 - share))).sum()
    # The counts of a regular graph are dependent, which makes the statistic a little smaller on the whole.
    assert chi < stats.chi2.isf(1e-6, len(observed))
    assert observed.std() < 1.5 * math.sqrt(seeds * share * (1 - share))


# When a graph falls apart


@pytest.mark.parametrize(("size", "degree"), [(8, 2), (9, 4), (11, 4), (12, 6)])
def test_a_graph_is_split_exactly_where_two_runs_of_half_the_degree_are_gone(size: int, degree: int) -> None:
    """Over all subsets of a circle; what is gone is read off it twice, by a search and by its runs."""
    joined, half = circulant(size, degree), degree // 2
    split = 0
    for bits in range(1, 1 << size):
        left = {place for place in range(size) if bits >> place & 1}
        order = sorted(left)
        gaps = [(after - before - 1) % size for before, after in itertools.pairwise([*order, order[0]])]
        in_pieces = len(left) > 1 and sum(gap >= half for gap in gaps) >= 2
        assert connected(joined, left) != in_pieces
        split += in_pieces
    assert split > 0


@pytest.mark.parametrize(("size", "degree"), [(8, 2), (9, 4), (11, 4), (12, 6), (13, 6)])
def test_in_a_graph_that_is_split_somebody_keeps_too_few_holders_to_open_anything(size: int, degree: int) -> None:
    """With any threshold that is planned: at most k/2 + 1 holders, itself included, where k/2 + 2 are needed."""
    joined, split = circulant(size, degree), 0
    for bits in range(1, 1 << size):
        left = {place for place in range(size) if bits >> place & 1}
        if not connected(joined, left):
            split += 1
            assert min(1 + len(joined[member] & left) for member in left) <= degree // 2 + 1
    assert split > 0


@pytest.mark.parametrize("degree", [2, 4, 6])
@pytest.mark.parametrize("size", [9, 10, 13])
def test_the_split_bound_holds_by_enumeration(size: int, degree: int) -> None:
    """The probability over the order is that over which places are gone, and those are enumerated."""
    joined = circulant(size, degree)
    for removed in range(size - 1):
        gone = list(itertools.combinations(range(size), removed))
        split = sum(not connected(joined, set(range(size)) - set(places)) for places in gone)
        bound = split_bound(size, degree, removed)
        assert split / len(gone) <= bound <= 1
        assert (bound == 0) == (removed < degree)


def test_the_split_bound_is_no_wild_exaggeration() -> None:
    """Of pairs of runs it counts every one, also those that overlap: half of n^2 where there are about as many."""
    size, degree, removed = 16, 4, 5
    joined = circulant(size, degree)
    gone = list(itertools.combinations(range(size), removed))
    split = sum(not connected(joined, set(range(size)) - set(places)) for places in gone)
    assert split_bound(size, degree, removed) / 3 < split / len(gone)


@pytest.mark.parametrize(("size", "degree", "removed"), [(20, 4, 7), (30, 6, 14), (40, 4, 8)])
def test_the_split_bound_holds_over_the_graphs_that_are_drawn(size: int, degree: int, removed: int) -> None:
    """Of 3000 graphs so many fall apart that the bound would be refuted, were it 6 deviations too low."""
    trials, left = 3000, set(range(removed, size))
    split = sum(not connected(neighbours(range(size), degree, seed_of(n)), left) for n in range(trials))
    bound = split_bound(size, degree, removed)
    assert split > 20
    assert split / trials <= bound + 6 * math.sqrt(bound * (1 - min(bound, 0.99)) / trials)


# How many of a member's neighbours are corrupt, and how many stay


@pytest.mark.parametrize(
    ("size", "degree", "corrupt", "threshold"), [(30, 6, 8, 4), (24, 4, 5, 2), (60, 10, 20, 7), (25, 24, 8, 8)]
)
def test_so_many_members_are_exposed_as_the_bound_says(size: int, degree: int, corrupt: int, threshold: int) -> None:
    """Of each graph the honest members with t or more corrupt neighbours are counted.

    Their expected share is the bound without its factor n, exactly; 1500 graphs measure it to within 6 deviations of
    the mean (the members of a graph depend on each other, so the deviation is that between graphs).
    """
    shares = []
    for number in range(1500):
        joined = neighbours(range(size), degree, seed_of(number))
        honest = range(corrupt, size)
        shares.append(sum(sum(o < corrupt for o in joined[m]) >= threshold for m in honest) / len(honest))
    exact = size * float(stats.hypergeom(size - 1, corrupt, degree).sf(threshold - 1))
    assert exposure_bound(size, degree, corrupt, threshold) == pytest.approx(min(1.0, exact), rel=1e-9)
    assert 0.003 < exact / size <= 1
    assert np.mean(shares) == pytest.approx(exact / size, abs=6 * np.std(shares) / math.sqrt(1500) + 1e-12)
    # And the bound itself: some member is exposed no more often than it says.
    assert np.mean([share > 0 for share in shares]) <= min(1.0, exact) + 6 * 0.5 / math.sqrt(1500)


@pytest.mark.parametrize(
    ("size", "degree", "dropped", "threshold"), [(30, 6, 8, 4), (24, 4, 5, 3), (60, 10, 20, 6), (25, 24, 8, 17)]
)
def test_so_many_members_keep_too_few_as_the_bound_says(size: int, degree: int, dropped: int, threshold: int) -> None:
    """The same for survivors whose surviving neighbours are fewer than t."""
    shares = []
    for number in range(1500):
        joined = neighbours(range(size), degree, seed_of(number))
        left = range(dropped, size)
        shares.append(sum(sum(o >= dropped for o in joined[m]) < threshold for m in left) / len(left))
    exact = size * float(stats.hypergeom(size - 1, size - 1 - dropped, degree).cdf(threshold - 1))
    assert failure_bound(size, degree, dropped, threshold) == pytest.approx(min(1.0, exact), rel=1e-9)
    assert np.mean(shares) == pytest.approx(exact / size, abs=6 * np.std(shares) / math.sqrt(1500) + 1e-12)
    # The dead have one dead neighbour fewer to fear, so the bound holds for them too.
    assert np.mean([share > 0 for share in shares]) <= min(1.0, exact) + 6 * 0.5 / math.sqrt(1500)


@pytest.mark.parametrize("size", [10, 50, 300, 5000])
def test_the_bounds_are_hypergeometric_far_into_the_tails(size: int) -> None:
    for degree in (2, 6, min(60, size - 1)):
        for marked in (0, 1, size // 3, size - 1):
            for threshold in range(0, degree + 2, max(1, degree // 7)):
                exposed = size * float(stats.hypergeom(size - 1, marked, degree).sf(threshold - 1))
                failed = size * float(stats.hypergeom(size - 1, size - 1 - marked, degree).cdf(threshold - 1))
                found = exposure_bound(size, degree, marked, threshold), failure_bound(size, degree, marked, threshold)
                assert found[0] == pytest.approx(min(1.0, exposed), rel=1e-6, abs=1e-280)
                assert found[1] == pytest.approx(min(1.0, failed), rel=1e-6, abs=1e-280)


@pytest.mark.parametrize("size", [10, 60, 1000])
def test_the_split_bound_is_the_probability_that_given_places_are_gone(size: int) -> None:
    for degree in (2, 4, 8):
        for removed in (degree - 1, degree, degree + 1, size // 2, size):
            exact = (
                size**2 / 2 * math.comb(size - degree, removed - degree) / math.comb(size, removed)
                if (removed >= degree)
                else 0.0
            )
            assert split_bound(size, degree, removed) == pytest.approx(min(1.0, exact), rel=1e-9)
