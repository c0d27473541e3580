"""A malicious server's layer that sorts a batch into bins and so keeps single images in its gradient.

"Robbing the fed" (Fowl et al. 2022, arXiv 2110.13057): every row of a linear layer measures the same thing, mean
brightness, with cutoffs that are quantiles of public images. A unit is active for all images brighter than its cutoff;
the difference of neighbouring rows' gradients holds those between two cutoffs, and where that is one image, the
quotient of weight and bias gradient is that image. ACTIVE attack: clients train the architecture that they are handed.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from codream_secure.errors import DataError


class Imprint(nn.Module):
    """An imprint layer in front of a model.

    Its units' mean is added to every pixel. That is what makes the loss depend on each unit alike, which the
    differences need, and with a small ``strength`` it hardly changes what the model predicts.

    Takes images (N, C, H, W) and returns what ``model`` does. The first two parameters are the imprint's weight
    (bins, C H W) and bias (bins,).

    Args:
        model: the honest architecture.
        cutoffs: (bins,) ascending mean brightness, the first below any image's.
        image_shape: channels, height and width.
        strength: of what is added. Smaller is stealthier, and makes smaller gradients.
    """

    def __init__(
        self, model: nn.Module, cutoffs: torch.Tensor, *, image_shape: tuple[int, int, int], strength: float = 0.1
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        pixels, bins = channels * height * width, len(cutoffs)
        self.imprint = nn.Linear(pixels, bins)
        self.gather = nn.Linear(bins, 1, bias=False)
        self.model = model
        with torch.no_grad():
            self.imprint.weight.copy_(brightness_weights(pixels).expand(bins, pixels))
            self.imprint.bias.copy_(-cutoffs)
            self.gather.weight.fill_(strength / bins)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        units = torch.relu(self.imprint(images.flatten(1)))
        return self.model(images + self.gather(units)[:, :, None, None])


def brightness_weights(pixels: int) -> torch.Tensor:
    """What the units measure: mean brightness, each pixel weighted by 0.7 to 1.3; (pixels,) float32.

    Equal weights would leave small images of few grey levels, many of them equally bright, in one bin together.
    """
    golden = 2 * math.pi * 0.6180339887498949  # its multiples never come round: no two pixels weigh the same
    return (1 + 0.3 * torch.cos(golden * torch.arange(pixels, dtype=torch.float64))).float() / pixels


def build_imprint(model: nn.Module, public: torch.Tensor, *, bins: int, strength: float = 0.1) -> Imprint:
    """An imprint whose bins are equally likely for images like the public ones.

    Args:
        model: the honest architecture.
        public: (N, C, H, W) float, normalised as the clients' images are.
        bins: number of units, at least 2. An image of a batch of B is alone with probability about
            (1 - 1/bins)^(B - 1): take several times B. Where public images share a brightness some stay empty, to no
            harm.
        strength: see :class:`Imprint`.

    Raises:
        DataError: there are no public images, or ``bins`` is below 2.
    """
    if bins < 2 or not len(public):
        raise DataError(f"bins={bins} and {len(public)} public images: give 2 bins or more, and at least one image")
    pixels = public.flatten(1).double()
    brightness = pixels @ brightness_weights(pixels.shape[1]).double()
    cutoffs = torch.quantile(brightness, torch.arange(bins, dtype=torch.float64) / bins)
    spread = float(brightness.max() - brightness.min()) or 1.0
    # A private image may be as bright as a public one to the last bit: a hair lower, rounding cannot move it to
    # another bin.
    cutoffs = cutoffs - 1e-5 * spread
    cutoffs[0] = brightness.min() - 10 * spread  # a private image may be darker than every public one
    shape = (public.shape[1], public.shape[2], public.shape[3])
    return Imprint(model, cutoffs.float(), image_shape=shape, strength=strength)


def invert_imprint(
    weight_gradient: torch.Tensor,
    bias_gradient: torch.Tensor,
    *,
    count: int,
    filler: torch.Tensor,
) -> torch.Tensor:
    """The images behind an imprint's gradient; of a single client, or of a sum over clients.

    Args:
        weight_gradient: (bins, C H W), one client's or a sum.
        bias_gradient: (bins,).
        count: how many images stand behind it, B or the sum of the clients'.
        filler: (C, H, W) float, what to answer where a bin held nothing or several images beyond recognition: the
            public mean image, say. The answer must have an image for each, or the missing ones would go uncounted.

    Returns:
        (count, C, H, W) float32 in the model's units, not clipped: the bins with the strongest gradients first.

    Raises:
        DataError: the shapes do not fit, or ``count`` is below 1.
    """
    if weight_gradient.shape != (len(bias_gradient), filler.numel()) or count < 1:
        raise DataError(
            f"weight_gradient is {tuple(weight_gradient.shape)}, bias_gradient {tuple(bias_gradient.shape)}, filler "
            f"{tuple(filler.shape)}, count={count}: give (bins, pixels), (bins,), an image, and 1 or more"
        )
    weight, bias = weight_gradient.double(), bias_gradient.double()
    # Each row holds all images brighter than its cutoff; the last row needs nothing taken away.
    weight = torch.cat([weight[:-1] - weight[1:], weight[-1:]])
    bias = torch.cat([bias[:-1] - bias[1:], bias[-1:]])
    # What float32 leaves of rows that ought to be equal is no image.
    noise = bias_gradient.double().abs().max() * 1e-7
    order = bias.abs().argsort(descending=True)[:count]
    order = order[bias[order].abs() > noise]
    images = (weight[order] / bias[order].unsqueeze(1)).float().reshape(len(order), *filler.shape)
    return torch.cat([images, filler.float().expand(count - len(order), *filler.shape)])
