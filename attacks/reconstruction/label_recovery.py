"""Which labels stood behind a gradient, read off the last linear layer.

For the mean cross-entropy of a batch, the gradient of the last bias is mean(p_c) - n_c / B: predicted minus actual
share of class c. With one image that is negative for its label alone (iDLG, Zhao et al. 2020, arXiv 2001.02610). With
several, the attacker supplies what the network predicts on average for each class, measured on public images, and
solves for the counts (after LLG, Wainakh et al. 2022, arXiv 2105.09369).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from torch import nn

from attacks.reconstruction.norm_modes import NormMode, norms_in
from codream_secure.errors import DataError, ModelError


def last_layer_gradient(model: nn.Module, gradients: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of the last linear layer's weight (classes, features) and bias (classes,).

    Args:
        model: whose last linear layer gives the logits.
        gradients: one per parameter, in the order of ``model.parameters()``.

    Raises:
        ModelError: there is no linear layer, or the last has no bias.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers or layers[-1].bias is None:
        raise ModelError("labels are read off the bias of the last linear layer, and the model has none")
    by_parameter = {id(parameter): gradient for parameter, gradient in zip(model.parameters(), gradients, strict=True)}
    return by_parameter[id(layers[-1].weight)], by_parameter[id(layers[-1].bias)]


def single_label(bias_gradient: torch.Tensor) -> int:
    """The label of the one image behind a gradient: the class whose last bias should grow. Exact for B = 1.

    Args:
        bias_gradient: (classes,) of cross-entropy; any positive multiple will do, so will one local step's
            ``before - after``.
    """
    return int(bias_gradient.argmin())


@torch.no_grad()
def mean_predictions(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, num_classes: int, mode: NormMode = "eval"
) -> torch.Tensor:
    """What the model predicts for the images of each class, on average: row k for true class k.

    Args:
        model: the global model.
        images: (N, C, H, W) float, public.
        labels: (N,) int64, theirs. A class without images gets the mean over all.
        num_classes: C.
        mode: how the client's batch norms ran.

    Returns:
        (C, C) float64, rows add up to 1.

    Raises:
        DataError: there are no images.
    """
    if not len(images):
        raise DataError("images is empty: without public images, give label_counts probabilities of 1/classes each")
    with norms_in(model, mode):
        predicted = F.softmax(model(images).double(), dim=1)
    overall = predicted.mean(dim=0)
    rows = [predicted[labels == c].mean(dim=0) if bool((labels == c).any()) else overall for c in range(num_classes)]
    return torch.stack(rows)


def label_counts(bias_gradient: torch.Tensor, *, batch_size: int, predictions: torch.Tensor) -> torch.Tensor:
    """How many images of each class stood behind the gradient of a batch.

    Solves ``gradient = (P^T - I) n / B`` for n >= 0 with sum B by least squares, then rounds by largest remainders.
    The better the model is trained, the closer P is to I and the worse the equation is posed: labels are found best
    early in training. On scikit-learn's digits, batches of 16, all labels are found at first, .89 of them at a test
    accuracy of .88, and .68 at .94, where P of 1/C throughout does better (.80); two random batches share about .63.

    Args:
        bias_gradient: (C,) of the mean cross-entropy.
        batch_size: B, at least 1; the server of FedSGD sets it.
        predictions: P (C, C) of :func:`mean_predictions`; ``torch.full((C, C), 1 / C)`` for an untrained model
            without public images.

    Returns:
        (C,) int64 that add up to B.

    Raises:
        DataError: the shapes do not fit or ``batch_size`` is below 1.
    """
    classes = len(bias_gradient)
    if predictions.shape != (classes, classes) or batch_size < 1:
        raise DataError(
            f"bias_gradient has {classes} classes, predictions is {tuple(predictions.shape)}, batch_size={batch_size}: "
            "give one row and column per class, and a batch of 1 or more"
        )
    equations = (predictions.double().T - torch.eye(classes, dtype=torch.float64)).numpy()
    # The last row holds the sum; its weight makes it as good as exact.
    system = np.vstack([equations, np.full((1, classes), 1e3)])
    share, _ = nnls(system, np.append(bias_gradient.double().numpy(), 1e3))
    wanted = share / share.sum() * batch_size
    counts = np.floor(wanted).astype(np.int64)
    missing = batch_size - int(counts.sum())
    counts[np.argsort(counts - wanted, kind="stable")[:missing]] += 1
    return torch.from_numpy(counts)


def labels_from_counts(counts: torch.Tensor) -> torch.Tensor:
    """Class c ``counts[c]`` times, ascending; (B,) int64. Which image has which label is the matching's to find."""
    return torch.repeat_interleave(torch.arange(len(counts)), counts)
