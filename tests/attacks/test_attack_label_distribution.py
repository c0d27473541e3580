from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import rel_entr

from attacks.label_distribution import (
    divergence,
    estimate,
    estimate_all,
    pooled_baseline,
    score,
    total_variation,
    uniform_baseline,
)
from codream_secure import training
from codream_secure.data import load_source
from codream_secure.models import build_model

CLASSES = 10


def skewed_clients(count: int, size: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Logits on random inputs of clients that hold Dirichlet(.5) shares of digits, and those shares."""
    source = load_source("digits")
    images, labels = source.train.normalised(source.mean, source.std), source.train.labels
    generator = np.random.default_rng(1)
    dreams = torch.randn((128, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    settings = training.Optimization(batch_size=32, lr=0.05)
    logits, shares = [], []
    for client in range(count):
        wanted = generator.choice(CLASSES, size=size, p=generator.dirichlet([0.5] * CLASSES))
        rows = torch.tensor([int(generator.choice(np.flatnonzero(labels.numpy() == each))) for each in wanted])
        torch.manual_seed(client)
        model = build_model("small_cnn", channels=1, image_size=(8, 8), num_classes=CLASSES)
        training.fit(
            model,
            (images[rows], labels[rows]),
            training.cross_entropy,
            epochs=10,
            optimization=settings,
            generator=torch.Generator().manual_seed(client),
        )
        training.recalibrate(model, images[rows])
        logits.append(training.predict(model, dreams))
        shares.append(torch.bincount(labels[rows], minlength=CLASSES).double() / size)
    return logits, torch.stack(shares)


def test_logits_on_noise_tell_a_clients_classes_better_than_the_baselines() -> None:
    logits, shares = skewed_clients(10, 50)
    found = estimate_all(logits)
    own = total_variation(found, shares).mean()
    assert own < total_variation(uniform_baseline(10, CLASSES), shares).mean() - 0.05
    assert own < total_variation(pooled_baseline(found), shares).mean() - 0.05


def test_estimates_are_distributions_and_sharpening_sharpens() -> None:
    logits = torch.randn((64, CLASSES), generator=torch.Generator().manual_seed(0)) + torch.arange(CLASSES) / 4
    plain, sharp = estimate(logits, method="mean_softmax"), estimate(logits, method="sharpened", power=2.0)
    assert plain.sum() == pytest.approx(1)
    assert sharp.sum() == pytest.approx(1)
    assert sharp.max() > plain.max()
    torch.testing.assert_close(plain, torch.softmax(logits.double(), 1).mean(0))
    torch.testing.assert_close(estimate(logits, power=1.0), plain)
    with pytest.raises(ValueError, match="power is 0"):
        estimate(logits, power=0.0)
    with pytest.raises(ValueError, match="0 dreams"):
        estimate(logits[:0])


def test_errors_agree_with_scipy_and_stay_finite() -> None:
    generator = np.random.default_rng(0)
    found, true = (torch.from_numpy(generator.dirichlet([1.0] * 4, size=6)) for _ in range(2))
    smooth = 0.999 * found + 0.001 / 4
    expected = rel_entr(true.numpy(), smooth.numpy()).sum(1)
    np.testing.assert_allclose(divergence(found, true).numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(
        total_variation(found, true).numpy(), (found - true).abs().sum(1).numpy() / 2, rtol=1e-12
    )
    certain = torch.tensor([[1.0, 0.0]])
    assert torch.isfinite(divergence(certain, certain.flip(1))).all()


def test_scores_have_intervals_over_clients() -> None:
    generator = np.random.default_rng(0)
    found, true = (torch.from_numpy(generator.dirichlet([1.0] * 4, size=30)) for _ in range(2))
    errors = score(found, true, generator=generator)
    for each in (errors.total_variation, errors.kl):
        assert each.low is not None
        assert each.low < each.value < each.high
        assert each.n == 30
    assert score(found[:1], true[:1], generator=generator).kl.low is None
