"""Moments of a released model's layer inputs over private images, with noise: what dreams may be matched to.

A model with batch norm keeps such moments in its buffers, without noise. Here every image gives one vector v: of each
matched layer's input the means and mean squares per channel. They are taken relative to a public reference, the same
model's moments on images of plain noise, and scaled so that every layer weighs alike, whatever its width and scale.
The vector is shortened to norm R, the vectors are added up exactly, Gaussian noise of standard deviation z R is added,
and the sum is divided by the number of images N, which counts as public for the unit "example".

The model must itself have been released, by training it under differential privacy, say: its weights enter here.

All that follows the noise costs nothing. Each layer's result is drawn towards the reference by as much as the noise,
whose size is public, makes advisable (James and Stein 1961; positive part). The square of the noise that is in a mean
is taken out of the variance again, and variances are kept above a floor.

Sums and noise are on a grid, as in :mod:`codream_secure.privacy.secure_normal`, where it says what approximation
remains. The release composes with the sampled steps of DP-SGD, which integer noise does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from codream_secure.dreaming.features import FeatureTap
from codream_secure.dreaming.losses import Moments
from codream_secure.dreaming.objective import frozen
from codream_secure.errors import DataError, ModelError
from codream_secure.privacy import checks
from codream_secure.privacy.events import GaussianRelease, Release
from codream_secure.privacy.secure_normal import SHORTENED, UNITS, check_multiplier, grid_noise
from protocols.keystream import Keystream

NAME = "moments of features"
BOUND = 0.5
"""R: most digits' vectors are shorter, and the reference's own mean squares, all together, have a norm of about 0.7."""
_REFERENCE_IMAGES = 256
_REFERENCE_SEED = 0
_LEAST_VARIANCE = 1e-3
_BATCH = 256


def moment_event(noise_multiplier: float) -> GaussianRelease:
    """What one call of :func:`release_moments` releases, for a ledger of the unit "example"."""
    return GaussianRelease(NAME, noise_multiplier)


def release_moments(
    model: nn.Module,
    images: torch.Tensor,
    *,
    noise_multiplier: float,
    record: Callable[[Release], None],
    layers: Sequence[str] | None = None,
    bound: float = BOUND,
) -> list[Moments]:
    """Moments per channel of the inputs of a model's layers, over private images, that may be shown to anybody.

    Args:
        model: a model that has been released; it is run in eval mode and not changed.
        images: (N, C, H, W) float32, normalised as the model wants them, N at least 1.
        noise_multiplier: z; see :func:`moment_event`.
        record: called once with the release, before the images are looked at; :meth:`PrivacyLedger.record`, say.
        layers: names of the layers, by default those whose inputs dreams are matched to
            (:func:`~codream_secure.dreaming.features.default_feature_layers`). They must be public.
        bound: R > 0, public.

    Returns:
        Per layer the (mean, variance), each (channels,) float32, for :class:`~codream_secure.dreaming.DreamObjective`
        to match. Variances are positive.

    Raises:
        ModelError: a layer is not in the model or not run, or there is none.
        DataError: there are no images.
        PrivacyError: z or R is out of range.
    """
    if images.ndim != 4 or not len(images):
        raise DataError(f"images have shape {tuple(images.shape)}: (N, C, H, W) is needed, with N at least 1")
    checks.positive("bound", bound)
    release = moment_event(check_multiplier(noise_multiplier))
    tap = FeatureTap(model, layers)
    with frozen(model):
        reference = [found.mean(0) for found in _per_image(tap, _noise_images(images))]
        record(release)
        frame = _Frame(reference)
        total = torch.zeros(frame.size, dtype=torch.int64)
        for batch in images.split(_BATCH):
            total += shortened(frame.vectors(_per_image(tap, batch)), bound).sum(0)
    noise = torch.from_numpy(grid_noise(frame.size, noise_multiplier, Keystream().words))
    unit = bound / UNITS / len(images)
    return frame.moments((total + noise) * unit, noise=noise_multiplier * bound / len(images))


def shortened(vectors: torch.Tensor, bound: float) -> torch.Tensor:
    """Vectors of norm at most ``bound``, in whole units of which ``bound`` has 2^20; rounded toward zero.

    Args:
        vectors: (n, d) float64. One that is not finite counts as zero: otherwise it could turn a sum into NaN.
        bound: R > 0.

    Returns:
        (n, d) int64.
    """
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    usable = norms.isfinite()
    scaled = torch.where(usable, vectors, 0.0) * (SHORTENED * UNITS / torch.where(usable, norms, 1.0).clamp_min(bound))
    return scaled.to(torch.int64)


class _Frame:
    """The coordinates of v: relative to a reference, every layer scaled to weigh alike.

    Args:
        reference: per layer (2, channels) float64: means and mean squares of public images.
    """

    def __init__(self, reference: list[torch.Tensor]) -> None:
        self._reference = reference
        self._scales = []
        for layer in reference:
            square = float(layer[1].mean().clamp_min(torch.finfo(torch.float32).tiny))
            weight = math.sqrt(layer.numel() * len(reference))
            self._scales.append(torch.tensor([[weight * math.sqrt(square)], [weight * square]], dtype=torch.float64))
        self._sizes = [layer.numel() for layer in reference]
        self.size = sum(self._sizes)

    def vectors(self, found: list[torch.Tensor]) -> torch.Tensor:
        """(n, size) from per layer (n, 2, channels)."""
        parts = [
            ((layer - origin) / scale).flatten(1)
            for layer, origin, scale in zip(found, self._reference, self._scales, strict=True)
        ]
        return torch.cat(parts, dim=1)

    def moments(self, mean: torch.Tensor, *, noise: float) -> list[Moments]:
        """Means and variances from the noised mean of all v, whose noise has this standard deviation."""
        result = []
        for part, origin, scale in zip(mean.split(self._sizes), self._reference, self._scales, strict=True):
            length = float(part.square().sum())
            keep = max(0.0, 1 - max(0, len(part) - 2) * noise**2 / length) if length else 0.0
            first, square = keep * part.view(2, -1) * scale + origin
            taken_out = (keep * noise * scale[0]) ** 2
            floor = _LEAST_VARIANCE * float(origin[1].mean())
            variance = (square - first.square() + taken_out).clamp_min(max(floor, torch.finfo(torch.float32).tiny))
            result.append((first.float(), variance.float()))
        return result


def _noise_images(images: torch.Tensor) -> torch.Tensor:
    """The reference's images: standard normal pixels, the same everywhere."""
    generator = torch.Generator().manual_seed(_REFERENCE_SEED)
    return torch.randn((_REFERENCE_IMAGES, *images.shape[1:]), generator=generator).to(images)


def _per_image(tap: FeatureTap, images: torch.Tensor) -> list[torch.Tensor]:
    """Per layer (n, 2, channels) float64 on the CPU: every image's own means and mean squares."""
    with _inputs(tap) as inputs, torch.no_grad():
        tap.model(images)
    if len(inputs) < len(tap.layers):
        raise ModelError(f"a feature layer of {type(tap.model).__name__} is not run as a module: name others in layers")
    result = []
    for index in range(len(tap.layers)):
        features = inputs[index].double().flatten(2) if inputs[index].ndim > 2 else inputs[index].double()[..., None]
        result.append(torch.stack([features.mean(2), features.square().mean(2)], dim=1).cpu())
    return result


@contextmanager
def _inputs(tap: FeatureTap) -> Iterator[dict[int, torch.Tensor]]:
    """What reaches the layers during a forward pass, by their number."""
    found: dict[int, torch.Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, args, index=index: found.update({index: args[0].detach()}))
        for index, layer in enumerate(tap.layers)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
