"""A user's model given as "package.module:callable": the good one is built, each bad one says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from codream_secure.errors import ModelError
from codream_secure.models import build_model

SOURCE = """
import torch
from torch import nn

class Good(nn.Module):
    def __init__(self, *, channels, image_size, num_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(channels * image_size[0] * image_size[1]))
        self.body.eval()
        self.head = nn.LazyLinear(num_classes)

    def forward(self, images):
        return self.head(self.body(images) + 0.1 * torch.rand_like(self.body(images)))

class Nested:
    good = Good

def function(**shape):
    return Good(**shape)

def positional(channels):
    return nn.Flatten()

def broken(**shape):
    raise RuntimeError("no such luck")

def not_a_module(**shape):
    return "a string"

def wrong_classes(*, channels, image_size, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size[0] * image_size[1], num_classes + 1))

def returns_pair(**shape):
    class Pair(nn.Module):
        def forward(self, images):
            return images, images
    return Pair()

def cannot_take_images(**shape):
    return nn.Linear(999, 3)

number = 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "models_of_mine.py").write_text(SOURCE)
    (tmp_path / "raises_at_import.py").write_text("raise OSError('disk on fire')")
    monkeypatch.syspath_prepend(tmp_path)
    return "models_of_mine"


def build(name: str) -> Any:
    return build_model(name, channels=2, image_size=(4, 5), num_classes=3)


@pytest.mark.parametrize("attribute", ["Good", "function", "Nested.good"])
def test_good_model_is_built_ready_for_training(package: str, attribute: str) -> None:
    model = build(f"{package}:{attribute}")
    assert model.training
    assert not model.body.training
    assert int(model.body[1].num_batches_tracked) == 0
    assert model(torch.rand(6, 2, 4, 5)).shape == (6, 3)


def test_trial_leaves_the_generator_where_it_was(package: str) -> None:
    torch.manual_seed(11)
    build(f"{package}:Good")
    after = torch.rand(3)
    torch.manual_seed(11)
    assert torch.equal(after, torch.rand(3))


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("absent", "has no attribute 'absent'"),
        ("Nested.absent", r"has no attribute 'Nested\.absent'"),
        ("", "has no attribute ''"),
        ("number", "'number' is of type int, which cannot be called"),
        ("positional", r"TypeError.*keyword arguments"),
        ("broken", "RuntimeError: no such luck"),
        ("not_a_module", "returned an object of type str; it must return a torch.nn.Module"),
        ("wrong_classes", r"returned \(2, 4\) for images of shape \(2, 2, 4, 5\); it must return \(2, 3\)"),
        ("returns_pair", "returned tuple"),
        ("cannot_take_images", r"failed in evaluation mode on images of shape \(2, 2, 4, 5\)"),
    ],
)
def test_bad_callable_is_named(package: str, attribute: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        build(f"{package}:{attribute}")
    assert f"name='{package}:{attribute}'" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package:model", "cannot import 'no_such_package' .*PYTHONPATH"),
        ("raises_at_import:model", "OSError: disk on fire"),
        (":model", "cannot import ''"),
    ],
)
@pytest.mark.usefixtures("package")
def test_module_that_cannot_be_imported(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        build(name)
    assert caught.value.__cause__ is not None
