"""Small classifiers that train in seconds on a processor: LeNet-5, a batch-norm CNN and a perceptron."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

SMALL_CNN_WIDTHS = (16, 32, 32)


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with rectifiers and max-pooling, and without normalisation.

    Convolution 5x5 to 6 maps, pool, convolution 5x5 to 16 maps, pool, then linear layers of 120, 84 and
    ``num_classes``. At 32 pixels and more the convolutions are not padded, as published. From 28 pixels on the first
    is padded by 2, which gives the published maps on 28x28 digits; below 28 both are, so that sides from 4 on fit.

    Takes float images (N, channels, height, width) and returns logits (N, num_classes).
    """

    def __init__(self, *, channels: int, image_size: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        shorter = min(image_size)
        padding = (0 if shorter >= 32 else 2, 0 if shorter >= 28 else 2)
        height, width = (_lenet_map_side(side, padding) for side in image_size)
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=padding[0]),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5, padding=padding[1]),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * height * width, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images))


class SmallCNN(nn.Module):
    """Three padded 3x3 convolutions with batch normalisation and ReLU, the first two max-pooled, and a linear layer.

    15 thousand weights on 1x8x8 images and 30 thousand on 1x28x28. The smallest network here whose batch-norm
    statistics dreams can be matched to. Takes float images (N, channels, height, width) of sides from 4 on and
    returns logits (N, num_classes).
    """

    def __init__(
        self,
        *,
        channels: int,
        image_size: tuple[int, int],
        num_classes: int,
        widths: tuple[int, int, int] = SMALL_CNN_WIDTHS,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise((channels, *widths))):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            if index < 2:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        height, width = (side // 4 for side in image_size)
        self.classifier = nn.Linear(widths[-1] * height * width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images).flatten(1))


def mlp(*, channels: int, image_size: tuple[int, int], num_classes: int, hidden: int = 128) -> nn.Sequential:
    """A perceptron with two hidden ReLU layers on the flattened image, without convolution or normalisation."""
    height, width = image_size
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * width, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


def _lenet_map_side(side: int, padding: tuple[int, int]) -> int:
    for pad in padding:
        side = (side + 2 * pad - 4) // 2
    return side
