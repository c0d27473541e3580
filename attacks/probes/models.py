"""Models that an adversary puts together from a view: from weights that it saw, or by distilling labels that it saw."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from attacks.membership import logit_confidence
from attacks.probes.base import Signal
from attacks.public import Public
from attacks.transcript import Arrays, Vector
from codream_secure import training
from codream_secure.client import distil
from codream_secure.dreaming import labels
from codream_secure.methods.fedavg import averaged_tensors, write_tensors
from codream_secure.training import Optimization

DISTILLATION = Optimization(optimizer="adam", lr=1e-3, batch_size=64)
DISTILLATION_EPOCHS = 60
"""Fixed beforehand: an adversary has no candidate's membership to tune them on."""


def from_vector(public: Public, architecture: str, vector: Vector) -> nn.Module:
    """A model with the weights and statistics of a flat vector, in the order in which clients send them."""
    model = public.new_model(architecture)
    tensors = averaged_tensors(model)
    parts = np.split(vector, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
    write_tensors(
        model,
        [
            torch.from_numpy(part).to(tensor.dtype).reshape(tensor.shape)
            for part, tensor in zip(parts, tensors, strict=True)
        ],
    )
    return model


def from_arrays(public: Public, architecture: str, arrays: Arrays) -> nn.Module:
    """The same from arrays in their shapes."""
    model = public.new_model(architecture)
    write_tensors(model, [torch.from_numpy(array) for array in arrays])
    return model


def distilled(public: Public, images: torch.Tensor, logits: torch.Tensor) -> nn.Module:
    """A student of the first client's architecture that has learnt soft labels of images.

    Not to be changed: views under several protections that hold the same get the same student.
    """
    named = f"{public.seed} {public.architectures[0]} ".encode()
    key = hashlib.sha256(named + images.numpy().tobytes() + logits.numpy().tobytes()).digest()
    if key not in _students:
        while len(_students) >= _KEPT_STUDENTS:
            del _students[next(iter(_students))]
        _students[key] = _distilled(public, images, logits)
    return _students[key]


_KEPT_STUDENTS = 8
_students: dict[bytes, nn.Module] = {}


def _distilled(public: Public, images: torch.Tensor, logits: torch.Tensor) -> nn.Module:
    model = public.new_model(public.architectures[0])
    distil(
        model,
        images,
        logits,
        epochs=DISTILLATION_EPOCHS,
        temperature=1.0,
        optimization=DISTILLATION,
        generator=public.generator(1),
    )
    return model


def confidence(model: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> Signal:
    """phi of each image under a model; see :func:`attacks.membership.logit_confidence`."""
    return logit_confidence(training.predict(model, images).numpy(), classes.numpy())


def own_confidence(models: Sequence[nn.Module], public: Public) -> Signal:
    """phi of each candidate under the model of the client that would hold it."""
    found = np.stack([confidence(model, public.images, public.labels) for model in models])
    return np.asarray(found[public.owners.numpy(), np.arange(len(public))])


def as_logits(sent: npt.NDArray[np.floating], public: Public, *, single: bool) -> npt.NDArray[np.float64]:
    """Soft labels as clients send them, or as their mean, as logits.

    They are logits, probabilities, or, where sums have noise, votes: a single client's in ring units, their mean as it
    is used. A vote may have noise, and the nearest probabilities are the most that can be made of it.

    Args:
        sent: (n classes,) or (n, classes).
        public: says which of the three they are.
        single: one client's, and not a mean.
    """
    values = sent.reshape(-1, public.num_classes).astype(np.float64)
    if public.settings["dreaming"]["labels"] != "probabilities":
        return values
    if public.vote_norm is not None:
        values = labels.probabilities_from(torch.from_numpy(as_votes(values, public) if single else values)).numpy()
    return np.log(np.maximum(values, 1e-12))


def as_votes(sent: npt.NDArray[np.floating], public: Public) -> npt.NDArray[np.float64]:
    """(n, classes) of one client's vote in ring units, as probabilities less uniform ones; others as they are."""
    values = sent.reshape(-1, public.num_classes).astype(np.float64)
    if public.vote_norm is None:
        return values
    return values * (labels.longest_vote(len(values), public.num_classes) / public.vote_norm)
