"""Moments per position, and with them the mean image, from one client's dreaming gradients.

Where dreams are matched per position, the first matched layer's mean is a picture: the mean of the private images, seen
through one convolution. With the forward pass known, dreaming gradients are linear in the unit vectors from the dreams'
moments towards the client's, by matrices that the adversary can compute; only the lengths are missing, and two or more
steps tell them. So nothing but unit vectors is nonlinear here, there are no kinks, and thousands of unknowns can be
fitted at once.

The adversary is granted the weights AND the buffers (there are none without batch norm, and one private image trains
none), and gradients without noise. Matrices are dense: meant for small images and few channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn
from torch.func import jvp, vmap

from attacks.reconstruction.batchnorm_statistics import DreamStep
from attacks.reconstruction.dream_gradient import DreamGradient
from attacks.reconstruction.robust_fit import Fit, Progress, robust_fit
from codream_secure.dreaming.losses import Moments
from codream_secure.dreaming.objective import Coefficients

Affine = tuple[torch.Tensor, torch.Tensor]

_FLOOR = 1e-12


@dataclass(frozen=True, kw_only=True, eq=False)
class RecoveredMoments:
    """What was fitted, and how well it explains what was seen.

    Attributes:
        moments: per matched layer the flat (mean, variance) per position, float64. Directions that no gradient depends
            on stay as in the start.
        mean_image: (C, H, W) float32, normalised; None where the first matched layer is not affine in the image.
        residual: of the fit, over the norm of the feature-matching part of the gradients.
        iterations: steps of the fit.
    """

    moments: list[Moments]
    mean_image: torch.Tensor | None
    residual: float
    iterations: int


def recover_position_moments(
    model: nn.Module,
    observations: Sequence[DreamStep],
    *,
    public: torch.Tensor,
    coefficients: Coefficients,
    feature_layers: Sequence[str] | None = None,
    classes: torch.Tensor | None = None,
    single: bool = False,
    restarts: int = 1,
    iterations: int = 40,
    tolerance: float = 1e-5,
    progress: Progress | None = None,
) -> RecoveredMoments:
    """Fit one client's moments per position to its own gradients.

    Args:
        model: weights and buffers of the forward pass.
        observations: two or more steps far apart, best as many equations (steps x pixels of all dreams) as unknowns.
        public: (N, C, H, W) float, normalised public images, whose moments are the start.
        coefficients: of the dreaming loss, with feature matching on.
        feature_layers: names of the matched layers; by default as in dreaming.
        classes: (n,) int64, what the dreams are made for, where the loss has that term.
        single: the adversary takes the client to hold one image, so that variances are zero; the residual shows whether
            it is right.
        restarts: starts at most: first the moments of all public images, then of parts of them (for a single image, of
            one image each). The fit that explains most is kept; one that explains everything ends the search.
        iterations: at most so many steps of each fit.
        tolerance: relative residual to stop at.
        progress: called with the iteration and the residual.

    Raises:
        ValueError: fewer than two steps were observed, or feature matching is off.
    """
    if len(observations) < 2:
        raise ValueError(f"observations has {len(observations)} steps: lengths show in two or more")
    if not coefficients.features:
        raise ValueError("coefficients.features is 0: gradients say nothing of moments")
    function = DreamGradient(model, coefficients, feature_layers=feature_layers, moments="position", classes=classes)
    rest = DreamGradient(
        model,
        replace(coefficients, features=0.0),
        feature_layers=feature_layers,
        moments="position",
        classes=classes,
    )
    affine = _affine_first(function, public.double())
    seen = [_Linear.of(function, rest, step, weight=coefficients.features) for step in observations]
    best: RecoveredMoments | None = None
    for images in _starts(public, restarts, single=single):
        found = _fit(
            function,
            seen,
            images,
            affine,
            single=single,
            fit=partial(robust_fit, iterations=iterations, tolerance=tolerance, progress=progress),
        )
        if best is None or found.residual < best.residual:
            best = found
        if best.residual <= tolerance:
            break
    assert best is not None  # there is at least one start
    return best


def _starts(public: torch.Tensor, restarts: int, *, single: bool) -> Iterator[torch.Tensor]:
    yield public
    if restarts > 1:
        for part in public.tensor_split(restarts - 1):
            yield part[:1] if single else part


def _fit(
    function: DreamGradient,
    seen: Sequence[_Linear],
    images: torch.Tensor,
    affine: Affine | None,
    *,
    single: bool,
    fit: Callable[..., Fit],
) -> RecoveredMoments:
    """One fit, from the moments of the images."""
    start = function.measure(images.double())
    size = torch.stack([each.observed for each in seen]).norm()
    means, variances = [mean for mean, _ in start], [variance for _, variance in start]
    first = images.double().mean(0).flatten() if affine is not None else means[0]
    sought = [first, *means[1:], *([] if single else variances)]
    fixed = [torch.zeros_like(variance) for variance in variances] if single else []
    lengths = [len(each) for each in sought]

    def unpack(unknowns: torch.Tensor) -> list[torch.Tensor]:
        blocks = list(unknowns.split(lengths))
        if affine is not None:
            matrix, offset = affine
            blocks[0] = matrix @ blocks[0] + offset
        return blocks + fixed

    def residual(unknowns: torch.Tensor) -> torch.Tensor:
        blocks = unpack(unknowns)
        return torch.cat([each.residual(blocks) for each in seen]) / size

    def jacobian(unknowns: torch.Tensor) -> torch.Tensor:
        blocks = unpack(unknowns)
        rows = []
        for each in seen:
            parts = each.jacobian(blocks)[: len(sought)]
            if affine is not None:
                parts[0] = parts[0] @ affine[0]
            rows.append(torch.cat(parts, dim=1))
        return torch.cat(rows) / size

    scale = torch.cat([each.square().mean().sqrt().clamp_min(_FLOOR).expand(len(each)) for each in sought])
    ended = fit(residual, torch.cat(sought), scale=scale, jacobian=jacobian)
    blocks = unpack(ended.solution)
    return RecoveredMoments(
        moments=list(zip(blocks[: len(start)], blocks[len(start) :], strict=True)),
        mean_image=ended.solution[: lengths[0]].view(images.shape[1:]).float() if affine is not None else None,
        residual=ended.residual,
        iterations=ended.iterations,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Linear:
    """One step: observed = sum over blocks of matrix @ unit(found - wanted); blocks are means, then variances."""

    found: list[torch.Tensor]
    matrices: list[torch.Tensor]
    observed: torch.Tensor

    @classmethod
    def of(cls, function: DreamGradient, rest: DreamGradient, step: DreamStep, *, weight: float) -> _Linear:
        dreams = step.dreams.double()
        found = function.measure(dreams)
        features, slopes = _feature_slopes(function, dreams)
        count = len(dreams)
        means = [weight / count * slope.flatten(0, 1) for slope in slopes]
        variances = [
            (2 * weight / count * slope * (feature - mean)[:, None]).flatten(0, 1)
            for slope, feature, (mean, _) in zip(slopes, features, found, strict=True)
        ]
        return cls(
            found=[mean for mean, _ in found] + [variance for _, variance in found],
            matrices=means + variances,
            observed=(step.gradient.double() - rest(dreams, found)).flatten(),
        )

    def residual(self, wanted: Sequence[torch.Tensor]) -> torch.Tensor:
        total = -self.observed
        for matrix, found, each in zip(self.matrices, self.found, wanted, strict=True):
            total = total + matrix @ _unit(found - each)[0]
        return total

    def jacobian(self, wanted: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        parts = []
        for matrix, found, each in zip(self.matrices, self.found, wanted, strict=True):
            direction, length = _unit(found - each)
            parts.append((torch.outer(matrix @ direction, direction) - matrix) / length)
        return parts


def _unit(vector: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    length = vector.norm().clamp_min(_FLOOR)
    return vector / length, length


def _feature_slopes(function: DreamGradient, dreams: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Per matched layer each dream's flat features (n, d), and their derivatives by its own pixels (n, pixels, d)."""
    directions = torch.eye(dreams[0].numel(), dtype=dreams.dtype).view(-1, *dreams.shape[1:])

    def along(direction: torch.Tensor) -> list[torch.Tensor]:
        return jvp(function.features, (dreams,), (direction.expand_as(dreams),))[1]

    return function.features(dreams), [slope.transpose(0, 1) for slope in vmap(along, chunk_size=64)(directions)]


def _affine_first(function: DreamGradient, images: torch.Tensor) -> Affine | None:
    """The first matched layer's input as matrix @ pixels + offset, or None where it is nothing of the kind."""
    shape = images.shape[1:]
    probes = torch.eye(shape.numel(), dtype=images.dtype).view(-1, *shape)
    zero = function.features(torch.zeros_like(images[:1]))[0][0]
    matrix = (function.features(probes)[0] - zero).T
    expected = images[:8].flatten(1) @ matrix.T + zero
    apart = (function.features(images[:8])[0] - expected).norm()
    return (matrix, zero) if apart <= 1e-9 * expected.norm() else None
