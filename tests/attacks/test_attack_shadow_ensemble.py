"""Models fitted together end as models fitted alone."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from attacks.shadows import ensemble
from attacks.shadows.ensemble import fit_together
from attacks.shadows.lessons import Lesson, lesson_of
from attacks.shadows.stacked import signature
from codream_secure import training
from codream_secure.client import Rehearsal, distil
from codream_secure.errors import NumericalError
from codream_secure.models import build_model
from codream_secure.training import Fit, Optimization, fitted_by

COUNTS = (23, 16, 17, 9)
"""Images of each client: at batches of 8, last batches of 7, 8 and, twice, a single image."""


@dataclass(eq=False)
class Learner:
    """One model, its images, and the labels it learns."""

    model: nn.Module
    images: torch.Tensor
    classes: torch.Tensor
    dreams: torch.Tensor
    soft: torch.Tensor
    generator: torch.Generator

    def fit(self, optimization: Optimization, *, distils: bool, epochs: int = 2) -> float:
        if not distils:
            data = (self.images, self.classes)
            return training.fit(
                self.model,
                data,
                training.cross_entropy,
                epochs=epochs,
                optimization=optimization,
                generator=self.generator,
            )
        own = Rehearsal(images=self.images, labels=self.classes, batch_size=8, weight=0.7)
        return distil(
            self.model,
            self.dreams,
            self.soft,
            epochs=epochs,
            temperature=2.0,
            optimization=optimization,
            generator=self.generator,
            rehearsal=own,
        )

    def lesson(self, optimization: Optimization, *, distils: bool) -> Lesson:
        """As it is read from a call of ``fit``."""
        found: list[Lesson | None] = []

        def read(fit: Fit) -> float:
            found.append(lesson_of(fit))
            return 0.0

        with fitted_by(read):
            self.fit(optimization, distils=distils)
        assert found[0] is not None
        return found[0]


def learners(architecture: str, dtype: torch.dtype = torch.float64) -> list[Learner]:
    drawn = torch.Generator().manual_seed(3)
    found = []
    for number, count in enumerate(COUNTS):
        torch.manual_seed(number)
        found.append(
            Learner(
                build_model(architecture, channels=2, image_size=(8, 8), num_classes=5).to(dtype),
                # Flat patches, so that pooling meets equal values, as it does in the margins of digits.
                torch.randn(count, 2, 8, 8, generator=drawn).clamp_min(0).to(dtype),
                torch.randint(5, (count,), generator=drawn),
                torch.randn(20 + number, 2, 8, 8, generator=drawn).to(dtype),
                (3 * torch.randn(20 + number, 5, generator=drawn)).to(dtype),
                torch.Generator().manual_seed(number),
            )
        )
    return found


def together(all_of_them: list[Learner], optimization: Optimization, *, distils: bool) -> list[ensemble.Result]:
    lessons = [learner.lesson(optimization, distils=distils) for learner in all_of_them]
    assert len({lesson.key for lesson in lessons}) == 1
    return fit_together(lessons, optimization, epochs=2)


def furthest(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize("distils", [False, True])
@pytest.mark.parametrize("architecture", ["small_cnn", "lenet5", "mlp"])
@pytest.mark.parametrize(
    "optimization",
    [
        Optimization(batch_size=8, lr=0.1, max_grad_norm=0.5),
        Optimization(batch_size=8, lr=0.1, schedule="cosine", max_grad_norm=None),
        Optimization(batch_size=8, lr=0.01, optimizer="adam", weight_decay=1e-2, schedule="cosine"),
    ],
    ids=["clipped", "cosine", "adam"],
)
def test_models_end_as_if_fitted_alone(architecture: str, optimization: Optimization, distils: bool) -> None:
    alone = learners(architecture)
    stacked = copy.deepcopy(alone)
    for one, other in zip(alone, stacked, strict=True):
        other.generator.set_state(one.generator.get_state())
    losses = [learner.fit(optimization, distils=distils) for learner in alone]
    found = together(stacked, optimization, distils=distils)
    assert found == pytest.approx(losses, rel=1e-6)
    for one, other in zip(alone, stacked, strict=True):
        assert furthest(one.model, other.model) < 1e-8
        assert torch.equal(one.generator.get_state(), other.generator.get_state())


def test_float32_agrees_after_an_epoch_and_ensembles_may_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "_VALUES", 1)
    monkeypatch.setattr(ensemble, "_FEWEST", 3)
    optimization = Optimization(batch_size=8)
    alone = learners("small_cnn", torch.float32)
    stacked = copy.deepcopy(alone)
    for one in alone:
        one.fit(optimization, distils=False)
    together(stacked, optimization, distils=False)
    assert max(furthest(one.model, other.model) for one, other in zip(alone, stacked, strict=True)) < 1e-4


def test_a_model_that_diverges_takes_no_other_with_it() -> None:
    optimization = Optimization(batch_size=8)
    alone = learners("small_cnn")
    stacked = copy.deepcopy(alone)
    stacked[1].images[3] = math.inf
    for learner in alone:
        learner.fit(optimization, distils=False)
    found = together(stacked, optimization, distils=False)
    assert [isinstance(result, NumericalError) for result in found] == [False, True, False, False]
    assert "lower the learning rate" in str(found[1])
    assert all(furthest(alone[index].model, stacked[index].model) < 1e-8 for index in (0, 2, 3))


def test_what_cannot_be_stacked_is_left_alone() -> None:
    class Residual(nn.Sequential):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values + super().forward(values)

    small = build_model("small_cnn", channels=1, image_size=(8, 8), num_classes=3)
    assert signature(small) is not None
    assert signature(build_model("small_cnn_gn", channels=1, image_size=(8, 8), num_classes=3)) is None
    assert signature(nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Dropout())) is None
    assert signature(Residual(nn.Linear(4, 4))) is None
    shared = nn.Linear(4, 4)
    assert signature(nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared)) is None
    small.features[0].register_forward_hook(lambda *_: None)
    assert signature(small) is None


def test_an_unknown_loss_is_no_lesson() -> None:
    learner = learners("small_cnn")[0]
    fit = Fit(
        model=learner.model,
        tensors=(learner.images, learner.classes),
        loss=lambda model, images, labels: model(images).sum(),
        epochs=1,
        optimization=Optimization(),
        generator=learner.generator,
    )
    assert lesson_of(fit) is None
