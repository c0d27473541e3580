from __future__ import annotations

import pytest
import torch

from attacks.reconstruction.aggregate_difference import AdamState, invert_step, invert_trajectory, others_sum
from codream_secure.dreaming.updates import ServerOptimizer, ServerOptimizerName

STEPS = 12


def trajectory(
    name: ServerOptimizerName, lr: float, *, size: float = 0.02
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Broadcasts and the means that moved them: gradients that turn slowly, as those of dreams do."""
    generator = torch.Generator().manual_seed(3)
    base, drift, start = torch.randn((3, 16, 1, 8, 8), generator=generator)
    server = ServerOptimizer(start, name=name, lr=lr)
    dreams, means = [server.dreams.clone()], []
    for step in range(STEPS):
        means.append(size * (base + 0.03 * step * drift))
        server.step(means[-1])
        dreams.append(server.dreams.clone())
    return dreams, means


def distances(found: torch.Tensor, other: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    return torch.minimum((found - true).abs(), (other - true).abs())


def test_the_rest_of_a_sum_is_what_the_others_sent() -> None:
    generator = torch.Generator().manual_seed(0)
    sent = torch.randn((5, 4, 1, 8, 8), generator=generator)
    rest = others_sum(sent.double().mean(0), list(sent[:4]), clients=5)
    torch.testing.assert_close(rest, sent[4].double(), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="5 contributions of 5 clients"):
        others_sum(sent.mean(0), list(sent), clients=5)


def test_plain_averaging_shows_every_mean_to_rounding() -> None:
    dreams, means = trajectory("fedavg", 1.0)
    for step, mean in zip(invert_trajectory(dreams, optimizer="fedavg", lr=1.0), means, strict=True):
        assert ((step.gradient - mean).abs() <= step.uncertainty * (1 + 1e-6)).all()
        assert (step.gradient - mean).norm() < 1e-5 * mean.norm()


@pytest.mark.parametrize("name", ["adam", "fedadam"])
def test_adam_is_inverted_to_float32_by_one_that_knows_its_state(name: ServerOptimizerName) -> None:
    dreams, means = trajectory(name, 0.05)
    state = AdamState.fresh(dreams[0])
    unambiguous = []
    for number, mean in enumerate(means):
        if number >= 2:  # before, a step says little about the size; see the next tests
            step = invert_step(dreams[number], dreams[number + 1], optimizer=name, lr=0.05, state=state)
            apart = distances(step.gradient, step.alternative, mean)
            assert (apart / mean.abs()).median() < 3e-5
            sharp = step.uncertainty < 1e-3 * mean.abs()
            assert sharp.double().mean() > 0.8
            # Rounding within torch's own float32 Adam comes on top of that of the dreams.
            assert (apart[sharp] <= 30 * step.uncertainty[sharp] + 1e-6 * mean[sharp].abs()).double().mean() > 0.99
            unambiguous.append(((step.gradient - mean).abs() < 1e-3 * mean.abs()).double().mean())
        state = state.after(mean)
    assert min(unambiguous[4:]) > 0.9


def test_fedadam_shows_sizes_from_the_first_step() -> None:
    dreams, means = trajectory("fedadam", 0.05)
    first = invert_trajectory(dreams[:2], optimizer="fedadam", lr=0.05)[0]
    assert (first.gradient - means[0]).norm() < 1e-3 * means[0].norm()


def test_adam_hides_the_sizes_but_not_the_signs_of_a_first_step() -> None:
    dreams, means = trajectory("adam", 0.05, size=10.0)
    first = invert_trajectory(dreams[:2], optimizer="adam", lr=0.05)[0]
    assert torch.equal(first.gradient.sign(), means[0].double().sign())
    assert (first.uncertainty > 0.5 * first.gradient.abs()).double().mean() > 0.95


def test_adam_moves_alike_under_gradients_a_constant_larger() -> None:
    """Why the sizes above are hidden: it is Adam's own property, not a weakness of the inversion."""
    small, _ = trajectory("adam", 0.05, size=1.0)
    large, _ = trajectory("adam", 0.05, size=100.0)
    torch.testing.assert_close(small[-1], large[-1], rtol=0, atol=1e-5)


def test_steps_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="give two broadcasts"):
        invert_step(torch.zeros(2, 1, 8, 8), torch.zeros(3, 1, 8, 8), optimizer="fedavg", lr=1.0)
