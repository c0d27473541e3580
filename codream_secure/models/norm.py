"""Group normalisation in place of batch normalisation, and activations that leave their input alone."""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from codream_secure.errors import ModelError

Module = TypeVar("Module", bound=nn.Module)


def convert_batch_norm_to_group_norm(model: nn.Module, groups: int = 8) -> nn.Module:
    """Replace every batch-normalisation layer by group normalisation (Wu and He 2018, arXiv 1803.08494).

    Batch normalisation mixes the examples of a batch and keeps statistics of the private data in its buffers;
    example-wise private training therefore rules it out. Group normalisation looks at one example alone.

    Each layer gets the largest number of groups, up to ``groups``, that divides its channels. Scale and shift start
    afresh at one and zero, whatever the replaced layer had learned; a layer without them stays without them.

    Args:
        model: Changed in place. Device, dtype and training mode of each replaced layer are kept.
        groups: The most groups that a layer may have, at least 1.

    Returns:
        ``model``, or the new layer where ``model`` itself is a batch-normalisation layer.

    Raises:
        ModelError: ``groups`` is less than 1.
    """
    if groups < 1:
        raise ModelError(f"groups={groups} must be at least 1")
    if isinstance(model, _BatchNorm):
        return _group_norm_like(model, groups)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, _group_norm_like(child, groups))
    return model


def largest_divisor(number: int, at_most: int) -> int:
    """The largest divisor of ``number`` that does not exceed ``at_most``; both at least 1."""
    return next(divisor for divisor in range(min(number, at_most), 0, -1) if number % divisor == 0)


def make_out_of_place(model: Module) -> Module:
    """Switch off ``inplace`` in every activation and dropout of ``model``, which is changed and returned.

    Torchvision's networks overwrite activations to save memory. Hooks that keep a layer's output, as feature
    matching and per-example gradients do, would then read the activation after the next layer changed it.
    """
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]
    return model


def _group_norm_like(layer: _BatchNorm, groups: int) -> nn.GroupNorm:
    channels = layer.num_features
    new = nn.GroupNorm(largest_divisor(channels, groups), channels, eps=layer.eps, affine=layer.affine)
    if layer.affine:
        new.to(device=layer.weight.device, dtype=layer.weight.dtype)
    return new.train(layer.training)
