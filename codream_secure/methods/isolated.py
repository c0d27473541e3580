"""Isolated training: every client learns from its own images only. The floor of every comparison."""

from __future__ import annotations

from typing import ClassVar

from codream_secure.methods.base import Method


class Isolated(Method):
    """The same local training as every other method, and nothing else."""

    name: ClassVar[str] = "isolated"
    summary: ClassVar[str] = "each client alone"

    def run_round(self, number: int) -> dict[str, float]:
        losses = [
            self.federation.train_locally(client, epochs=self.config.local.epochs, place="local", number=number)
            for client in self.federation.clients
        ]
        return {"local_loss": sum(losses) / len(losses)}
