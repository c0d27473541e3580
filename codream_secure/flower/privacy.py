"""Differential privacy of a Flower app's sums, for whole clients: what both sides agree on, and the account of it.

Each node brings its update to an L2 norm of at most C and adds its share of integer noise before the sum; what is sure
to be in every sum is what :mod:`codream_secure.privacy` accounts for. Bounding, noise and accounting are those of
:mod:`codream_secure.releases`; here is what a Flower app needs beside them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from codream_secure.errors import ConfigError
from codream_secure.privacy import Adjacency, Adversary, Budget, PrivacyLedger, PrivacyUnit, checks, signal
from codream_secure.privacy.ledger import check_delta
from codream_secure.privacy.planning import Cohort, NoisySums, PlannedSums, plan_noisy_sums
from codream_secure.privacy.signal import Signal
from codream_secure.releases import NoisyReleases
from protocols.graph import survivors_needed

STREAM = "train"
_ADJACENCY = Adjacency.ADD_REMOVE
_ADVERSARIES = {"masked": Adversary.SUM_SERVER, "bfv": Adversary.SUM_CLIENT}
MECHANISMS = ("discrete_gaussian", "skellam")


@dataclass(frozen=True, kw_only=True)
class ClientLevel:
    """Whether any one client took part is hidden from whoever sees the sums, and so from whoever gets the model.

    Neighbours are cohorts with and without one client, which, absent, counts as one that contributes zero. Who answers
    is no secret.

    Args:
        values: d, coordinates of all arrays together, or an upper bound; nodes refuse longer arrays.
        sums: N, at most so many train sums are taken in a run, failed ones included; nodes refuse further ones.
        delta: in (0, 1), below 1 over the number of clients.
        epsilon: what all sums of a run may cost. No sum is begun that would cost more. None: no limit but ``sums``.
        noise_multiplier: z > 0: the standard deviation of the noise in a sum, over C, that is sure to be there and
            unknown to colluders. None: solved from ``epsilon`` for ``sums`` sums.
        colluders: t >= 1, so many clients may tell their share of the noise, or leave it out.
        mechanism: "discrete_gaussian" or "skellam".

    Raises:
        ConfigError: neither an epsilon nor a multiplier is given, nobody may collude, or the mechanism is unknown.
        PrivacyError: a number is out of range.
    """

    values: int
    sums: int
    delta: float
    epsilon: float | None = None
    noise_multiplier: float | None = None
    colluders: int = 1
    mechanism: Literal["discrete_gaussian", "skellam"] = "discrete_gaussian"

    def __post_init__(self) -> None:
        checks.whole("values", self.values)
        checks.whole("sums", self.sums)
        checks.probability("delta", self.delta)
        for name in ("epsilon", "noise_multiplier"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, checks.positive(name, getattr(self, name)))
        if self.epsilon is None and self.noise_multiplier is None:
            raise ConfigError(
                "epsilon and noise_multiplier are None: give a budget, or how much noise there is, or both"
            )
        if isinstance(self.colluders, bool) or not isinstance(self.colluders, int) or self.colluders < 1:
            raise ConfigError(
                f"colluders is {self.colluders!r}: every client gets the model and knows its own share of the noise, "
                "so give at least 1"
            )
        if self.mechanism not in MECHANISMS:
            raise ConfigError(f"mechanism is {self.mechanism!r}: one of {', '.join(MECHANISMS)}")

    @property
    def budget(self) -> Budget | None:
        """Of a run; None for no limit."""
        return None if self.epsilon is None else Budget(self.epsilon, self.delta)

    def plan(self, protection: str, *, clients: int, dropout: float) -> NoisySums:
        """What nodes bring their updates to in the ring, and the noise that each of them adds.

        Args:
            protection: what hides a node's own message.
            clients: K, size of the cohort.
            dropout: share of it that may be missing from a sum.

        Raises:
            ConfigError: this protection does not hide messages.
            PrivacyError: delta is too large for so many clients, or the ring has no room for noise and signal.
            protocols.TermsError: nobody's noise is sure to be there.
        """
        if protection not in _ADVERSARIES:
            raise ConfigError(
                f"dp is set with name = {protection!r}: there each message is seen with its own small share of the "
                f"noise, which hides little; use {' or '.join(_ADVERSARIES)}"
            )
        check_delta(self.delta, units=clients)
        return plan_noisy_sums(
            [PlannedSums(stream=STREAM, count=self.sums, values=self.values, share=1.0)],
            mechanism=self.mechanism,
            cohort=Cohort(
                clients=clients, dropouts=clients - survivors_needed(clients, dropout), colluders=self.colluders
            ),
            unit=PrivacyUnit.CLIENT,
            adjacency=_ADJACENCY,
            adversary=_ADVERSARIES[protection],
            budget=self.budget,
            noise_multiplier=self.noise_multiplier,
        )

    def account(self, protection: str, noisy: NoisySums) -> CountedReleases:
        """The account of a run that has not begun.

        Args:
            protection: as for :meth:`plan`.
            noisy: what it gave.
        """
        adversary = _ADVERSARIES[protection]
        ledger = PrivacyLedger(
            self.budget,
            PrivacyUnit.CLIENT,
            adjacency=_ADJACENCY,
            adversary=adversary,
            units=noisy.cohort.clients,
            # A client that opens sums is one of the colluders itself.
            colluders=self.colluders - (adversary is Adversary.SUM_CLIENT),
        )
        return CountedReleases(ledger, noisy, dp=self)

    def described(self) -> dict[str, Any]:
        """For digests: all of it, floats in their one spelling."""
        return {name: value.hex() if isinstance(value, float) else value for name, value in asdict(self).items()}


class CountedReleases(NoisyReleases):
    """Noisy sums, each of as many coordinates as planned for, and no more of them than planned for.

    Args:
        ledger: of the unit "client".
        sums: norms and noise.
        dp: values, and how many sums.
    """

    def __init__(self, ledger: PrivacyLedger, sums: NoisySums, *, dp: ClientLevel) -> None:
        beside = signal(dp.sums**0.5 / sums.multiplier(STREAM), clients=sums.cohort.clients, dimension=dp.values)
        super().__init__(ledger, sums, normalise=frozenset(), largest={STREAM: dp.values})
        self._dp = dp
        self.signal: Signal = beside

    @property
    def taken(self) -> int:
        """Sums so far."""
        return sum(getattr(event, "count", 0) for event in self.ledger.events)

    def fits(self, stream_counts: dict[str, int]) -> bool:
        """Whether plan and budget allow so many more sums."""
        return self.taken + sum(stream_counts.values()) <= self._dp.sums and super().fits(stream_counts)

    def before_sum(self, stream: str, *, values: int) -> None:
        """Account for a sum, whatever its length, as one of the longest: the bound grows with the length."""
        super().before_sum(stream, values=self._dp.values)

    def told(self) -> str:
        """What was spent, in one sentence."""
        return f"{self.ledger.statement(delta=self._dp.delta)} Sums so far: {self.taken}."
