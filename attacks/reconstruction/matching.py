"""Gradient inversion by optimisation: images are moved until their gradient is the one that was sent.

Two attackers: cosine distance with total variation and signed Adam (Geiping et al. 2020, arXiv 2003.14053), which
bears rectifiers; and squared distance with L-BFGS ("deep leakage from gradients", Zhu et al. 2019, arXiv 1906.08935),
which needs smooth activations. Both start over several times and keep the try with the least loss OF THEIR OWN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from attacks.reconstruction.analytic import begins_linear, invert_first_linear
from attacks.reconstruction.image_metrics import PixelBounds, match, psnr
from attacks.reconstruction.label_recovery import label_counts, labels_from_counts, last_layer_gradient, single_label
from attacks.reconstruction.norm_modes import NormMode, Observation, fedsgd_gradient, simulate
from codream_secure.dreaming.losses import Moments, moment_distance
from codream_secure.errors import DataError

Simulate = Callable[[torch.Tensor], Observation]
AfterStep = Callable[[int, int, float], None]


@dataclass(frozen=True, kw_only=True)
class Matching:
    """An attacker's settings: fixed before it sees a target, or chosen on public images with :func:`choose_settings`.

    Attributes:
        distance: between gradients, all parameters taken as one vector.
        optimizer: "sign_adam" moves each pixel by Adam of the gradient's sign, step size falling tenfold after 3/8,
            5/8 and 7/8 of the steps; "lbfgs" runs a line search and takes no notice of ``lr``.
        steps: updates of the guess in each try; L-BFGS makes up to 20 evaluations a step.
        lr: of sign_adam, for pixels in [0, 1]. The published 0.1 was for normalised pixels; here steps that cross
            the box, about 0.3, get past the kinks of max-pooling where 0.03 is stuck.
        tv: weight of the total variation: mean absolute difference of neighbours, of pixels in [0, 1].
        statistics: weight of the distance between batch statistics, where they were sent. A weight of 0.01 instead of
            1 lets sent statistics look harmless: 13.9 dB in place of 40.1 on one batch of 4 (small_cnn, MNIST).
        restarts: tries.

    Raises:
        DataError: a value is out of range.
    """

    distance: Literal["cosine", "squared"] = "cosine"
    optimizer: Literal["sign_adam", "lbfgs"] = "sign_adam"
    steps: int = 1600
    lr: float = 0.3
    tv: float = 3e-2
    statistics: float = 1.0
    restarts: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "restarts"):
            if getattr(self, name) < 1:
                raise DataError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("lr", "tv", "statistics"):
            if not getattr(self, name) >= 0:
                raise DataError(f"{name}={getattr(self, name)} must be at least 0")


COSINE_TV = Matching()
DEEP_LEAKAGE = Matching(distance="squared", optimizer="lbfgs", steps=100, tv=0.0, statistics=0.0, restarts=5)


@dataclass(frozen=True, eq=False)
class Guess:
    """What an attacker arrives at.

    Attributes:
        images: (B, C, H, W) float32 within the bounds, in the model's units; in no particular order.
        labels: (B,) int64, the labels it assumed.
        loss: the least of ``losses``; nan where nothing was optimised.
        losses: of each try.
        method: one word on how it was found.
    """

    images: torch.Tensor
    labels: torch.Tensor
    loss: float
    losses: tuple[float, ...]
    method: str


def match_gradients(
    model: nn.Module,
    observed: Observation,
    *,
    labels: torch.Tensor,
    image_shape: tuple[int, int, int],
    bounds: PixelBounds,
    generator: torch.Generator,
    settings: Matching = COSINE_TV,
    after_step: AfterStep | None = None,
) -> Guess:
    """Reconstruct the batch behind one FedSGD gradient.

    Args:
        model: the global model, whose weights the server knows. It is left as it was.
        observed: what the client sent.
        labels: (B,) int64, guessed: see :mod:`attacks.reconstruction.label_recovery`.
        image_shape: channels, height and width.
        bounds: public.
        generator: CPU generator of the starting points.
        settings: of the attacker.
        after_step: called with the try, the number of steps done in it, and the loss.

    Raises:
        DataError: the gradient does not fit the model.
    """
    _check_shapes(model, observed)

    def at(images: torch.Tensor) -> Observation:
        return simulate(model, images, labels, mode=observed.mode, create_graph=True)

    shape = (len(labels), *image_shape)
    images, losses = search(
        at, observed, shape=shape, bounds=bounds, generator=generator, settings=settings, after_step=after_step
    )
    return Guess(images, labels, min(losses), losses, "matching")


def invert_gradient(
    model: nn.Module,
    observed: Observation,
    *,
    batch_size: int,
    image_shape: tuple[int, int, int],
    bounds: PixelBounds,
    generator: torch.Generator,
    predictions: torch.Tensor | None = None,
    settings: Matching = COSINE_TV,
    after_step: AfterStep | None = None,
) -> Guess:
    """All that a curious server can do with one FedSGD gradient: labels first, then closed form or matching.

    Args:
        model: the global model.
        observed: what the client sent.
        batch_size: B; the server of FedSGD sets it.
        image_shape: channels, height and width.
        bounds: public.
        generator: CPU generator.
        predictions: for B above 1, what the model predicts for public images of each class, (C, C) of
            :func:`attacks.reconstruction.label_recovery.mean_predictions`; None for 1/C throughout.
        settings: of the matching.
        after_step: as for :func:`match_gradients`.

    Returns:
        The guess; its ``method`` is "closed form" where one image met a model that begins with a linear layer.

    Raises:
        ModelError: labels cannot be read off: the last linear layer has no bias.
        DataError: the gradient does not fit the model.
    """
    _check_shapes(model, observed)
    _, bias = last_layer_gradient(model, observed.gradients)
    if batch_size == 1:
        labels = torch.tensor([single_label(bias)])
        if begins_linear(model):
            found = invert_first_linear(model, observed.gradients, image_shape=image_shape)
            if found is not None:
                clipped = bounds.from_unit(bounds.to_unit(found).clamp(0, 1))
                return Guess(clipped, labels, float("nan"), (), "closed form")
    else:
        even = torch.full((len(bias), len(bias)), 1 / len(bias))
        counts = label_counts(bias, batch_size=batch_size, predictions=even if predictions is None else predictions)
        labels = labels_from_counts(counts)
    return match_gradients(
        model,
        observed,
        labels=labels,
        image_shape=image_shape,
        bounds=bounds,
        generator=generator,
        settings=settings,
        after_step=after_step,
    )


def search(
    simulated: Simulate,
    observed: Observation,
    *,
    shape: tuple[int, ...],
    bounds: PixelBounds,
    generator: torch.Generator,
    settings: Matching,
    after_step: AfterStep | None = None,
) -> tuple[torch.Tensor, tuple[float, ...]]:
    """Images whose simulated update is closest to the observed one; the restart is chosen by the attacker's loss.

    Args:
        simulated: what a client with the given images would send, differentiable.
        observed: what it did send: an update may stand in place of a gradient in both.
        shape: (B, C, H, W).
        bounds: the guess stays within them.
        generator: CPU generator; each restart starts from pixels drawn around mid-grey.
        settings: of the attacker.
        after_step: as for :func:`match_gradients`.

    Returns:
        Images of ``shape`` in the model's units, and every try's loss.
    """
    wanted = torch.cat([gradient.detach().flatten() for gradient in observed.gradients])
    scale = wanted.square().sum().clamp_min(torch.finfo(wanted.dtype).tiny)

    def loss(pixels: torch.Tensor) -> torch.Tensor:
        found = simulated(bounds.from_unit(pixels))
        gradient = torch.cat([part.flatten() for part in found.gradients])
        if settings.distance == "cosine":
            norms = gradient.square().sum().clamp_min(torch.finfo(wanted.dtype).tiny).sqrt() * scale.sqrt()
            value = 1 - (gradient * wanted).sum() / norms
        else:
            value = (gradient - wanted).square().sum() / scale
        if settings.tv:
            value = value + settings.tv * total_variation(pixels)
        if settings.statistics and observed.statistics and found.statistics:
            value = value + settings.statistics * _relative_distance(found.statistics, observed.statistics)
        return value

    best: torch.Tensor | None = None
    losses: list[float] = []
    for attempt in range(settings.restarts):
        start = (0.5 + 0.25 * torch.randn(shape, generator=generator)).clamp_(0, 1).to(wanted)
        run = _sign_adam if settings.optimizer == "sign_adam" else _lbfgs

        def report(step: int, value: float, attempt: int = attempt) -> None:
            if after_step is not None:
                after_step(attempt, step, value)

        pixels, value = run(loss, start, settings, report)
        if best is None or value < min(losses):
            best = pixels
        losses.append(value)
    return bounds.from_unit(best if best is not None else start), tuple(losses)


def total_variation(pixels: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of vertical plus that of horizontal neighbours; scalar.

    Not the squared form of dreaming: absolute differences keep edges, as the published attack's do.

    Args:
        pixels: (N, C, H, W) float.
    """
    vertical = (pixels[:, :, 1:, :] - pixels[:, :, :-1, :]).abs()
    horizontal = (pixels[:, :, :, 1:] - pixels[:, :, :, :-1]).abs()
    return vertical.mean() + horizontal.mean()


def choose_settings(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    candidates: Sequence[Matching],
    bounds: PixelBounds,
    generator: torch.Generator,
    batch_size: int = 1,
    mode: NormMode = "eval",
) -> Matching:
    """The settings that do best on PUBLIC images, whose gradients the attacker makes itself.

    Total-variation weight and step size decide between 5 and 25 dB. Choosing them on the targets would be peeking.

    Args:
        model: the global model.
        images: (N, C, H, W) float, public; never the targets.
        labels: (N,) int64, theirs.
        candidates: to try, at least one.
        bounds: public.
        generator: CPU generator.
        batch_size: images per gradient, as in the attack to come.
        mode: of the batch norms, as in the attack to come.

    Raises:
        DataError: there are no candidates or fewer images than a batch holds.
    """
    if not candidates or not 1 <= batch_size <= len(images):
        raise DataError(
            f"{len(candidates)} candidates, {len(images)} images and batch_size={batch_size}: give some candidates, "
            "and a batch or more"
        )
    means = []
    for settings in candidates:
        values = []
        for start in range(0, len(images) - batch_size + 1, batch_size):
            batch, classes = images[start : start + batch_size], labels[start : start + batch_size]
            guess = match_gradients(
                model,
                fedsgd_gradient(model, batch, classes, mode=mode),
                labels=classes,
                image_shape=(batch.shape[1], batch.shape[2], batch.shape[3]),
                bounds=bounds,
                generator=generator,
                settings=settings,
            )
            pixels, truth = bounds.to_unit(guess.images), bounds.to_unit(batch)
            values.append(psnr(pixels[match(pixels, truth)], truth).mean())
        means.append(float(torch.stack(values).mean()))
    return candidates[means.index(max(means))]


def _sign_adam(
    loss: Callable[[torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    settings: Matching,
    report: Callable[[int, float], None],
) -> tuple[torch.Tensor, float]:
    pixels = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=settings.lr)
    milestones = [settings.steps * eighths // 8 for eighths in (3, 5, 7)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    best, least = start, float("inf")
    for step in range(settings.steps):
        value = loss(pixels)
        if value.item() < least:
            best, least = pixels.detach().clone(), value.item()
        (gradient,) = torch.autograd.grad(value, pixels)
        pixels.grad = gradient.sign()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
        report(step + 1, value.item())
    return best, least


def _lbfgs(
    loss: Callable[[torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    settings: Matching,
    report: Callable[[int, float], None],
) -> tuple[torch.Tensor, float]:
    # A box has no place in L-BFGS: its curvature pairs would be wrong. The published attack has none either; what
    # leaves the box is cut off at the end.
    pixels = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([pixels], history_size=100, line_search_fn="strong_wolfe", tolerance_change=0.0)

    def closure() -> torch.Tensor:
        value = loss(pixels)
        (pixels.grad,) = torch.autograd.grad(value, pixels)
        return value

    best, least = start, float("inf")
    for step in range(settings.steps):
        value = float(optimizer.step(closure).detach())
        with torch.no_grad():
            clipped = pixels.detach().clamp(0, 1)
        if not torch.isfinite(clipped).all():
            break
        after = float(loss(clipped).detach())
        if after < least:
            best, least = clipped, after
        report(step + 1, value)
        if value < 1e-14:  # float32 gradients agree to no more
            break
    return best, least


def _relative_distance(found: tuple[Moments, ...], wanted: tuple[Moments, ...]) -> torch.Tensor:
    """Moment distance over the sent moments' own length, so that one weight suits every network."""
    zero = [(torch.zeros_like(mean), torch.zeros_like(variance)) for mean, variance in wanted]
    return moment_distance(found, wanted) / moment_distance(zero, wanted)


def _check_shapes(model: nn.Module, observed: Observation) -> None:
    wanted = [tuple(parameter.shape) for parameter in model.parameters()]
    given = [tuple(gradient.shape) for gradient in observed.gradients]
    if wanted != given:
        raise DataError(f"gradients are of shapes {given}, the model's parameters of {wanted}: give one per parameter")
