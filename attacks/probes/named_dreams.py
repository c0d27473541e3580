"""Membership by a malicious server that names the dreams: the candidates themselves, or images around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch

from attacks.membership import antithetic, gradient_signal, logit_confidence
from attacks.probes.base import MembershipProbe, Signal
from attacks.probes.models import as_logits, confidence, distilled
from attacks.public import Public, Query
from attacks.views import Adversary, NotInViewError, View

_BLOWN_UP, _SHRUNK = 3.0, 0.1


class NamedLabels(MembershipProbe):
    """Send the candidates as dreams, and read how sure clients are of them."""

    name: ClassVar[str] = "labels of named dreams"
    adversary: ClassVar[Adversary] = "server"
    active: ClassVar[bool] = True
    methods: ClassVar[tuple[str, ...]] = ("codream",)
    assumptions: ClassVar[str] = (
        "names the dreams that clients label, as near to candidates as the dreams' space allows; knows which client "
        "would hold a candidate, and its label"
    )

    def queries(self, public: Public) -> Sequence[Query]:
        return [Query(images=batch, stream="soft_labels") for batch in in_batches(public.images, public.dreams)]

    def signal(self, view: View, public: Public) -> Signal:
        rows = np.arange(len(public))
        try:
            each = {
                client: np.concatenate(
                    [as_logits(vectors[client], public, single=True) for vectors in view.vectors("soft_labels")]
                )
                for client in range(view.clients)
            }
        except NotInViewError:
            mean = np.concatenate([as_logits(vector, public, single=False) for vector in view.means("soft_labels")])
            return logit_confidence(mean[rows], public.labels.numpy())
        owned = np.stack([each[client] for client in range(view.clients)])[public.owners.numpy(), rows]
        return logit_confidence(owned, public.labels.numpy())


class NamedGradient(MembershipProbe):
    """Send the candidates as dreams, and take the length of the gradient that comes back for each."""

    name: ClassVar[str] = "gradient of named dreams"
    adversary: ClassVar[Adversary] = "server"
    active: ClassVar[bool] = True
    methods: ClassVar[tuple[str, ...]] = ("codream",)
    assumptions: ClassVar[str] = "names the dreams of a step; knows which client would hold a candidate"

    def queries(self, public: Public) -> Sequence[Query]:
        return [Query(images=batch, stream="dream_updates") for batch in in_batches(public.images, public.dreams)]

    def signal(self, view: View, public: Public) -> Signal:
        return gradient_signal(_own_updates(view, public, kept=public.dreams, steps=slice(None)))


class AntitheticGradient(MembershipProbe):
    """The same twice, among images blown up and among images shrunk: what feature matching adds to a candidate's
    gradient then points in opposite directions, and mostly cancels; what the candidate itself does to it stays."""

    name: ClassVar[str] = "gradient in antithetic contexts"
    adversary: ClassVar[Adversary] = "server"
    active: ClassVar[bool] = True
    methods: ClassVar[tuple[str, ...]] = ("codream",)
    assumptions: ClassVar[str] = (
        "names the dreams of two steps for each quarter of a batch, the rest filled with public images times 3, then "
        "times 0.1; knows which client would hold a candidate"
    )

    def queries(self, public: Public) -> Sequence[Query]:
        kept = self._kept(public)
        dummies = repeated(public.reserve, public.dreams - kept)
        return [
            Query(images=torch.cat([batch, scale * dummies]), stream="dream_updates")
            for scale in (_BLOWN_UP, _SHRUNK)
            for batch in in_batches(public.images, kept)
        ]

    def signal(self, view: View, public: Public) -> Signal:
        kept = self._kept(public)
        steps = -(-len(public) // kept)
        return antithetic(
            _own_updates(view, public, kept=kept, steps=slice(steps)),
            _own_updates(view, public, kept=kept, steps=slice(steps, None)),
        )

    @staticmethod
    def _kept(public: Public) -> int:
        return max(1, public.dreams // 4)


class NulledGradient(MembershipProbe):
    """The same in many contexts, combined so that feature matching cancels exactly.

    In a context, which is what else is in the batch, the gradient of candidate x is g(x) + J(x) w: g is what the
    classifier's loss says, w the residuals of the features' moments, of which the context alone decides. Any weights a
    with sum 1 keep g. Those that make the combined gradients shortest, all candidates of a batch together, are near
    sum a w = 0, and reach it once there are more contexts than numbers in w: two for each matched channel (or channel
    and position). So what feature matching hides, it hides from a server that asks less often than that; a sum over
    clients multiplies the number by theirs. Constrained least squares, reweighted so that no candidate dominates.
    """

    name: ClassVar[str] = "gradient with contexts nulled"
    adversary: ClassVar[Adversary] = "server"
    active: ClassVar[bool] = True
    methods: ClassVar[tuple[str, ...]] = ("codream",)

    def __init__(self, contexts: int = 200) -> None:
        self.contexts = contexts

    @property
    def assumptions(self) -> str:  # type: ignore[override]
        """What the adversary knows and does."""
        return (
            f"names the dreams of {self.contexts} steps for each half batch of candidates, the rest filled with "
            "public images of random contrast and brightness; knows which client would hold a candidate"
        )

    def queries(self, public: Public) -> Sequence[Query]:
        kept = self._kept(public)
        generator = public.generator(2)
        found = []
        for _ in range(self.contexts):
            chosen = torch.randint(len(public.reserve), (public.dreams - kept,), generator=generator)
            contrast = torch.empty(len(chosen), 1, 1, 1).uniform_(-2.0, 1.2, generator=generator).exp()
            offset = 0.5 * torch.randn((1, *public.reserve.shape[1:]), generator=generator)
            dummies = public.reserve[chosen] * contrast + offset
            found += [
                Query(images=torch.cat([batch, dummies]), stream="dream_updates")
                for batch in in_batches(public.images, kept)
            ]
        return found

    def signal(self, view: View, public: Public) -> Signal:
        kept = self._kept(public)
        steps = -(-len(public) // kept)
        gradients = np.stack(
            [
                _own_updates(view, public, kept=kept, steps=slice(first, first + steps)).reshape(len(public), -1)
                for first in range(0, self.contexts * steps, steps)
            ]
        )
        combined = np.empty(gradients.shape[1:])
        owners = public.owners.numpy()
        for first in range(0, len(public), kept):
            batch = np.arange(first, min(first + kept, len(public)))
            for client in np.unique(owners[batch]):
                rows = batch[owners[batch] == client]
                combined[rows] = nulled(gradients[:, rows])
        return gradient_signal(combined)

    @staticmethod
    def _kept(public: Public) -> int:
        return max(1, public.dreams // 2)


def nulled(gradients: Signal, *, passes: int = 8) -> Signal:
    """The combination with weights of sum 1 that is shortest, in the sense of the sum of its rows' lengths.

    Args:
        gradients: (contexts, rows, d) float64.
        passes: of reweighting: squares first, then lengths.

    Returns:
        (rows, d) float64.
    """
    combined = gradients.mean(axis=0)
    weights = np.ones(gradients.shape[1])
    for _ in range(1 + passes):
        scaled = (gradients * np.sqrt(weights)[None, :, None]).reshape(len(gradients), -1)
        gram = scaled @ scaled.T
        gram += 1e-10 * np.trace(gram) / len(gram) * np.eye(len(gram))
        a = np.linalg.solve(gram, np.ones(len(gram)))
        combined = np.tensordot(a / a.sum(), gradients, axes=1)
        weights = 1 / np.sqrt(np.square(combined).sum(axis=1) + 1e-14)
    return np.asarray(combined)


class Extraction(MembershipProbe):
    """Have clients label public images, make a copy of what they know, and attack the copy."""

    name: ClassVar[str] = "copy from labels of public images"
    adversary: ClassVar[Adversary] = "server"
    active: ClassVar[bool] = True
    methods: ClassVar[tuple[str, ...]] = ("codream",)
    assumptions: ClassVar[str] = "names public images as dreams; trains a copy on their mean labels, at its own cost"

    def queries(self, public: Public) -> Sequence[Query]:
        return [Query(images=batch, stream="soft_labels") for batch in in_batches(public.reserve, public.dreams)]

    def signal(self, view: View, public: Public) -> Signal:
        labels = np.concatenate([as_logits(vector, public, single=False) for vector in view.means("soft_labels")])
        targets = torch.from_numpy(labels[: len(public.reserve)]).float()
        return confidence(distilled(public, public.reserve, targets), public.images, public.labels)


def in_batches(images: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Batches of one size; the last is filled up by beginning again."""
    batches = list(images.split(size))
    if len(batches[-1]) < size:
        batches[-1] = torch.cat([batches[-1], repeated(images, size - len(batches[-1]))])
    return batches


def repeated(images: torch.Tensor, count: int) -> torch.Tensor:
    """So many images, beginning again as often as needed."""
    return images[torch.arange(count) % len(images)]


def _own_updates(view: View, public: Public, *, kept: int, steps: slice) -> Signal:
    """(N, ...) the update that each candidate's own client sent for it, or the mean of all clients' where no more is
    known. Only the first ``kept`` dreams of each step are candidates."""
    try:
        vectors = [
            np.stack([known[client] for client in range(view.clients)])
            for known in view.vectors("dream_updates")[steps]
        ]
    except NotInViewError:
        vectors = [mean[None] for mean in view.means("dream_updates")[steps]]
    parts = [each.reshape(len(each), public.dreams, -1)[:, :kept] for each in vectors]
    found = np.concatenate(parts, axis=1)[:, : len(public)]
    if len(found) == 1:
        return np.asarray(found[0])
    return np.asarray(found[public.owners.numpy(), np.arange(len(public))])
