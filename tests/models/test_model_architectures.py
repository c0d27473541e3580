"""The networks are the published ones: compared with torchvision's own, and with the definition of their blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from codream_secure.compat import import_torchvision
from codream_secure.errors import ModelError
from codream_secure.models import build_model
from codream_secure.models.small import LeNet5, SmallCNN
from codream_secure.models.torchvision_nets import drop_pools
from codream_secure.models.wide_resnet import PreActivationBlock, WideResNet


def randomise_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.state_dict()["running_mean"])
            nn.init.uniform_(module.state_dict()["running_var"], 0.5, 2.0)


def assert_same_function(ours: nn.Module, theirs: nn.Module) -> None:
    torch.manual_seed(5)
    randomise_statistics(ours)
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 20, 20)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_resnet_computes_what_torchvision_s_does_with_that_stem() -> None:
    theirs = import_torchvision().models.resnet18(weights=None, num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    assert_same_function(build_model("resnet18", channels=3, image_size=(20, 20), num_classes=10), theirs)


def test_mobilenet_computes_what_torchvision_s_does_with_those_strides() -> None:
    theirs = import_torchvision().models.mobilenet_v2(weights=None, num_classes=10)
    theirs.features[0][0].stride = (1, 1)
    theirs.features[2].conv[1][0].stride = (1, 1)
    assert_same_function(build_model("mobilenet_v2", channels=3, image_size=(20, 20), num_classes=10), theirs)


@pytest.mark.parametrize("width", ["x0_5", "x1_0"])
def test_shufflenet_computes_what_torchvision_s_does_with_that_stem(width: str) -> None:
    name = f"shufflenet_v2_{width}"
    theirs = getattr(import_torchvision().models, name)(weights=None, num_classes=10)
    theirs.conv1[0].stride = (1, 1)
    theirs.maxpool = nn.Identity()
    assert_same_function(build_model(name, channels=3, image_size=(20, 20), num_classes=10), theirs)


def test_vgg_computes_what_torchvision_s_features_do_at_full_size() -> None:
    ours: Any = build_model("vgg11_bn", channels=3, image_size=(32, 32), num_classes=10)
    randomise_statistics(ours)
    vgg = import_torchvision().models.vgg
    features = vgg.make_layers(vgg.cfgs["A"], batch_norm=True)
    features.load_state_dict(ours.features.state_dict())
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        pooled = nn.functional.adaptive_avg_pool2d(features.eval()(images), 1).flatten(1)
        torch.testing.assert_close(ours.eval()(images), ours.classifier(pooled))


@pytest.mark.parametrize(("side", "pools"), [(1, 0), (2, 1), (3, 1), (8, 3), (28, 4), (31, 4), (32, 5), (224, 5)])
def test_vgg_keeps_the_pools_that_leave_a_pixel(side: int, pools: int) -> None:
    layers: list[int | str] = [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"]
    kept = drop_pools(layers, side)
    assert kept.count("M") == pools
    assert [layer for layer in kept if layer != "M"] == [layer for layer in layers if layer != "M"]


def test_pre_activation_block_adds_its_input_untouched() -> None:
    # With a silent branch the block is the identity: nothing rectifies or normalises after the addition.
    block = PreActivationBlock(4, 4, stride=1)
    nn.init.zeros_(block.conv2.weight)
    images = torch.randn(3, 4, 6, 6)
    torch.testing.assert_close(block(images), images)


def test_pre_activation_block_projects_its_first_activation() -> None:
    block = PreActivationBlock(4, 6, stride=2).eval()
    assert block.shortcut is not None
    nn.init.zeros_(block.conv2.weight)
    images = torch.randn(3, 4, 6, 6)
    rectified = (images / (1 + block.bn1.eps) ** 0.5).clamp(min=0)
    expected = torch.einsum("oi,nihw->nohw", block.shortcut.weight[:, :, 0, 0], rectified[:, :, ::2, ::2])
    torch.testing.assert_close(block(images), expected)


@pytest.mark.parametrize("depth", [16, 28, 40])
def test_wide_resnet_has_as_many_layers_as_its_name_says(depth: int) -> None:
    network = WideResNet(depth, 2, channels=3, num_classes=10)
    # Depth 6n + 4 counts the stem, two convolutions in each of the 3n blocks, and one projection for each of the three
    # stages, all of which change the number of maps at width 2; the classifier comes on top.
    weighted = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert len(weighted) == depth + 1
    assert network.classifier.in_features == 128


@pytest.mark.parametrize("depth", [4, 15, 18])
def test_wide_resnet_refuses_other_depths(depth: int) -> None:
    with pytest.raises(ModelError, match=f"depth={depth}"):
        WideResNet(depth, 1, channels=1, num_classes=10)


@pytest.mark.parametrize(("side", "maps"), [(4, 1), (8, 2), (27, 6), (28, 5), (32, 5), (64, 13)])
def test_lenet_map_sides(side: int, maps: int) -> None:
    network = LeNet5(channels=1, image_size=(side, side), num_classes=10)
    assert network.features(torch.zeros(1, 1, side, side)).shape == (1, 16, maps, maps)


def test_small_cnn_is_small_and_takes_other_widths() -> None:
    network = SmallCNN(channels=1, image_size=(8, 8), num_classes=10, widths=(8, 16, 16))
    assert network.features(torch.zeros(2, 1, 8, 8)).shape == (2, 16, 2, 2)
    default = build_model("small_cnn", channels=1, image_size=(28, 28), num_classes=10)
    assert sum(parameter.numel() for parameter in default.parameters()) < 30_000
