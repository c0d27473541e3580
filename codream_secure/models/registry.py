"""The names of the models, and how each is built for a given image shape and number of classes."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import nn

from codream_secure.errors import ModelError
from codream_secure.models.norm import convert_batch_norm_to_group_norm
from codream_secure.models.resnet import RESNET18, RESNET34, small_image_resnet
from codream_secure.models.small import LeNet5, SmallCNN, mlp
from codream_secure.models.torchvision_nets import VGG11, mobilenet_v2, shufflenet_v2
from codream_secure.models.wide_resnet import WideResNet

GROUP_NORM_SUFFIX = "_gn"
Builder = Callable[[int, tuple[int, int], int], nn.Module]


@dataclass(frozen=True)
class ModelInfo:
    """What a user who chooses a model wants to know about it.

    Attributes:
        name: What :func:`build_model` takes.
        description: One line of plain English.
        smallest_side: The fewest pixels that the image's height and width may have.
        normalisation: Which kind of normalisation layers the model has. Dreams are matched to batch statistics only
            where it is "batch"; example-wise private training needs one of the other two.
    """

    name: str
    description: str
    smallest_side: int
    normalisation: Literal["batch", "group", "none"]


@dataclass(frozen=True)
class _Entry:
    info: ModelInfo
    build: Builder


def _entry(
    name: str,
    build: Builder,
    *,
    description: str,
    smallest_side: int = 1,
    normalisation: Literal["batch", "none"] = "batch",
) -> _Entry:
    return _Entry(ModelInfo(name, description, smallest_side, normalisation), build)


_BASE = (
    _entry(
        "mlp",
        lambda c, s, k: mlp(channels=c, image_size=s, num_classes=k),
        description="perceptron with two hidden layers of 128",
        normalisation="none",
    ),
    _entry(
        "lenet5",
        lambda c, s, k: LeNet5(channels=c, image_size=s, num_classes=k),
        description="LeNet-5 with rectifiers, no normalisation layers",
        smallest_side=4,
        normalisation="none",
    ),
    _entry(
        "small_cnn",
        lambda c, s, k: SmallCNN(channels=c, image_size=s, num_classes=k),
        description="three convolutions with batch normalisation, 16, 32 and 32 maps",
        smallest_side=4,
    ),
    _entry(
        "resnet18",
        lambda c, s, k: small_image_resnet(RESNET18, channels=c, num_classes=k),
        description="ResNet-18 with a small-image stem",
    ),
    _entry(
        "resnet34",
        lambda c, s, k: small_image_resnet(RESNET34, channels=c, num_classes=k),
        description="ResNet-34 with a small-image stem",
    ),
    _entry(
        "wrn_16_1",
        lambda c, s, k: WideResNet(16, 1, channels=c, num_classes=k),
        description="wide residual network of depth 16 and width 1",
    ),
    _entry(
        "wrn_40_1",
        lambda c, s, k: WideResNet(40, 1, channels=c, num_classes=k),
        description="wide residual network of depth 40 and width 1",
    ),
    _entry(
        "vgg11_bn",
        lambda c, s, k: VGG11(channels=c, image_size=s, num_classes=k),
        description="VGG-11 with batch normalisation and one linear layer as its head",
    ),
    _entry(
        "mobilenet_v2",
        lambda c, s, k: mobilenet_v2(channels=c, num_classes=k),
        description="MobileNetV2 with a small-image stem",
    ),
    _entry(
        "shufflenet_v2_x0_5",
        lambda c, s, k: shufflenet_v2("x0_5", channels=c, num_classes=k),
        description="ShuffleNetV2 of width 0.5 with a small-image stem",
    ),
    _entry(
        "shufflenet_v2_x1_0",
        lambda c, s, k: shufflenet_v2("x1_0", channels=c, num_classes=k),
        description="ShuffleNetV2 of width 1 with a small-image stem",
    ),
)


def _group_norm_variant(base: _Entry) -> _Entry:
    info = ModelInfo(
        name=base.info.name + GROUP_NORM_SUFFIX,
        description=f"{base.info.name} with group in place of batch normalisation",
        smallest_side=base.info.smallest_side,
        normalisation="group",
    )
    return _Entry(info, lambda c, s, k: convert_batch_norm_to_group_norm(base.build(c, s, k)))


_VARIANTS = tuple(_group_norm_variant(entry) for entry in _BASE if entry.info.normalisation == "batch")
_REGISTRY = {entry.info.name: entry for entry in (*_BASE, *_VARIANTS)}


def available_models() -> list[ModelInfo]:
    """All models of the registry, small to large, the group-normalisation variants last."""
    return [entry.info for entry in _REGISTRY.values()]


def build_model(name: str, *, channels: int, image_size: tuple[int, int], num_classes: int) -> nn.Module:
    """Build a freshly initialised classifier, on the CPU, in float32 and in training mode.

    Weights are drawn from torch's global generator and are never pretrained: the same seed gives the same weights.
    No layer of a model of the registry works in place, so hooks and input gradients see what each layer put out.

    Args:
        name: A name of :func:`available_models`; ``NAME_gn`` is ``NAME`` with group normalisation. Or
            ``"package.module:callable"`` for a model of one's own: the callable is given ``channels``, ``image_size``
            and ``num_classes`` by keyword and returns a module, which is tried on two images in evaluation mode.
        channels: Channels of the images, at least 1.
        image_size: Height and width of the images in pixels, each at least 1.
        num_classes: Number of classes, at least 2.

    Returns:
        A module that maps float images (N, channels, height, width) to logits (N, num_classes).

    Raises:
        ModelError: The name is unknown, the model cannot take such images or classes, or one's own model cannot be
            imported or built, or does not return logits of that shape.
    """
    _check_shape(channels, image_size, num_classes)
    height, width = image_size
    if ":" in name:
        return _build_own(name, channels=channels, image_size=(height, width), num_classes=num_classes)
    entry = _REGISTRY.get(name)
    if entry is None:
        near = difflib.get_close_matches(name, _REGISTRY, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ModelError(
            f"name={name!r} is not a known model; {hint}Use one of {', '.join(_REGISTRY)}, "
            "or 'package.module:callable' for one of your own"
        )
    smallest = entry.info.smallest_side
    if min(height, width) < smallest:
        raise ModelError(
            f"image_size={(height, width)} is too small for {name}: height and width must be at least {smallest}"
        )
    return entry.build(channels, (height, width), num_classes)


def count_parameters(model: nn.Module) -> int:
    """The number of scalar parameters of ``model``, frozen ones included and shared ones once; no buffers."""
    return sum(parameter.numel() for parameter in model.parameters())


def _check_shape(channels: int, image_size: tuple[int, int], num_classes: int) -> None:
    if not _is_count(channels, at_least=1):
        raise ModelError(f"channels={channels!r} must be a whole number of at least 1")
    is_pair = isinstance(image_size, (tuple, list)) and len(image_size) == 2
    if not is_pair or not all(_is_count(side, at_least=1) for side in image_size):
        raise ModelError(f"image_size={image_size!r} must be (height, width), whole numbers of at least 1")
    if not _is_count(num_classes, at_least=2):
        raise ModelError(f"num_classes={num_classes!r} must be a whole number of at least 2")


def _is_count(value: object, *, at_least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


def _build_own(name: str, *, channels: int, image_size: tuple[int, int], num_classes: int) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    # Whatever the user's code raises, the user learns which configured name it came from; the cause is chained.
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ModelError(
            f"name={name!r}: cannot import {module_name!r} ({type(error).__name__}: {error}); "
            "check the spelling, and that its folder is on PYTHONPATH"
        ) from error
    try:
        factory = reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        raise ModelError(f"name={name!r}: module {module_name!r} has no attribute {attribute!r}") from error
    if not callable(factory):
        raise ModelError(f"name={name!r}: {attribute!r} is of type {type(factory).__name__}, which cannot be called")
    try:
        model = factory(channels=channels, image_size=image_size, num_classes=num_classes)
    except Exception as error:
        raise ModelError(
            f"name={name!r} failed for channels={channels}, image_size={image_size}, num_classes={num_classes} "
            f"({type(error).__name__}: {error}); it must accept these three as keyword arguments"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"name={name!r} returned an object of type {type(model).__name__}; it must return a torch.nn.Module"
        )
    _dry_run(name, model, shape=(2, channels, *image_size), expected=(2, num_classes))
    return model


def _dry_run(name: str, model: nn.Module, *, shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    modes = [(module, module.training) for module in model.modules()]
    try:
        # Forked, so that a model that draws random numbers leaves the caller's generator where it was.
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            output = model.eval()(torch.full(shape, 0.5))
    except Exception as error:
        raise ModelError(
            f"name={name!r} failed in evaluation mode on images of shape {shape} ({type(error).__name__}: {error})"
        ) from error
    for module, training in modes:
        module.training = training
    found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if found != expected:
        raise ModelError(f"name={name!r} returned {found} for images of shape {shape}; it must return {expected}")
