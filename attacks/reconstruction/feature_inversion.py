"""A tiny client's images from the moments that its dreams are matched to.

Moments per position are a mean and a variance over n_k images at every place of a feature map. For one image they are
its features and zeros; for a few they are nearly as many equations as there are pixels. So images are looked for whose
moments are those: given the moments themselves (:func:`invert_moments`), or straight from dreaming gradients
(:func:`fit_images`), where the unknowns are pixels and the moments follow from them.

The adversary is granted the client's weights and, with the gradients, their freedom from noise. The number of images
is the attacker's assumption; with fewer than there are, what is found are representatives, whose mean is still near the
mean image. Starting points and restarts are the attacker's own, from public images, and the restart is chosen by how
well it explains what was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from attacks.reconstruction.batchnorm_statistics import DreamStep
from attacks.reconstruction.dream_gradient import DreamGradient
from attacks.reconstruction.image_metrics import PixelBounds
from attacks.reconstruction.robust_fit import Progress, robust_fit
from codream_secure.dreaming import losses
from codream_secure.dreaming.losses import Moments
from codream_secure.dreaming.objective import Coefficients

Buffers = Literal["known", "recalibrated"]


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


def starts_from_public(
    public: torch.Tensor, count: int, *, restarts: int, generator: torch.Generator, spread: float = 0.1
) -> torch.Tensor:
    """Starting images (restarts, count, C, H, W): the public mean image, moved a little towards random public ones.

    A start of independent public images is nearer to none of the private ones and has sharper features to unlearn.

    Args:
        public: (N, C, H, W) float, normalised.
        count: how many images are looked for.
        restarts: how many starts.
        generator: CPU generator that picks them.
        spread: how far to move, in (0, 1]; images that start alike would stay alike.
    """
    picks = torch.randint(len(public), (restarts, count), generator=generator)
    mean = public.mean(0)
    return mean + spread * (public[picks] - mean)


def fit_images(
    model: nn.Module,
    observations: Sequence[DreamStep],
    *,
    starts: torch.Tensor,
    coefficients: Coefficients,
    moments: Literal["channel", "position"] = "position",
    buffers: Buffers = "known",
    feature_layers: Sequence[str] | None = None,
    classes: torch.Tensor | None = None,
    iterations: int = 40,
    tolerance: float = 1e-5,
    progress: Progress | None = None,
) -> InvertedImages:
    """Find images whose moments explain one client's dreaming gradients.

    Args:
        model: the client's weights. Its buffers are used if they are known.
        observations: one or more steps of the client's own gradients.
        starts: (restarts, k, C, H, W) float; restarts end as soon as one explains everything.
        coefficients: of the dreaming loss.
        moments: as the client matches them.
        buffers: "known" (to the adversary, as when nothing trained them: one image never does), or "recalibrated": the
            client set them by its images, so that they follow from the images looked for. That takes k >= 2.
        feature_layers: names of the matched layers; by default as in dreaming.
        classes: (n,) int64, what the dreams are made for, where the loss has that term.
        iterations: at most so many steps of each fit.
        tolerance: relative residual to stop at.
        progress: called with the iteration and the residual.

    Raises:
        ValueError: buffers of one image cannot be recalibrated, or nothing was observed.
    """
    if buffers == "recalibrated" and starts.shape[1] < 2:
        raise ValueError("buffers is 'recalibrated' but one image is looked for: a single image changes no buffer")
    if not observations:
        raise ValueError("observations is empty: give at least one step")
    function = DreamGradient(model, coefficients, feature_layers=feature_layers, moments=moments, classes=classes)
    observed = torch.cat([step.gradient.double().flatten() for step in observations])
    size, shape = observed.norm(), starts.shape[1:]

    def residual(pixels: torch.Tensor) -> torch.Tensor:
        images = pixels.view(shape)
        kept = function.recalibrated(images) if buffers == "recalibrated" else None
        targets = function.measure(images, buffers=kept)
        parts = [function(step.dreams.double(), targets, buffers=kept).flatten() for step in observations]
        return (torch.cat(parts) - observed) / size

    best: InvertedImages | None = None
    for restart, start in enumerate(starts):
        fit = robust_fit(
            residual, start.double().flatten(), iterations=iterations, tolerance=tolerance, progress=progress
        )
        if best is None or fit.residual < best.loss:
            best = InvertedImages(
                images=fit.solution.view(shape).float(),
                loss=fit.residual,
                restart=restart,
                converged=fit.converged,
            )
        if best.converged:
            break
    assert best is not None  # there is at least one start
    return best


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
) -> InvertedImages:
    """Find images with given moments, by Adam on squared relative distances with a total-variation prior in a box.

    Args:
        model: the client's, with buffers that the adversary knows or has recovered.
        targets: per matched layer the (mean, variance); flat per position.
        starts: (restarts, k, C, H, W) float; all are run, and the one with the smallest loss is kept.
        bounds: of pixels, which are public.
        moments: what the targets are.
        feature_layers: names of the matched layers; by default as in dreaming.
        tv: weight of the prior, fixed beforehand.
        steps: of Adam, whose rate falls along a half cosine.
        lr: its first rate, in normalised pixels.
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
        with torch.no_grad():
            value = float(loss(images))
        if best is None or value < best.loss:
            best = InvertedImages(images=images.detach().float(), loss=value, restart=restart, converged=False)
    assert best is not None  # there is at least one start
    return best
