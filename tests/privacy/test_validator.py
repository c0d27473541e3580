"""Every layer that breaks per-example privacy is found, wherever it stands, and told by name."""

from __future__ import annotations

import pytest
import torch
from opacus.validators import ModuleValidator
from torch import nn

from codream_secure.errors import ModelError
from codream_secure.models import ModelInfo, available_models, build_model
from codream_secure.models.norm import make_out_of_place
from codream_secure.privacy.validator import check_trainable


def around(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(layer), nn.Flatten(), nn.Linear(144, 2))


def frozen_norm() -> nn.Module:
    return nn.BatchNorm2d(4).requires_grad_(False)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, affine=False, track_running_stats=False),
        frozen_norm(),
        nn.BatchNorm1d(4),
        nn.BatchNorm3d(4),
        nn.SyncBatchNorm(4),
        nn.LazyBatchNorm2d(),
    ],
)
def test_every_batch_norm_is_refused_by_name(layer: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"1\.0: \w*BatchNorm\w* mixes.*NAME_gn"):
        check_trainable(around(layer))


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(4, affine=False), frozen_norm()])
def test_opacus_own_validator_lets_these_batch_norms_pass_and_their_statistics_move(layer: nn.Module) -> None:
    model = around(layer).train()
    assert ModuleValidator.validate(model) == []
    before = layer.running_mean.clone()
    model[1](torch.randn(8, 4, 3, 3) + 5)
    assert not torch.equal(layer.running_mean, before)
    with pytest.raises(ModelError, match="cannot be trained privately"):
        check_trainable(model)


class Centring(nn.Module):
    """A layer of somebody's own that keeps a running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(4))


@pytest.mark.parametrize("layer", [nn.InstanceNorm2d(4, track_running_stats=True), Centring()])
def test_running_statistics_are_refused(layer: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"1\.0: .*keeps running_mean"):
        check_trainable(around(layer))


def test_layers_in_place_are_refused_and_repaired_as_told() -> None:
    model = around(nn.ReLU(inplace=True))
    with pytest.raises(ModelError, match=r"1\.0: ReLU works in place \(use .*make_out_of_place"):
        check_trainable(model)
    check_trainable(make_out_of_place(model))


def test_lazy_layers_and_hooked_weights_are_refused() -> None:
    with pytest.raises(ModelError, match=r"1\.0: LazyConv2d has no weights yet"):
        check_trainable(around(nn.LazyConv2d(4, 1)))
    with pytest.warns(FutureWarning):
        hooked = nn.utils.weight_norm(nn.Conv2d(4, 4, 1))
    with pytest.raises(ModelError, match=r"1\.0: Conv2d has a weight that a hook computes"):
        check_trainable(around(hooked))


def test_all_faults_are_told_at_once_and_nothing_to_train_is_one() -> None:
    with pytest.raises(ModelError, match=r"0: BatchNorm2d.*; 1: ReLU works in place"):
        check_trainable(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(inplace=True)))
    with pytest.raises(ModelError, match="the model itself: BatchNorm1d"):
        check_trainable(nn.BatchNorm1d(4))
    with pytest.raises(ModelError, match="nothing to train"):
        check_trainable(nn.Linear(2, 2).requires_grad_(False))


@pytest.mark.parametrize("layer", [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.Dropout(), nn.LayerNorm([4, 6, 6])])
def test_what_treats_images_alone_passes(layer: nn.Module) -> None:
    check_trainable(around(layer))


@pytest.mark.parametrize("info", available_models(), ids=lambda info: info.name)
def test_of_the_registry_exactly_the_models_with_batch_norm_are_refused(info: ModelInfo) -> None:
    model = build_model(info.name, channels=1, image_size=(32, 32), num_classes=3)
    if info.normalisation == "batch":
        with pytest.raises(ModelError, match="BatchNorm"):
            check_trainable(model)
    else:
        check_trainable(model)
