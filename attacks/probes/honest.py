"""Membership by adversaries who follow the protocol and look at what they are given anyway."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from attacks.probes.base import MembershipProbe, Signal
from attacks.probes.models import as_logits, as_votes, confidence, distilled, from_arrays, from_vector, own_confidence
from attacks.public import Public
from attacks.views import PUBLISHED, Adversary, ClientView, NotInViewError, View


class StudentOfDreams(MembershipProbe):
    """Distil the round's dreams and their mean labels into a model, and attack that."""

    name: ClassVar[str] = "student of dreams"
    adversary: ClassVar[Adversary] = "server"
    methods: ClassVar[tuple[str, ...]] = ("codream",)
    assumptions: ClassVar[str] = (
        "follows the protocol; trains a student on the last round's dreams and labels, which it learns anyway"
    )

    def signal(self, view: View, public: Public) -> Signal:
        dreams, labels = dreams_and_labels(view, public)
        return confidence(distilled(public, dreams, torch.from_numpy(labels).float()), public.images, public.labels)


class StudentOfDreamsAtClient(StudentOfDreams):
    """The same by a curious client whom all others but one help: they take their own labels out of the mean."""

    name: ClassVar[str] = "student of one client's labels"
    adversary: ClassVar[Adversary] = "client"
    colluders: ClassVar[int] = -1
    streams: ClassVar[tuple[str, ...]] = ("soft_labels",)
    assumptions: ClassVar[str] = (
        "all clients but one follow the protocol and pool what they hold: mean labels less their own are the last "
        "one's; only the last one's candidates are scored"
    )

    def signal(self, view: View, public: Public) -> Signal:
        if not isinstance(view, ClientView):
            raise NotInViewError(f"{self.name!r} wants a client's view")
        dreams, labels = dreams_and_labels(view, public, without_own=True)
        model = distilled(public, dreams, torch.from_numpy(labels).float())
        return confidence(model, public.images, public.labels)


class NearestDream(MembershipProbe):
    """How near the nearest dream is to a candidate."""

    name: ClassVar[str] = "nearest dream"
    adversary: ClassVar[Adversary] = "server"
    methods: ClassVar[tuple[str, ...]] = ("codream",)
    assumptions: ClassVar[str] = (
        "follows the protocol; compares candidates with the last round's dreams, pixel by pixel"
    )

    def signal(self, view: View, public: Public) -> Signal:
        dreams = finished_dreams(view, public).flatten(1).double()
        candidates = public.images.flatten(1).double()
        return np.asarray(-torch.cdist(candidates, dreams).min(dim=1).values.numpy())


class SentWeights(MembershipProbe):
    """Take the weights that a client sent, or their mean where no more is known, and ask that model."""

    name: ClassVar[str] = "weights sent"
    adversary: ClassVar[Adversary] = "server"
    methods: ClassVar[tuple[str, ...]] = ("fedavg",)
    streams: ClassVar[tuple[str, ...]] = ("weights",)
    assumptions: ClassVar[str] = (
        "follows the protocol; looks at the last round; knows which client would hold a candidate, and its label"
    )

    def signal(self, view: View, public: Public) -> Signal:
        architecture = public.architectures[0]
        try:
            latest = view.vectors("weights")[-1]
        except NotInViewError:
            model = from_vector(public, architecture, view.means("weights")[-1])
            return confidence(model, public.images, public.labels)
        models = [from_vector(public, architecture, latest[client]) for client in range(view.clients)]
        return own_confidence(models, public)


class GlobalModelAtClient(MembershipProbe):
    """Take the global model that every client is given. With all but one colluding, take their part out of it."""

    name: ClassVar[str] = "weights less one's own"
    adversary: ClassVar[Adversary] = "client"
    colluders: ClassVar[int] = -1
    methods: ClassVar[tuple[str, ...]] = ("fedavg",)
    streams: ClassVar[tuple[str, ...]] = ("weights",)
    assumptions: ClassVar[str] = (
        "all clients but one follow the protocol and pool what they hold: mean weights less their own are the last "
        "one's; only the last one's candidates are scored"
    )

    def signal(self, view: View, public: Public) -> Signal:
        if not isinstance(view, ClientView):
            raise NotInViewError(f"{self.name!r} wants a client's view")
        shown = view.shown("weights")[-1]
        mean = np.concatenate([array.reshape(-1) for array in shown]).astype(np.float64)
        own = view.vectors("weights")[-1]
        rest = (view.clients * mean - sum(own.values())) / (view.clients - len(own))
        model = from_vector(public, public.architectures[0], rest)
        return confidence(model, public.images, public.labels)


class PublishedModel(MembershipProbe):
    """Ask the model that is published in the end."""

    name: ClassVar[str] = "published model"
    adversary: ClassVar[Adversary] = "public"
    assumptions: ClassVar[str] = "has the weights of the model that is published in the end, and nothing else"

    def signal(self, view: View, public: Public) -> Signal:
        architecture = public.settings["model"].get("server") or public.architectures[0]
        model = from_arrays(public, architecture, view.shown(PUBLISHED)[-1])
        return confidence(model, public.images, public.labels)


def finished_dreams(view: View, public: Public) -> torch.Tensor:
    """The latest dreams that this adversary holds, as images.

    Raises:
        NotInViewError: clients keep them to themselves, or there are none.
    """
    points = torch.from_numpy(view.shown("dreams")[-1][0])
    if view.opened_by == "clients" and not isinstance(view, ClientView):
        raise NotInViewError(f"a server sees nothing but the noise that dreams began with under {view.protection!r}")
    return points if public.space is None else public.space.images(points)


def dreams_and_labels(view: View, public: Public, *, without_own: bool = False) -> tuple[torch.Tensor, np.ndarray]:
    """The latest dreams and their labels as logits, in the order of the dreams.

    Labels of the finished dreams are the last that follow them in a round; those of mixed copies come later and have
    other images, which everybody can mix but nobody needs.

    Args:
        view: a server's or a client's.
        public: says what labels are.
        without_own: take the labels of the view's own clients out of the mean; what is left are the others'.

    Raises:
        NotInViewError: the view has no labels.
    """
    dreams = finished_dreams(view, public)
    place = max(index for index, (name, _) in enumerate(view.arrays) if name == "dreams")
    later = [arrays for name, arrays in view.arrays[place + 1 :] if name == "soft_labels"]
    if not later:
        raise NotInViewError(f"no labels follow the dreams under {view.protection!r}")
    labels = later[0][0].reshape(len(dreams), -1).astype(np.float64)
    if not without_own:
        return dreams, labels
    # What clients sent, before anybody took logarithms.
    sums = view.of("soft_labels")
    own = next(each.vectors for each in sums[-len(later) :] if each.values == labels.size)
    probable = public.settings["dreaming"]["labels"] == "probabilities"
    mean = np.exp(labels) if probable else labels
    if public.vote_norm is not None:
        mean = mean - 1 / public.num_classes
    rest = (view.clients * mean - sum(as_votes(each, public) for each in own.values())) / (view.clients - len(own))
    return dreams, as_logits(rest, public, single=False)
