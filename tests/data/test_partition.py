"""Partitions: exact properties for any labels, and the distributions that the schemes promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codream_secure.data import Partition, partition
from codream_secure.errors import PartitionError

SCHEMES = ("iid", "dirichlet", "label_dirichlet", "classes")
LABELS = torch.arange(2000) % 10


def divide(labels: torch.Tensor, scheme: str, **options: Any) -> Partition:
    return partition(labels, scheme, **{"clients": 4, "seed": 0, "alpha": 0.5, "classes_per_client": 2, **options})


def same(one: Partition, other: Partition) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.clients, other.clients, strict=True))


@st.composite
def requests(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor | None, dict[str, Any]]:
    labels = torch.tensor(draw(st.lists(st.integers(0, 6), min_size=1, max_size=120)))
    available = None
    if draw(st.booleans()):
        indices = draw(st.lists(st.integers(0, len(labels) - 1), min_size=1, unique=True))
        available = torch.tensor(indices)
    size = len(labels) if available is None else len(available)
    clients = draw(st.integers(1, min(size, 12)))
    each = draw(st.none() | st.integers(1, size // clients))
    alpha = draw(st.sampled_from([1e-4, 0.01, 0.1, 1.0, 100.0, 1e6]))
    return labels, available, {"clients": clients, "samples_per_client": each, "alpha": alpha}


@settings(max_examples=150, deadline=None)
@given(request=requests(), scheme=st.sampled_from(("iid", "dirichlet", "label_dirichlet")), seed=st.integers(0, 2**63))
def test_clients_are_disjoint_in_range_and_of_the_size_asked(
    request: tuple[torch.Tensor, torch.Tensor | None, dict[str, Any]], scheme: str, seed: int
) -> None:
    labels, available, options = request
    made = partition(labels, scheme, seed=seed, available=available, **options)
    allowed = set(range(len(labels))) if available is None else set(available.tolist())
    sizes = [len(indices) for indices in made.clients]
    seen = [index for indices in made.clients for index in indices.tolist()]
    assert len(sizes) == options["clients"]
    assert len(seen) == len(set(seen))
    assert set(seen) <= allowed
    assert all(
        indices.dtype == torch.int64 and indices.tolist() == sorted(indices.tolist()) for indices in made.clients
    )
    each = options["samples_per_client"]
    assert sum(sizes) == (len(allowed) if each is None else each * options["clients"])
    if scheme == "label_dirichlet":
        assert min(sizes) >= 1
    elif each is None:
        assert max(sizes) - min(sizes) <= 1
    else:
        assert set(sizes) == {each}
    assert same(made, partition(labels, scheme, seed=seed, available=available, **options))


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(20, 60), min_size=2, max_size=8),
    clients=st.integers(1, 10),
    data=st.data(),
)
def test_fixed_classes_are_exact_and_the_largest_size_is_the_limit(
    counts: list[int], clients: int, data: st.DataObject
) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    width = data.draw(st.integers(1, len(counts)))
    asked: dict[str, Any] = {"clients": clients, "classes_per_client": width, "seed": 3}
    largest = partition(labels, "classes", **asked)
    size = len(largest.clients[0])
    table = largest.class_table(labels, len(counts))
    assert set(table.sum(1).tolist()) == {size}
    assert set((table > 0).sum(1).tolist()) == {width}
    users = (table > 0).sum(0)
    assert users.max() - users.min() <= 1
    for row in table:
        held = row[row > 0]
        assert held.max() - held.min() <= 1
    assert same(largest, partition(labels, "classes", samples_per_client=size, **asked))
    with pytest.raises(PartitionError, match=rf"between {width} and {size} images|at most|available"):
        partition(labels, "classes", samples_per_client=size + 1, **asked)
    fewer = partition(labels, "classes", samples_per_client=width, **asked)
    assert int(fewer.class_table(labels, len(counts)).max()) == 1


def test_fixed_classes_hand_left_over_samples_round() -> None:
    labels = torch.tensor([0] * 5 + [1] * 5)
    made = partition(labels, "classes", clients=2, classes_per_client=2, seed=0)
    assert sorted(made.class_table(labels, 2).tolist()) == [[2, 3], [3, 2]]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_seed_matters(scheme: str) -> None:
    assert not same(divide(LABELS, scheme, seed=0), divide(LABELS, scheme, seed=1))
    assert same(divide(LABELS, scheme, seed=5), divide(LABELS, scheme, seed=5))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_global_random_state_is_neither_read_nor_moved(scheme: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002, RUF100
    first = divide(LABELS, scheme)
    after = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002, RUF100
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]
    torch.manual_seed(2)
    assert same(first, divide(LABELS, scheme))


@pytest.mark.parametrize("scheme", ["dirichlet", "label_dirichlet"])
def test_small_alpha_concentrates_and_large_alpha_spreads(scheme: str) -> None:
    def mean_top_share(alpha: float) -> float:
        shares = []
        for seed in range(20):
            options = {"samples_per_client": 40} if scheme == "dirichlet" else {}
            table = divide(LABELS, scheme, seed=seed, alpha=alpha, **options).class_table(LABELS, 10).double()
            # Per client for the equal-size scheme, per class for the per-label one: what the prior is over.
            rows = table if scheme == "dirichlet" else table.T
            shares.append(float((rows.max(1).values / rows.sum(1)).mean()))
        return float(np.mean(shares))

    assert mean_top_share(0.01) > 0.9
    assert mean_top_share(1e6) < (0.3 if scheme == "dirichlet" else 0.26)


def test_dirichlet_counts_have_the_dirichlet_multinomial_mean_and_variance() -> None:
    # With ample supply a client's count of one class is Dirichlet-multinomial: mean n/C and variance
    # n p (1 - p) (n + A) / (1 + A), p = 1/C, A = C alpha. 4,000 clients; five standard errors leave a false
    # alarm rate below 1e-5 (the standard error of the variance is taken from the sample itself).
    labels = torch.arange(5).repeat_interleave(60_000)
    n, classes, alpha, clients = 15, 5, 0.5, 4000
    made = partition(labels, "dirichlet", clients=clients, seed=11, samples_per_client=n, alpha=alpha)
    counts = made.class_table(labels, classes)[:, 0].double().numpy()
    p, total = 1 / classes, classes * alpha
    variance = n * p * (1 - p) * (n + total) / (1 + total)
    assert abs(counts.mean() - n * p) < 5 * np.sqrt(variance / clients)
    squares = (counts - n * p) ** 2
    assert abs(squares.mean() - variance) < 5 * squares.std() / np.sqrt(clients)


def test_dirichlet_redistributes_over_what_is_left() -> None:
    # Class 0 has 5 images and everything must go: whoever wanted class 0 gets class 1 instead.
    labels = torch.tensor([0] * 5 + [1] * 95)
    made = partition(labels, "dirichlet", clients=10, seed=2, alpha=1e-4)
    assert made.class_table(labels, 2).sum(0).tolist() == [5, 95]
    assert made.class_table(labels, 2).sum(1).tolist() == [10] * 10


def test_no_client_is_served_last_under_scarcity() -> None:
    # Clients take turns: those with high numbers must not be left with the dregs. All have nearly the same
    # uniform prior, half of the supply is class 0 and runs out last; by symmetry, each client's expected
    # count of class 0 is 10 of 20. The mean over 200 seeds has a standard error below 0.2.
    labels = torch.tensor([0] * 100 + [1] * 50 + [2] * 50)
    tables = [partition(labels, "dirichlet", clients=10, seed=s, alpha=1e6).class_table(labels, 3) for s in range(200)]
    means = torch.stack(tables)[:, :, 0].double().mean(0)
    assert (means - 10).abs().max() < 1.0


def test_label_dirichlet_fills_empty_clients() -> None:
    labels = torch.zeros(60, dtype=torch.int64)
    made = partition(labels, "label_dirichlet", clients=50, seed=0, alpha=1e-4)
    assert sorted(len(indices) for indices in made.clients) == [1] * 49 + [11]


def test_iid_is_not_an_order() -> None:
    made = divide(LABELS, "iid")
    assert all(made.class_table(LABELS, 10).min(1).values > 20)  # 50 expected; below 20 has odds under 1e-6
    assert [len(indices) for indices in divide(LABELS[:10], "iid").clients] == [3, 3, 2, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples_per_client": 501}, "4 clients x 501 = 2004 images asked, 2000 available: at most 500 per client"),
        ({"clients": 2001}, "at most 2000 clients"),
        ({"available": torch.arange(3)}, "4 clients x at least 1 = 4 images asked, 3 available: at most 3 clients"),
        ({"clients": 0}, "clients is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"samples_per_client": 0}, "samples_per_client is 0"),
        ({"available": torch.tensor([1, 1, 2, 3])}, "twice"),
        ({"available": torch.tensor([0, 1, 2, 2000])}, r"0\.\.2000, but labels only 0\.\.1999"),
        ({"available": torch.tensor([-1, 1, 2, 3])}, r"spans -1"),
        ({"available": torch.ones(2000, dtype=torch.bool)}, "bool"),
    ],
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_infeasible_requests_say_what_is_feasible(scheme: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PartitionError, match=message):
        divide(LABELS, scheme, **options)


@pytest.mark.parametrize("alpha", [None, 0.0, -1.0, 1e-5, 1e7, float("nan"), float("inf")])
@pytest.mark.parametrize("scheme", ["dirichlet", "label_dirichlet"])
def test_alpha_is_checked(scheme: str, alpha: float | None) -> None:
    with pytest.raises(PartitionError, match="alpha is"):
        divide(LABELS, scheme, alpha=alpha)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes_per_client": None}, r"classes_per_client is None.*1\.\.10"),
        ({"classes_per_client": 11}, r"classes_per_client is 11.*1\.\.10"),
        ({"classes_per_client": 0}, r"classes_per_client is 0"),
        ({"classes_per_client": 3, "samples_per_client": 2}, "samples_per_client is 2.*between 3 and"),
        ({"clients": 20, "available": torch.arange(30), "classes_per_client": 4}, "fewer clients"),
    ],
)
def test_fixed_classes_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PartitionError, match=message):
        divide(LABELS, "classes", **options)


def test_other_arguments_are_checked() -> None:
    with pytest.raises(PartitionError, match=r"'dirichelt'.*iid, dirichlet, label_dirichlet, classes"):
        divide(LABELS, "dirichelt")
    with pytest.raises(PartitionError, match="float32"):
        divide(LABELS.float(), "iid")


def test_partition_checks_what_it_is_given() -> None:
    with pytest.raises(PartitionError, match="disjoint"):
        Partition(clients=(torch.tensor([0, 1]), torch.tensor([1])))
    with pytest.raises(PartitionError, match=r"clients\[1\].*float32"):
        Partition(clients=(torch.tensor([0, 1]), torch.tensor([2.0])))
    with pytest.raises(PartitionError, match="negative index -1"):
        Partition(clients=(torch.tensor([-1]),))
    made = Partition(clients=(torch.tensor([0, 2]), torch.tensor([1])))
    assert made.class_table(torch.tensor([0, 1, 1]), 3).tolist() == [[1, 1, 0], [0, 1, 0]]
    with pytest.raises(PartitionError, match=r"num_classes is 1, but labels span 0\.\.1"):
        made.class_table(torch.tensor([0, 1, 1]), 1)
    with pytest.raises(PartitionError, match="index 2, but there are only 2"):
        made.class_table(torch.tensor([0, 1]), 2)
