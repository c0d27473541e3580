"""Training under example-level differential privacy: DP-SGD (Abadi et al. 2016, arXiv 1607.00133, algorithm 1).

In every step each image takes part by a coin of its own. Its gradient is shortened to at most C, the gradients are
added up, Gaussian noise of standard deviation z C is added, and the sum is divided by the *expected* number of images,
q N. So the number of images that took part is never used; N itself is taken as public.

The gradients of single images are those of ``torch.func``: the model runs on each image alone, so that no layer can mix
images, and the model carries no hooks that dreaming on it would trip over.
Opacus' optimiser divides and updates; what carries the privacy is not left to it. Coins and noise
come from the operating system, and sums and noise are whole multiples of a public unit
(:mod:`codream_secure.privacy.secure_normal` says why, and what approximation remains). Opacus' ``secure_mode`` would
need a package that cannot be installed, and without it noise and samples come from torch's seeded generators.

**The order of events.** The caller's ``record`` is given the release before the first step; if it raises, because a
budget would be exceeded, the model is as it was. All steps count as released even if training is cut short.

**Not covered:** who can time a client learns about batch sizes. Hyperparameters that were chosen by looking at private
data are one more release: choose them on public data, or before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from opacus.optimizers import DPOptimizer  # type: ignore[import-untyped]
from torch import nn
from torch.func import functional_call, grad, vmap

from codream_secure.errors import DataError, ModelError, NumericalError, PrivacyError
from codream_secure.privacy import checks
from codream_secure.privacy.events import Release, SampledGaussianRelease
from codream_secure.privacy.secure_normal import SHORTENED, UNITS, check_multiplier, grid_noise, poisson_sample
from codream_secure.privacy.validator import check_trainable
from protocols.keystream import Keystream

NAME = "gradients of local training"
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_CHUNK_VALUES = 2**25
_LARGEST_CHUNK = 512


@dataclass(frozen=True, kw_only=True)
class DpSgd:
    """How a model is trained privately.

    Attributes:
        steps: T, at least 1.
        sample_rate: q in (0, 1], the probability with which an image takes part in a step. It is this number that is
            sampled with, not one over a number of batches.
        noise_multiplier: z; the noise's standard deviation in every coordinate is z C. Find it by
            :func:`codream_secure.privacy.noise_multiplier_for`.
        max_grad_norm: C > 0, the bound on the L2 norm of one image's gradient over all trained weights.
        optimizer: torch's SGD or Adam, on the noised gradients.
        lr: learning rate.
        momentum: of SGD, in [0, 1).
        average: hand back the mean of the weights over so large a last part of the steps, in [0, 1); 0 for the last
            weights. Averaging costs no privacy, and takes out noise.

    Raises:
        PrivacyError: an argument is out of range; noise 0 among them.
    """

    steps: int
    sample_rate: float
    noise_multiplier: float
    max_grad_norm: float = 1.0
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.5
    momentum: float = 0.9
    average: float = 0.0

    def __post_init__(self) -> None:
        event = self.event()
        object.__setattr__(self, "sample_rate", event.sample_rate)
        object.__setattr__(self, "noise_multiplier", check_multiplier(event.noise_multiplier))
        object.__setattr__(self, "max_grad_norm", checks.positive("max_grad_norm", self.max_grad_norm))
        object.__setattr__(self, "lr", checks.positive("lr", self.lr))
        for name in ("momentum", "average"):
            value = checks.real(name, getattr(self, name))
            if not 0 <= value < 1:
                raise PrivacyError(f"{name} is {value}: it must lie in [0, 1)")
            object.__setattr__(self, name, value)
        if self.optimizer not in ("sgd", "adam"):
            raise PrivacyError(f"optimizer is {self.optimizer!r}: choose 'sgd' or 'adam'")

    def event(self) -> SampledGaussianRelease:
        """What such a training releases, for a ledger of the unit "example"."""
        return SampledGaussianRelease(NAME, self.noise_multiplier, sample_rate=self.sample_rate, steps=self.steps)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """A fresh optimiser over the weights that are to be trained."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if self.optimizer == "adam":
            return torch.optim.Adam(trained, lr=self.lr)
        return torch.optim.SGD(trained, lr=self.lr, momentum=self.momentum)


def train_privately(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    settings: DpSgd,
    record: Callable[[Release], None],
    observe: Callable[[int], None] | None = None,
) -> SampledGaussianRelease:
    """Train a classifier by cross-entropy so that its weights may be released.

    Args:
        model: trained in place and never wrapped: when this returns or raises, it is in the mode in which it was, and
            holds no gradient. Only parameters with ``requires_grad`` are trained.
        images: (N, C, H, W) float32, normalised as the model wants them. There is no loader to be given, so neither
            weighted nor shuffled sampling can take the place of the coins.
        labels: (N,) int64.
        settings: see :class:`DpSgd`.
        record: called once with the release, before the first step; :meth:`PrivacyLedger.record`, say.
        observe: called after each step with the number of steps done. There is no loss to observe: it is private.

    Returns:
        The release that was recorded.

    Raises:
        ModelError: the model cannot be trained with per-example gradients; see
            :func:`~codream_secure.privacy.validator.check_trainable`.
        DataError: images and labels do not fit together.
        NumericalError: the weights are not finite in the end.
    """
    if images.ndim != 4 or not len(images) or labels.shape != (len(images),) or labels.dtype != torch.int64:
        raise DataError(
            f"images have shape {tuple(images.shape)} and labels {tuple(labels.shape)} of {labels.dtype}: "
            "(N, C, H, W) and (N,) of int64 are needed, with N at least 1"
        )
    check_trainable(model)
    release = settings.event()
    with _training(model) as gradients:
        gradients.check(images.shape[1:])
        record(release)
        optimizer = GridOptimizer(
            settings.build(model),
            noise_multiplier=settings.noise_multiplier,
            max_grad_norm=settings.max_grad_norm,
            expected_batch_size=settings.sample_rate * len(images),
        )
        average = _Average(gradients.weights, settings)
        chunk = max(1, min(_LARGEST_CHUNK, _CHUNK_VALUES // sum(map(torch.numel, gradients.weights))))
        for step in range(1, settings.steps + 1):
            drawn = poisson_sample(len(images), settings.sample_rate, Keystream().words)
            _step(gradients, optimizer, images, labels, torch.from_numpy(drawn).to(images.device).split(chunk))
            average.add(step)
            if observe is not None:
                observe(step)
        average.apply()
    if not all(bool(weight.isfinite().all()) for weight in gradients.weights):
        raise NumericalError(f"weights are not finite after private training: lower the learning rate ({settings.lr})")
    return release


class Gradients:
    """The gradients of single images, each from a forward pass on that image alone.

    Args:
        model: in the mode in which it is to be run; its weights are read where they are, as they change.
    """

    def __init__(self, model: nn.Module) -> None:
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.weights = list(trained.values())
        self._model = model
        self._live = {name: weight.detach() for name, weight in trained.items()}
        # Nothing random is left in the model: _training switches dropout off.
        self._each = vmap(grad(self._loss), in_dims=(None, 0, 0), randomness="error")

    def _loss(self, weights: dict[str, torch.Tensor], image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(functional_call(self._model, weights, (image[None],)), label[None])

    def of(self, images: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
        """For every weight that is trained, (n, *shape): the gradient of each image's cross-entropy.

        Args:
            images: (n, C, H, W) float32; n may be 0.
            labels: (n,) int64.
        """
        if not len(images):
            return [weight.new_zeros((0, *weight.shape)) for weight in self._live.values()]
        return list(self._each(self._live, images, labels).values())

    def check(self, shape: torch.Size) -> None:
        """Try two blank images, before anything private is touched or paid for.

        Raises:
            ModelError: the model cannot be differentiated so.
        """
        device = self.weights[0].device
        model, buffers = self._model, [(name, buffer, buffer.clone()) for name, buffer in self._model.named_buffers()]
        try:
            self.of(torch.zeros((2, *shape), device=device), torch.zeros(2, dtype=torch.int64, device=device))
        except RuntimeError as error:
            raise ModelError(
                f"{type(model).__name__} gives no gradients of single images: its forward pass must not depend on "
                f"values (.item(), if) nor keep anything of them; torch says: {str(error).splitlines()[0]}"
            ) from error
        now = dict(model.named_buffers())
        moved = [name for name, buffer, before in buffers if now[name] is not buffer or not torch.equal(buffer, before)]
        for name, buffer, before in buffers:
            buffer.copy_(before)
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, buffer)
        if moved:
            raise ModelError(
                f"{type(model).__name__} changes its buffers {', '.join(moved)} whenever it runs, so they could carry "
                "private data out: use layers without such a state (no running statistics, no spectral norm)"
            )


class GridOptimizer(DPOptimizer):
    """Opacus' optimiser with exact sums, and noise from the operating system on the same grid.

    ``summed_grad`` holds whole units, of which C has :data:`~codream_secure.privacy.secure_normal.UNITS`, as int64.
    """

    def clip_and_accumulate(self) -> None:
        """Shorten each image's gradient to C, round it toward zero to the grid, and add it to the sum, exactly.

        A gradient that is not finite counts as zero: otherwise one image could turn the whole sum into NaN.
        """
        samples = self.grad_samples
        flat = [torch.linalg.vector_norm(s.flatten(1), dim=1, dtype=torch.float64) for s in samples]
        norms = torch.stack(flat).square().sum(0).sqrt()
        usable = norms.isfinite()
        factors = SHORTENED * UNITS / torch.where(usable, norms, 1.0).clamp_min(self.max_grad_norm)
        for parameter, sample in zip(self.params, samples, strict=True):
            shape = (-1,) + (1,) * (sample.ndim - 1)
            if not usable.all():
                sample = torch.where(usable.view(shape), sample, 0.0)
            # Conversion to integers drops the fraction, and integers add up without rounding, in 64 bits.
            units = (sample * factors.to(sample.dtype).view(shape)).to(torch.int32).sum(0)
            parameter.summed_grad = units if parameter.summed_grad is None else parameter.summed_grad + units

    def add_noise(self) -> None:
        """Add fresh noise to the sum, in units, and only then turn it into a gradient."""
        sizes = [parameter.numel() for parameter in self.params]
        noise = torch.from_numpy(grid_noise(sum(sizes), self.noise_multiplier, Keystream().words))
        unit = self.max_grad_norm / UNITS
        for parameter, part in zip(self.params, noise.split(sizes), strict=True):
            units = parameter.summed_grad + part.view_as(parameter).to(parameter.device)
            parameter.grad = (unit * units).to(parameter.dtype)


def _step(
    gradients: Gradients,
    optimizer: GridOptimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    chunks: tuple[torch.Tensor, ...],
) -> None:
    """One update from these images, a chunk at a time; from noise alone if there are none."""
    for index, chosen in enumerate(chunks):
        optimizer.zero_grad(set_to_none=True)
        found = gradients.of(images[chosen], labels[chosen])
        for weight, sample in zip(gradients.weights, found, strict=True):
            weight.grad_sample = sample  # type: ignore[attr-defined]
        if index < len(chunks) - 1:
            optimizer.signal_skip_step()
        optimizer.step()


@contextmanager
def _training(model: nn.Module) -> Iterator[Gradients]:
    """The model in train mode, but without dropout; on leaving, modes are restored and nothing is left on the weights.

    Masks of dropout are drawn for a whole batch, from torch's generator. With one image more, those of all others would
    change, and with them the sum by far more than one image's bound, unless the masks are secret and independent.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    for module in model.modules():
        if isinstance(module, _DROPOUTS):
            module.eval()
    gradients = Gradients(model)
    try:
        yield gradients
    finally:
        for weight in gradients.weights:
            weight.grad = None
            for name in ("grad_sample", "summed_grad"):
                if hasattr(weight, name):
                    delattr(weight, name)
        for module, mode in modes:
            module.training = mode


class _Average:
    """The mean of the trained weights over the last part of the steps."""

    def __init__(self, weights: list[nn.Parameter], settings: DpSgd) -> None:
        self._weights = weights
        self._from = settings.steps - int(settings.average * settings.steps)
        self._means: list[torch.Tensor] = []
        self._count = 0
        self._used = settings.average > 0

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Take in the weights after this step, if it belongs to the last part."""
        if not self._used or step <= self._from:
            return
        self._count += 1
        if not self._means:
            self._means = [weight.detach().clone() for weight in self._weights]
            return
        for mean, weight in zip(self._means, self._weights, strict=True):
            mean.lerp_(weight, 1 / self._count)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the means in the weights' place."""
        if self._means:
            for weight, mean in zip(self._weights, self._means, strict=True):
                weight.copy_(mean)
