"""Names, the embedded digits, and real data where there is some."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from codream_secure.data import check_source, list_sources, load_source
from codream_secure.data.known import DIGITS, IDX_SETS, MEDICAL_SETS, TORCHVISION_SETS
from codream_secure.errors import DataError


def test_every_listed_name_is_known_and_described() -> None:
    names = [info.name for info in list_sources()]
    assert len(set(names)) == len(names)
    assert {"digits", "mnist", "emnist", "svhn", "cifar100", "pathmnist", "tissuemnist"} < set(names)
    assert "chestmnist" not in names
    assert names[-2:] == ["npz:FILE", "images:FOLDER"]
    assert all(info.description for info in list_sources())


def test_known_facts_fit_together() -> None:
    for facts in (DIGITS, *IDX_SETS.values(), *TORCHVISION_SETS.values(), *MEDICAL_SETS.values()):
        assert len(facts.mean) == len(facts.std)
        assert len(facts.mean) == (3 if "RGB" in facts.description else 1)
        assert len(set(facts.classes)) == len(facts.classes)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cifar_10", "unknown data set 'cifar_10': did you mean 'cifar10'"),
        ("zip:a.zip", "unknown data set 'zip:a.zip': there are digits"),
        ("", "unknown data set ''"),
        ("chestmnist", "several labels at once"),
    ],
)
def test_unknown_names(spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_source(spec)


def test_digits_split() -> None:
    made, again = load_source("digits"), load_source("digits")
    assert (len(made.train), len(made.test)) == (1437, 360)
    assert (made.channels, made.image_size, made.num_classes) == (1, (8, 8), 10)
    assert made.train.images.equal(again.train.images)
    official = load_digits()
    shares = made.test.class_counts(10).numpy() / np.bincount(official.target)
    assert np.abs(shares - 0.2).max() < 0.01
    # Together the parts are the whole set, image by image.
    together = torch.cat([made.train.images, made.test.images]).flatten(1).numpy() * 16
    assert sorted(map(tuple, together)) == sorted(map(tuple, official.data))


def test_digits_constants_are_those_of_the_public_set() -> None:
    pixels = load_digits().data / 16
    assert pytest.approx((pixels.mean(), pixels.std()), abs=5e-4) == (DIGITS.mean[0], DIGITS.std[0])


def test_importing_the_package_imports_no_heavy_library() -> None:
    code = (
        "import sys, codream_secure.data\n"
        "print([m for m in ('torchvision', 'matplotlib', 'PIL.Image') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_real_mnist(real_data: Path) -> None:
    made = load_source("mnist", root=real_data)
    assert made.train.images.shape == (60000, 1, 28, 28)
    assert made.train.class_counts(10).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert made.test.class_counts(10).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    found = check_source(made)["train"]
    assert (found["mean"], found["std"]) == (pytest.approx(made.mean, abs=5e-4), pytest.approx(made.std, abs=5e-4))


@pytest.mark.parametrize(
    ("file", "train", "test"), [("cifar10_10k10k.npz", 10_000, 10_000), ("svhn10k.npz", 8_000, 2_000)]
)
def test_real_npz(real_data: Path, file: str, train: int, test: int) -> None:
    made = load_source(f"npz:{real_data / file}")
    assert made.train.images.shape == (train, 3, 32, 32)
    assert made.test.images.shape == (test, 3, 32, 32)
    assert made.num_classes == 10
    with np.load(real_data / file) as arrays:
        assert np.array_equal(made.test.labels.numpy(), arrays["y_test"])


def test_real_pneumoniamnist(real_data: Path) -> None:
    made = load_source("pneumoniamnist", root=real_data)
    assert (len(made.train), len(made.test)) == (4708, 624)
    assert made.train.class_counts(2).tolist() == [1214, 3494]
