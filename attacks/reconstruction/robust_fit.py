"""Nonlinear least squares with outliers: Levenberg-Marquardt steps, reweighted towards least absolute deviations.

Networks of rectifiers and max-pools are smooth but for kinks. Away from the truth, a few units sit on the wrong side of
theirs, and the gradients that pass through those are far off however near the unknowns are. Plain least squares bends
everything to please them and stalls; absolute deviations leave them aside until they are right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.func import jvp, vmap

Residual = Callable[[torch.Tensor], torch.Tensor]
Progress = Callable[[int, float], None]

_SHRINK, _GROW, _TRIES = 5.0, 4.0, 10
_STALLED, _PATIENCE = 1e-3, 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """Where a fit ended.

    Attributes:
        solution: (p,) float64.
        residual: L2 norm of the residual there: all that an attacker can judge itself by.
        iterations: steps that were taken.
        converged: whether the residual fell below the tolerance.
    """

    solution: torch.Tensor
    residual: float
    iterations: int
    converged: bool


def robust_fit(
    residual: Residual,
    start: torch.Tensor,
    *,
    scale: torch.Tensor | None = None,
    jacobian: Residual | None = None,
    iterations: int = 30,
    tolerance: float = 1e-5,
    progress: Progress | None = None,
) -> Fit:
    """Minimise the residual's Huber loss, whose corner follows the median deviation down.

    Args:
        residual: (p,) float64 to (m,) float64, m >= p in general; best scaled so that 1 means nothing is explained.
        start: (p,) float64.
        scale: (p,) the unknowns' sizes, which damping is relative to; ones by default.
        jacobian: (p,) to (m, p), where there is a cheaper one than :func:`columns` gives.
        iterations: at most so many Jacobians.
        tolerance: stop once the residual's L2 norm is below.
        progress: called with the iteration and the residual's norm.
    """
    scale = torch.ones_like(start) if scale is None else scale
    point, value = start.clone(), residual(start)
    damping, taken, stalled = 1e-2, 0, 0
    while taken < iterations and value.norm() > tolerance and stalled < _PATIENCE:
        corner = value.abs().median().clamp_min(1e-14)
        cost = _huber(value, corner)
        slopes = (columns(residual, point) if jacobian is None else jacobian(point)) * scale
        weights = corner / value.abs().clamp_min(corner)
        normal = (slopes * weights[:, None]).T @ slopes
        slope = slopes.T @ (weights * value)
        ridge = normal.diagonal().mean() * torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
        for _ in range(_TRIES):
            trial = point - scale * torch.linalg.solve(normal + damping * ridge, slope)
            found = residual(trial)
            if _huber(found, corner) < cost:
                break
            damping *= _GROW
        else:
            break
        gained = 1 - float(_huber(found, corner) / cost)
        stalled = stalled + 1 if gained < _STALLED else 0
        point, value = trial, found
        damping = max(damping / _SHRINK, 1e-12)
        taken += 1
        if progress is not None:
            progress(taken, float(value.norm()))
    norm = float(value.norm())
    return Fit(solution=point, residual=norm, iterations=taken, converged=norm <= tolerance)


def columns(residual: Residual, point: torch.Tensor, *, chunk: int | None = 64) -> torch.Tensor:
    """The Jacobian (m, p), in forward mode: the residual is a gradient itself, and reverse mode would store far more.

    Args:
        residual: (p,) to (m,).
        point: (p,), where.
        chunk: columns computed at once, which bounds memory; None for all.
    """

    def column(direction: torch.Tensor) -> torch.Tensor:
        return jvp(residual, (point,), (direction,))[1]

    return vmap(column, chunk_size=chunk)(torch.eye(len(point), dtype=point.dtype, device=point.device)).T


def _huber(values: torch.Tensor, corner: torch.Tensor) -> torch.Tensor:
    sizes = values.abs()
    return torch.where(sizes < corner, sizes.square() / (2 * corner), sizes - corner / 2).sum()
