"""Inversion of a FedAvg update: the client's local steps are simulated, and the simulation is differentiated.

Geiping et al. 2020, section 6. After several steps the update is no gradient at any one point, but it is still a
differentiable function of the images: the attacker runs the client's training on its guess and compares updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from attacks.reconstruction.image_metrics import PixelBounds
from attacks.reconstruction.matching import COSINE_TV, AfterStep, Guess, Matching, search
from attacks.reconstruction.norm_modes import Observation, norms_in
from codream_secure.errors import DataError
from codream_secure.training import Optimization


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """What a client does between receiving weights and sending them: public, for the server prescribes it.

    Attributes:
        epochs: passes over its images.
        optimization: the optimiser; SGD at a constant rate. Its ``batch_size`` cuts the images into batches.

    Raises:
        DataError: there are no epochs, or the optimiser cannot be unrolled here.
    """

    epochs: int
    optimization: Optimization

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise DataError(f"epochs={self.epochs} must be at least 1: without a step there is no update")
        if self.optimization.optimizer != "sgd" or self.optimization.schedule != "constant":
            raise DataError(
                f"optimization is {self.optimization.optimizer!r} with schedule {self.optimization.schedule!r}: only "
                "'sgd' with 'constant' is unrolled"
            )


def local_update(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    training: LocalTraining,
    create_graph: bool = False,
) -> tuple[torch.Tensor, ...]:
    """Weights before minus weights after, of a client that trains on these images: :func:`codream_secure.training.fit`.

    Batches are cut in the order given, the same in every epoch, where a client shuffles: for one batch an epoch that
    is exact, for more it is an approximation that the attacker cannot better without knowing the order. Batch norms
    run with their stored statistics.

    Args:
        model: as handed out; left as it was.
        images: (n, C, H, W) float.
        labels: (n,) int64.
        training: the client's.
        create_graph: whether the update can be differentiated by the images.

    Returns:
        One tensor per parameter, in the order of ``model.parameters()``.
    """
    rule = training.optimization
    names = [name for name, _ in model.named_parameters()]
    start = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    weights: Sequence[torch.Tensor] = start
    momenta: list[torch.Tensor] | None = None
    with norms_in(model, "eval"):
        for _ in range(training.epochs):
            for batch, classes in zip(images.split(rule.batch_size), labels.split(rule.batch_size), strict=True):
                logits = functional_call(model, dict(zip(names, weights, strict=True)), (batch,))
                loss = F.cross_entropy(logits, classes)
                gradients = list(torch.autograd.grad(loss, weights, create_graph=create_graph))
                if rule.max_grad_norm is not None:
                    gradients = _clipped(gradients, rule.max_grad_norm)
                steps = [g + rule.weight_decay * w for g, w in zip(gradients, weights, strict=True)]
                if momenta is not None:
                    steps = [rule.momentum * m + step for m, step in zip(momenta, steps, strict=True)]
                momenta = steps
                weights = [w - rule.lr * step for w, step in zip(weights, steps, strict=True)]
                if not create_graph:
                    weights = [w.detach().requires_grad_() for w in weights]
    return tuple(before - after for before, after in zip(start, weights, strict=True))


def invert_update(
    model: nn.Module,
    update: Sequence[torch.Tensor],
    *,
    labels: torch.Tensor,
    image_shape: tuple[int, int, int],
    training: LocalTraining,
    bounds: PixelBounds,
    generator: torch.Generator,
    settings: Matching = COSINE_TV,
    after_step: AfterStep | None = None,
) -> Guess:
    """Reconstruct a client's images from its FedAvg update.

    Memory and time grow with the number of local steps: meant for a few images and a few steps.

    Args:
        model: as handed out.
        update: weights before minus weights after, one tensor per parameter.
        labels: (n,) int64, guessed; see :mod:`attacks.reconstruction.label_recovery`.
        image_shape: channels, height and width.
        training: the client's.
        bounds: public.
        generator: CPU generator of the starting points.
        settings: of the attacker.
        after_step: as for :func:`attacks.reconstruction.matching.match_gradients`.

    Raises:
        DataError: the update does not fit the model.
    """
    wanted = [tuple(parameter.shape) for parameter in model.parameters()]
    if [tuple(part.shape) for part in update] != wanted:
        raise DataError(f"update is of shapes {[tuple(part.shape) for part in update]}, the parameters of {wanted}")

    def at(images: torch.Tensor) -> Observation:
        return Observation(local_update(model, images, labels, training=training, create_graph=True))

    images, losses = search(
        at,
        Observation(tuple(update)),
        shape=(len(labels), *image_shape),
        bounds=bounds,
        generator=generator,
        settings=settings,
        after_step=after_step,
    )
    return Guess(images, labels, min(losses), losses, "unrolled")


def _clipped(gradients: list[torch.Tensor], most: float) -> list[torch.Tensor]:
    """As :func:`torch.nn.utils.clip_grad_norm_`, differentiable."""
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    scale = (most / (norm + 1e-6)).clamp(max=1.0)
    return [gradient * scale for gradient in gradients]
