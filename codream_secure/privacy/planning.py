"""From a budget to noise: how long every contribution may be, in ring units, and what clients or the server add to it.

All sums of a run get noise of one law, V in all, in ring units. What differs is how long contributions are: a stream
that is to have less noise relative to its contributions is encoded longer. Stream i, whose contributions have norm at
most D_i, has the noise multiplier z_i = sqrt(V) / D_i. One noise for all keeps the terms of a round simple, and V, the
D_i and the law are all that the accountant needs.

A budget is split by mu^2, which adds up over sums: a stream with share w of it and N sums in the run gets
z proportional to sqrt(N / w). The factor is found with the ledger's own accountant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from codream_secure.errors import PrivacyError
from codream_secure.privacy.accountant import spent
from codream_secure.privacy.events import DiscreteGaussianSum, IntegerNoiseSum, SkellamSum
from codream_secure.privacy.ledger import Budget
from codream_secure.privacy.statement import Adjacency, Adversary, PrivacyUnit
from protocols import DiscreteGaussianNoise, FixedPoint, SkellamNoise, TermsError

RING_BITS: Literal[32] = 32
_LARGEST_NORM_BITS = 24
"""Norms are float32 in an encoding, exact up to here; and d values of norm 2^24 are fine enough for any d."""
_NOISES: dict[str, type[DiscreteGaussianNoise | SkellamNoise]] = {
    noise.name: noise for noise in (DiscreteGaussianNoise, SkellamNoise)
}
_PRECISION = 1e-5
_LEAST_LEVEL = 4
"""Ring units of a typical coordinate, at least: rounding toward zero costs half a unit of each."""


@dataclass(frozen=True, kw_only=True)
class PlannedSums:
    """The sums of one stream in a whole run.

    Args:
        stream: its name.
        count: N, how many; at least 1.
        values: d, coordinates of the longest.
        share: w, of the budget's mu^2, above 0.
    """

    stream: str
    count: int
    values: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Whose noise is in a sum.

    Args:
        clients: K.
        dropouts: at most so many contributions are missing.
        colluders: at most so many of the others tell their noise or leave it out.
        by_server: the server adds all noise, and clients none.
    """

    clients: int
    dropouts: int = 0
    colluders: int = 0
    by_server: bool = False


@dataclass(frozen=True, kw_only=True)
class NoisySums:
    """Norms and noise of all streams of a run.

    Attributes:
        norms: stream to D, the largest L2 norm of one client's integer vector.
        noise: what each client adds; or, with ``cohort.by_server``, what the server adds to the sum.
        cohort: whose noise it is.
    """

    norms: Mapping[str, int]
    noise: DiscreteGaussianNoise | SkellamNoise
    cohort: Cohort

    def multiplier(self, stream: str) -> float:
        """z, the noise's standard deviation over D; what is sure to be there and unknown to colluders."""
        return math.sqrt(self.noise.variance) / self.norms[stream]

    def encoding(self, stream: str) -> FixedPoint:
        """Of this stream: real vectors of norm at most D, in ring units, rounded toward zero.

        Its scale is 1 and its bound is D, exactly: rounding toward zero never lengthens a vector.
        """
        norm = self.norms[stream]
        return FixedPoint(
            clip=float(norm),
            clients=self.cohort.clients,
            ring_bits=RING_BITS,
            value_bits=norm.bit_length() + 1,
            rounding="toward_zero",
            norm="l2",
        )

    def event(self, stream: str, *, values: int, count: int = 1) -> IntegerNoiseSum:
        """The release of ``count`` sums of this stream."""
        if isinstance(self.noise, SkellamNoise):
            return SkellamSum(
                stream,
                clients=self.noise.honest,
                sensitivity=self.norms[stream],
                dimension=values,
                count=count,
                variance=math.nextafter(float(self.noise.client_variance), 0.0),
            )
        return DiscreteGaussianSum(
            stream,
            clients=self.noise.honest,
            sensitivity=self.norms[stream],
            dimension=values,
            count=count,
            sigma=self.noise.client_sigma,
        )


def make_noisy_sums(
    planned: Sequence[PlannedSums], multipliers: Mapping[str, float], *, mechanism: str, cohort: Cohort
) -> NoisySums:
    """Norms as large as the ring allows, and the noise that makes these multipliers of them.

    Norms are rounded down, so a multiplier may come out a little larger than asked.

    Args:
        planned: all streams.
        multipliers: stream to z > 0.
        mechanism: "discrete_gaussian" or "skellam".
        cohort: who adds the noise.

    Raises:
        PrivacyError: the ring has no room for noise and signal.
        protocols.TermsError: nobody's noise is sure to be there.
    """
    least = min(multipliers.values())
    obstacle: TermsError | None = None
    for bits in range(_LARGEST_NORM_BITS, 0, -1):
        largest = 1 << bits
        try:
            noise = _NOISES[mechanism](
                (least * largest) ** 2,
                clients=1 if cohort.by_server else cohort.clients,
                values=max(sums.values for sums in planned),
                steps=sum(sums.count for sums in planned),
                dropouts=0 if cohort.by_server else cohort.dropouts,
                colluders=0 if cohort.by_server else cohort.colluders,
            )
        except TermsError as error:  # more variance than the law is drawn for; or nobody's, whatever the norm
            obstacle = error
            continue
        obstacle = None
        headroom = 0 if cohort.by_server else noise.headroom()
        if cohort.clients * (largest + headroom) < 1 << (RING_BITS - 1):
            break
    else:
        if obstacle is not None:
            raise obstacle
        raise PrivacyError(
            f"the sum of {cohort.clients} contributions with a noise multiplier of {least:g} does not fit into "
            f"{RING_BITS} bits: allow a larger epsilon, or fewer sums"
        )
    norms = {stream: math.floor(largest * least / z) for stream, z in multipliers.items()}
    if drowned := [stream for stream, norm in norms.items() if norm < 1]:
        raise PrivacyError(
            f"stream {drowned[0]!r} has a noise multiplier of {multipliers[drowned[0]]:g} beside {least:g}: too far "
            "apart for one ring; give it a larger share of the budget"
        )
    for sums in planned:
        if norms[sums.stream] < _LEAST_LEVEL * math.sqrt(sums.values):
            raise PrivacyError(
                f"stream {sums.stream!r} has {sums.values} coordinates and room for a norm of {norms[sums.stream]} "
                "only: rounded toward zero, next to nothing would be left; release fewer coordinates, or use the "
                "discrete Gaussian, which has more room"
            )
    return NoisySums(norms=norms, noise=noise, cohort=cohort)


def plan_noisy_sums(
    planned: Sequence[PlannedSums],
    *,
    mechanism: str,
    cohort: Cohort,
    unit: PrivacyUnit,
    adjacency: Adjacency,
    adversary: Adversary,
    budget: Budget | None = None,
    noise_multiplier: float | None = None,
) -> NoisySums:
    """Split a budget, or a given noise, over all streams.

    Args:
        planned: all streams, the one that ``noise_multiplier`` is of first.
        mechanism: "discrete_gaussian" or "skellam".
        cohort: who adds the noise.
        unit: as for the ledger.
        adjacency: as for the ledger.
        adversary: as for the ledger.
        budget: what all sums together may cost; needed without ``noise_multiplier``.
        noise_multiplier: z of the first stream; the others follow from their shares.

    Raises:
        PrivacyError: nothing is planned, there is neither budget nor multiplier, or the ring has no room.
    """
    if not planned:
        raise PrivacyError("no sum is planned: a run without releases needs no noise, set dp.unit to 'none'")

    def scaled(factor: float) -> NoisySums:
        multipliers = {sums.stream: factor * math.sqrt(sums.count / sums.share) for sums in planned}
        return make_noisy_sums(planned, multipliers, mechanism=mechanism, cohort=cohort)

    if noise_multiplier is not None:
        return scaled(noise_multiplier / math.sqrt(planned[0].count / planned[0].share))
    if budget is None:
        raise PrivacyError("budget is missing: give one, or a noise_multiplier")

    def fits(factor: float) -> bool:
        sums = scaled(factor)
        events = [sums.event(each.stream, values=each.values, count=each.count) for each in planned]
        statement = spent(events, delta=budget.delta, unit=unit, adjacency=adjacency, adversary=adversary)
        return statement.epsilon <= budget.epsilon

    low, high = 0.01 * adjacency.factor, 1.0 * adjacency.factor
    while not fits(high):
        low, high = high, 2 * high
    while high / low > 1 + _PRECISION:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return scaled(high)
