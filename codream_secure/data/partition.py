"""Dividing a training set among clients, evenly or unevenly, as a pure function of its arguments."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from codream_secure.errors import PartitionError

# Beyond these a Dirichlet draw over- or underflows, and means "one class only" or "uniform" anyway.
_ALPHA_RANGE = (1e-4, 1e6)


@dataclass(frozen=True, eq=False)
class Partition:
    """Which training samples each client holds.

    Attributes:
        clients: One int64 tensor per client with indices into the training set, in ascending order;
            no index belongs to two clients.

    Raises:
        PartitionError: A tensor is not 1-D int64, or an index is negative or occurs twice.
    """

    clients: tuple[torch.Tensor, ...]

    def __post_init__(self) -> None:
        for number, indices in enumerate(self.clients):
            if indices.ndim != 1 or indices.dtype != torch.int64:
                raise PartitionError(f"clients[{number}] must be a 1-D int64 tensor, got {indices.dtype}")
        together = torch.cat([*self.clients, torch.empty(0, dtype=torch.int64)])
        if len(together) and together.min() < 0:
            raise PartitionError(f"clients hold the negative index {int(together.min())}")
        if len(np.unique(together.numpy())) != len(together):
            raise PartitionError("clients must be disjoint, but an index occurs twice")

    def __len__(self) -> int:
        return len(self.clients)

    def class_table(self, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
        """Samples of each class at each client: int64 tensor (clients, num_classes).

        Args:
            labels: int64 tensor (N,), the labels that were divided.
            num_classes: Number of columns; every label must be below it.

        Raises:
            PartitionError: A label is not in 0..num_classes-1.
        """
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            raise PartitionError(
                f"num_classes is {num_classes}, but labels span {int(labels.min())}..{int(labels.max())}"
            )
        highest = max((int(indices.max()) for indices in self.clients if len(indices)), default=-1)
        if highest >= len(labels):
            raise PartitionError(f"clients hold index {highest}, but there are only {len(labels)} labels")
        rows = [torch.bincount(labels[indices], minlength=num_classes) for indices in self.clients]
        return torch.stack(rows) if rows else torch.zeros((0, num_classes), dtype=torch.int64)


def partition(
    labels: torch.Tensor,
    scheme: str,
    *,
    clients: int,
    seed: int,
    samples_per_client: int | None = None,
    alpha: float | None = None,
    classes_per_client: int | None = None,
    available: torch.Tensor | None = None,
) -> Partition:
    """Divide the samples with these labels among clients.

    Schemes:
        ``iid``: uniformly at random.
        ``dirichlet``: equal sizes. Each client draws a class prior from Dir(alpha) and takes its samples
            without replacement, in turns that interleave all clients at random. Once a class has run
            out, a client draws from its prior renormalised over the classes that are left (uniformly,
            if its prior leaves them no mass). This is the non-IID setting of CoDream (arXiv 2402.15968).
        ``label_dirichlet``: unequal sizes. Each class is dealt to the clients in proportions drawn from
            Dir(alpha) (Hsu et al., arXiv 1909.06335, in the per-label form of Li et al., arXiv
            2102.02079). A client that would hold nothing gets one sample of the largest client.
        ``classes``: equal sizes, ``classes_per_client`` classes at each client, each class at as equally
            many clients as possible, and a client's samples divided as evenly among its classes as
            possible.

    Args:
        labels: int64 tensor (N,).
        scheme: One of the above.
        clients: Number of clients, at least 1.
        seed: Non-negative; the result depends on the arguments alone.
        samples_per_client: Exact size for each client. For ``label_dirichlet`` it is the mean: that many
            times ``clients`` are drawn first. None means everything, in sizes that differ by at most
            one; for ``label_dirichlet`` everything; for ``classes`` the largest size all can have.
        alpha: Concentration for the Dirichlet schemes, from 1e-4 to 1e6; small means uneven.
        classes_per_client: For ``classes`` only. Options that a scheme does not use are ignored.
        available: int64 indices that may be used (for instance after a hold-out); None means all.

    Raises:
        PartitionError: An argument is missing or out of range, or more is asked than there is; the
            message then says what is feasible.
    """
    if scheme not in _SCHEMES:
        raise PartitionError(f"scheme is {scheme!r}, but must be one of {', '.join(_SCHEMES)}")
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise PartitionError(f"labels must be int64 of shape (N,), got {labels.dtype} of shape {tuple(labels.shape)}")
    for name, value, least in (
        ("clients", clients, 1),
        ("seed", seed, 0),
        ("samples_per_client", samples_per_client, 1),
    ):
        if value is not None and value < least:
            raise PartitionError(f"{name} is {value}, but it must be at least {least}")
    pool = _pool(len(labels), available)
    asked = clients * (samples_per_client or 1)
    if asked > len(pool):
        feasible = (
            f"at most {len(pool) // clients} per client" if len(pool) >= clients else f"at most {len(pool)} clients"
        )
        per_client = f"{clients} clients x {samples_per_client or 'at least 1'} = {asked}"
        raise PartitionError(f"{per_client} images asked, {len(pool)} available: {feasible}")
    request = _Request(
        pool=pool,
        labels=labels.cpu().numpy()[pool],
        clients=clients,
        size=samples_per_client,
        alpha=alpha,
        classes=classes_per_client,
        rng=np.random.default_rng(seed),
    )
    chosen = _SCHEMES[scheme](request)
    return Partition(clients=tuple(torch.from_numpy(np.sort(pool[positions])) for positions in chosen))


@dataclass(frozen=True, eq=False)
class _Request:
    """What a scheme works from; ``labels`` and the positions it returns count along ``pool``."""

    pool: np.ndarray
    labels: np.ndarray
    clients: int
    size: int | None
    alpha: float | None
    classes: int | None
    rng: np.random.Generator

    def sizes(self) -> np.ndarray:
        if self.size is not None:
            return np.full(self.clients, self.size)
        return len(self.pool) // self.clients + (np.arange(self.clients) < len(self.pool) % self.clients)

    def checked_alpha(self) -> float:
        low, high = _ALPHA_RANGE
        if self.alpha is None or not low <= self.alpha <= high:
            raise PartitionError(f"alpha is {self.alpha}, but Dirichlet schemes need one from {low:g} to {high:g}")
        return self.alpha


def _pool(total: int, available: torch.Tensor | None) -> np.ndarray:
    if available is None:
        return np.arange(total)
    if available.ndim != 1 or available.dtype != torch.int64:
        raise PartitionError(f"available must be a 1-D int64 tensor of indices, got {available.dtype}")
    pool = np.unique(available.cpu().numpy())
    if len(pool) != len(available):
        raise PartitionError("available holds an index twice")
    if len(pool) and (pool[0] < 0 or pool[-1] >= total):
        raise PartitionError(f"available spans {pool[0]}..{pool[-1]}, but labels only 0..{total - 1}")
    return pool


def _iid(request: _Request) -> list[np.ndarray]:
    sizes = request.sizes()
    order = request.rng.permutation(len(request.pool))[: sizes.sum()]
    return np.split(order, np.cumsum(sizes)[:-1])


def _dirichlet(request: _Request) -> list[np.ndarray]:
    rng, alpha = request.rng, request.checked_alpha()
    values, codes = np.unique(request.labels, return_inverse=True)
    stacks = [rng.permutation(np.flatnonzero(codes == code)) for code in range(len(values))]
    left = np.array([len(stack) for stack in stacks])
    priors = rng.dirichlet(np.full(len(values), alpha), size=request.clients)
    turns = rng.permutation(np.repeat(np.arange(request.clients), request.sizes()))
    taken: list[list[np.ndarray]] = [[] for _ in range(request.clients)]
    # All remaining turns are drawn at once. Those from the first one that finds its class empty are
    # then drawn anew without that class, which leaves the distribution as if drawn turn by turn.
    while len(turns):
        drawn = _draw_classes(np.where(left > 0, priors, 0.0), left, turns=turns, rng=rng)
        valid = len(turns)
        for code in range(len(values)):
            valid = min([valid, *np.flatnonzero(drawn == code)[left[code] : left[code] + 1]])
        for code in range(len(values)):
            takers = turns[:valid][drawn[:valid] == code]
            top = stacks[code][left[code] - len(takers) : left[code]]
            for client in np.unique(takers):
                taken[client].append(top[takers == client])
            left[code] -= len(takers)
        turns = turns[valid:]
    return [np.concatenate(parts) for parts in taken]


def _draw_classes(priors: np.ndarray, left: np.ndarray, *, turns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One class code per turn, from the prior of the client whose turn it is."""
    uniform = rng.random(len(turns))
    drawn = np.empty(len(turns), dtype=np.int64)
    for client in np.unique(turns):
        prior = priors[client] if priors[client].sum() > 0 else (left > 0).astype(float)
        edges = np.cumsum(prior)
        mine = turns == client
        # Dividing by the last edge makes it exactly 1, so rounding can never lead past the last class.
        drawn[mine] = np.searchsorted(edges / edges[-1], uniform[mine], side="right")
    return drawn


def _label_dirichlet(request: _Request) -> list[np.ndarray]:
    rng, alpha = request.rng, request.checked_alpha()
    order = rng.permutation(len(request.pool))
    if request.size is not None:
        order = order[: request.clients * request.size]
    owner = np.empty(len(order), dtype=np.int64)
    codes = request.labels[order]
    for value in np.unique(codes):
        members = np.flatnonzero(codes == value)
        proportions = rng.dirichlet(np.full(request.clients, alpha))
        edges = np.cumsum(proportions) / proportions.sum()
        cuts = np.rint(edges[:-1] * len(members)).astype(np.int64)
        owner[members] = np.searchsorted(cuts, np.arange(len(members)), side="right")
    sizes = np.bincount(owner, minlength=request.clients)
    for client in np.flatnonzero(sizes == 0):
        donor = int(sizes.argmax())
        owner[rng.choice(np.flatnonzero(owner == donor))] = client
        sizes[donor], sizes[client] = sizes[donor] - 1, 1
    return [order[owner == client] for client in range(request.clients)]


def _fixed_classes(request: _Request) -> list[np.ndarray]:
    values, codes = np.unique(request.labels, return_inverse=True)
    width = request.classes
    if width is None or not 1 <= width <= len(values):
        raise PartitionError(f"classes_per_client is {width}, but scheme 'classes' needs one in 1..{len(values)}")
    stacks = [request.rng.permutation(np.flatnonzero(codes == code)) for code in range(len(values))]
    supply = np.array([len(stack) for stack in stacks])
    cycle = request.rng.permutation(len(values))
    # Windows that follow each other around a cycle use every class as often as any other, give or take one. Each
    # time the windows recur they are turned by one, so that left-over samples do not always fall to the same classes.
    row, column = np.ogrid[: request.clients, :width]
    recurrence = row // (len(values) // math.gcd(len(values), width))
    holds = request.rng.permutation(cycle[(row * width + (column + recurrence) % width) % len(values)])

    def demand(size: int) -> np.ndarray:
        return np.bincount(holds.ravel(), weights=np.tile(_even(size, width), request.clients), minlength=len(values))

    sizes = range(1, len(request.pool) // request.clients + 1)
    largest = bisect_left(sizes, True, key=lambda size: bool((demand(size) > supply).any()))
    size = largest if request.size is None else request.size
    if largest < width:
        raise PartitionError(
            f"{request.clients} clients x {width} classes cannot all be served from {len(request.pool)} images: "
            "ask for fewer clients or classes_per_client"
        )
    if not width <= size <= largest:
        raise PartitionError(
            f"samples_per_client is {size}, but {request.clients} clients with {width} classes each "
            f"can have between {width} and {largest} images here"
        )
    used = np.zeros(len(values), dtype=np.int64)
    chosen = []
    for held in holds:
        counts = _even(size, width)
        chosen.append(
            np.concatenate([stacks[code][used[code] : used[code] + n] for code, n in zip(held, counts, strict=True)])
        )
        used[held] += counts
    return chosen


def _even(total: int, parts: int) -> np.ndarray:
    return total // parts + (np.arange(parts) < total % parts)


_SCHEMES: dict[str, Callable[[_Request], list[np.ndarray]]] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "label_dirichlet": _label_dirichlet,
    "classes": _fixed_classes,
}
