"""Torchvision's residual networks with a stem for small images and blocks that add out of place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from codream_secure.compat import import_torchvision
from codream_secure.models.norm import make_out_of_place

RESNET18 = (2, 2, 2, 2)
RESNET34 = (3, 4, 6, 3)


class BasicBlock(nn.Module):
    """Torchvision's ``BasicBlock``, weight for weight and name for name, with ``+`` where it has ``+=``.

    The in-place addition overwrites the output of the block's last normalisation layer, which hooks on that layer
    hold on to. The signature is the one by which torchvision's ``ResNet`` calls its blocks; grouped, widened and
    dilated blocks do not occur in the networks built here, so those three arguments are accepted and not used.
    """

    expansion = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = norm_layer(planes)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = norm_layer(planes)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + identity)


def small_image_resnet(blocks: Sequence[int], *, channels: int, num_classes: int) -> nn.Module:
    """A torchvision ResNet of basic blocks whose stem is one 3x3 convolution of stride 1, without max-pooling.

    This is the usual CIFAR variant: 32x32 images give 4x4 maps at the end, 8x8 images 1x1 maps. Global average
    pooling makes it independent of the image size. With 3 channels and 10 classes ResNet-18 has 11,173,962 weights.

    Args:
        blocks: Number of blocks in each of the four stages.
        channels: Channels of the images.
        num_classes: Length of the logit vector.
    """
    model = import_torchvision().models.ResNet(BasicBlock, list(blocks), num_classes=num_classes)
    model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return make_out_of_place(model)
