"""What of private images, of their statistics and of label distributions comes back, beside held-out controls.

One federation is looked at, the first; the truth is used here, for scoring, and nowhere in an attack.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from attacks import label_distribution
from attacks.auditing.subject import RecordedSubject
from attacks.estimates import Estimate, unresolvable
from attacks.laboratory import fedsgd
from attacks.probes.honest import finished_dreams
from attacks.probes.models import as_logits
from attacks.public import Public
from attacks.reconstruction import (
    Observation,
    PixelBounds,
    Reconstruction,
    assess,
    begins_linear,
    build_imprint,
    invert_first_linear,
    invert_gradient,
    invert_imprint,
)
from attacks.reconstruction.dream_neighbours import assess_dreams
from attacks.rows import Row
from attacks.views import NotInViewError, ServerView
from codream_secure.methods import Method
from codream_secure.methods.fedavg import FedAvg

RANKED = 99
"""Held-out images that a target is ranked among, so that chance is one in a hundred."""
_FEWEST_RANKED = 19
_BINS = 256
_STRENGTH = 100.0
"""Of the imprint: at its default the encoding of sums rounds away most of the gradient."""


@dataclass(kw_only=True)
class Case:
    """One federation of one arm under one protection, and where its rows go.

    Attributes:
        name: of the method.
        method: the federation; the truth is read from its clients.
        subject: gives transcripts under the protection.
        public: what adversaries know.
        pictures_wanted: how many images' reconstruction is tried.
        rows: found so far.
        pictures: likewise.
    """

    name: str
    method: Method
    subject: RecordedSubject
    public: Public
    seed: int
    pictures_wanted: int
    rows: list[Row] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def bounds(self) -> PixelBounds:
        """Black and white in normalised pixels."""
        return PixelBounds(self.public.lowest, self.public.highest)

    def held_out(self, batch: int) -> torch.Tensor:
        """Images that nobody has seen, in [0, 1]: as many as are needed to rank a target of so large a batch."""
        return self.bounds.to_unit(self.public.reserve[: RANKED * batch])

    def row(
        self,
        probe: str,
        metric: str,
        estimate: Estimate,
        *,
        control: float | None,
        assumptions: str,
        active: bool = False,
        note: str = "",
    ) -> None:
        """Add a row."""
        self.rows.append(
            Row(
                method=self.name,
                protection=self.subject.protection,
                adversary="server",
                active=active,
                probe=probe,
                metric=metric,
                value=_finite(estimate.value),
                low=_finite(estimate.low),
                high=_finite(estimate.high),
                control=_finite(control),
                n=estimate.n,
                seed=self.seed,
                assumptions=assumptions,
                note="; ".join(part for part in (note, estimate.note) if part),
            )
        )

    def unseen(self, probe: str, metric: str, reason: str, *, assumptions: str, active: bool = False) -> None:
        """Add the row of a probe that has nothing to look at."""
        nothing = Estimate(value=None, low=None, high=None, n=0, note=f"not in view: {reason}")
        self.row(probe, metric, nothing, control=None, assumptions=assumptions, active=active)

    def reconstructed(
        self,
        probe: str,
        guesses: torch.Tensor,
        targets: torch.Tensor,
        *,
        assumptions: str,
        active: bool = False,
        batch: int = 1,
    ) -> None:
        """Add rows for reconstructions of targets, both normalised, and a picture of the first."""
        unit = self.bounds.to_unit
        held_out = self.held_out(batch)
        found: Reconstruction = assess(unit(guesses), unit(targets), held_out=held_out, batch_size=batch)
        self.row(
            probe,
            "PSNR, dB",
            found.psnr,
            control=found.held_out.value,
            assumptions=assumptions,
            active=active,
            note=f"control: best of {len(held_out)} held-out images; plain grey {found.grey.value:.1f} dB",
        )
        self.row(
            probe,
            f"rank 1 of {found.ranked + 1}",
            found.first
            if found.ranked >= _FEWEST_RANKED
            else unresolvable(found.first.n, f"{found.ranked} held-out batches are too few to rank among"),
            control=found.chance,
            assumptions=assumptions,
            active=active,
        )
        target, guess = unit(targets)[0], unit(guesses)[0].clamp(0, 1)
        nearest = held_out[(held_out - target).square().flatten(1).sum(1).argmin()]
        self.pictures.append(
            {
                "method": self.name,
                "protection": self.subject.protection,
                "adversary": "server",
                "active": active,
                "probe": probe,
                "caption": "target, reconstruction, and the held-out image nearest to the target",
                "metric": "PSNR, dB",
                "value": _finite(found.psnr.value) or 0.0,
                "target": png(target),
                "reconstruction": png(guess),
                "control": png(nearest),
            }
        )


def png(image: torch.Tensor, *, side: int = 96) -> str:
    """An image (C, H, W) in [0, 1] as base64 PNG, enlarged without smoothing."""
    values = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    scale = max(1, side // max(picture.size))
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


_FEDSGD = (
    "clients take one SGD step on one image, batch norms with public statistics, at the weights of the first round; "
    "the server knows the weights, finds labels by itself, and chooses among restarts by its own loss"
)
_IMPRINT = "hands out fresh weights behind a layer of brightness bins; clients take one SGD step on a batch"
_DREAMS = "follows the protocol; takes the finished dreams for private images"
_LABELS = "follows the protocol; estimates clients' classes from their labels of dreams"


def gradient_inversion(case: Case) -> None:
    """Images from a FedSGD update, as the protection lets the server see it."""
    assert isinstance(case.method, FedAvg)
    model = case.public.new_model(case.public.architectures[0])
    clients = case.method.federation.clients
    probe, together = "gradient inversion", 1
    guesses, targets = [], []
    for index in range(min(case.pictures_wanted, *(len(client.images) for client in clients))):
        images = {client.number: client.images[index : index + 1] for client in clients}
        labels = {client.number: client.labels[index : index + 1] for client in clients}
        view = ServerView.of_transcript(case.subject.under(fedsgd(case.method, model, images, labels)))
        try:
            try:
                vector, behind = view.vectors("weights")[0][0], images[0]
            except NotInViewError:
                # The mean of single images' gradients is the gradient of a batch of them.
                vector, behind = view.means("weights")[0], torch.cat(list(images.values()))
        except NotInViewError as reason:
            case.unseen(probe, "PSNR, dB", str(reason), assumptions=_FEDSGD)
            return
        together = len(behind)
        guesses.append(_inverted(case, model, vector, together, index))
        targets.append(behind)
    case.reconstructed(probe, torch.cat(guesses), torch.cat(targets), assumptions=_FEDSGD, batch=together)


def _inverted(case: Case, model: nn.Module, vector: np.ndarray, together: int, index: int) -> torch.Tensor:
    gradients = split_like(vector, list(model.parameters()))
    channels, height, width = case.public.images.shape[1:]
    shape = (channels, height, width)
    if together == 1 and begins_linear(model):
        found = invert_first_linear(model, gradients, image_shape=shape)
        return torch.zeros(1, *shape) if found is None else found
    return invert_gradient(
        model,
        Observation(gradients=tuple(gradients)),
        batch_size=together,
        image_shape=shape,
        bounds=case.bounds,
        generator=case.public.generator(10 + index),
    ).images


def imprint_inversion(case: Case) -> None:
    """Images from the gradient of an imprint layer that a malicious server put in front of the model."""
    assert isinstance(case.method, FedAvg)
    model = case.public.new_model(case.public.architectures[0])
    clients = case.method.federation.clients
    batch = min(16, *(len(client.images) for client in clients))
    bins = min(_BINS, len(case.public.reserve) - 1)
    imprint = build_imprint(model, case.public.reserve, bins=bins, strength=_STRENGTH)
    images = {client.number: client.images[:batch] for client in clients}
    labels = {client.number: client.labels[:batch] for client in clients}
    view = ServerView.of_transcript(case.subject.under(fedsgd(case.method, imprint, images, labels, first=2)))
    probe, targets = f"imprint layer, {bins} bins", images[0]
    try:
        try:
            vector, count = view.vectors("weights")[0][0], batch
        except NotInViewError:
            vector, count = view.means("weights")[0], batch * len(clients)
            targets = torch.cat([images[client.number] for client in clients])
    except NotInViewError as reason:
        case.unseen(probe, "PSNR, dB", str(reason), assumptions=_IMPRINT, active=True)
        return
    weight, bias = split_like(vector, list(imprint.parameters())[:2])
    found = invert_imprint(weight, bias, count=count, filler=case.public.reserve.mean(dim=0))
    case.reconstructed(probe, found.float(), targets, assumptions=_IMPRINT, active=True, batch=count)


def dreams_as_images(case: Case) -> None:
    """Finished dreams beside private images, with held-out images in their place as the control."""
    view = ServerView.of_transcript(case.subject.transcript())
    probe = "dreams as reconstructions"
    try:
        dreams = finished_dreams(view, case.public)
    except NotInViewError as reason:
        case.unseen(probe, "PSNR, dB", str(reason), assumptions=_DREAMS)
        return
    private = torch.cat([client.images for client in case.method.federation.clients])
    private = private[: len(case.public.reserve)]
    found = assess_dreams(dreams, private, held_out=case.public.reserve, bounds=case.bounds)
    case.row(
        probe,
        "PSNR, dB",
        found.private,
        control=found.held_out.value,
        assumptions=_DREAMS,
        note=f"control: the same dreams matched to held-out images; plain grey {found.grey.value:.1f} dB",
    )


def label_distributions(case: Case) -> None:
    """How many images of each class a client has, from its labels of the dreams."""
    view = ServerView.of_transcript(case.subject.transcript())
    probe, metric = "label distribution", "total variation"
    clients = case.method.federation.clients
    classes = case.public.num_classes
    try:
        vectors = view.vectors("soft_labels")[0]
    except NotInViewError as reason:
        case.unseen(probe, metric, str(reason), assumptions=_LABELS)
        return
    found = label_distribution.estimate_all(
        [torch.from_numpy(as_logits(vectors[client.number], case.public, single=True)) for client in clients]
    )
    counts = torch.stack([torch.bincount(client.labels, minlength=classes) for client in clients]).double()
    true = counts / counts.sum(1, keepdim=True)
    rng = np.random.default_rng([case.seed, 5])
    errors = label_distribution.score(found, true, generator=rng)
    uniform = label_distribution.uniform_baseline(len(clients), classes)
    control = float(label_distribution.total_variation(uniform, true).mean())
    pooled = label_distribution.total_variation(label_distribution.pooled_baseline(found), true).mean()
    note = f"control: uniform; the clients' pooled estimate {float(pooled):.3f}"
    case.row(probe, metric, errors.total_variation, control=control, assumptions=_LABELS, note=note)


def split_like(vector: np.ndarray, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """A flat vector as float32 tensors of those shapes."""
    parts = torch.from_numpy(np.asarray(vector)).split([tensor.numel() for tensor in like])
    return [part.float().reshape(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


def _finite(value: float | None) -> float | None:
    """JSON has no infinity: a perfect reconstruction counts as 200 dB."""
    return None if value is None else float(np.clip(value, -200.0, 200.0))


RECONSTRUCTIONS = {
    "fedavg": ((gradient_inversion, False), (imprint_inversion, True)),
    "codream": ((dreams_as_images, False), (label_distributions, False)),
}
"""Attacks by method, and whether they are active."""
