"""Centralised training: all images in one place. The ceiling of every comparison, with no privacy at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from codream_secure.client import Client
from codream_secure.config import Config
from codream_secure.federation import Federation
from codream_secure.methods.base import Method


class Centralised(Method):
    """One model per architecture in the cohort, each trained on the pooled images for the same number of epochs.

    The images that every client would have to send, float32 as they are trained on, are counted as its bytes up; the
    finished model's way back is not counted.
    """

    name: ClassVar[str] = "centralised"
    summary: ClassVar[str] = "all images pooled at the server"

    @classmethod
    def obstacle(cls, config: Config) -> str | None:
        return "pools the images in clear, whatever dp.unit says" if config.dp.on else None

    def __init__(self, federation: Federation) -> None:
        super().__init__(federation)
        clients = federation.clients
        images = torch.cat([client.images for client in clients])
        labels = torch.cat([client.labels for client in clients])
        # The first client of each architecture lends its initial weights, so that all methods start alike.
        self._pools: dict[str, Client] = {}
        for client in clients:
            self._pools.setdefault(
                client.architecture,
                Client(client.number, client.architecture, model=client.model, images=images, labels=labels),
            )

    def warm_up(self) -> None:
        for client in self.federation.clients:
            size = sum(t.numel() * t.element_size() for t in (client.images, client.labels))
            self.federation.channel.ledger.add_up(client.number, "raw_images", size)
        for pool in self._pools.values():
            self.federation.train_locally(pool, epochs=self.config.local.warmup_epochs, place="warm-up", number=0)

    def run_round(self, number: int) -> dict[str, float]:
        losses = [
            self.federation.train_locally(pool, epochs=self.config.local.epochs, place="local", number=number)
            for pool in self._pools.values()
        ]
        return {"local_loss": sum(losses) / len(losses)}

    def models(self) -> list[nn.Module]:
        return [self._pools[client.architecture].model for client in self.federation.clients]

    def state_dict(self) -> dict[str, Any]:
        return {name: pool.model.state_dict() for name, pool in self._pools.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, pool in self._pools.items():
            pool.model.load_state_dict(state[name])
