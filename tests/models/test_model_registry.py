"""Every model of the registry, at every image shape in use: what comes out, what flows back, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from codream_secure.errors import ModelError
from codream_secure.models import available_models, build_model, count_parameters

MODELS = {info.name: info for info in available_models()}
# One model of each code path: the others differ from these in depth or width, or in their normalisation layers alone.
DISTINCT = [
    "mlp",
    "lenet5",
    "small_cnn",
    "small_cnn_gn",
    "resnet18",
    "wrn_16_1",
    "vgg11_bn",
    "mobilenet_v2",
    "shufflenet_v2_x0_5",
]
SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (5, 12, 20)]
CHEAP = ["mlp", "lenet5", "small_cnn", "small_cnn_gn", "wrn_16_1", "vgg11_bn", "shufflenet_v2_x0_5"]


def build(name: str, shape: tuple[int, int, int], *, num_classes: int = 7, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(name, channels=shape[0], image_size=(shape[1], shape[2]), num_classes=num_classes)


def normalisation(model: nn.Module) -> set[str]:
    kinds = {nn.modules.batchnorm._BatchNorm: "batch", nn.GroupNorm: "group"}
    return {word for kind, word in kinds.items() if any(isinstance(module, kind) for module in model.modules())}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_frozen_model_gives_logits_and_input_gradients(name: str, shape: tuple[int, int, int]) -> None:
    model = build(name, shape).eval().requires_grad_(False)
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
    logits = model(images)
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()
    nn.functional.cross_entropy(logits, torch.tensor([0, 3])).backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert (images.grad.flatten(1).abs().amax(dim=1) > 0).all()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert normalisation(model) == {MODELS[name].normalisation} - {"none"}


@pytest.mark.parametrize("name", DISTINCT)
def test_every_weight_gets_a_gradient_in_training_mode(name: str) -> None:
    model = build(name, (1, 16, 16))
    assert model.training
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    nn.functional.cross_entropy(model(images), torch.arange(4)).backward()
    without = [key for key, value in model.named_parameters() if value.grad is None]
    assert without == []


@pytest.mark.parametrize("name", DISTINCT)
def test_same_seed_same_weights(name: str) -> None:
    first, second, other = (build(name, (1, 8, 8), seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", DISTINCT)
def test_no_layer_works_in_place(name: str) -> None:
    model = build(name, (3, 16, 16)).eval()
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    # An output that something overwrites later differs, at the end, from the copy taken when it was put out.
    seen: list[tuple[str, torch.Tensor, torch.Tensor]] = []
    for key, module in model.named_modules():
        module.register_forward_hook(lambda _m, _i, out, key=key: seen.append((key, out, out.clone())))
    with torch.no_grad():
        model(torch.rand(1, 3, 16, 16))
    assert seen
    assert [key for key, now, then in seen if not torch.equal(now, then)] == []


def test_every_batch_norm_model_has_a_group_norm_variant() -> None:
    batch = {info.name for info in MODELS.values() if info.normalisation == "batch"}
    group = {info.name for info in MODELS.values() if info.normalisation == "group"}
    assert batch
    assert group == {name + "_gn" for name in batch}


@pytest.mark.parametrize("name", DISTINCT)
def test_smallest_side_is_the_smallest(name: str) -> None:
    smallest = MODELS[name].smallest_side
    logits = build(name, (1, smallest, smallest)).eval()(torch.rand(2, 1, smallest, smallest))
    assert logits.shape == (2, 7)
    if smallest > 1:
        for size in [(smallest - 1, 32), (32, smallest - 1)]:
            with pytest.raises(ModelError, match=rf"image_size=.*{size[0]}.*{name}.*at least {smallest}"):
                build_model(name, channels=1, image_size=size, num_classes=7)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(CHEAP),
    channels=st.integers(1, 6),
    height=st.integers(4, 40),
    width=st.integers(4, 40),
    num_classes=st.integers(2, 30),
)
def test_any_channels_sides_and_classes(name: str, channels: int, height: int, width: int, num_classes: int) -> None:
    model = build(name, (channels, height, width), num_classes=num_classes).eval()
    with torch.no_grad():
        assert model(torch.rand(2, channels, height, width)).shape == (2, num_classes)


# From torchvision's table of weights (1000 classes, 3 channels; the stems there have the same shape).
@pytest.mark.parametrize(
    ("name", "published"),
    [("mobilenet_v2", 3_504_872), ("shufflenet_v2_x0_5", 1_366_792), ("shufflenet_v2_x1_0", 2_278_604)],
)
def test_sizes_published_by_torchvision(name: str, published: int) -> None:
    assert count_parameters(build(name, (3, 32, 32), num_classes=1000)) == published


# Sizes on CIFAR-10 as widely reported for the networks with a 3x3 stem; WRN-16-1 is 0.18 M and WRN-40-1 0.56 M.
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet18", 11_173_962),
        ("resnet34", 21_282_122),
        ("vgg11_bn", 9_231_114),
        ("wrn_16_1", 175_066),
        ("wrn_40_1", 563_930),
    ],
)
def test_sizes_on_cifar10(name: str, published: int) -> None:
    assert count_parameters(build(name, (3, 32, 32), num_classes=10)) == published
    assert count_parameters(build(name + "_gn", (3, 32, 32), num_classes=10)) == published


def test_lenet_has_the_published_size_on_32_and_28_pixels() -> None:
    # 156 + 2416 + 48120 + 10164 + 850, with the full connection of the second convolution.
    assert count_parameters(build("lenet5", (1, 32, 32), num_classes=10)) == 61_706
    assert count_parameters(build("lenet5", (1, 28, 28), num_classes=10)) == 61_706


def test_count_includes_frozen_and_counts_shared_once() -> None:
    layer = nn.Linear(3, 2)
    assert count_parameters(nn.Sequential(layer, nn.ReLU(), layer).requires_grad_(False)) == 8


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"name='resnet_18'.*did you mean 'resnet18'.*wrn_16_1"):
        build_model("resnet_18", channels=1, image_size=(8, 8), num_classes=10)


def test_group_norm_variant_of_a_model_without_batch_norm_is_unknown() -> None:
    with pytest.raises(ModelError, match="name='lenet5_gn' is not a known model"):
        build_model("lenet5_gn", channels=1, image_size=(8, 8), num_classes=10)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"channels": 0}, "channels=0 "),
        ({"channels": 1.0}, "channels=1.0 "),
        ({"image_size": (8, 0)}, r"image_size=\(8, 0\)"),
        ({"image_size": (8, 8, 8)}, r"image_size=\(8, 8, 8\)"),
        ({"image_size": 8}, "image_size=8 "),
        ({"num_classes": 1}, "num_classes=1 "),
        ({"num_classes": True}, "num_classes=True "),
    ],
)
def test_impossible_shapes_are_refused(changed: dict[str, object], message: str) -> None:
    arguments: dict[str, Any] = {"channels": 1, "image_size": (8, 8), "num_classes": 10, **changed}
    with pytest.raises(ModelError, match=message):
        build_model("mlp", **arguments)
