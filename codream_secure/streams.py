"""Under which terms a run's clients sum what: one stream, with its own bound and encoding, for each kind of value."""

from __future__ import annotations

from codream_secure.accounting import sums_in_round
from codream_secure.config import Config
from codream_secure.privacy.planning import NoisySums
from protocols import FixedPoint, NoNoise, Terms

_SPARE_SUMS = 4
MAX_IMAGES = 2**20
"""Bound on a client's number of images, where sums are weighted by it."""


def make_terms(config: Config, noisy: NoisySums | None = None) -> Terms:
    """The terms of every round of a run.

    Values of 32 bits carry 31 bits less the logarithm of the number of clients, or as few as ``[protocol.bits]`` says.
    Sums weighted by numbers of images need more room, so they travel in 64 bits. Where sums have noise, there are no
    streams but those that it is planned for, encoded as the plan says.

    Raises:
        protocols.EncodingError: a bound leaves no room for the values.
    """
    protocol, clients = config.protocol, config.data.clients
    by_clients = noisy is not None and not noisy.cohort.by_server
    return Terms(
        streams=_open_streams(config) if noisy is None else {name: noisy.encoding(name) for name in noisy.norms},
        steps=protocol.steps or _sums_in_a_round(config),
        dropout=protocol.dropout,
        corruption=protocol.corruption,
        min_cohort=clients,
        active=protocol.active,
        noise=noisy.noise if noisy is not None and by_clients else NoNoise(),
    )


def _open_streams(config: Config) -> dict[str, FixedPoint]:
    protocol, clients = config.protocol, config.data.clients

    def bounded(clip: float, bits: int | None = None) -> FixedPoint:
        return FixedPoint(clip=clip, clients=clients, ring_bits=protocol.ring_bits, value_bits=bits)

    clip, bits = protocol.clip, protocol.bits
    weights = (
        FixedPoint(clip=clip.weights, clients=clients, max_weight=MAX_IMAGES, ring_bits=64)
        if config.fedavg.weighted
        else bounded(clip.weights, bits.weights)
    )
    return {
        "dream_updates": bounded(clip.dream_updates, bits.dream_updates),
        "dreams": bounded(clip.dreams, bits.dreams),
        # No probability exceeds 1, and small ones keep their logarithms.
        "soft_labels": bounded(
            1.0 if config.dreaming.labels == "probabilities" else clip.soft_labels, bits.soft_labels
        ),
        "weights": weights,
        "evaluation": bounded(clip.counts),
    }


def _sums_in_a_round(config: Config) -> int:
    """Sums that a round usually takes, with a few to spare: a round that takes more is set up once more."""
    usual = max(sum(sums_in_round(config, number).values()) for number in range(config.run.rounds + 1))
    return usual + _SPARE_SUMS
