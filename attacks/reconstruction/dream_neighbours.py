"""Dreams as reconstructions: whether they lie nearer to the private images than to images that nobody trained on.

All that is used are the dreams, so every client, and anyone whom a buffer of dreams reaches, can do it. Distances are
over pixels in [0, 1]. Everything that is measured of private images is measured of held-out ones in the same way; a
distance without that control says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attacks.estimates import Estimate
from attacks.reconstruction.controls import median
from attacks.reconstruction.image_metrics import PixelBounds, match, psnr, squared_errors
from codream_secure.errors import DataError


@dataclass(frozen=True, kw_only=True)
class DreamFidelity:
    """How near dreams come to images, as median PSNR in dB over images matched one to one; pixels in [0, 1].

    Attributes:
        private: to the private images.
        held_out: the control: the same dreams to held-out images.
        grey: the control: the held-out images' mean colour to the private images.
    """

    private: Estimate
    held_out: Estimate
    grey: Estimate


@dataclass(frozen=True, kw_only=True)
class MeanImage:
    """How far dreams give away what the private images look like on average.

    Attributes:
        private: Pearson correlation over pixels of the dreams' mean image with the private images'; None where one of
            them is constant.
        held_out: the same with held-out images: what dreams share with any image of the kind.
    """

    private: float | None
    held_out: float | None


def nearest_dreams(candidates: torch.Tensor, dreams: torch.Tensor, *, bounds: PixelBounds) -> torch.Tensor:
    """RMS pixel distance of each candidate to its nearest dream; (N,) float64, in [0, 1].

    Args:
        candidates: (N, C, H, W) float, normalised.
        dreams: (n, C, H, W) float, normalised; pixels are clipped to the bounds, which brings them nearer.
        bounds: of pixels, which are public.
    """
    return _distances(candidates, dreams, bounds).min(dim=1).values


def nearest_candidates(dreams: torch.Tensor, candidates: torch.Tensor, *, bounds: PixelBounds) -> torch.Tensor:
    """The reverse: RMS distance of each dream to its nearest candidate; (n,) float64."""
    return _distances(candidates, dreams, bounds).min(dim=0).values


def membership_signal(candidates: torch.Tensor, dreams: torch.Tensor, *, bounds: PixelBounds) -> torch.Tensor:
    """Minus the distance to the nearest dream, (N,) float64: the larger, the likelier a member.

    Images differ in how near they are to anything: to be calibrated by dreams of federations without the candidate.
    """
    return -nearest_dreams(candidates, dreams, bounds=bounds)


def assess_dreams(
    dreams: torch.Tensor, private: torch.Tensor, *, held_out: torch.Tensor, bounds: PixelBounds
) -> DreamFidelity:
    """PSNR of dreams to private images, and of the same dreams, matched anew, to as many held-out images.

    Private and held-out images change places, and nothing else does: to be matched, and to be chosen from many dreams,
    is the same advantage for both. Figures above 20 dB or so without a gap are what smooth images give.

    Args:
        dreams: (n, C, H, W) float, normalised.
        private: (N, C, H, W) float, normalised, the truth.
        held_out: (M, C, H, W) float, normalised, from the same distribution; M at least N. The first N are used.
        bounds: of pixels.

    Raises:
        codream_secure.errors.DataError: the shapes differ, or held-out images are too few.
    """
    if len(held_out) < len(private):
        raise DataError(f"held_out has {len(held_out)} images for {len(private)} private ones: give as many")
    guesses, truth, others = (_pixels(images, bounds) for images in (dreams, private, held_out[: len(private)]))
    grey = others.mean(dim=(0, 2, 3), keepdim=True)
    return DreamFidelity(
        private=_matched(guesses, truth),
        held_out=_matched(guesses, others),
        grey=median(psnr(grey.expand_as(truth), truth)),
    )


def mean_image(dreams: torch.Tensor, private: torch.Tensor, *, held_out: torch.Tensor) -> MeanImage:
    """Correlate mean images; arguments as for :func:`assess_dreams`."""
    own = dreams.double().mean(0)
    return MeanImage(private=_correlation(own, private), held_out=_correlation(own, held_out))


def _matched(guesses: torch.Tensor, targets: torch.Tensor) -> Estimate:
    """Median PSNR of targets to dreams of their own; with fewer dreams than targets, of as many targets."""
    if len(guesses) >= len(targets):
        return median(psnr(guesses[match(guesses, targets)], targets))
    return median(psnr(guesses, targets[match(targets, guesses)]))


def _correlation(image: torch.Tensor, images: torch.Tensor) -> float | None:
    first = (image - image.mean()).flatten()
    other = images.double().mean(0)
    second = (other - other.mean()).flatten()
    length = first.norm() * second.norm()
    return float(first @ second / length) if length > 0 else None


def _pixels(images: torch.Tensor, bounds: PixelBounds) -> torch.Tensor:
    return bounds.to_unit(images).clamp(0, 1)


def _distances(candidates: torch.Tensor, dreams: torch.Tensor, bounds: PixelBounds) -> torch.Tensor:
    return squared_errors(_pixels(candidates, bounds), _pixels(dreams, bounds)).sqrt()
