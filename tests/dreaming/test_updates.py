"""Local and server steps against hand-written optimisers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codream_secure.dreaming import ServerOptimizer, local_update

SHAPE = (3, 1, 4, 4)


def random(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def adam(start: np.ndarray, gradients: list[np.ndarray], *, lr: float, eps: float) -> np.ndarray:
    """Kingma and Ba 2015, algorithm 1."""
    x, m, v = start.astype(np.float64), 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        x = x - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps)
    return x


@pytest.mark.parametrize(("name", "eps"), [("adam", 1e-8), ("fedadam", 1e-3)])
def test_server_adam_is_adam(name: str, eps: float) -> None:
    gradients = [1e-3 * random(seed) for seed in range(1, 6)]
    server = ServerOptimizer(random(0), name=name, lr=0.05)
    for gradient in gradients:
        server.step(gradient)
    expected = adam(random(0).numpy(), [g.numpy() for g in gradients], lr=0.05, eps=eps)
    np.testing.assert_allclose(server.dreams.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_server_fedavg_with_lr_one_is_the_mean_of_the_clients_dreams() -> None:
    start, moved = random(0), [random(1), random(2)]
    server = ServerOptimizer(start, name="fedavg", lr=1.0)
    server.step(torch.stack([start - each for each in moved]).mean(dim=0))
    torch.testing.assert_close(server.dreams, (moved[0] + moved[1]) / 2)


def test_the_server_owns_its_dreams() -> None:
    start = random(0)
    server = ServerOptimizer(start)
    server.step(random(1))
    assert torch.equal(start, random(0))


def test_one_local_step_is_the_bare_gradient() -> None:
    assert torch.equal(local_update(lambda x: 2 * x, random(0), steps=1, lr=9.0), 2 * random(0))


def test_local_sgd_steps_give_the_pseudo_gradient() -> None:
    # Gradient descent on ||x||^2 shrinks x by (1 - 2 lr) a step.
    update = local_update(lambda x: 2 * x, random(0), steps=3, lr=0.1, optimizer="sgd")
    torch.testing.assert_close(update, random(0) * (1 - 0.8**3))


def test_local_adam_steps_give_the_pseudo_gradient() -> None:
    update = local_update(lambda x: torch.ones_like(x), random(0), steps=4, lr=0.05, optimizer="adam")
    torch.testing.assert_close(update, torch.full(SHAPE, 0.2), rtol=1e-4, atol=1e-5)


def test_local_steps_matter_and_leave_the_dreams_alone() -> None:
    """In the published code the number of local steps had no effect."""
    dreams = random(0)
    updates = [local_update(lambda x: x**3, dreams, steps=steps, lr=0.05) for steps in (1, 2, 5)]
    assert torch.equal(dreams, random(0))
    assert not torch.allclose(updates[1], updates[2])
    assert not torch.allclose(updates[0], updates[1])
