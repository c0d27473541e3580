"""Tasks side by side: their fits are joined, their errors are kept apart, and no thread is left behind."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from attacks.shadows import lockstep
from attacks.shadows.lockstep import run_together
from codream_secure import training
from codream_secure.models import build_model
from codream_secure.seeding import seeded
from codream_secure.training import Optimization

IMAGES = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(12) % 3


def fitted(model: nn.Module, *, times: int = 1) -> nn.Module:
    for number in range(times):
        with seeded(7, number):
            training.fit(
                model,
                (IMAGES, CLASSES),
                training.cross_entropy,
                epochs=1,
                optimization=Optimization(batch_size=4),
                generator=torch.Generator().manual_seed(number),
            )
    return model


def new(seed: int, name: str = "small_cnn") -> nn.Module:
    with seeded(seed):
        return build_model(name, channels=1, image_size=(8, 8), num_classes=3)


def test_tasks_of_unequal_length_share_their_ensembles(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    fit = lockstep.fit_together

    def counted(lessons: list[lockstep.Lesson], *args: object, **kwargs: object) -> object:
        sizes.append(len(lessons))
        return fit(lessons, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(lockstep, "fit_together", counted)
    before = torch.random.get_rng_state()
    found = run_together([lambda n=n: fitted(new(n), times=n) for n in (1, 3, 2)])
    assert sizes == [3, 2, 1]
    assert torch.equal(before, torch.random.get_rng_state())
    for number, model in zip((1, 3, 2), found, strict=True):
        alone = fitted(new(number), times=number)
        for one, other in zip(alone.parameters(), model.parameters(), strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_a_model_with_dropout_is_fitted_by_its_task_to_the_same_bits() -> None:
    def task(seed: int) -> nn.Module:
        with seeded(seed):
            model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 3))
        return fitted(fitted(new(seed)) and model, times=2)

    found = run_together([lambda seed=seed: task(seed) for seed in (1, 2)])
    for seed, model in zip((1, 2), found, strict=True):
        for one, other in zip(task(seed).parameters(), model.parameters(), strict=True):
            assert torch.equal(one, other)


def test_an_error_ends_all_tasks() -> None:
    ended = []

    def fails() -> None:
        fitted(new(1))
        raise LookupError("here")

    def waits() -> None:
        try:
            fitted(new(2), times=5)
        finally:
            ended.append(True)

    threads = threading.active_count()
    with pytest.raises(LookupError, match="here"):
        run_together([waits, fails, waits])
    assert ended == [True, True]
    assert threading.active_count() == threads


def test_what_diverges_is_an_error_of_its_own_task() -> None:
    def diverges() -> None:
        model = new(1)
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))
        with pytest.raises(training.NumericalError, match="lower the learning rate"):
            fitted(model)

    survivor, _ = run_together([lambda: fitted(new(2)), diverges])
    assert survivor is not None
