"""Torchvision's VGG-11, MobileNetV2 and ShuffleNetV2, changed where small images need it, never pretrained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from codream_secure.compat import import_torchvision
from codream_secure.models.norm import make_out_of_place

# Expansion, channels, repeats and stride of MobileNetV2's stages (Sandler et al. 2018, table 2), where the second
# stage keeps the sides; with a stem that keeps them too, 32x32 images still give 4x4 maps at the end.
_MOBILENET_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_SHUFFLENET_WIDTHS = {"x0_5": (24, 48, 96, 192, 1024), "x1_0": (24, 116, 232, 464, 1024)}


class VGG11(nn.Module):
    """Torchvision's VGG-11 features with batch normalisation, global average pooling and one linear layer.

    The five max-pools halve 32x32 images to 1x1. On smaller images the pools that would shrink a side below one pixel
    are left out. Takes float images (N, channels, height, width) and returns logits (N, num_classes).
    """

    def __init__(self, *, channels: int, image_size: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        vgg = import_torchvision().models.vgg
        self.features = vgg.make_layers(drop_pools(vgg.cfgs["A"], min(image_size)), batch_norm=True)
        self.features[0] = nn.Conv2d(channels, 64, 3, padding=1)
        self.classifier = nn.Linear(512, num_classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.classifier.weight, 0.0, 0.01)
        nn.init.zeros_(self.classifier.bias)
        make_out_of_place(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images).mean(dim=(2, 3)))


def drop_pools(layers: Sequence[int | str], side: int) -> list[int | str]:
    """Torchvision's VGG layer list without the pools ("M") that would shrink ``side`` pixels below one."""
    kept: list[int | str] = []
    for layer in layers:
        if layer == "M":
            if side < 2:
                continue
            side //= 2
        kept.append(layer)
    return kept


def mobilenet_v2(*, channels: int, num_classes: int) -> nn.Module:
    """Torchvision's MobileNetV2 (Sandler et al. 2018) whose stem and second stage keep the image's sides."""
    model = import_torchvision().models.MobileNetV2(
        num_classes=num_classes, inverted_residual_setting=[list(stage) for stage in _MOBILENET_STAGES]
    )
    model.features[0][0] = _stem(channels, 32)
    return make_out_of_place(model)


def shufflenet_v2(width: str, *, channels: int, num_classes: int) -> nn.Module:
    """Torchvision's ShuffleNetV2 (Ma et al. 2018), ``width`` "x0_5" or "x1_0", whose stem keeps the image's sides."""
    widths = _SHUFFLENET_WIDTHS[width]
    model = import_torchvision().models.ShuffleNetV2([4, 8, 4], list(widths), num_classes=num_classes)
    model.conv1[0] = _stem(channels, widths[0])
    model.maxpool = nn.Identity()
    return make_out_of_place(model)


def _stem(channels: int, outputs: int) -> nn.Conv2d:
    stem = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    return stem
