"""Who masks with whom: the neighbour graph, and how many neighbours are enough.

Small cohorts use the complete graph. Large ones may use the permuted Harary graph of SecAgg+ (Bell, Bonawitz, Gascón,
Lepoint and Raykova, CCS 2020, section 3): members stand on a circle in a random order, and each is joined to the k/2
nearest on either side. Of n members at most ``corrupt`` share what they know with the server and at most ``dropped``
vanish. With t of a member's share holders (its neighbours and itself) needed to open one of its secrets, three things
may go wrong over the choice of the order, and each is bounded here exactly or by a union bound:

privacy       some honest member has t or more corrupt neighbours: they could open both kinds of its secrets. The number
              of corrupt neighbours is hypergeometric, so the bound is n P[Hyp(n - 1, corrupt, k) >= t].
connection    the honest members that stay are split into parts, whose sums the server would learn one by one. Without
              ``r = corrupt + dropped`` members the graph is split only if two disjoint runs of k/2 neighbours on the
              circle are gone; there are fewer than n^2/2 pairs of runs and k given places are all gone with
              probability C(n - k, r - k) / C(n, r).
correctness   some member keeps fewer than t share holders: the step fails. n P[Hyp(n - 1, n - 1 - dropped, k) < t].

Privacy and connection together stay below 2^-sigma, correctness below 2^-eta: privacy once per round, connection and
correctness for each set of survivors, and for members that vanish for reasons that have nothing to do with the graph.
Bell et al. bound the connection by n (gamma + delta)^(k/2); pairs of runs make the same argument tighter.

Whoever can choose whose messages are lost, and knows the graph, could cut out a stretch of the circle. So t is at least
k/2 + 2: the member at the end of a stretch between two gaps of k/2 has at most k/2 + 1 holders left, itself included,
and refuses to open anything.

The order comes from a public seed, which a server that deviates could choose again and again until it likes the
outcome. So cohorts that face an active server use the complete graph, where there is nothing to choose.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from protocols.errors import TermsError

_LABEL = b"codream-secure masked v1 graph\0"


@dataclass(frozen=True, kw_only=True)
class Topology:
    """How a cohort is wired.

    Attributes:
        size: n, members of the cohort.
        degree: k, neighbours of each; n - 1 in a complete graph.
        threshold: t, holders of a member's shares (its neighbours and itself) that open one of its secrets.
        survivors: members that must be left for a sum to be opened at all.
        corrupt: how many members may share what they know with the server.
    """

    size: int
    degree: int
    threshold: int
    survivors: int
    corrupt: int

    @property
    def complete(self) -> bool:
        """Every two members are neighbours."""
        return self.degree == self.size - 1


@lru_cache(maxsize=256)
def plan(
    size: int, *, dropout: float, corruption: float, active: bool = False, sigma: int = 40, eta: int = 30
) -> Topology:
    """The sparsest graph, with its threshold, that meets the asked-for robustness.

    A graph that is not complete is chosen only where it at least halves a client's work; a complete one is opened by
    ``survivors`` holders, the most that are sure to be there.

    Args:
        size: n >= 2.
        dropout: share of members that may vanish, in [0, 1).
        corruption: share of members that may collude with the server, in [0, 1).
        active: whether the server may deviate; then the graph is complete and any two sets of ``survivors`` members
            must share an honest one, so that no two sets of survivors can both be agreed on.
        sigma: privacy may fail with probability 2^-sigma over the choice of the graph.
        eta: a step may fail with probability 2^-eta although no more than ``dropout`` of the members vanish.

    Raises:
        TermsError: no graph can meet this; the message says what could be met.
    """
    if size < 2:
        raise TermsError(f"the cohort has {size} member(s): a sum over one hides nothing, at least 2 are needed")
    for name, share in (("dropout", dropout), ("corruption", corruption)):
        if not 0 <= share < 1:
            raise TermsError(f"{name} is {share}: a share of the members in [0, 1)")
    survivors, corrupt = survivors_needed(size, dropout), _count(corruption, size)
    dropped = size - survivors
    if survivors - corrupt < 2:
        raise TermsError(
            f"of {size} members a sum may be opened over {survivors}, and {corrupt} may collude: that leaves a sum "
            f"over {max(0, survivors - corrupt)} honest member(s), where 2 are needed; lower dropout or corruption, so "
            f"that together at most {size - 2} may vanish or collude"
        )
    if active and 2 * survivors <= size + corrupt:
        allowed = (size - corrupt - 1) // 2
        share = math.floor(1000 * allowed / size) / 1000
        raise TermsError(
            f"dropout is {dropout}: with {corrupt} of {size} members colluding with an active server, at most "
            f"{allowed} may vanish (dropout <= {share}), or two sets of survivors could both be agreed on"
        )
    if not active:
        for degree in range(2, (size - 1) // 2 + 1, 2):
            threshold = _threshold(size, degree, dropped=dropped, corrupt=corrupt, sigma=sigma, eta=eta)
            if threshold is not None:
                return Topology(size=size, degree=degree, threshold=threshold, survivors=survivors, corrupt=corrupt)
    return Topology(size=size, degree=size - 1, threshold=survivors, survivors=survivors, corrupt=corrupt)


def survivors_needed(size: int, dropout: float) -> int:
    """Members that are left when floor(dropout * size) have vanished; at least one."""
    return max(1, size - _count(dropout, size))


def _count(share: float, size: int) -> int:
    """floor(share * size), not fooled by the last bit of a product such as 0.1 * 30."""
    return math.floor(share * size + 1e-9)


def _threshold(size: int, degree: int, *, dropped: int, corrupt: int, sigma: int, eta: int) -> int | None:
    """The smallest threshold that keeps privacy at this degree, if correctness holds with it."""
    split = split_bound(size, degree, corrupt + dropped)
    allowed, exposed = (2.0**-sigma - split) / size, 0.0
    if allowed <= 0:
        return None
    threshold = degree + 1
    while threshold > degree // 2 + 2:
        exposed += _hypergeometric(size - 1, corrupt, degree, threshold - 1)
        if exposed > allowed:
            break
        threshold -= 1
    if threshold > degree or failure_bound(size, degree, dropped, threshold) > 2.0**-eta:
        return None
    return threshold


def exposure_bound(size: int, degree: int, corrupt: int, threshold: int) -> float:
    """n P[Hyp(n - 1, corrupt, k) >= t]: bound on the probability that some member has t or more corrupt neighbours."""
    return min(1.0, size * sum(_hypergeometric(size - 1, corrupt, degree, i) for i in range(threshold, degree + 1)))


def failure_bound(size: int, degree: int, dropped: int, threshold: int) -> float:
    """n P[Hyp(n - 1, n - 1 - dropped, k) < t]: bound on the probability that some member keeps too few neighbours."""
    return min(1.0, size * sum(_hypergeometric(size - 1, size - 1 - dropped, degree, i) for i in range(threshold)))


def split_bound(size: int, degree: int, removed: int) -> float:
    """n^2/2 C(n - k, r - k) / C(n, r): bound on the probability that the members that are left fall into parts."""
    if removed < degree:
        return 0.0
    return min(1.0, 0.5 * size**2 * math.exp(_log_choose(size - degree, removed - degree) - _log_choose(size, removed)))


def _hypergeometric(population: int, marked: int, drawn: int, count: int) -> float:
    """P[exactly ``count`` marked ones among ``drawn``]."""
    if count > marked or drawn - count > population - marked or count < 0:
        return 0.0
    return math.exp(
        _log_choose(marked, count) + _log_choose(population - marked, drawn - count) - _log_choose(population, drawn)
    )


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)


def neighbours(cohort: Sequence[int], degree: int, seed: bytes) -> dict[int, tuple[int, ...]]:
    """Each member's neighbours, in ascending order.

    Args:
        cohort: distinct members in ascending order.
        degree: k, even, or n - 1 for the complete graph, which does not depend on the seed.
        seed: public; equal seeds give equal graphs everywhere.
    """
    if degree == len(cohort) - 1:
        return {member: _others(member, cohort) for member in cohort}
    circle = _shuffled(cohort, seed)
    return {member: _nearest(circle, place, degree) for place, member in enumerate(circle)}


def neighbours_of(member: int, cohort: Sequence[int], degree: int, seed: bytes) -> tuple[int, ...]:
    """One member's entry of :func:`neighbours`, without making the others'."""
    if degree == len(cohort) - 1:
        return _others(member, cohort)
    circle = _shuffled(cohort, seed)
    return _nearest(circle, circle.index(member), degree)


def _others(member: int, cohort: Sequence[int]) -> tuple[int, ...]:
    return tuple(other for other in cohort if other != member)


def _nearest(circle: Sequence[int], place: int, degree: int) -> tuple[int, ...]:
    """The degree / 2 members on either side of a place, in ascending order."""
    offsets = (offset for offset in range(-(degree // 2), degree // 2 + 1) if offset)
    return tuple(sorted(circle[(place + offset) % len(circle)] for offset in offsets))


def _shuffled(cohort: Sequence[int], seed: bytes) -> list[int]:
    """Fisher-Yates over 64-bit words of SHA-256 in counter mode; words that would bias a choice are skipped."""
    words = _words(seed)
    order = list(cohort)
    for last in range(len(order) - 1, 0, -1):
        fair = (1 << 64) - (1 << 64) % (last + 1)
        word = next(word for word in words if word < fair)
        chosen = word % (last + 1)
        order[last], order[chosen] = order[chosen], order[last]
    return order


def _words(seed: bytes) -> Iterator[int]:
    for counter in itertools.count():
        block = hashlib.sha256(_LABEL + seed + counter.to_bytes(8, "big")).digest()
        yield from (int.from_bytes(block[start : start + 8], "big") for start in range(0, 32, 8))
