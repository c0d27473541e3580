"""What every method is: something that changes the clients' models round by round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from codream_secure.config import Config
from codream_secure.federation import Federation


class Method(ABC):
    """One way for the clients of a federation to learn.

    A new method is one file: subclass this, implement :meth:`run_round`, and name it in
    :mod:`codream_secure.methods.registry`. The harness does the rest: evaluation, bytes, checkpoints, reports.

    A method keeps between rounds only what :meth:`state_dict` returns and draws randomness only from
    ``federation.generator(place...)`` and ``federation.train_locally``; then a resumed run ends with the same bits.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.config = federation.config

    @classmethod
    def obstacle(cls, config: Config) -> str | None:
        """Why this method cannot run that configuration, in a few words; None if it can."""
        return None

    def warm_up(self) -> None:
        """Before the first round; by default every client trains alone for the warm-up epochs."""
        clients = self.federation.clients
        for done, client in enumerate(clients):
            self.federation.observe("warm-up", done, len(clients))
            self.federation.train_locally(client, epochs=self.config.local.warmup_epochs, place="warm-up", number=0)

    @abstractmethod
    def run_round(self, number: int) -> dict[str, float]:
        """Round ``number``, from 1.

        Returns:
            Figures worth logging, by name, such as mean training losses. They are instruments of the experiment, like
            each client's own test accuracy: no party of a deployment sees them. What is not finite is not logged.
        """

    def models(self) -> list[nn.Module]:
        """The model that each client ends up with, in the order of the clients."""
        return [client.model for client in self.federation.clients]

    def dreams(self) -> torch.Tensor | None:
        """The latest dreams, (n, C, H, W) float32 in normalised pixel space, of a method that has any."""
        return None

    def dreamers(self) -> list[nn.Module]:
        """The models that dream in the place of the clients' own, of a method that has such."""
        return []

    def server_model(self) -> nn.Module | None:
        """The server's own model, of a method that has one beside the clients'."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values from which :meth:`load_state_dict` continues; by default the clients' models."""
        return {"clients": [client.model.state_dict() for client in self.federation.clients]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        for client, weights in zip(self.federation.clients, state["clients"], strict=True):
            client.model.load_state_dict(weights)


def mean_or_nan(values: Sequence[float]) -> float:
    """The mean of some figures, not a number where nobody who lives here has any."""
    return sum(values) / len(values) if values else float("nan")
