"""Group normalisation in place of batch normalisation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from codream_secure.errors import ModelError
from codream_secure.models import available_models, build_model, convert_batch_norm_to_group_norm
from codream_secure.models.norm import largest_divisor

WITHOUT_BATCH_NORM = [info.name for info in available_models() if info.normalisation != "batch"]


@given(number=st.integers(1, 2000), at_most=st.integers(1, 64))
def test_largest_divisor(number: int, at_most: int) -> None:
    assert largest_divisor(number, at_most) == max(d for d in range(1, at_most + 1) if number % d == 0)


def test_replaces_nested_layers_of_every_dimension_and_keeps_the_rest() -> None:
    convolution = nn.Conv2d(3, 12, 3)
    model = nn.Sequential(convolution, nn.ModuleDict({"a": nn.BatchNorm2d(12), "b": nn.BatchNorm1d(58)}))
    converted = convert_batch_norm_to_group_norm(model)
    assert converted is model
    assert model[0] is convolution
    groups = [layer.num_groups for layer in model.modules() if isinstance(layer, nn.GroupNorm)]
    assert groups == [6, 2]


def test_root_layer_is_replaced_too() -> None:
    converted = convert_batch_norm_to_group_norm(nn.BatchNorm2d(16, eps=1e-3).eval(), groups=4)
    assert isinstance(converted, nn.GroupNorm)
    assert (converted.num_groups, converted.eps, converted.training) == (4, 1e-3, False)


def test_affine_starts_afresh_and_stays_absent_where_it_was() -> None:
    learned = nn.BatchNorm2d(8).double()
    nn.init.constant_(learned.weight, 5.0)
    model: Any = convert_batch_norm_to_group_norm(nn.Sequential(learned, nn.BatchNorm2d(8, affine=False)))
    assert torch.equal(model[0].weight, torch.ones(8, dtype=torch.float64))
    assert torch.equal(model[0].bias, torch.zeros(8, dtype=torch.float64))
    assert model[1].weight is None


def test_examples_no_longer_depend_on_their_batch() -> None:
    torch.manual_seed(0)
    model = build_model("small_cnn_gn", channels=1, image_size=(8, 8), num_classes=3).train()
    images = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(model(images)[:2], model(images[:2]))
    torch.testing.assert_close(model(images), model.eval()(images))


def test_fewer_than_one_group_is_refused() -> None:
    with pytest.raises(ModelError, match="groups=0"):
        convert_batch_norm_to_group_norm(nn.BatchNorm2d(8), groups=0)


@pytest.mark.parametrize("name", WITHOUT_BATCH_NORM)
def test_opacus_accepts_every_model_without_batch_norm(name: str) -> None:
    validators = pytest.importorskip("opacus.validators")
    model = build_model(name, channels=1, image_size=(8, 8), num_classes=10)
    assert validators.ModuleValidator.validate(model) == []


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("name", ["small_cnn_gn", "resnet18_gn", "wrn_16_1_gn", "shufflenet_v2_x0_5_gn", "lenet5"])
def test_per_example_gradients_are_those_of_one_example_at_a_time(name: str) -> None:
    opacus = pytest.importorskip("opacus")
    torch.manual_seed(1)
    model = build_model(name, channels=1, image_size=(8, 8), num_classes=4)
    images, labels = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 3])
    alone = []
    for image, label in zip(images, labels, strict=True):
        loss = nn.functional.cross_entropy(model(image[None]), label[None])
        alone.append(torch.autograd.grad(loss, list(model.parameters())))
    wrapped = opacus.GradSampleModule(model, loss_reduction="sum")
    nn.functional.cross_entropy(wrapped(images), labels, reduction="sum").backward()
    for index, parameter in enumerate(wrapped.parameters()):
        expected = torch.stack([gradients[index] for gradients in alone])
        torch.testing.assert_close(parameter.grad_sample, expected, rtol=1e-3, atol=1e-5)
