"""Imprint bins: alone in a bin is read off exactly, and as often as chance says."""

from __future__ import annotations

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


def _shares(bins: int, batches: int) -> list[float]:
    public = BOUNDS.from_unit(PUBLIC)
    model = build_imprint(_honest(), public, bins=bins)
    shares = []
    for start in range(0, 64 * batches, 64):
        truth = PRIVATE[start : start + 64]
        sent = fedsgd_gradient(model, BOUNDS.from_unit(truth), LABELS[start : start + 64])
        images = invert_imprint(*sent.gradients[:2], count=64, filler=public.mean(dim=0))
        share = assess(BOUNDS.to_unit(images), truth, held_out=PUBLIC).above_30.value
        assert share is not None
        shares.append(share)
    return shares


@pytest.mark.parametrize(("bins", "least", "most"), [(64, 0.22, 0.55), (1024, 0.75, 1.0)])
def test_share_of_a_batch_of_64_read_off_exactly(bins: int, least: float, most: float) -> None:
    # (1 - 1/bins)^63 is .37 and .94; digits have repeated brightness (sums of 64 values in 0..16), so somewhat less.
    # Four batches of 64 have a standard error of about .03.
    shares = _shares(bins, 4)
    assert least < sum(shares) / 4 < most


def test_more_bins_read_more() -> None:
    assert sum(_shares(32, 3)) < sum(_shares(256, 3)) - 0.5


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
