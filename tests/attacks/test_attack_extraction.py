from __future__ import annotations

import pytest
import torch

from attacks.extraction import candidate_logits, extract, quality
from codream_secure import training
from codream_secure.data import load_source
from codream_secure.models import build_model

SOURCE = load_source("digits")
TEST, TEST_LABELS = SOURCE.test.normalised(SOURCE.mean, SOURCE.std), SOURCE.test.labels


def test_public_images_sent_as_dreams_copy_a_client() -> None:
    images, labels = SOURCE.train.normalised(SOURCE.mean, SOURCE.std)[:300], SOURCE.train.labels[:300]
    torch.manual_seed(0)
    victim = build_model("small_cnn", channels=1, image_size=(8, 8), num_classes=10)
    fitted = training.Optimization(optimizer="adam", lr=2e-3, batch_size=64)
    generator = torch.Generator().manual_seed(0)
    training.fit(victim, (images, labels), training.cross_entropy, epochs=15, optimization=fitted, generator=generator)
    queries, unseen, truth = TEST[:180], TEST[180:], TEST_LABELS[180:]
    student = build_model("lenet5", channels=1, image_size=(8, 8), num_classes=10)  # another architecture
    before = quality(student, training.predict(victim, unseen), unseen, truth)
    copy = extract(student, queries, training.predict(victim, queries), generator=generator, epochs=60)
    after = quality(copy, training.predict(victim, unseen), unseen, truth)
    assert before.agreement.value < 0.5
    assert after.agreement.value > 0.75
    assert after.accuracy.value > 0.75
    assert after.victim_accuracy.value > 0.85
    assert after.agreement.low < after.agreement.value < after.agreement.high
    assert not copy.training
    assert candidate_logits(copy, images).shape == (300, 10)


def test_answers_that_do_not_match_the_queries_are_refused() -> None:
    student = build_model("mlp", channels=1, image_size=(8, 8), num_classes=10)
    with pytest.raises(ValueError, match="5 queries and 4 answers"):
        extract(student, TEST[:5], torch.zeros(4, 10), generator=torch.Generator())
