"""A client as a program: its own images and model, and the same rounds as everybody else.

Its state after the warm-up and after every round is on its disk before the next begins. Whatever interrupts a round,
a cut that lasts too long, a server that dies, its own end, it goes back to where the round began and takes part in
whatever round comes next:

- the same round again: the server shows what it has opened already and goes on from there;
- the round before, which the server did not live to finish: the client goes back one more;
- a later one: the client has missed rounds. It is given the buffer of dreams, and distils it at the end of the round as
  everybody does; the steps of training that it missed it does not make up for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from codream_secure.deployment.account import Account
from codream_secure.deployment.accuracy import accuracy_of, is_measured, is_shared, mean_accuracy
from codream_secure.deployment.carriage import Carriage
from codream_secure.deployment.client_data import ClientData
from codream_secure.deployment.consents import Consents
from codream_secure.deployment.conversation import Conversation
from codream_secure.deployment.events import (
    Began,
    DesyncError,
    Ended,
    Gone,
    Paused,
    PausedError,
    Question,
    RoundLostError,
)
from codream_secure.deployment.heading import BUFFER, FINISHED, OVER, Heading, read_heading
from codream_secure.deployment.member_channel import MemberChannel
from codream_secure.deployment.states import States
from codream_secure.deployment.storage import writing
from codream_secure.deployment.streams import Shown
from codream_secure.deployment.talking_member import TalkingMember
from codream_secure.deployment.training import TrainingTerms
from codream_secure.errors import CheckpointError, ConfigError
from codream_secure.federation import Federation, Observer
from codream_secure.files import PRIVATE, write_jsonl
from codream_secure.methods.codream import CoDream
from protocols import Credentials, RoundLog

_LOG = logging.getLogger(__name__)


class Learner:
    """One client.

    Args:
        training: the terms.
        number: the client's.
        data: its images.
        carriage: to the server and back, and as whom.
        state: its folder; made if it is not there, and gone on from if it is.
        observe: told (phase, done, total) as the work goes on.
        on_round: told the number of each finished round and this client's own test accuracy, None if not measured.

    Attributes:
        account: of what has left this client under a claim of privacy.

    Raises:
        ConfigError: the client is not on the roster, or the folder belongs to something else.
    """

    def __init__(
        self,
        training: TrainingTerms,
        number: int,
        *,
        data: ClientData,
        carriage: Carriage,
        state: Path,
        observe: Observer | None = None,
        on_round: Callable[[int, float | None], None] | None = None,
    ) -> None:
        training.check_roster(carriage.roster)
        if not carriage.roster.holds(number, carriage.identity.public_key):
            raise ConfigError(f"member is {number}, but the roster has another key under this number")
        self._training = training
        self._number = number
        self._carriage = carriage
        self._consents = Consents(state / "consents")
        self._conversation = Conversation(self._consents)
        self.account = Account(training, state)
        self._channel = MemberChannel(
            training.protocol,
            training.config.data.clients,
            member=number,
            conversation=self._conversation,
            releases=self.account.releases,
        )
        federation = Federation.of_some(
            training.config,
            images=training.images,
            channel=self._channel,
            clients={number: data.train},
            holds_server=False,
        )
        if observe:
            federation.observe = observe
        test = data.test.normalised(training.images.mean, training.images.std), data.test.labels
        self._test = test[0].to(federation.device), test[1].to(federation.device)
        self._method = CoDream(federation)
        self._states = States(state, training, party=f"member {number}")
        self._on_round = on_round or (lambda number, accuracy: None)
        self._rows: list[dict[str, Any]] = []
        self._round = -1
        """The latest that is finished."""
        self._touched = False
        """Whether the method may have moved on from there."""

    @property
    def finished(self) -> int:
        """The latest round that this client has finished; 0 after the warm-up, -1 before."""
        return self._round

    def run(self, until: int | None = None) -> list[dict[str, Any]]:
        """Take part until training is over, or as far as what is carried goes.

        Args:
            until: leave when this round is finished, as programs do that are started anew for every round.

        Returns:
            A row for every round that this client has finished.

        Raises:
            RefusedError: the server does not let this client in.
            UnreachableError: it cannot be reached for too long.
            ConfigError: the server has other terms.
            DesyncError: it does something else than its terms say.
            CheckpointError: this folder's states are not of the training that goes on, or its account is gone.
            BudgetExceededError: the server asks for more than the privacy budget allows.
            StorageError: its folder cannot be written.
        """
        self._restore()
        _LOG.info("member %d goes on from round %d", self._number, self._round, extra={"member": self._number})
        with self._carriage.carry(self._member, self._conversation, folder=self._states.folder):
            self._take_part(self._training.config.run.rounds if until is None else until)
        return self._rows

    def _restore(self) -> None:
        """Where the folder says that this client is; the warm-up is where everybody begins."""
        latest = self._states.latest
        if latest < 0:
            self.account.open(None)
            self._method.warm_up()
            self._keep(0, {})
            return
        saved = self._states.load(latest)
        self.account.open(saved.get("privacy"))
        self._method.load_state_dict(saved["method"])
        self._rows, self._round = saved["rows"], latest

    def _take_part(self, until: int) -> None:
        while True:
            event = self._conversation.next()
            match event:
                case Began():
                    try:
                        self._enter(self._heading())
                    except PausedError:
                        return
                    except RoundLostError as error:
                        _LOG.warning(
                            "member %d goes back to round %d: %s",
                            *(self._number, self._round, error),
                            extra={"member": self._number, "round": self._round},
                        )
                case Paused():
                    return
                case Ended(reason) if reason == OVER or (reason == FINISHED and self._round >= until):
                    return
                case Gone(error):
                    if self._round >= until:
                        _LOG.warning("round %d is finished; that it is over was never heard: %s", self._round, error)
                        return
                    raise error or DesyncError("the stream ended")
                case Question():
                    event.answer.set_result(None)
                    raise DesyncError(f"the server asks for {event.asked.stream!r} when nothing was to be asked")
                case Shown():
                    raise DesyncError(f"the server shows {event.phase!r} when nothing was to be shown")
                case _:
                    pass

    def _heading(self) -> Heading:
        heading = read_heading(self._conversation.show())
        if heading.digest != self._training.digest:
            raise ConfigError(
                "the server goes by other terms of training than this client: compare the files (and --set) with "
                "whoever runs it"
            )
        if heading.number > self._training.config.run.rounds:
            raise DesyncError(f"the server begins round {heading.number} of {self._training.config.run.rounds}")
        return heading

    def _enter(self, heading: Heading) -> None:
        """Take part in a round, from where this client has to be for it.

        Raises:
            RoundLostError: it broke off.
            CheckpointError: this client cannot get there.
        """
        number = heading.number
        buffer = self._conversation.show() if heading.with_buffer else None
        before = min(self._states.latest, number - 1)
        if self._touched or self._round != before:
            saved = self._states.load(before)
            self._method.load_state_dict(saved["method"])
            self._rows, self._round = saved["rows"], before
        self._touched = True
        if before < number - 1:
            if buffer is None:
                raise CheckpointError(
                    f"the server begins round {number} and this client's folder has got to round {before}: the server "
                    "believes that it has taken part in between; restore a newer copy of the folder"
                )
            _LOG.warning("rounds %d to %d were missed; the buffer is taken over", before + 1, number - 1)
            self._take_over(buffer)
        self._conversation.enter(number, base=before, buffer=buffer if before < number - 1 else None)
        self._channel.begin_round(number)
        figures = self._method.run_round(number)
        row: dict[str, Any] = {name: value for name, value in figures.items() if math.isfinite(value)}
        measured, accuracy = is_measured(self._training.config, number), None
        if measured:
            row["test_accuracy"] = accuracy = accuracy_of(self._method.models()[0], self._test)
        # Before the sum of accuracies: whoever has answered that, where it is asked for, has finished the round.
        self._keep(number, row)
        if measured and is_shared(self._training.config):
            mean_accuracy(
                self._channel,
                {self._number: accuracy},
                bound=self._training.config.protocol.clip.counts,
                device=self._method.federation.device,
            )
        _LOG.info("round %d is finished", number, extra={"round": number, "member": self._number})
        self._on_round(number, row.get("test_accuracy"))

    def _take_over(self, shown: Shown) -> None:
        """Learn from the dreams that the others learn from.

        Raises:
            DesyncError: they are not of the shapes that these terms give.
        """
        facts, device = self._training.images, self._method.federation.device
        found = [(array.shape, array.dtype.name) for array in shown.tensors]
        length = found[0][0][0] if found and found[0][0] else 0
        expected = [
            ((length, facts.channels, *facts.image_size), "float32"),
            ((length, facts.num_classes), "float32"),
        ]
        if shown.phase != BUFFER or found != expected or not 0 < length <= self._method.buffer.capacity:
            raise DesyncError(
                f"the server shows {shown.phase!r} of {found}, where a buffer of at most "
                f"{self._method.buffer.capacity} dreams was to come: it does not follow these terms of training"
            )
        images, labels = (torch.from_numpy(array.copy()).to(device) for array in shown.tensors)
        self._method.buffer.load_state_dict({"images": images, "labels": labels})

    def _keep(self, number: int, row: Mapping[str, Any]) -> None:
        self._rows.append({"round": number, **row})
        self._states.save(
            number, {"method": self._method.state_dict(), "rows": self._rows, "privacy": self.account.state()}
        )
        # What is masked may be opened still, when the state that it follows from is gone.
        oldest = self._conversation.oldest
        self._consents.forget(self._states.oldest if oldest is None else min(oldest, self._states.oldest))
        with writing(self._states.folder):
            write_jsonl(self._states.folder / "metrics.jsonl", self._rows, mode=PRIVATE)
        self._round, self._touched = number, False

    def _member(self, log: RoundLog) -> TalkingMember:
        carriage = self._carriage
        return TalkingMember(
            self._number,
            self._conversation,
            protocol=self._training.protocol,
            terms=self._training.sums,
            on_masking=self.account.spend,
            credentials=Credentials(identity=carriage.identity, roster=carriage.roster, rounds=log),
        )
