"""Probes of a server that names the dreams: what they send, and how contexts are nulled."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attacks.laboratory import asked
from attacks.probes.named_dreams import in_batches, nulled, repeated
from attacks.public import Query, nearest_points
from attacks.views import NotInViewError, ServerView
from codream_secure.config import make_config
from codream_secure.data import load_source
from codream_secure.dreaming import make_space
from codream_secure.dreaming.spaces import DreamSpace
from codream_secure.federation import Federation
from codream_secure.methods.codream import CoDream

SOURCE = load_source("digits")


def space(kind: str, size: int | None) -> DreamSpace:
    return make_space(
        kind,  # type: ignore[arg-type]
        size,
        channels=1,
        image_size=(8, 8),
        seed=0,
        lowest=[-1.0],
        highest=[1.0],
        device=torch.device("cpu"),
    )


def make_codream(*overrides: str) -> CoDream:
    small = ["data.samples_per_client=12", "data.validation_samples=0", "dreaming.images=16", "run.rounds=1"]
    return CoDream(Federation.create(make_config({}, [*small, *overrides]), source=SOURCE))


def test_contexts_are_nulled_exactly_once_they_outnumber_what_decides_them() -> None:
    """g(x) + J(x) w_c for contexts c: with more contexts than numbers in w, g is what is left, but for the ridge."""
    rng = np.random.default_rng(0)
    rows, pixels, hidden = 24, 30, 12
    own = 1e-3 * rng.standard_normal((rows, pixels))
    through = rng.standard_normal((rows, hidden, pixels))
    contexts = rng.standard_normal((40, hidden))
    gradients = own + np.einsum("ch,rhp->crp", contexts, through)
    assert np.abs(nulled(gradients) - own).max() < 0.1 * np.abs(own).max()
    too_few = nulled(gradients[:6])
    assert np.abs(too_few - own).max() > 100 * np.abs(own).max()


def test_the_answer_to_named_dreams_is_each_clients_own_gradient_of_them() -> None:
    method = make_codream()
    dreams = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    transcript = asked(
        method, [Query(images=dreams, stream="dream_updates"), Query(images=dreams, stream="soft_labels")]
    )
    view = ServerView.of_transcript(transcript)
    (updates,) = view.vectors("dream_updates")
    with method._objectives() as objectives:
        for client, objective in objectives.items():
            expected = objective.gradient(dreams).flatten().numpy()
            assert np.abs(updates[client] - expected).max() < 1e-6
    (labels,) = view.vectors("soft_labels")
    with torch.no_grad():
        expected = method.federation.clients[1].model.eval()(dreams).flatten().numpy()
    assert np.abs(labels[1] - expected).max() < 1e-5


def test_asking_leaves_the_federation_as_it_was() -> None:
    method = make_codream()
    before = {name: tensor.clone() for name, tensor in method.federation.clients[0].model.state_dict().items()}
    channel = method.federation.channel
    asked(method, [Query(images=torch.zeros(16, 1, 8, 8), stream="dream_updates")])
    assert method.federation.channel is channel
    assert all(torch.equal(before[name], now) for name, now in method.federation.clients[0].model.state_dict().items())
    assert method.dreams() is None


def test_clients_that_never_send_labels_do_not_answer_with_any() -> None:
    method = make_codream("dreaming.labels=classes", "dreaming.classes=1", "distillation.cutmix=0")
    with pytest.raises(NotInViewError, match="clients send no labels"):
        asked(method, [Query(images=torch.zeros(16, 1, 8, 8), stream="soft_labels")])


@pytest.mark.parametrize(("kind", "size"), [("pixels", None), ("dct", 8), ("subspace", 64)])
def test_images_have_points_in_every_linear_space(kind: str, size: int | None) -> None:
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    found = space(kind, size)
    assert torch.allclose(found.images(nearest_points(found, images)), images, atol=1e-5)


def test_in_a_smaller_space_the_nearest_points_cannot_be_bettered() -> None:
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    found = space("dct", 4)
    points = nearest_points(found, images)
    best = (found.images(points) - images).square().sum()
    for seed in range(20):
        moved = points + 0.01 * torch.randn(points.shape, generator=torch.Generator().manual_seed(seed))
        assert (found.images(moved) - images).square().sum() > best


def test_latents_have_no_named_images() -> None:
    method = make_codream("dreaming.space={kind='latents', size=8}")
    with pytest.raises(NotInViewError, match="have no latents"):
        asked(method, [Query(images=torch.zeros(16, 1, 8, 8), stream="dream_updates")])


def test_batches_are_of_one_size_and_hold_every_image_in_order() -> None:
    images = torch.arange(7).float().reshape(7, 1, 1, 1)
    batches = in_batches(images, 3)
    assert [len(batch) for batch in batches] == [3, 3, 3]
    assert torch.equal(torch.cat(batches)[:7], images)
    assert repeated(images, 9).flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1]
