"""FedAvg (McMahan et al. 2017, algorithm 1): clients train one shared model, the server averages its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from codream_secure.config import Config
from codream_secure.federation import Federation
from codream_secure.methods.base import Method


class FedAvg(Method):
    """Full participation; batch-norm statistics are averaged along with the weights.

    The warm-up epochs are FedAvg's first round: it trains as many local epochs in all as every other method.
    """

    name: ClassVar[str] = "fedavg"
    summary: ClassVar[str] = "weights averaged every round"

    def __init__(self, federation: Federation) -> None:
        super().__init__(federation)
        self._global = federation.new_model(federation.clients[0].architecture, "client", 0)

    @classmethod
    def obstacle(cls, config: Config) -> str | None:
        if config.dp.on:
            return "averages weights, for which there is no private form here (dp.unit)"
        different = len({config.model.architecture(client) for client in range(config.data.clients)})
        return f"needs one architecture, the clients have {different}" if different > 1 else None

    def warm_up(self) -> None:
        self._hand_out(self.federation.channel.broadcast(averaged_tensors(self._global), phase="weights"))
        self._train_and_average(self.config.local.warmup_epochs, place="warm-up", number=0)

    def run_round(self, number: int) -> dict[str, float]:
        return {"local_loss": self._train_and_average(self.config.local.epochs, place="local", number=number)}

    def _train_and_average(self, epochs: int, *, place: str, number: int) -> float:
        federation = self.federation
        losses, updates = [], {}
        for client in federation.clients:
            losses.append(federation.train_locally(client, epochs=epochs, place=place, number=number))
            updates[client.number] = averaged_tensors(client.model)
        weights = {c.number: len(c.images) for c in federation.clients} if self.config.fedavg.weighted else None
        write_tensors(self._global, federation.channel.mean(updates, phase="weights", weights=weights))
        self._hand_out(federation.channel.share(averaged_tensors(self._global), phase="weights"))
        return sum(losses) / len(losses)

    def _hand_out(self, received: list[torch.Tensor]) -> None:
        """Every client takes over the global model: before the first round, and after each."""
        for client in self.federation.clients:
            write_tensors(client.model, received)

    def server_model(self) -> nn.Module | None:
        return None if self.federation.channel.opened_by_clients else self._global

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "global": self._global.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._global.load_state_dict(state["global"])


def averaged_tensors(model: nn.Module) -> list[torch.Tensor]:
    """Everything of a model that has a mean: parameters and floating-point buffers, not batch counters."""
    return [tensor.detach() for tensor in model.state_dict().values() if tensor.is_floating_point()]


def write_tensors(model: nn.Module, tensors: list[torch.Tensor]) -> None:
    """Put back what :func:`averaged_tensors` read, in its order."""
    with torch.no_grad():
        for target, value in zip(averaged_tensors(model), tensors, strict=True):
            target.copy_(value)
