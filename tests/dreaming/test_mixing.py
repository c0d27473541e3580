"""CutMix: every pixel comes from one of two dreams, by a box, and only the generator decides which."""

from __future__ import annotations

import pytest
import torch

from codream_secure.dreaming.mixing import cutmix


def numbered(count: int, height: int = 6, width: int = 9) -> torch.Tensor:
    """Images that are constant, each with its own value."""
    return torch.arange(count, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(count, 2, height, width).clone()


def test_each_mix_is_its_own_image_with_one_box_of_one_partner() -> None:
    mixes = cutmix(numbered(200), torch.Generator().manual_seed(0))
    for own, mix in enumerate(mixes):
        assert torch.equal(mix[0], mix[1]), "the box is the same in every channel"
        foreign = mix[0] != own
        assert len(mix[0][foreign].unique()) <= 1
        rows, columns = foreign.any(dim=1), foreign.any(dim=0)
        assert torch.equal(foreign, rows[:, None] & columns[None, :]), "what is pasted is a box"
        for line in (rows, columns):
            assert (line.int().diff().abs().sum()) <= 2, "the box is in one piece"


def test_the_mean_share_of_the_partner_is_that_of_clipped_uniform_areas() -> None:
    """Per axis the clipped length of a centred segment s is s - s^2 / 4 on average, and s^2 is uniform."""
    mixes = cutmix(numbered(4000, 32, 32), torch.Generator().manual_seed(0))
    own = torch.arange(4000, dtype=torch.float32).reshape(-1, 1, 1)
    share = (mixes[:, 0] != own).float().mean(dim=(1, 2))
    # E[(s - s^2/4)^2] with s^2 ~ U(0, 1): 1/2 - 1/5 + 1/48.
    expected = 1 / 2 - 1 / 5 + 1 / 48
    # Four standard errors: a false alarm in about 16,000 runs, were the seed not fixed.
    assert share.mean().item() == pytest.approx(expected, abs=4 * share.std().item() / 4000**0.5)


def test_originals_stay_and_equal_generators_give_equal_mixes() -> None:
    images = numbered(20)
    first, second = (cutmix(images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(images, numbered(20))
    assert torch.equal(first, second)
    assert not torch.equal(first, cutmix(images, torch.Generator().manual_seed(2)))


def test_a_single_image_mixes_with_itself() -> None:
    assert torch.equal(cutmix(numbered(1), torch.Generator().manual_seed(0)), numbered(1))
