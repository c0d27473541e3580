"""What server and clients of a Flower app agree on before a protected sum; both import the same object."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from codream_secure.errors import ConfigError, PrivacyError
from codream_secure.flower.privacy import ClientLevel
from codream_secure.privacy.planning import NoisySums
from codream_secure.releases import OpenReleases, Releases
from protocols import FixedPoint, NoNoise, SumProtocol, Terms, make_protocol
from protocols.homomorphic.planning import plan_streams
from protocols.terms import MAX_VALUES

TRAIN, EVALUATE = "train", "evaluate"
PROTECTIONS = ("plain", "masked", "bfv")
_CATEGORIES = (EVALUATE, "query")


@dataclass(frozen=True, kw_only=True)
class Protection:
    """How the replies of a Flower app are summed.

    Args:
        name: "masked" (the server learns sums alone), "bfv" (encrypted; clients hold the key and tell the server the
            sum) or "plain" (no protection; the same integers).
        clip: C > 0. Each value of ``arrays after training - arrays before`` lies in [-C, C], or is brought there. With
            ``dp`` it is the L2 norm of all of them together that is at most C.
        clients: at most so many nodes are in one sum. With ``dp`` the number that the sum is divided by.
        max_weight: the largest number of examples that a client may have. Needed without ``dp``, refused with it:
            there all clients weigh the same.
        dp: differential privacy; None claims none.
        metrics: of train replies, by name the bound of its magnitude; their weighted means travel inside the sum. Other
            metrics of train replies do not leave the client.
        evaluate_metrics: likewise of evaluate replies.
        steps: sums for one set-up of keys. A set-up takes two messages a node, and its size grows with the steps.
        dropout: share of the nodes that may vanish, in [0, 1); see :class:`protocols.Terms`.
        corruption: share of the nodes that may work together with the server, in [0, 1).
        active: guard against a server that deviates from the protocol, for one more message a sum. "masked" only.
        min_cohort: clients take part in no smaller sum. None: two, or with ``active`` the whole roster, or with ``dp``
            as many as ``clients`` says.
        ring_bits: 32 or 64 bits a value on the wire. Fewer are coarser: see :attr:`resolution`. None: 64, or 32 with
            ``dp``, where the noise is coarser than either.
        clear: message types that pass as they are, unprotected: any of "evaluate" and "query". Those that are not
            named are summed ("evaluate") or refused ("query").
        weight_key: name of the number of examples in a reply's MetricRecord, as the strategy's ``weighted_by_key``.

    Raises:
        ConfigError: an argument is out of range, guards nothing under this protection, or is at odds with ``dp``.
        PrivacyError: delta is too large for so many clients, or the budget does not allow a single sum.
        ProtocolError: no encoding or terms are possible with these bounds; the message says why.
    """

    clip: float
    clients: int
    max_weight: int | None = None
    name: str = "masked"
    dp: ClientLevel | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    evaluate_metrics: Mapping[str, float] = field(default_factory=dict)
    steps: int = 32
    dropout: float = 0.3
    corruption: float = 0.25
    active: bool = False
    min_cohort: int | None = None
    ring_bits: Literal[32, 64] | None = None
    clear: tuple[str, ...] = ()
    weight_key: str = "num-examples"
    terms: Terms = field(init=False, repr=False)
    """What the machines agree on."""
    noisy: NoisySums | None = field(init=False, repr=False)
    """The update's norm and the nodes' noise in the ring; None without ``dp``."""

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
        self._check_weights_and_noise()
        noisy = None if self.dp is None else self.dp.plan(self.name, clients=self.clients, dropout=self.dropout)
        object.__setattr__(self, "noisy", noisy)
        object.__setattr__(self, "terms", self._made_terms())
        # What no cohort of this size can meet is found here rather than at the first message.
        self.terms.topology(self.clients)
        if self.name == "bfv":
            plan_streams("bfv", self.terms, public=False)
        if not self.releases().fits({TRAIN: 1}):
            raise PrivacyError(
                "dp.epsilon does not allow a single sum with dp.noise_multiplier: raise one of them, or leave the "
                "multiplier out to have it solved"
            )

    def _check_weights_and_noise(self) -> None:
        """Refuse what is missing without ``dp``, and with it whatever would leave a node unaccounted for."""
        if self.dp is None:
            if self.max_weight is None:
                raise ConfigError("max_weight is None: give the largest number of examples that a client may have")
            return
        if not 0 < self.clip < math.inf:
            raise ConfigError(f"clip is {self.clip}: give the positive bound of an update's L2 norm")
        for argument, reason in (
            ("max_weight", "a number of examples is private and without bound: with dp all clients weigh the same"),
            ("metrics", "metrics come from private data and nothing accounts for them"),
            ("evaluate_metrics", "evaluate replies come from private data and nothing accounts for them"),
            ("clear", "what passes in clear has no noise"),
        ):
            if getattr(self, argument):
                raise ConfigError(f"{argument} is {getattr(self, argument)!r} with dp: {reason}; leave it out")
        if self.ring_bits == 64:
            raise ConfigError(
                "ring_bits is 64 with dp: noise is made for 32 bits, and coarser than these; leave it out"
            )
        withstood = math.floor(self.corruption * (self.min_cohort or self.clients) + 1e-9)
        if self.name == "masked" and self.dp.colluders > withstood:
            raise ConfigError(
                f"dp.colluders is {self.dp.colluders}, but masks withstand {withstood} of the smallest cohort, "
                f"{self.min_cohort or self.clients} (corruption is {self.corruption:g}): more could open single "
                "messages; raise corruption or min_cohort, or lower colluders"
            )

    def _made_terms(self) -> Terms:
        return Terms(
            streams=self._streams(),
            steps=self.steps,
            dropout=self.dropout,
            corruption=self.corruption,
            active=self.active,
            min_cohort=self.clients if self.dp is not None and self.min_cohort is None else self.min_cohort,
            max_values=MAX_VALUES if self.dp is None else self.dp.values,
            noise=NoNoise() if self.noisy is None else self.noisy.noise,
        )

    def _streams(self) -> dict[str, FixedPoint]:
        if self.noisy is not None:
            return {TRAIN: self.noisy.encoding(TRAIN)}
        bits = self.ring_bits or 64

        def encoding(clip: float) -> FixedPoint:
            return FixedPoint(clip=clip, clients=self.clients, max_weight=self.max_weight, ring_bits=bits)

        streams = {TRAIN: encoding(self.clip)}
        if EVALUATE not in self.clear:
            streams[EVALUATE] = encoding(1.0)
        return streams

    def releases(self) -> Releases:
        """What stands between values and sums, and the account of a run that has not begun."""
        if self.dp is None or self.noisy is None:
            return OpenReleases()
        return self.dp.account(self.name, self.noisy)

    @property
    def protocol(self) -> SumProtocol:
        """Makes the machines."""
        return make_protocol(self.name)

    @property
    def resolution(self) -> float:
        """Distance of two neighbouring levels of a trained value; without noise the mean is off by half at most."""
        encoding = self.terms.streams[TRAIN]
        return encoding.resolution * (1.0 if self.noisy is None else self.clip / encoding.clip)

    def bounds(self, stream: str) -> Mapping[str, float]:
        """The metrics of a stream, in the order in which they travel, each with its bound."""
        return self.metrics if stream == TRAIN else self.evaluate_metrics

    def digest(self) -> bytes:
        """32 bytes that differ where the terms, the metrics or their bounds, or what is claimed of privacy do."""
        metrics = [{key: bound.hex() for key, bound in self.bounds(stream).items()} for stream in (TRAIN, EVALUATE)]
        # The terms say how long an update is in the ring, and not what length that stands for.
        private = [] if self.dp is None else [float(self.clip).hex(), self.dp.described()]
        text = json.dumps([metrics, self.weight_key, *private], sort_keys=True)
        label = b"codream-secure flower settings v1\0"
        return hashlib.sha256(label + self.terms.digest(self.name) + text.encode()).digest()
