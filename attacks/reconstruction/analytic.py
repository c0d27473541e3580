"""The input of a linear layer with bias, read off its gradient in closed form.

For one image, row i of the weight's gradient is g_i x and that of the bias g_i, so x is their quotient (Phong et al.
2018). What comes out is the LAYER's input: the image itself where the first layer is linear (a perceptron, or an
imprint that a malicious server put in front), and no more than features where convolutions come before.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from codream_secure.errors import DataError, ModelError


def linear_input(weight_gradient: torch.Tensor, bias_gradient: torch.Tensor) -> torch.Tensor | None:
    """The one input behind the gradient of a linear layer, from the row whose bias gradient is largest.

    For a batch it is the mean of the inputs, weighted with their shares of that row's gradient.

    Args:
        weight_gradient: (out, in) float; a gradient, or any multiple: the update of one SGD step will do.
        bias_gradient: (out,) float.

    Returns:
        (in,) float64; None where every bias gradient is 0: no unit was active, and nothing passed the layer.

    Raises:
        DataError: the shapes do not fit.
    """
    if weight_gradient.ndim != 2 or bias_gradient.shape != weight_gradient.shape[:1]:
        raise DataError(
            f"weight_gradient is {tuple(weight_gradient.shape)} and bias_gradient {tuple(bias_gradient.shape)}: "
            "give (out, in) and (out,)"
        )
    row = int(bias_gradient.abs().argmax())
    if float(bias_gradient[row]) == 0.0:
        return None
    return weight_gradient[row].double() / bias_gradient[row].double()


def first_linear(model: nn.Module) -> tuple[int, int, bool]:
    """Where the first linear layer's gradient stands, and whether it sees the image.

    Returns:
        Positions of its weight and bias in ``model.parameters()``, and whether no parameter comes before it, so that
        its input is the image (perceptrons of the registry) and not features.

    Raises:
        ModelError: there is no linear layer, or it has no bias.
    """
    positions = {id(parameter): position for position, parameter in enumerate(model.parameters())}
    layer = next((module for module in model.modules() if isinstance(module, nn.Linear)), None)
    if layer is None or layer.bias is None:
        raise ModelError("the first linear layer has no bias, or there is none: closed-form inversion needs one")
    weight = positions[id(layer.weight)]
    return weight, positions[id(layer.bias)], weight == 0


def begins_linear(model: nn.Module) -> bool:
    """Whether the first parameters are a linear layer's weight and bias, so that its input is the image."""
    try:
        return first_linear(model)[2]
    except ModelError:
        return False


def invert_first_linear(
    model: nn.Module, gradients: Sequence[torch.Tensor], *, image_shape: tuple[int, int, int]
) -> torch.Tensor | None:
    """The image behind the gradient of a model that begins with a linear layer; B = 1.

    Args:
        model: the global model; only its structure counts.
        gradients: one per parameter, in the order of ``model.parameters()``.
        image_shape: channels, height and width.

    Returns:
        (1, C, H, W) float32 in the model's units, not clipped; None where no unit was active.

    Raises:
        ModelError: the first layer with parameters is not a linear one with bias: only features would come out (take
            :func:`linear_input` for those).
    """
    weight, bias, sees_image = first_linear(model)
    if not sees_image:
        raise ModelError("the first linear layer does not see the image: its input, from linear_input, is features")
    found = linear_input(gradients[weight], gradients[bias])
    return None if found is None else found.float().reshape(1, *image_shape)
