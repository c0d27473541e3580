"""Wide residual networks with pre-activation blocks (Zagoruyko and Komodakis 2016, arXiv 1605.07146)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from codream_secure.errors import ModelError


class PreActivationBlock(nn.Module):
    """Normalise, rectify, convolve, twice; the result is added to the shortcut.

    Where the block changes the shape, the shortcut is a 1x1 convolution of the block's first activation, as in the
    authors' code; elsewhere it is the input itself.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        changes_shape = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if changes_shape else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = functional.relu(self.bn1(x))
        identity = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(functional.relu(self.bn2(self.conv1(active)))) + identity


class WideResNet(nn.Module):
    """WRN-``depth``-``widen``: a 3x3 stem of 16 maps and three stages of 16, 32 and 64 times ``widen`` maps.

    The second and third stage halve the sides; global average pooling makes the network independent of the image
    size. Dropout is not used. With 3 channels and 10 classes WRN-16-1 has 0.18 million weights and WRN-40-1 0.56.
    Takes float images (N, channels, height, width) and returns logits (N, num_classes).

    Raises:
        ModelError: ``depth`` is not 6n + 4 with n at least 1.
    """

    def __init__(self, depth: int, widen: int, *, channels: int, num_classes: int) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6 != 0:
            raise ModelError(f"depth={depth} must be 6n + 4 with n at least 1, such as 16, 28 or 40")
        blocks = (depth - 4) // 6
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        inputs = 16
        stages: list[nn.Module] = []
        for outputs, stride in ((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)):
            first = PreActivationBlock(inputs, outputs, stride=stride)
            rest = (PreActivationBlock(outputs, outputs, stride=1) for _ in range(blocks - 1))
            stages.append(nn.Sequential(first, *rest))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(inputs)
        self.classifier = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = functional.relu(self.bn(self.stages(self.stem(images))))
        return self.classifier(maps.mean(dim=(2, 3)))
