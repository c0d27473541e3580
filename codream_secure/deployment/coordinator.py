"""The server as a program: it holds no image and no client's model, and runs the same rounds as everybody else.

A round begins when enough members are there. If it breaks off, because too few are left or because this program dies,
it is begun again under a new round id, from the state at its beginning and the sums that were opened; see
:mod:`codream_secure.deployment.journal`.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codream_secure.accounting import sums_in_round
from codream_secure.deployment.account import Account
from codream_secure.deployment.accuracy import is_measured, is_shared, mean_accuracy
from codream_secure.deployment.heading import BUFFER, FINISHED, OVER, ROUND, Heading
from codream_secure.deployment.journal import Journal
from codream_secure.deployment.monitor import Monitor, Traffic
from codream_secure.deployment.server_channel import ServerChannel, report_absent
from codream_secure.deployment.states import States
from codream_secure.deployment.storage import writing
from codream_secure.deployment.streams import Deadlines
from codream_secure.deployment.streams.errors import StreamError
from codream_secure.deployment.streams.rounds import SumRounds
from codream_secure.deployment.training import TrainingTerms
from codream_secure.errors import BudgetExceededError
from codream_secure.federation import Federation, Observer
from codream_secure.files import PRIVATE, held, write_jsonl
from codream_secure.methods.codream import CoDream
from protocols import CohortError, OpeningError, ShareError, TooFewSurvivorsError
from protocols.graph import survivors_needed

_LOG = logging.getLogger(__name__)
_PAUSE_S = 0.5
_STRAGGLERS_S = 0.5
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Waits:
    """How long the server waits, in seconds.

    Args:
        join: for everybody, before the first round of this program.
        train: for a vector; before the last sum of a round, clients distil and train.
        answer: for each phase of setting up a round, and of opening a sum.
        reconnect: for a member whose line was cut; between rounds, too.
        patience: for a round to be finished, if it breaks off again and again.
    """

    join: float = 120.0
    train: float = 1800.0
    answer: float = 60.0
    reconnect: float = 15.0
    patience: float = 3600.0

    def deadlines(self) -> Deadlines:
        """The same for the streams. Who joins is waited for here, not there."""
        return Deadlines(
            join_s=_STRAGGLERS_S,
            setup_s=self.answer,
            contribute_s=self.train,
            open_s=self.answer,
            reconnect_s=self.reconnect,
        )


class Coordinator:
    """The server.

    Args:
        training: the terms.
        aggregator: to the clients, under these terms and the deadlines of ``waits``.
        state: its folder; made if it is not there, and gone on from if it is.
        waits: how long it waits.
        anew: clients are started anew for every round, so everybody is waited for at the beginning of each.
        observe: told (phase, done, total) as the work goes on.
        on_round: told the row of each finished round.
        monitor: told what happens, in numbers.

    Attributes:
        account: of what has left clients under a claim of privacy.
        stopped: why training is over before its last round; None otherwise.

    Raises:
        ConfigError: the folder belongs to something else.
    """

    def __init__(
        self,
        training: TrainingTerms,
        aggregator: SumRounds,
        *,
        state: Path,
        waits: Waits | None = None,
        anew: bool = False,
        observe: Observer | None = None,
        on_round: Callable[[Row], None] | None = None,
        monitor: Monitor | None = None,
    ) -> None:
        self._training = training
        self._waits = waits or Waits()
        self._anew = anew
        self._members = list(range(training.config.data.clients))
        self._folder = state
        self._states = States(state, training, party="the server")
        self._journal = Journal(state / "journal")
        self._on_round = on_round or (lambda row: None)
        self._monitor = monitor or Monitor()
        self._sessions: dict[int, bytes] = {}
        """Member to session of all who took part in the latest round to its end."""
        self._aggregator = aggregator
        self.account = Account(training, state)
        self.stopped: str | None = None
        self._channel = ServerChannel(
            training.protocol,
            len(self._members),
            aggregator=aggregator,
            journal=self._journal,
            monitor=self._monitor,
            releases=self.account.releases,
        )
        self._monitor.watches(
            Traffic(
                present=lambda: aggregator.traffic()[0],
                bytes_down=lambda: aggregator.bytes_down,
                turned_away=lambda: aggregator.traffic()[1],
            )
        )
        federation = Federation.of_some(
            training.config, images=training.images, channel=self._channel, clients={}, holds_server=True
        )
        if observe:
            federation.observe = observe
        self._method = CoDream(federation)
        self._rows: list[Row] = []

    def run(self) -> list[Row]:
        """Run the rounds that are left.

        Returns:
            A row for every round, those before this program began included.

        Raises:
            StreamError: too few members are there for too long.
            ProtocolError: a round cannot be finished.
            CheckpointError: the folder is damaged.
            StorageError: it cannot be written.
            ConfigError: another server works in it.
        """
        with self.at_work():
            for number in self.rounds_left():
                self.finish(number)
        return self._rows

    def at_work(self) -> AbstractContextManager[None]:
        """Keep the folder to this server: two would each keep a journal that lacks the sums that the other opened.

        Raises:
            ConfigError: another one works in it.
        """
        return held(self._folder)

    def rounds_left(self) -> Iterator[int]:
        """The rounds that this folder has not got to, after going back to where it has got to.

        They end early where the privacy budget does, see :attr:`stopped`.

        Raises:
            CheckpointError: the folder is damaged.
        """
        latest, spent = self._states.latest, None
        if latest >= 0:
            saved = self._states.load(latest)
            self._method.load_state_dict(saved["method"])
            self._rows, self.stopped, spent = saved["rows"], saved.get("stopped"), saved.get("privacy")
        self.account.open(spent)
        done = max(latest, 0)
        self._monitor.planned(self._training.config.run.rounds, done)
        for number in range(done + 1, self._training.config.run.rounds + 1):
            if self.stopped:
                return
            yield number

    def finish(self, number: int) -> Row | None:
        """Run one round, as often as it takes; each has to follow the one before.

        Returns:
            Its row; None where the privacy budget ended within it, and training with that.

        Raises:
            StreamError, ProtocolError, CheckpointError, StorageError: as for :meth:`run`.
        """
        before = copy.deepcopy(self._method.state_dict())
        started = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            where = {"round": number, "attempt": attempt}
            _LOG.info("round %d begins (attempt %d)", number, attempt, extra=where)
            self._monitor.began(number)
            try:
                row = self._attempt(number)
                break
            except (TooFewSurvivorsError, CohortError, OpeningError, ShareError) as error:
                _LOG.warning("round %d broke off (attempt %d): %s", number, attempt, error, extra=where)
                self._monitor.broke_off()
                if time.monotonic() - started > self._waits.patience:
                    raise
                self._aggregator.close_round("the round broke off")
                self._method.load_state_dict(before)
                time.sleep(_PAUSE_S)
            except BudgetExceededError as error:
                self._method.load_state_dict(before)
                self._stop(f"the privacy budget ended within round {number}: {error}")
                self._keep(number - 1)
                # Clients are in this round, so that here they can be told.
                self._aggregator.close_round(OVER)
                return None
        row |= {"attempts": attempt, "seconds": time.monotonic() - started}
        self._rows.append(row)
        last = number == self._training.config.run.rounds
        if not last and not self.account.covers(sums_in_round(self._training.config, number + 1)):
            self._stop(f"the privacy budget does not cover round {number + 1}")
        self._keep(number)
        self._sessions = self._aggregator.enrolled
        self._aggregator.close_round(OVER if last or self.stopped else FINISHED)
        self._journal.forget(number)
        with writing(self._states.folder):
            write_jsonl(self._states.folder / "metrics.jsonl", self._rows, mode=PRIVATE)
        self._monitor.finished(number)
        _LOG.info("round %d is finished", number, extra={**where, "seconds": round(row["seconds"], 3)})
        self._on_round(row)
        return row

    def _stop(self, reason: str) -> None:
        self.stopped = reason
        _LOG.warning("training is over: %s", reason)

    def _keep(self, number: int) -> None:
        """Make what this server has got to last; after a round that it counts as finished, 0 being before the first."""
        state = {"rows": self._rows, "privacy": self.account.state(), "stopped": self.stopped}
        self._states.save(number, {"method": self._method.state_dict(), **state})

    def _attempt(self, number: int) -> Row:
        self._gather()
        try:
            self._aggregator.open_round(self._members)
        finally:
            report_absent(self._aggregator, self._monitor)
        self._monitor.opened()
        enrolled = self._aggregator.enrolled
        followed = all(self._sessions.get(member) == session for member, session in enrolled.items())
        buffer = self._method.buffer
        heading = Heading(number, not followed and len(buffer) > 0, self._training.digest)
        self._aggregator.broadcast(heading.arrays(), phase=ROUND)
        self._channel.begin_round(number)
        if heading.with_buffer:
            self._channel.broadcast([buffer.images, buffer.labels], phase=BUFFER)
        figures = self._method.run_round(number)
        row: Row = {"round": number}
        if is_measured(self._training.config, number) and is_shared(self._training.config):
            row["test_accuracy"] = mean_accuracy(
                self._channel,
                {},
                bound=self._training.config.protocol.clip.counts,
                device=self._method.federation.device,
            )
        row["contributors"] = sorted(set().union(*self._channel.contributors)) if self._channel.contributors else []
        return row | {name: value for name, value in figures.items() if math.isfinite(value)}

    def _gather(self) -> None:
        """Wait for whoever is expected, and for as many as a sum takes.

        Raises:
            StreamError: too few came.
        """
        if self._sessions and not self._anew:
            # They were there a moment ago: they are, or their lines are cut, or they are gone.
            self._aggregator.wait_for(self._sessions, timeout_s=self._waits.reconnect)
        else:
            self._aggregator.wait_for(self._members, timeout_s=self._waits.join)
        needed = survivors_needed(len(self._members), self._training.config.protocol.dropout)
        end = time.monotonic() + self._waits.patience
        while len(present := self._aggregator.present & set(self._members)) < needed:
            left = end - time.monotonic()
            if left <= 0:
                missing = sorted(set(self._members) - present)
                raise StreamError(
                    f"of {len(self._members)} members {needed} are needed, and members {missing} have been missing for "
                    f"{self._waits.patience:g} s (patience)"
                )
            self._aggregator.wait_for(self._members, timeout_s=min(left, 1.0))
