"""What server and clients of a Flower app agree on before a protected sum; both import the same object."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from codream_secure.errors import ConfigError
from protocols import FixedPoint, SumProtocol, Terms, make_protocol
from protocols.homomorphic.planning import plan_streams

TRAIN, EVALUATE = "train", "evaluate"
PROTECTIONS = ("plain", "masked", "bfv")
_CATEGORIES = (EVALUATE, "query")


@dataclass(frozen=True, kw_only=True)
class Protection:
    """How the replies of a Flower app are summed.

    Args:
        name: "masked" (the server learns sums alone), "bfv" (encrypted; clients hold the key and tell the server the
            sum) or "plain" (no protection; the same integers).
        clip: C > 0. Each value of ``arrays after training - arrays before`` lies in [-C, C], or is brought there.
        clients: at most so many nodes are in one sum.
        max_weight: the largest number of examples that a client may have.
        metrics: of train replies, by name the bound of its magnitude; their weighted means travel inside the sum. Other
            metrics of train replies do not leave the client.
        evaluate_metrics: likewise of evaluate replies.
        steps: sums for one set-up of keys. A set-up takes two messages a node, and its size grows with the steps.
        dropout: share of the nodes that may vanish, in [0, 1); see :class:`protocols.Terms`.
        corruption: share of the nodes that may work together with the server, in [0, 1).
        active: guard against a server that deviates from the protocol, for one more message a sum. "masked" only.
        min_cohort: clients take part in no smaller sum. None: two, or with ``active`` the whole roster.
        ring_bits: 32 or 64 bits a value on the wire. Fewer are coarser: see :attr:`resolution`.
        clear: message types that pass as they are, unprotected: any of "evaluate" and "query". Those that are not
            named are summed ("evaluate") or refused ("query").
        weight_key: name of the number of examples in a reply's MetricRecord, as the strategy's ``weighted_by_key``.

    Raises:
        ConfigError: an argument is out of range, or guards nothing under this protection.
        ProtocolError: no encoding or terms are possible with these bounds; the message says why.
    """

    clip: float
    clients: int
    max_weight: int
    name: str = "masked"
    metrics: Mapping[str, float] = field(default_factory=dict)
    evaluate_metrics: Mapping[str, float] = field(default_factory=dict)
    steps: int = 32
    dropout: float = 0.3
    corruption: float = 0.25
    active: bool = False
    min_cohort: int | None = None
    ring_bits: Literal[32, 64] = 64
    clear: tuple[str, ...] = ()
    weight_key: str = "num-examples"
    terms: Terms = field(init=False, repr=False)
    """What the machines agree on."""

    def __post_init__(self) -> None:
        if self.name not in PROTECTIONS:
            raise ConfigError(f"name is {self.name!r}: in a Flower app it is one of {', '.join(PROTECTIONS)}")
        if self.active and self.name != "masked":
            raise ConfigError(
                f"active is True with name = {self.name!r}: only masked sums guard against a server that deviates"
            )
        object.__setattr__(self, "clear", tuple(self.clear))
        for category in self.clear:
            if category not in _CATEGORIES:
                raise ConfigError(f"clear names {category!r}: what may pass unprotected is {' or '.join(_CATEGORIES)}")
        for argument in ("metrics", "evaluate_metrics"):
            bounds = {key: float(bound) for key, bound in getattr(self, argument).items()}
            object.__setattr__(self, argument, dict(sorted(bounds.items())))
            for key, bound in bounds.items():
                if not 0 < bound < float("inf"):
                    raise ConfigError(f"{argument}[{key!r}] is {bound}: give the positive bound of its magnitude")
            if self.weight_key in bounds:
                raise ConfigError(f"{argument} names {self.weight_key!r}: the number of examples is summed anyway")
        object.__setattr__(self, "terms", self._made_terms())
        # What no cohort of this size can meet is found here rather than at the first message.
        self.terms.topology(self.clients)
        if self.name == "bfv":
            plan_streams("bfv", self.terms, public=False)

    def _made_terms(self) -> Terms:
        def encoding(clip: float) -> FixedPoint:
            return FixedPoint(clip=clip, clients=self.clients, max_weight=self.max_weight, ring_bits=self.ring_bits)

        streams = {TRAIN: encoding(self.clip)}
        if EVALUATE not in self.clear:
            streams[EVALUATE] = encoding(1.0)
        return Terms(
            streams=streams,
            steps=self.steps,
            dropout=self.dropout,
            corruption=self.corruption,
            active=self.active,
            min_cohort=self.min_cohort,
        )

    @property
    def protocol(self) -> SumProtocol:
        """Makes the machines."""
        return make_protocol(self.name)

    @property
    def resolution(self) -> float:
        """Distance of two neighbouring levels of a trained value; the mean is off by half of it at most."""
        return self.terms.streams[TRAIN].resolution

    def bounds(self, stream: str) -> Mapping[str, float]:
        """The metrics of a stream, in the order in which they travel, each with its bound."""
        return self.metrics if stream == TRAIN else self.evaluate_metrics

    def digest(self) -> bytes:
        """32 bytes that differ where the terms, the metrics or their bounds do."""
        metrics = [{key: bound.hex() for key, bound in self.bounds(stream).items()} for stream in (TRAIN, EVALUATE)]
        text = json.dumps([metrics, self.weight_key], sort_keys=True)
        label = b"codream-secure flower settings v1\0"
        return hashlib.sha256(label + self.terms.digest(self.name) + text.encode()).digest()
