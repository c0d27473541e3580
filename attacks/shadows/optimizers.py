"""torch's SGD and Adam for the rows of a matrix: one model a row, each with its own step count and learning rate."""

from __future__ import annotations

from typing import Protocol

import torch

from codream_secure.training import Optimization


class RowOptimizer(Protocol):
    """Moves rows of the weights that it was made with."""

    def step(self, gradient: torch.Tensor, rows: torch.Tensor | None) -> None:
        """One step of the rows named (None: all), by (m, P) gradients, which are overwritten."""


def make_optimizer(optimization: Optimization, weights: torch.Tensor, steps: torch.Tensor) -> RowOptimizer:
    """A fresh optimiser.

    Args:
        optimization: which, and its settings.
        weights: (M, P), moved in place.
        steps: (M,) how many steps each row will take in all, for the cosine.
    """
    kind = _Adam if optimization.optimizer == "adam" else _Sgd
    return kind(optimization, weights, steps)


class _Rows:
    """What both have in common: the rates, and reading and writing some of the rows."""

    def __init__(self, optimization: Optimization, weights: torch.Tensor, steps: torch.Tensor) -> None:
        self.settings = optimization
        self.weights = weights
        self._steps = steps.to(torch.float64)
        self.done = torch.zeros(len(weights), dtype=torch.float64)
        """Steps that each row has taken."""

    def rates(self, rows: torch.Tensor | None) -> torch.Tensor:
        """(m, 1) learning rates of the coming step."""
        done, steps = self.done, self._steps
        if rows is not None:
            done, steps = done[rows], steps[rows]
        rates = torch.full_like(done, self.settings.lr)
        if self.settings.schedule == "cosine":
            rates *= (1 + torch.cos(torch.pi * done / steps)) / 2
        return rates[:, None].to(self.weights)


class _Sgd(_Rows):
    def __init__(self, optimization: Optimization, weights: torch.Tensor, steps: torch.Tensor) -> None:
        super().__init__(optimization, weights, steps)
        self._momenta = torch.zeros_like(weights)

    @torch.no_grad()
    def step(self, gradient: torch.Tensor, rows: torch.Tensor | None) -> None:
        settings = self.settings
        rates = self.rates(rows)
        constant = settings.schedule == "constant"
        if rows is None:
            gradient.add_(self.weights, alpha=settings.weight_decay)
            self._momenta.mul_(settings.momentum).add_(gradient)
            if constant:
                self.weights.sub_(self._momenta, alpha=settings.lr)
            else:
                self.weights.sub_(self._momenta * rates)
            self.done += 1
            return
        weights = self.weights[rows]
        momenta = self._momenta[rows].mul_(settings.momentum)
        momenta.add_(gradient.add_(weights, alpha=settings.weight_decay))
        self._momenta[rows] = momenta
        self.weights[rows] = weights.sub_(momenta.mul_(rates))
        self.done[rows] += 1


class _Adam(_Rows):
    betas, eps = (0.9, 0.999), 1e-8

    def __init__(self, optimization: Optimization, weights: torch.Tensor, steps: torch.Tensor) -> None:
        super().__init__(optimization, weights, steps)
        self._first, self._second = torch.zeros_like(weights), torch.zeros_like(weights)

    @torch.no_grad()
    def step(self, gradient: torch.Tensor, rows: torch.Tensor | None) -> None:
        chosen: slice | torch.Tensor = slice(None) if rows is None else rows
        rates = self.rates(rows)
        self.done[chosen] += 1
        done = self.done[chosen][:, None]
        weights = self.weights[chosen]
        gradient.add_(weights, alpha=self.settings.weight_decay)
        first = self._first[chosen] * self.betas[0] + gradient * (1 - self.betas[0])
        second = self._second[chosen] * self.betas[1] + gradient.square_() * (1 - self.betas[1])
        self._first[chosen], self._second[chosen] = first, second
        corrections = [(1 - beta**done).to(weights) for beta in self.betas]
        spread = (second.sqrt() / corrections[1].sqrt()).add_(self.eps)
        self.weights[chosen] = weights - rates / corrections[0] * first / spread
