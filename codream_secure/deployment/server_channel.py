"""The channel of a program that holds the server and no client."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import torch

from codream_secure.base_channel import BaseChannel, Tensors
from codream_secure.deployment.journal import Journal
from codream_secure.deployment.monitor import Monitor
from codream_secure.deployment.streams.rounds import SumRounds
from codream_secure.releases import Releases
from protocols import ProtocolError, SumProtocol, SumResult, TooFewSurvivorsError

_LOG = logging.getLogger(__name__)
_ATTEMPTS = 3


class ServerChannel(BaseChannel):
    """Broadcasts and sums over streams. Sums that the journal has are not asked for again.

    Args:
        protocol: how sums are protected; one that streams carry.
        clients: how many there are.
        aggregator: to the members, with an open round whenever this is used.
        journal: of opened sums.
        monitor: told of every sum that is asked for.
        releases: how values leave clients; every sum is accounted for before it is asked for.
    """

    def __init__(
        self,
        protocol: SumProtocol,
        clients: int,
        *,
        aggregator: SumRounds,
        journal: Journal,
        monitor: Monitor | None = None,
        releases: Releases | None = None,
    ) -> None:
        super().__init__(protocol, clients, releases=releases)
        self._aggregator = aggregator
        self._journal = journal
        self._monitor = monitor or Monitor()
        self._round = 0
        self._place = 0
        self.contributors: list[tuple[int, ...]] = []
        """Of this round's sums."""

    def begin_round(self, number: int) -> None:
        self._round, self._place, self.contributors = number, 0, []
        self.recorder.began(number)

    def broadcast(self, tensors: Tensors, *, phase: str) -> list[torch.Tensor]:
        self.recorder.shown(phase, tensors)
        self._aggregator.broadcast([tensor.detach().cpu().numpy() for tensor in tensors], phase=phase)
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        for client in range(self.clients):
            self.ledger.add_down(client, phase, size)
        return [tensor.detach().clone() for tensor in tensors]

    def _sum(
        self,
        contributions: Mapping[int, Tensors],
        phase: str,
        weights: Mapping[int, int] | None,
        *,
        like: Tensors,
        held: Mapping[int, Tensors] | None = None,
        bound: float | None = None,
    ) -> SumResult:
        number, place = self._round, self._place
        self._place += 1
        values = sum(tensor.numel() for tensor in like)
        self.recorder.asked(phase, values)
        result = self._journal.find(number, place, stream=phase, values=values)
        if result is None:
            result = self._asked(number, place, phase, values)
            self._journal.keep(number, place, result, stream=phase)
        self.contributors.append(result.contributors)
        return result

    def _asked(self, number: int, place: int, phase: str, values: int) -> SumResult:
        """Ask for it, a few times; a round that cannot have it is begun again, by whoever runs rounds.

        Raises:
            BudgetExceededError: the privacy budget does not allow it.
        """
        # From the moment that somebody may open it: also if this program does not live to learn the sum.
        self._aggregator.on_opening = lambda members: self._journal.bind(number, place, members)
        for attempt in range(_ATTEMPTS):
            # Clients that are asked again add fresh noise to the same values: that is one more release.
            self.releases.before_sum(phase, values=values)
            began = time.monotonic()
            try:
                result = self._aggregator.sum(phase, values, exactly=self._journal.only(number, place))
            except TooFewSurvivorsError as error:
                self.ledger.retries += 1
                failure = error
                where = {"round": number, "place": place, "phase": phase, "attempt": attempt + 1}
                _LOG.warning("round %d, sum %d, attempt %d: %s", number, place, attempt + 1, error, extra=where)
                self._monitor.summed(time.monotonic() - began, opened=False)
            except ProtocolError:
                self._monitor.summed(time.monotonic() - began, opened=False)
                raise
            else:
                seconds = time.monotonic() - began
                self._monitor.summed(seconds, opened=True)
                where = {"round": number, "place": place, "phase": phase, "members": len(result.contributors)}
                _LOG.info("round %d, sum %d is open", number, place, extra={**where, "seconds": round(seconds, 3)})
                return result
            finally:
                report_absent(self._aggregator, self._monitor)
        raise failure


def report_absent(aggregator: SumRounds, monitor: Monitor) -> None:
    """Tell who dropped out of the latest set-up or step, and who refused; then forget it."""
    for phase, members in aggregator.missing.items():
        monitor.dropped(phase.name.lower(), len(members))
    monitor.refused(len(aggregator.refusals))
    # Not counted again, if the next attempt fails before it begins.
    aggregator.missing, aggregator.refusals = {}, []
