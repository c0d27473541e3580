"""One client's dreaming loss l_k(x) and its gradient with respect to the dreams.

l_k(x) = a_H H + a_bn R_bn + a_tv TV + a_l2 ||x||_2 - a_jsd JSD(client || student)      (CoDream, section 3)

Beyond the published loss there may be + a_c CE(client, y): dreams are made for public classes y, the same for all.

The model is frozen and in eval mode for as long as an objective is open: no weight is differentiable, no batch-norm
buffer moves, and everything is as it was once the objective is closed. A term whose coefficient is 0 is not computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from codream_secure.dreaming import losses
from codream_secure.dreaming.features import FeatureTap


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """Weights of the loss terms; the defaults are the published ones. Zero switches a term off."""

    entropy: float = 1.0
    features: float = 10.0
    tv: float = 2.5e-5
    l2: float = 3e-8
    jsd: float = 0.0
    classes: float = 0.0


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode with no parameter differentiable; modes and flags are restored on leaving."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _prefers_channels_last(model: nn.Module) -> bool:
    """Whether the model runs faster, as a rule, on channels-last images; the weights may stay as they are.

    Convolutions do, most of all in bfloat16; group norms and models without convolutions are slower.
    """
    modules = list(model.modules())
    convolves = any(isinstance(module, nn.Conv2d) for module in modules)
    return convolves and not any(isinstance(module, nn.GroupNorm) for module in modules)


class DreamObjective:
    """The dreaming loss of one model. Use it as a context manager; it can be evaluated while it is open.

    Args:
        model: the client's model.
        images: (N, C, H, W) float32, the client's private normalised images; used once, and only if feature matching is
            on, no targets are given and some matched layer keeps no running statistics.
        coefficients: the weights of the terms.
        feature_layers: names of the layers to match, by default
            :func:`~codream_secure.dreaming.features.default_feature_layers`.
        moments: match them per "channel" or per "position"; see :mod:`codream_secure.dreaming.features`.
        targets: the moments to match, layer by layer; None reads or measures them on the images.
        student: the server's model, for the JSD form of adaptive teaching.
        classes: (n,) int64, what each dream is made for; needed with that coefficient.
        autocast: dtype of the forward pass, such as ``torch.bfloat16``; None computes in float32. Moments and losses
            are float32 in either case.

    Raises:
        ValueError: the JSD term is on and there is no student, or that of classes and there are none.
        ModelError: a feature layer is not in the model.
    """

    def __init__(
        self,
        model: nn.Module,
        images: torch.Tensor,
        *,
        coefficients: Coefficients | None = None,
        feature_layers: Sequence[str] | None = None,
        moments: Literal["channel", "position"] = "channel",
        targets: Sequence[losses.Moments] | None = None,
        student: nn.Module | None = None,
        classes: torch.Tensor | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.coefficients = coefficients or Coefficients()
        if self.coefficients.jsd and student is None:
            raise ValueError(f"coefficients.jsd is {self.coefficients.jsd} but there is no student to teach")
        if self.coefficients.classes and classes is None:
            raise ValueError(f"coefficients.classes is {self.coefficients.classes} but no classes are given")
        self.model = model
        self._classes = classes
        self.student = student if self.coefficients.jsd else None
        self._images = images
        self._autocast = autocast
        self._tap = FeatureTap(model, feature_layers, per=moments) if self.coefficients.features else None
        self._given = targets
        self._targets: Sequence[losses.Moments] = ()
        self._channels_last = {each for each in (model, student) if each is not None and _prefers_channels_last(each)}
        self._open = ExitStack()

    def __enter__(self) -> DreamObjective:
        with ExitStack() as stack:
            stack.enter_context(frozen(self.model))
            if self.student is not None:
                stack.enter_context(frozen(self.student))
            if self._tap is not None:
                self._targets = self._tap.targets(self._images) if self._given is None else self._given
                stack.enter_context(self._tap.reading())
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def terms(self, dreams: torch.Tensor) -> dict[str, torch.Tensor]:
        """The terms that are switched on, each already multiplied by its coefficient.

        Args:
            dreams: (n, C, H, W) float32 in normalised pixel space.

        Returns:
            Term name to scalar; their sum is the loss.
        """
        weights = self.coefficients
        terms: dict[str, torch.Tensor] = {}
        with torch.autocast(dreams.device.type, dtype=self._autocast, enabled=self._autocast is not None):
            logits = self._run(self.model, dreams)
            student_logits = self._run(self.student, dreams) if self.student is not None else None
        if self._autocast is not None:
            logits = logits.float()
            student_logits = student_logits.float() if student_logits is not None else None
        if weights.entropy:
            terms["entropy"] = weights.entropy * losses.entropy(logits)
        if weights.classes and self._classes is not None:
            terms["classes"] = weights.classes * losses.class_distance(logits, self._classes)
        if self._tap is not None:
            terms["features"] = weights.features * losses.moment_distance(self._tap.take(), self._targets)
        if weights.tv:
            terms["tv"] = weights.tv * losses.total_variation(dreams)
        if weights.l2:
            terms["l2"] = weights.l2 * losses.l2_norm(dreams)
        if student_logits is not None:
            terms["jsd"] = -weights.jsd * losses.jensen_shannon(logits, student_logits)
        return terms

    def _run(self, model: nn.Module, dreams: torch.Tensor) -> torch.Tensor:
        """The model's logits, in the faster memory layout unless the model cannot take it (``view`` does not)."""
        if model in self._channels_last:
            try:
                return model(dreams.clone(memory_format=torch.channels_last))
            except RuntimeError:
                self._channels_last.discard(model)
        return model(dreams)

    def gradient(self, dreams: torch.Tensor) -> torch.Tensor:
        """d l_k / d dreams, detached, of the dreams' shape. All coefficients zero give a zero gradient."""
        leaf = dreams.detach().requires_grad_()
        terms = self.terms(leaf)
        if not terms:
            return torch.zeros_like(dreams)
        (gradient,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), leaf)
        return gradient.contiguous()
