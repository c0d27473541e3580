"""Under which terms a run's clients sum what: one stream, with its own bound and encoding, for each kind of value."""

from __future__ import annotations

from codream_secure.config import Config
from protocols import FixedPoint, Terms

MAX_IMAGES = 2**20
"""Bound on a client's number of images, where sums are weighted by it."""


def make_terms(config: Config) -> Terms:
    """The terms of every round of a run.

    Values of 32 bits carry 31 bits less the logarithm of the number of clients, or as few as ``[protocol.bits]`` says.
    Sums weighted by numbers of images need more room, so they travel in 64 bits.

    Raises:
        protocols.EncodingError: a bound leaves no room for the values.
    """
    protocol, clients = config.protocol, config.data.clients

    def bounded(clip: float, bits: int | None = None) -> FixedPoint:
        return FixedPoint(clip=clip, clients=clients, ring_bits=protocol.ring_bits, value_bits=bits)

    clip, bits = protocol.clip, protocol.bits
    weights = (
        FixedPoint(clip=clip.weights, clients=clients, max_weight=MAX_IMAGES, ring_bits=64)
        if config.fedavg.weighted
        else bounded(clip.weights, bits.weights)
    )
    return Terms(
        streams={
            "dream_updates": bounded(clip.dream_updates, bits.dream_updates),
            "dreams": bounded(clip.dreams, bits.dreams),
            # No probability exceeds 1, and small ones keep their logarithms.
            "soft_labels": bounded(
                1.0 if config.dreaming.labels == "probabilities" else clip.soft_labels, bits.soft_labels
            ),
            "weights": weights,
            "evaluation": bounded(clip.counts),
        },
        steps=protocol.steps or _sums_in_a_round(config),
        dropout=protocol.dropout,
        corruption=protocol.corruption,
        min_cohort=clients,
        active=protocol.active,
    )


def _sums_in_a_round(config: Config) -> int:
    """Sums that a round usually takes, with a few to spare: a round that takes more is set up once more."""
    dreaming, spare = config.dreaming, 4
    if config.method != "codream":
        return spare
    labels = dreaming.batches * (1 + dreaming.label_midway) + config.distillation.cutmix + 1
    return dreaming.batches * dreaming.steps + labels + spare
