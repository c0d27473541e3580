"""A server and clients that are made anew for every message, and the same training in one process beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from codream_secure.deployment.client_data import load_client_data
from codream_secure.deployment.coordinator import Coordinator, Row, Waits
from codream_secure.deployment.learner import Learner
from codream_secure.deployment.messages import MessageAggregator
from codream_secure.deployment.messages.respondent import Delivered, Respondent
from codream_secure.deployment.streams import Limits
from codream_secure.deployment.training import TrainingTerms, make_training
from codream_secure.runs import run
from protocols import Identity, Roster

TERMS: dict[str, Any] = {
    "data": {"clients": 3, "samples_per_client": 20, "validation_samples": 0},
    "model": {"clients": ["small_cnn", "mlp", "mlp"], "server": "mlp"},
    "local": {"warmup_epochs": 1, "epochs": 1},
    "dreaming": {"images": 8, "steps": 3, "local_steps": 2, "labels": "probabilities", "label_midway": True},
    "distillation": {"epochs": 1, "cutmix": 1, "buffer": 64},
    "protocol": {"protection": "masked", "dropout": 0.34, "corruption": 0.25},
    "run": {"rounds": 2, "evaluate_every": 2},
    "images": {"classes": 10, "channels": 1, "height": 8, "width": 8, "mean": [0.3053], "std": [0.3760]},
}
Packets = Mapping[int, bytes]
Meddle = Callable[[int, bytes, Callable[[bytes], bytes]], bytes | None]


class Cohort:
    """Keys and folders of all parties, and the office between them.

    Attributes:
        sent: every packet, with its member, in order.
        learners: how many learners were made, by member.
        meddle: given a member, its packet and what delivers it; gives the reply, None for none.
    """

    def __init__(self, folder: Path, **changes: dict[str, Any]) -> None:
        self.folder = folder
        self.training: TrainingTerms = make_training(
            {name: {**TERMS.get(name, {}), **changes.get(name, {})} for name in TERMS | changes}
        )
        self.identities = [Identity.generate() for _ in range(self.training.config.data.clients)]
        self.roster = Roster({number: identity.public_key for number, identity in enumerate(self.identities)})
        self.sent: list[tuple[int, bytes]] = []
        self.learners = dict.fromkeys(range(len(self.identities)), 0)
        self.away: set[int] = set()
        self.limits = Limits()
        self.meddle: Callable[[int, bytes, Callable[[bytes], bytes]], bytes | None] = lambda _, packet, send: send(
            packet
        )

    def client(self, number: int) -> Respondent:
        """One that has just been started."""

        def make_learner(carriage: Delivered) -> Learner:
            self.learners[number] += 1
            data = load_client_data("digits", self.training, part=number)
            return Learner(self.training, number, data=data, carriage=carriage, state=self.folder / f"client{number}")

        return Respondent(
            self.training,
            number,
            identity=self.identities[number],
            roster=self.roster,
            state=self.folder / f"client{number}",
            make_learner=make_learner,
            limits=self.limits,
        )

    # The office

    def members(self) -> frozenset[int]:
        return frozenset(self.learners) - self.away

    def exchange(self, packets: Packets, *, timeout_s: float) -> dict[int, bytes]:
        assert timeout_s > 0
        replies = {}
        for member, packet in packets.items():
            self.sent.append((member, packet))
            if member in self.away:
                continue
            reply = self.meddle(member, packet, lambda content, member=member: self.client(member).answer(content))
            if reply is not None:
                replies[member] = reply
        return replies

    # The server

    def serve(self, coordinators: list[Coordinator] | None = None) -> list[Row]:
        """Run what is left of the training; whoever runs it is added to the list."""
        waits = Waits(join=0.1, reconnect=0.1, patience=0.1)
        aggregator = MessageAggregator(
            self,
            protocol=self.training.protocol,
            terms=self.training.sums,
            roster=self.roster,
            deadlines=waits.deadlines(),
            limits=self.limits,
        )
        with aggregator:
            coordinator = Coordinator(self.training, aggregator, state=self.folder / "server", waits=waits)
            if coordinators is not None:
                coordinators.append(coordinator)
            return coordinator.run()

    def state(self, party: str, number: int) -> dict[str, Any]:
        path = self.folder / party / f"round_{number:06d}.pt"
        state: dict[str, Any] = torch.load(path, weights_only=True)["method"]
        return state

    def in_one_process(self) -> dict[str, Any]:
        out = self.folder / "in_one_process"
        run(self.training.config, out=out)
        state: dict[str, Any] = torch.load(out / "checkpoint.pt", weights_only=True)["method"]
        return state


@pytest.fixture
def make_cohort(tmp_path: Path) -> Callable[..., Cohort]:
    made: list[Cohort] = []

    def make(**changes: dict[str, Any]) -> Cohort:
        folder = tmp_path / str(len(made))
        folder.mkdir(mode=0o700)
        made.append(Cohort(folder, **changes))
        return made[-1]

    return make
