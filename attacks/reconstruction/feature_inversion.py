"""A tiny client's images from the moments that its dreams are matched to.

Moments per position are a mean and a variance over n_k images at every place of a feature map. Of one image the first
mean is the image, seen through one convolution (:mod:`attacks.reconstruction.position_moments` has it already). Of a
few images they are many more equations than there are pixels, but equations that do not say which image is which: the
search has local minima, and more of them the more images there are.

The adversary is granted the client's weights and buffers and the moments, as recovered from gradients without noise.
The number of images is its assumption. Starts and restarts are its own, from public images, and the restart is chosen
by how well it explains the moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from attacks.reconstruction.dream_gradient import DreamGradient
from attacks.reconstruction.image_metrics import PixelBounds
from attacks.reconstruction.robust_fit import Progress, robust_fit
from codream_secure.dreaming import losses
from codream_secure.dreaming.losses import Moments
from codream_secure.dreaming.objective import Coefficients


@dataclass(frozen=True, kw_only=True, eq=False)
class InvertedImages:
    """Images that explain what was seen.

    Attributes:
        images: (k, C, H, W) float32, normalised; in no particular order.
        loss: the attacker's own measure: the residual relative to what was observed.
        restart: which start they came from.
        converged: whether the fit explains all that was seen, to the tolerance.
    """

    images: torch.Tensor
    loss: float
    restart: int
    converged: bool


def starts_from_public(public: torch.Tensor, count: int, *, restarts: int, generator: torch.Generator) -> torch.Tensor:
    """Starting images (restarts, count, C, H, W): random public ones, different within a start.

    Args:
        public: (N, C, H, W) float, normalised; N at least ``count``.
        count: how many images are looked for.
        restarts: how many starts.
        generator: CPU generator that picks them.
    """
    return torch.stack([public[torch.randperm(len(public), generator=generator)[:count]] for _ in range(restarts)])


def invert_moments(
    model: nn.Module,
    targets: Sequence[Moments],
    *,
    starts: torch.Tensor,
    bounds: PixelBounds,
    moments: Literal["channel", "position"] = "position",
    feature_layers: Sequence[str] | None = None,
    tv: float = 1e-3,
    steps: int = 400,
    lr: float = 0.05,
    iterations: int = 30,
    tolerance: float = 1e-4,
    progress: Progress | None = None,
) -> InvertedImages:
    """Find images with given moments: Adam in a box with a total-variation prior, then a robust fit of moments alone.

    Args:
        model: the client's, with buffers that the adversary knows or has recovered.
        targets: per matched layer the (mean, variance); flat per position.
        starts: (restarts, k, C, H, W) float; restarts end as soon as one explains everything.
        bounds: of pixels, which are public.
        moments: what the targets are.
        feature_layers: names of the matched layers; by default as in dreaming.
        tv: weight of the prior, fixed beforehand.
        steps: of Adam, whose rate falls along a half cosine.
        lr: its first rate, in normalised pixels.
        iterations: of the robust fit, at most.
        tolerance: relative residual to stop at.
        progress: called with the iteration of the robust fit and the residual.
    """
    function = DreamGradient(model, Coefficients(), feature_layers=feature_layers, moments=moments)
    wanted = [(mean.double(), variance.double()) for mean, variance in targets]
    scales = [float(mean.square().mean() + variance.mean()) + 1e-12 for mean, variance in wanted]

    def loss(images: torch.Tensor) -> torch.Tensor:
        found = function.measure(images)
        parts = [
            (mean - wanted_mean).square().mean() / scale + (variance - wanted_variance).square().mean() / scale**2
            for (mean, variance), (wanted_mean, wanted_variance), scale in zip(found, wanted, scales, strict=True)
        ]
        return torch.stack(parts).sum() + tv * losses.total_variation(images)

    flat = torch.cat([torch.cat(pair) for pair in wanted])

    def residual(pixels: torch.Tensor) -> torch.Tensor:
        found = function.measure(pixels.view(starts.shape[1:]))
        return (torch.cat([torch.cat(pair) for pair in found]) - flat) / flat.norm()

    best: InvertedImages | None = None
    low, high = bounds.low.double(), bounds.high.double()
    for restart, start in enumerate(starts):
        images = start.double().clone().requires_grad_()
        optimizer = torch.optim.Adam([images], lr=lr)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            loss(images).backward()
            optimizer.step()
            scheduler.step()
            with torch.no_grad():
                images.copy_(images.clamp(low, high))
        polished = robust_fit(
            residual, images.detach().flatten(), iterations=iterations, tolerance=tolerance, progress=progress
        )
        if best is None or polished.residual < best.loss:
            best = InvertedImages(
                images=polished.solution.view(start.shape).clamp(low, high).float(),
                loss=polished.residual,
                restart=restart,
                converged=polished.converged,
            )
        if best.converged:
            break
    assert best is not None  # there is at least one start
    return best
