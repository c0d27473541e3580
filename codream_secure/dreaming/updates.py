"""From a gradient to a step: what a client sends, and how the server moves the dreams with the mean of it.

A client sends either the gradient of its loss (one local step) or, after M > 1 local steps, the pseudo-gradient
x - x_M (Reddi et al. 2021). The server's optimisers are torch's own, fed with the mean as if it were a gradient:

=========  ==========================================================================================
adam       Adam on mean gradients: DistAdam of CoDream
fedavg     plain averaging: x moves by the mean update times ``lr`` (1.0 makes it the clients' mean dreams)
fedadam    Adam on mean pseudo-gradients with a large epsilon, after Reddi et al. 2021 (algorithm 2, tau = 1e-3);
           torch's Adam corrects the bias of its moments, which theirs does not
=========  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

ServerOptimizerName = Literal["adam", "fedavg", "fedadam"]
LocalOptimizerName = Literal["adam", "sgd"]
_FEDADAM_TAU = 1e-3


def local_update(
    gradient: Callable[[torch.Tensor], torch.Tensor],
    dreams: torch.Tensor,
    *,
    steps: int,
    lr: float,
    optimizer: LocalOptimizerName = "adam",
) -> torch.Tensor:
    """What one client contributes to one global step.

    Args:
        gradient: the client's gradient at given dreams.
        dreams: (n, C, H, W) float32; left unchanged.
        steps: M >= 1 local steps. One means the bare gradient, and ``lr`` and ``optimizer`` are not used.
        lr: local learning rate, in normalised pixels for Adam.
        optimizer: the local optimiser; it starts afresh at every call.

    Returns:
        The gradient, or x - x_M; same shape as ``dreams``.
    """
    if steps == 1:
        return gradient(dreams)
    moving = dreams.detach().clone()
    local = torch.optim.Adam([moving], lr=lr) if optimizer == "adam" else torch.optim.SGD([moving], lr=lr)
    for _ in range(steps):
        moving.grad = gradient(moving)
        local.step()
    return dreams - moving


class ServerOptimizer:
    """Moves one batch of dreams; its state lasts for as long as the batch does, whatever is labelled in between.

    Args:
        dreams: (n, C, H, W) float32, the starting point; copied.
        name: see the module's table.
        lr: server learning rate.
        betas: Adam's decay rates.
    """

    def __init__(
        self,
        dreams: torch.Tensor,
        *,
        name: ServerOptimizerName = "adam",
        lr: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self.dreams = dreams.detach().clone()
        self._optimizer: torch.optim.Optimizer
        if name == "fedavg":
            self._optimizer = torch.optim.SGD([self.dreams], lr=lr)
        else:
            eps = _FEDADAM_TAU if name == "fedadam" else 1e-8
            self._optimizer = torch.optim.Adam([self.dreams], lr=lr, betas=betas, eps=eps)

    def step(self, update: torch.Tensor) -> None:
        """Move the dreams by one mean update of their shape."""
        self.dreams.grad = update
        self._optimizer.step()
        self.dreams.grad = None
