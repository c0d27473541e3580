"""What a client and its colluders learn from a sum that they are part of: the sum of everybody else.

Secure aggregation hides summands, not sums. A client that sees a mean takes its own and its colluders' contributions
off and holds the others' sum, to the last bit of the encoding; with K - 1 colluders that is one client's own update.

Some clients see the mean itself (they open it, or a broadcast carries it); the others see the dreams that the server
moved by it. A step of plain averaging shows the mean at once. A step of Adam shows it less well:

- Adam divides a gradient by its own root mean square: but for epsilon, dreams move alike if all gradients of one
  coordinate are multiplied by a constant. Seen from the first step on, a coordinate's gradients are known up to that
  constant, which only epsilon betrays, and at epsilon = 1e-8 mostly below float32's resolution. (At FedAdam's 1e-3 it
  is betrayed.) An adversary that once saw a mean, or the moments, knows the constant and all later means.
- As a function of the gradient a step rises, turns and falls: two gradients can have made the same one. The one nearer
  to the last gradient is taken; gradients that grow suddenly are mistaken.

Each answer comes with what the rounding of dreams to float32 leaves open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from codream_secure.dreaming.updates import ServerOptimizerName

_EPSILON = {"adam": 1e-8, "fedadam": 1e-3}


@dataclass(frozen=True, kw_only=True, eq=False)
class AdamState:
    """Adam's memory after some steps.

    Attributes:
        step: how many were taken.
        first: running mean of gradients, float64, of the dreams' shape.
        second: running mean of their squares.
        last: the latest gradient, or what one takes it for; it is not Adam's, but tells roots apart.
    """

    step: int
    first: torch.Tensor
    second: torch.Tensor
    last: torch.Tensor

    @classmethod
    def fresh(cls, dreams: torch.Tensor) -> AdamState:
        """Before the first step."""
        nothing = torch.zeros_like(dreams, dtype=torch.float64)
        return cls(step=0, first=nothing, second=nothing, last=nothing)

    def after(self, gradient: torch.Tensor, *, betas: tuple[float, float] = (0.9, 0.999)) -> AdamState:
        """With one more gradient, for an adversary that knows it."""
        new = gradient.double()
        return AdamState(
            step=self.step + 1,
            first=betas[0] * self.first + (1 - betas[0]) * new,
            second=betas[1] * self.second + (1 - betas[1]) * new.square(),
            last=new,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class InvertedStep:
    """The mean update behind one step.

    Attributes:
        gradient: float64, of the dreams' shape.
        alternative: the other gradient that would have made the same step; the same where there is none.
        uncertainty: what float32's rounding of the dreams leaves open, of the same shape, to first order; infinite
            where the size is not determined (its sign then is). Errors of the state handed in come on top.
        state: Adam's memory after the step; None for plain averaging.
    """

    gradient: torch.Tensor
    alternative: torch.Tensor
    uncertainty: torch.Tensor
    state: AdamState | None


def others_sum(mean: torch.Tensor, own: Sequence[torch.Tensor], *, clients: int) -> torch.Tensor:
    """The sum of all contributions but one's own and one's colluders', in float64.

    Exact but for the rounding of the encoding and of the mean, which is ``clients`` times that of the mean.

    Args:
        mean: the unweighted mean over all clients, as it was opened or inverted.
        own: contributions of the adversary and its colluders, of the same shape.
        clients: K, how many are in the mean.

    Raises:
        ValueError: nobody else is in the mean.
    """
    if len(own) >= clients:
        raise ValueError(f"own has {len(own)} contributions of {clients} clients: nobody else is in the mean")
    rest = mean.double() * clients
    for contribution in own:
        rest = rest - contribution.double()
    return rest


def invert_step(
    before: torch.Tensor,
    after: torch.Tensor,
    *,
    optimizer: ServerOptimizerName,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    state: AdamState | None = None,
) -> InvertedStep:
    """The mean update that moved the dreams, given the server's public settings.

    Args:
        before: (n, C, H, W) float32, dreams of one broadcast.
        after: those of the next.
        optimizer: the server's.
        lr: its learning rate.
        betas: of its Adam.
        state: Adam's memory before the step, as far as it is known; None at the first.

    Raises:
        ValueError: the dreams' shapes differ.
    """
    if before.shape != after.shape:
        raise ValueError(f"before has shape {tuple(before.shape)} and after {tuple(after.shape)}: give two broadcasts")
    moved = before.double() - after.double()
    rounding = _half_ulp(after) + _half_ulp(lr * torch.ones_like(after))
    if optimizer == "fedavg":
        gradient = moved / lr
        return InvertedStep(gradient=gradient, alternative=gradient, uncertainty=rounding / lr, state=None)
    known = AdamState.fresh(before) if state is None else state
    epsilon = _EPSILON[optimizer]
    time = known.step + 1
    corrected = (1 - betas[0] ** time) / lr
    ratio, resolution = moved * corrected, rounding * corrected
    gradient, alternative = _solve(ratio, resolution, known, betas=betas, epsilon=epsilon)
    uncertainty = resolution / _sensitivity(gradient, known, betas=betas, epsilon=epsilon).abs()
    undetermined = ~gradient.isfinite()
    uncertainty = torch.where(undetermined | ~uncertainty.isfinite(), torch.inf, uncertainty)
    return InvertedStep(
        gradient=gradient, alternative=alternative, uncertainty=uncertainty, state=known.after(gradient, betas=betas)
    )


def invert_trajectory(
    dreams: Sequence[torch.Tensor],
    *,
    optimizer: ServerOptimizerName,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    state: AdamState | None = None,
) -> list[InvertedStep]:
    """The mean updates behind successive broadcasts, one fewer than there are; arguments as for :func:`invert_step`."""
    steps: list[InvertedStep] = []
    for before, after in pairwise(dreams):
        steps.append(invert_step(before, after, optimizer=optimizer, lr=lr, betas=betas, state=state))
        state = steps[-1].state
    return steps


def _solve(
    ratio: torch.Tensor, resolution: torch.Tensor, state: AdamState, *, betas: tuple[float, float], epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients g with (b1 m + (1 - b1) g) = ratio (sqrt((b2 v + (1 - b2) g^2) / c) + epsilon).

    Squared, that is a quadratic in g whose roots on the wrong side of zero are no solutions. The first of the two that
    are returned is the nearer to the last gradient; where there is one solution they are the same.
    """
    time = state.step + 1
    correction = 1 - betas[1] ** time
    mean_part, new_share = betas[0] * state.first, 1 - betas[0]
    square_part, square_share = betas[1] * state.second / correction, (1 - betas[1]) / correction
    if state.step == 0:
        # ratio / (1 - b1) = g / (|g| + epsilon): where that is 1, to the resolution, the size is left open.
        share = ratio.abs() / new_share
        size = epsilon * share / torch.maximum(1 - share, resolution / new_share)
        return ratio.sign() * size, ratio.sign() * size
    offset = mean_part - ratio * epsilon
    a = new_share**2 - ratio.square() * square_share
    b = new_share * offset
    c = offset.square() - ratio.square() * square_part
    # Where rounding makes the discriminant negative the step was at its turning point, and both roots are one.
    root = (b.square() - a * c).clamp_min(0).sqrt()
    # The stable form: no difference of nearly equal numbers.
    q = -(b + torch.where(b >= 0, root, -root))
    candidates = torch.stack([q / a, c / q])
    valid = (offset + new_share * candidates) * ratio >= 0
    distance = torch.where(valid & candidates.isfinite(), (candidates - state.last).abs(), torch.inf)
    nearer = distance.argmin(0, keepdim=True)
    chosen, other = candidates.gather(0, nearer)[0], candidates.gather(0, 1 - nearer)[0]
    chosen = torch.where(distance.amin(0).isfinite(), chosen, -mean_part / new_share)
    return chosen, torch.where(distance.amax(0).isfinite(), other, chosen)


def _sensitivity(
    gradient: torch.Tensor, state: AdamState, *, betas: tuple[float, float], epsilon: float
) -> torch.Tensor:
    """d ratio / d gradient."""
    correction = 1 - betas[1] ** (state.step + 1)
    numerator = betas[0] * state.first + (1 - betas[0]) * gradient
    if state.step == 0:
        return (1 - betas[0]) * epsilon / (gradient.abs() + epsilon).square()
    size = ((betas[1] * state.second + (1 - betas[1]) * gradient.square()) / correction).sqrt()
    slope = (1 - betas[1]) * gradient / (correction * size)
    return (1 - betas[0]) / (size + epsilon) - numerator * slope / (size + epsilon).square()


def _half_ulp(values: torch.Tensor) -> torch.Tensor:
    """Half the distance from each float32 to the next, in float64."""
    single = values.float().abs()
    return (torch.nextafter(single, torch.full_like(single, torch.inf)) - single).double() / 2
