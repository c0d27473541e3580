"""FedSGD, one image per client: what the gradient by the weights gives away, and that dream views hold no such thing.

A single step on a single image is FedAvg at its most exposed, and what published inversions look at. Under masks the
server has the mean over clients, which is the gradient of a batch of all their images, and inverts that.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from attacks.auditing.reconstruction_rows import split_like
from attacks.laboratory import fedsgd
from attacks.reconstruction import (
    Matching,
    Observation,
    begins_linear,
    choose_settings,
    invert_gradient,
    mean_predictions,
)
from attacks.rows import Row
from attacks.views import NotInViewError, ServerView
from codream_secure.methods.fedavg import FedAvg
from experiments.reconstruction.setting import CLIENTS, Setting, each_protection, noted, under

PROBES = {"mlp": "gradient inversion, perceptron", "lenet5": "gradient inversion, LeNet-5"}

_ASSUMPTIONS = (
    "hands out a network with fresh weights; each client takes one SGD step on one image; finds labels by itself, with "
    "public images where there are several; chose its settings on public images"
)
_NONE = "no gradient by weights is in this view: clients send gradients by the dreams' pixels, and labels"


def invert_gradients(setting: Setting, architecture: str) -> None:
    """Rows of one network, under every protection; each model seed has other images."""
    row = Row(
        method="fedavg",
        protection="plain",
        adversary="server",
        active=False,
        probe=PROBES[architecture],
        metric="PSNR, dB",
        value=None,
        assumptions=_ASSUMPTIONS,
    )
    method = FedAvg(setting.federation("fedavg", architecture))
    clients = method.federation.clients
    count = min(setting.effort.models, len(clients[0].images))
    settings = chosen_settings(setting, architecture)
    steps = []
    for index in range(count):
        model = setting.new_model(architecture, "handed out", index)
        images = {client.number: client.images[index : index + 1] for client in clients}
        labels = {client.number: client.labels[index : index + 1] for client in clients}
        steps.append((model, images, fedsgd(method, model, images, labels)))
    for one in each_protection(row):
        guesses, targets, batch = [], [], 1
        try:
            for index, (model, images, transcript) in enumerate(steps):
                setting.tell(f"{one.probe}, {one.protection}: network {index + 1} of {count}")
                view = ServerView.of_transcript(under(method, transcript, one.protection))
                try:
                    vectors = view.vectors("weights")[0]
                    guesses += [
                        inverted(setting, model, vectors[number], number, settings=settings) for number in images
                    ]
                except NotInViewError:
                    batch = CLIENTS
                    guesses.append(
                        inverted(setting, model, view.means("weights")[0], index, settings=settings, batch=batch)
                    )
                targets += list(images.values())
        except NotInViewError as reason:
            setting.unseen(one, reason)
            continue
        seen = f"{count} networks; total variation {settings.tv:g}; " + (
            "single gradients" if batch == 1 else f"their mean as a batch of {batch}"
        )
        setting.reconstructed(noted(one, seen), torch.cat(guesses), torch.cat(targets), batch=batch)


def chosen_settings(setting: Setting, architecture: str) -> Matching:
    """The settings that invert a network of the adversary's own best, on its own images.

    The weight of total variation decides on small images: at 8x8 neighbours differ by whole strokes, and a prior that
    helps at 28x28 outweighs the gradient.
    """
    if architecture in setting.chosen:
        return setting.chosen[architecture]
    candidates = setting.effort.matching
    model = setting.new_model(architecture, "adversary")
    if len(candidates) == 1 or begins_linear(model):
        return candidates[0]
    setting.tell(f"{PROBES[architecture]}: choosing settings on public images")
    public, labels = (part[: setting.effort.public_trials] for part in setting.public)
    setting.chosen[architecture] = choose_settings(
        model,
        public,
        labels,
        candidates=candidates,
        bounds=setting.bounds,
        generator=torch.Generator().manual_seed(setting.seed),
    )
    return setting.chosen[architecture]


def inverted(
    setting: Setting,
    model: nn.Module,
    vector: np.ndarray,
    place: int,
    *,
    settings: Matching,
    batch: int = 1,
) -> torch.Tensor:
    """Images (batch, C, H, W), normalised, behind a flat gradient by the model's weights."""
    public, labels = setting.public
    found = invert_gradient(
        model,
        Observation(gradients=tuple(split_like(vector, list(model.parameters())))),
        batch_size=batch,
        image_shape=setting.shape,
        bounds=setting.bounds,
        generator=torch.Generator().manual_seed(setting.seed * 1000 + place),
        predictions=mean_predictions(model, public, labels, num_classes=setting.source.num_classes),
        settings=settings,
    )
    return found.images


def nothing_to_invert(setting: Setting, architecture: str) -> None:
    """The same rows of CoDream."""
    row = Row(
        method="codream",
        protection="plain",
        adversary="server",
        active=False,
        probe=PROBES[architecture],
        metric="PSNR, dB",
        value=None,
        assumptions="follows the protocol",
    )
    for one in each_protection(row):
        setting.nothing(one, _NONE)
