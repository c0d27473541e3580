"""Imprint bins: alone in a bin is read off exactly, and as often as chance says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from attacks.reconstruction import PixelBounds, assess, build_imprint, fedsgd_gradient, invert_imprint
from codream_secure.data import load_source
from codream_secure.errors import DataError
from codream_secure.models import build_model

SOURCE = load_source("digits")
BOUNDS = PixelBounds.normalised(SOURCE.mean, SOURCE.std)
PIXELS = SOURCE.train.images.float() / (255 if SOURCE.train.images.dtype == torch.uint8 else 1)
PUBLIC, PRIVATE = PIXELS[:700], PIXELS[700:]
LABELS = SOURCE.train.labels[700:]


def _honest() -> nn.Module:
    torch.manual_seed(1)
    return build_model("lenet5", channels=1, image_size=(8, 8), num_classes=10)


def _shares(bins: int, batches: int) -> tuple[float, float]:
    """Share of images read off at more than 30 dB, and, counted another way, of images alone in their bin."""
    public = BOUNDS.from_unit(PUBLIC)
    model = build_imprint(_honest(), public, bins=bins)
    cutoffs = -model.imprint.bias.detach().double().numpy()
    read, alone = 0.0, 0
    for start in range(0, 64 * batches, 64):
        truth = PRIVATE[start : start + 64]
        sent = fedsgd_gradient(model, BOUNDS.from_unit(truth), LABELS[start : start + 64])
        images = invert_imprint(*sent.gradients[:2], count=64, filler=public.mean(dim=0))
        share = assess(BOUNDS.to_unit(images), truth, held_out=PUBLIC).above_30.value
        assert share is not None
        read += share
        brightness = (BOUNDS.from_unit(truth).flatten(1).double() @ model.imprint.weight[0].detach().double()).numpy()
        places = np.searchsorted(cutoffs, brightness)
        alone += int((np.bincount(places) == 1).sum())
    return read / batches, alone / (64 * batches)


@pytest.mark.parametrize("bins", [64, 256, 1024])
def test_images_alone_in_their_bin_are_read_off(bins: int) -> None:
    # Like images in one bin may pass 30 dB together.
    read, alone = _shares(bins, 4)
    assert read == pytest.approx(alone, abs=0.06)


def test_a_quarter_and_more_of_a_batch_of_64_falls_to_64_bins_and_most_to_1024() -> None:
    # (1 - 1/bins)^63 is .37 and .94 where bins are equally likely; 700 public images set 1,024 cutoffs roughly.
    assert 0.22 < _shares(64, 4)[0] < 0.55
    assert _shares(1024, 4)[0] > 0.75


def test_more_bins_read_more() -> None:
    assert _shares(32, 3)[0] < _shares(256, 3)[0] - 0.15


def test_a_small_imprint_hardly_changes_the_predictions() -> None:
    honest = _honest()
    images = BOUNDS.from_unit(PRIVATE[:100])
    with torch.no_grad():
        before = honest(images)
        after = build_imprint(honest, BOUNDS.from_unit(PUBLIC), bins=128, strength=1e-3)(images)
    assert (after - before).abs().max() < 0.1 * before.std()


def test_a_sum_over_clients_holds_the_images_of_all() -> None:
    public = BOUNDS.from_unit(PUBLIC)
    model = build_imprint(_honest(), public, bins=512)
    sent = [
        fedsgd_gradient(model, BOUNDS.from_unit(PRIVATE[a : a + 8]), LABELS[a : a + 8]).gradients
        for a in (0, 8, 16, 24)
    ]
    total = [torch.stack(parts).sum(dim=0) for parts in zip(*sent, strict=True)]
    images = invert_imprint(*total[:2], count=32, filler=public.mean(dim=0))
    share = assess(BOUNDS.to_unit(images), PRIVATE[:32], held_out=PUBLIC).above_30.value
    assert share is not None
    assert share > 0.7  # a sum alone, however well protected, is no answer to this server


def test_there_is_an_answer_for_every_image() -> None:
    filler = torch.full((1, 8, 8), 0.25)
    images = invert_imprint(torch.zeros(4, 64), torch.zeros(4), count=3, filler=filler)
    assert torch.equal(images, filler.expand(3, 1, 8, 8))
    with pytest.raises(DataError, match="count=0"):
        invert_imprint(torch.zeros(4, 64), torch.zeros(4), count=0, filler=filler)
    with pytest.raises(DataError, match="bins=1"):
        build_imprint(_honest(), PUBLIC, bins=1)
