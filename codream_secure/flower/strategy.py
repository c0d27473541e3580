"""The server's two lines: a strategy that needs no more than the weighted mean, behind a grid that gives no more."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid, strategy
from flwr.serverapp.strategy import Result, Strategy

from codream_secure.deployment.roster import load_roster
from codream_secure.errors import ConfigError
from codream_secure.flower.grid import ProtectedGrid
from codream_secure.flower.privacy import CountedReleases
from codream_secure.flower.settings import EVALUATE, TRAIN, Protection
from protocols import Roster

_LOG = logging.getLogger("flwr")

MEAN_IS_ENOUGH = ("FedAvg", "FedProx", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi")
"""Flower's strategies that compute from the weighted mean alone."""

_NEEDS_MORE = {
    "Krum": "it compares the clients' updates with each other",
    "MultiKrum": "it compares the clients' updates with each other",
    "Bulyan": "it compares the clients' updates with each other",
    "FedMedian": "it takes the median over the clients' updates",
    "FedTrimmedAvg": "it drops the extremes among the clients' updates",
    "QFedAvg": "it weighs each client's update by its own loss",
    "FedXgbBagging": "it collects each client's trees",
    "FedXgbCyclic": "it passes one client's trees on",
    "DifferentialPrivacyClientSideFixedClipping": "it adds noise for a mean without weights, of vectors that it knows "
    "to be clipped",
    "DifferentialPrivacyServerSideFixedClipping": "it clips each client's update at the server",
    "DifferentialPrivacyClientSideAdaptiveClipping": "it reads from each client whether its update was clipped",
    "DifferentialPrivacyServerSideAdaptiveClipping": "it clips each client's update at the server",
}


class Protected(Strategy):
    """A strategy whose train (and evaluate) replies are summed under protection; it sees one reply, their mean.

    Args:
        inner: FedAvg, FedProx, FedAvgM, FedAdagrad, FedAdam, FedYogi, or one derived from them that aggregates alike.
        protection: the same as in the clients' ``protected_mod``.
        roster: everybody's public keys, or the roster file that has them, of the version that the nodes hold. Needed
            unless ``protection.name == "plain"``.
        phase_timeout: seconds that messages without training in them are waited for; None: as long as for training.
        mean_is_enough: you vouch that a strategy of your own computes from the weighted mean of all replies alone.

    Raises:
        ConfigError: the strategy needs the clients' own updates, or goes by another name for the number of examples.
        IdentityError: the roster file is missing, malformed or writable by others.
    """

    def __init__(
        self,
        inner: Strategy,
        protection: Protection,
        *,
        roster: Roster | Path | str | None = None,
        phase_timeout: float | None = None,
        mean_is_enough: bool = False,
    ) -> None:
        check_strategy(inner, mean_is_enough=mean_is_enough)
        key = getattr(inner, "weighted_by_key", protection.weight_key)
        if key != protection.weight_key:
            raise ConfigError(
                f"the strategy weighs by {key!r}, the protection by {protection.weight_key!r}: name one key in both"
            )
        self.inner = inner
        self.protection = protection
        self._roster = load_roster(Path(roster)) if isinstance(roster, str | Path) else roster
        self._phase_timeout = phase_timeout
        evaluated: object = getattr(inner, "fraction_evaluate", None)
        if protection.dp is not None and evaluated:
            raise ConfigError(
                f"fraction_evaluate is {evaluated} with dp: evaluate replies come from private data and "
                "nothing accounts for them; set it to 0.0, and evaluate on the server's own data"
            )
        # Beyond a single start: a run's sums add up.
        self._releases = protection.releases()

    def start(self, grid: Grid, *args: Any, **named: Any) -> Result:
        """The inner strategy's own ``start``, on a grid that protects; see Flower's ``Strategy.start``."""
        protected = ProtectedGrid(
            grid, self.protection, roster=self._roster, phase_timeout=self._phase_timeout, releases=self._releases
        )
        self._explain()
        try:
            return self.inner.start(protected, *args, **named)
        finally:
            protected.close()

    def _explain(self) -> None:
        sums = self.protection
        _LOG.info("Protected sums: %s%s", sums.name, ", against an active server" if sums.active else "")
        if isinstance(self._releases, CountedReleases):
            _LOG.info("\t├──> updates of L2 norm %g or less, noise multiplier %.4g", *self._bounds())
            _LOG.info("\t├──> signal s = %.2g: %s", self._releases.signal.value, self._releases.signal.verdict)
            _LOG.info("\t└──> no evaluate replies")
            return
        _LOG.info("\t├──> values within %g of the old ones, in steps of %.3g", sums.clip, sums.resolution)
        _LOG.info("\t└──> evaluate replies: %s", "in clear" if EVALUATE in sums.clear else "summed")

    def _bounds(self) -> tuple[float, float]:
        return self.protection.clip, self._releases.noise_multipliers()[TRAIN]

    # What Flower asks of a strategy, for whoever drives one by hand (on a ProtectedGrid)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self.inner.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        return self.inner.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self.inner.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        self.inner.summary()


def check_strategy(inner: Strategy, *, mean_is_enough: bool = False) -> None:
    """Return if a strategy needs no more than the weighted mean of the replies.

    Raises:
        ConfigError: it needs more, or nobody says that it does not.
    """
    kind = type(inner)
    for name, reason in _NEEDS_MORE.items():
        known = getattr(strategy, name, None)
        if known is not None and isinstance(inner, known):
            raise ConfigError(
                f"{kind.__name__} needs more than a sum gives: {reason}. Under protection use one of "
                f"{', '.join(MEAN_IS_ENOUGH)}"
            )
    if mean_is_enough:
        return
    known_ways = {getattr(strategy, name).aggregate_train for name in MEAN_IS_ENOUGH}
    if getattr(kind, "aggregate_train", None) not in known_ways or kind.start is not Strategy.start:
        raise ConfigError(
            f"{kind.__name__} aggregates in a way of its own: if the weighted mean of all replies is all that it "
            "computes from, say so with mean_is_enough=True"
        )
