"""Models that may be seen: trained under example-level privacy, they dream and label in the place of clients' own.

Each client has two models. Its own learns from its images without noise, and never leaves it. Its dreamer is trained
once, by DP-SGD, and so are the moments that dreams are matched to. Whatever is computed from dreamers, moments and
dreams alone is post-processing: any number of steps, labels and rounds, and what dreamers learn from dreams.

All clients train at the same sampling rate with the same noise. Their data are disjoint, so what one image's presence
changes is one client's training, and one training is what the ledger holds. Numbers of images are public.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from codream_secure.config import Config
from codream_secure.dreaming.losses import Moments
from codream_secure.errors import PrivacyError
from codream_secure.federation import Federation
from codream_secure.models.norm import convert_batch_norm_to_group_norm, make_out_of_place
from codream_secure.privacy import Adjacency, noise_multiplier_for
from codream_secure.privacy.events import Release
from codream_secure.privacy.gaussian import mu_at
from codream_secure.privacy.moment_release import release_moments


@dataclass(frozen=True)
class TrainingNoise:
    """Noise multipliers of a client's two releases; None for moments that are not released."""

    gradients: float
    moments: float | None


def plan_training_noise(config: Config) -> TrainingNoise:
    """The noise that the budget asks for, or that the configuration gives.

    The moments take their share of mu^2 of the whole budget, and the gradients what is left. With a noise multiplier
    given for the gradients, the share is of what their sampled steps would be as one Gaussian, about.

    Raises:
        PrivacyError: the budget is too small for the number of steps.
    """
    dp, training = config.dp, config.dp.training
    adjacency = Adjacency(dp.neighbours)
    share = training.moment_share if config.dreaming.features else 0.0
    if dp.noise_multiplier is not None:
        mu = training.sample_rate * math.sqrt(training.steps * math.expm1(dp.noise_multiplier**-2))
        return TrainingNoise(dp.noise_multiplier, 1 / (mu * math.sqrt(share / (1 - share))) if share else None)
    if dp.epsilon is None:
        raise PrivacyError("dp.epsilon is missing: give a budget, or dp.noise_multiplier")
    beside = math.sqrt(share) * mu_at(dp.epsilon, dp.delta) / adjacency.factor
    gradients = noise_multiplier_for(
        dp.epsilon,
        dp.delta,
        count=training.steps,
        adjacency=adjacency,
        sample_rate=training.sample_rate,
        beside=beside,
    )
    return TrainingNoise(gradients, 1 / beside if share else None)


class Dreamers:
    """All clients' dreamers; see the module.

    Args:
        federation: has the clients, and the account that the training goes to.

    Attributes:
        models: one per client, in the order of the clients; released from the beginning of round 1 on.
        moments: likewise, what their dreams are matched to; None where features are not matched.
    """

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._noise = plan_training_noise(federation.config)
        self.models: list[nn.Module] = [
            make_out_of_place(
                convert_batch_norm_to_group_norm(federation.new_model(client.architecture, "dreamer", client.number))
            )
            for client in federation.clients
        ]
        self.moments: list[list[Moments] | None] = [None for _ in self.models]

    def train(self) -> None:
        """Train all dreamers, once, and measure the moments.

        Raises:
            BudgetExceededError: the budget does not allow it; nothing was trained.
            ModelError: an architecture cannot be trained privately.
        """
        # Opacus takes longer to import than torch, and other trainings do without it.
        from codream_secure.privacy.dpsgd import DpSgd, train_privately

        federation, config = self._federation, self._federation.config
        training = config.dp.training
        settings = DpSgd(
            steps=training.steps,
            sample_rate=training.sample_rate,
            noise_multiplier=self._noise.gradients,
            max_grad_norm=training.max_grad_norm,
            optimizer=training.optimizer,
            lr=training.lr,
            momentum=training.momentum,
            average=training.average,
        )
        account = _OnceForAll(federation)
        for index, (client, model) in enumerate(zip(federation.clients, self.models, strict=True)):
            federation.observe("private training", index, len(self.models))
            train_privately(model, client.images, client.labels, settings=settings, record=account.record)
            if self._noise.moments is not None:
                self.moments[index] = release_moments(
                    model,
                    client.images,
                    noise_multiplier=self._noise.moments,
                    record=account.record,
                    layers=config.model.feature_layers.get(client.architecture),
                )
        federation.observe("private training", len(self.models), len(self.models))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {"models": [model.state_dict() for model in self.models], "moments": self.moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        for model, weights in zip(self.models, state["models"], strict=True):
            model.load_state_dict(weights)
        device = self._federation.device
        self.moments = [
            None if found is None else [(mean.to(device), variance.to(device)) for mean, variance in found]
            for found in state["moments"]
        ]


class _OnceForAll:
    """Records what the first client releases, and holds the others to it: on disjoint data, that covers them."""

    def __init__(self, federation: Federation) -> None:
        self._releases = federation.channel.releases
        self._seen: set[Release] = set()

    def record(self, event: Release) -> None:
        if event not in self._seen:
            if any(event.name == earlier.name for earlier in self._seen):
                raise PrivacyError(f"clients release {event.name!r} under different noise: no one event covers them")
            self._releases.record(event)
            self._seen.add(event)
