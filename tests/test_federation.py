"""What a federation is made of, where no method's own tests look."""

import pytest
import torch

from codream_secure.config import make_config
from codream_secure.data import load_source
from codream_secure.errors import ConfigError
from codream_secure.federation import Federation

DIGITS = load_source("digits")


def images_for_testing(*overrides: str) -> torch.Tensor:
    return Federation.create(make_config({}, list(overrides)), source=DIGITS).test[0]


def test_all_test_images_are_used_by_default() -> None:
    assert len(images_for_testing()) == len(DIGITS.test.labels)


def test_some_test_images_are_random_ones_of_the_test_set_and_fixed_by_the_seed() -> None:
    everything = {image.numpy().tobytes() for image in images_for_testing()}
    some = images_for_testing("data.test_samples=40")
    assert len({image.numpy().tobytes() for image in some} & everything) == 40
    assert torch.equal(some, images_for_testing("data.test_samples=40"))
    assert not torch.equal(some, images_for_testing("data.test_samples=40", "run.seed=1"))


def test_more_test_images_than_there_are_is_an_error_that_names_both() -> None:
    with pytest.raises(ConfigError, match=r"data.test_samples is 5000, but there are 360"):
        images_for_testing("data.test_samples=5000")
