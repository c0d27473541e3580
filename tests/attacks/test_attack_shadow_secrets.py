"""Images and weights of clients stay out of the texts that an error or a log would show."""

from __future__ import annotations

import torch
from torch import nn

from attacks.shadows import Pool, Trained
from attacks.shadows.lessons import Lesson
from codream_secure.client import DistillationLoss, Rehearsal
from codream_secure.data import ImageSet
from codream_secure.training import Fit, Optimization, cross_entropy

SECRET = 0.12345678
IMAGES = torch.full((2, 1, 4, 4), SECRET)
LABELS = torch.tensor([0, 1])


def test_no_image_and_no_weight_is_in_a_repr() -> None:
    rehearsal = Rehearsal(images=IMAGES, labels=LABELS, batch_size=2, weight=1.0)
    generator = torch.Generator()
    shown = [
        Fit(
            model=nn.Identity(),
            tensors=(IMAGES, LABELS),
            loss=cross_entropy,
            epochs=1,
            optimization=Optimization(),
            generator=generator,
        ),
        Lesson(model=nn.Identity(), images=IMAGES, labels=LABELS, generator=generator, rehearsal=rehearsal),
        DistillationLoss(temperature=1.0, rehearsal=rehearsal, generator=generator),
        ImageSet(IMAGES, LABELS),
        Pool(images=ImageSet(IMAGES, LABELS), owners=LABELS),
        Trained(
            trial=0,
            seed=0,
            state={"weight": torch.full((3,), SECRET)},
            train_accuracy=(1.0,),
            test_accuracy=(1.0,),
            seconds=0.0,
        ),
    ]
    assert f"{SECRET:.4f}"[:6] in repr(IMAGES)
    for one in shown:
        assert "0.12" not in repr(one)
        assert "tensor(" not in repr(one)
