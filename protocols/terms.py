"""What all parties of a cohort have to agree on before a round, and one fingerprint of it.

Terms reach every party with its own configuration, never from the server. Clients compare their digest with that of
every offer, and where there are keys and signatures it is part of them all: parties with different terms fail at once
rather than sum apples with pears.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from protocols.encoding import FixedPoint, whole
from protocols.errors import CohortError, TermsError
from protocols.graph import Topology, plan, survivors_needed
from protocols.noise import Noise, NoNoise

MAX_MEMBER = 2**32 - 1
MAX_COHORT = 100_000
MAX_STEPS = 1_000_000
MAX_VALUES = 2**28
ROUND_ID_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The fixed conditions of a round.

    Args:
        streams: name to encoding. Each step sums one vector of one stream.
        steps: T, at most so many sums in one round. What opens a step is prepared at set-up.
        dropout: share of the cohort that may vanish, in [0, 1). No sum of fewer than the rest is opened by a server
            that follows the protocol nor, with ``active``, by any other.
        corruption: share of the cohort that may collude with the server, in [0, 1).
        min_cohort: clients take part in no smaller cohort. The shares above are of whatever cohort the server offers;
            in a small one of its choice the colluders may be more than their share. None: two, or, facing an active
            server, the whole roster.
        active: whether clients guard against a server that deviates; costs one more exchange a step.
        sigma: statistical security of a neighbour graph that is not complete, in bits.
        eta: its correctness, in bits.
        max_values: longest vector that a client lets itself be asked for.
        noise: what each client adds to its own encoded vector.

    Raises:
        TermsError: an argument is out of range, or noise could make a stream's sum wrap.
    """

    streams: Mapping[str, FixedPoint]
    steps: int
    dropout: float = 0.3
    corruption: float = 1 / 3
    min_cohort: int | None = None
    active: bool = False
    sigma: int = 40
    eta: int = 30
    max_values: int = MAX_VALUES
    noise: Noise = field(default_factory=NoNoise)

    def __post_init__(self) -> None:
        # Equal terms have equal digests, however their numbers were spelt.
        for name in ("dropout", "corruption"):
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)
        for name in ("steps", "min_cohort", "sigma", "eta", "max_values"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, whole(name, value, TermsError))
        object.__setattr__(self, "active", bool(self.active))
        object.__setattr__(self, "streams", dict(self.streams))
        if not self.streams:
            raise TermsError("streams is empty: name at least one encoding")
        for name in self.streams:
            if not (name and len(name) <= 64 and name.isascii() and name.isprintable()):
                raise TermsError(f"stream {name!r}: use 1 to 64 printable ASCII characters")
        for argument, value, largest in (
            ("steps", self.steps, MAX_STEPS),
            ("min_cohort", 1 if self.min_cohort is None else self.min_cohort, MAX_COHORT),
            ("sigma", self.sigma, 128),
            ("eta", self.eta, 128),
            ("max_values", self.max_values, MAX_VALUES),
        ):
            if not 1 <= value <= largest:
                raise TermsError(f"{argument} is {value}: it must lie between 1 and {largest}")
        for argument, share in (("dropout", self.dropout), ("corruption", self.corruption)):
            if not 0 <= share < 1:
                raise TermsError(f"{argument} is {share}: a share of the cohort in [0, 1)")
        for name, encoding in self.streams.items():
            largest = encoding.clients * (encoding.largest * (encoding.max_weight or 1) + self.noise.headroom())
            if largest >= 1 << (encoding.ring_bits - 1):
                raise TermsError(f"stream {name!r}: with {self.noise.name} noise the sum could wrap; lower value_bits")

    def survivors(self, size: int) -> int:
        """How many of a cohort must be left for a sum to be opened: all but the share that may drop out.

        Raises:
            TermsError: the cohort is too small for the terms, or too large for an encoding; or a sum could be opened
                that has less noise in it than was accounted for.
        """
        if self.min_cohort is not None and size < self.min_cohort:
            raise TermsError(f"the cohort has {size} members: the terms ask for at least {self.min_cohort}")
        for name, encoding in self.streams.items():
            if size > encoding.clients:
                raise TermsError(
                    f"the cohort has {size} members, but stream {name!r} is encoded for at most {encoding.clients}"
                )
        survivors = survivors_needed(size, self.dropout)
        if survivors < self.noise.contributors():
            raise TermsError(
                f"of a cohort of {size} sums of {survivors} would be opened (dropout is {self.dropout}), but the "
                f"{self.noise.name} noise counts on {self.noise.contributors()} contributions: lower dropout, or make "
                "noise for this many clients and dropouts"
            )
        return survivors

    def topology(self, size: int) -> Topology:
        """Neighbour graph and thresholds of a cohort of ``size`` members.

        Raises:
            TermsError: the terms cannot be met at this size, or an encoding is made for fewer clients.
        """
        self.survivors(size)
        return plan(
            size,
            dropout=self.dropout,
            corruption=self.corruption,
            active=self.active,
            sigma=self.sigma,
            eta=self.eta,
        )

    def digest(self, protocol: str) -> bytes:
        """SHA-256 of everything above and the protocol's name; see ``docs/wire_format.md``."""
        content: dict[str, Any] = {
            "protocol": protocol,
            "streams": {name: _plain(asdict(encoding)) for name, encoding in self.streams.items()},
            "noise": {"name": self.noise.name, "parameters": _described(self.noise)},
        }
        for name in ("steps", "dropout", "corruption", "min_cohort", "active", "sigma", "eta", "max_values"):
            content[name] = getattr(self, name)
        text = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(b"codream-secure terms v1\0" + text.encode()).digest()


def _described(noise: Noise) -> dict[str, Any]:
    """A mechanism's parameters, each with its type, so that no number passes for a text.

    Raises:
        TermsError: one is of another type than it may be.
    """
    described = {}
    for name, value in noise.parameters().items():
        if type(value) not in (int, float, str) or not f"{name}{value}".isascii():
            raise TermsError(
                f"noise parameter {name!r} is {value!r}: use an int, a float or an ASCII text of Python's own"
            )
        described[name] = [type(value).__name__, value.hex() if isinstance(value, float) else value]
    return described


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """Floats as :meth:`float.hex` writes them, which is one spelling for each number."""
    return {key: value.hex() if isinstance(value, float) else value for key, value in content.items()}


def check_cohort(members: Sequence[int]) -> tuple[int, ...]:
    """The members as a tuple, if they are distinct, in range and in ascending order.

    Raises:
        CohortError: they are not.
    """
    cohort = tuple(members)
    if len(cohort) > MAX_COHORT:
        raise CohortError(f"the cohort has {len(cohort)} members: at most {MAX_COHORT}")
    if any(isinstance(member, bool) or not isinstance(member, int) for member in cohort):
        raise CohortError("a member's number is not an integer")
    if any(not 0 <= member <= MAX_MEMBER for member in cohort):
        raise CohortError(f"a member's number is not in [0, {MAX_MEMBER}]")
    if any(left >= right for left, right in itertools.pairwise(cohort)):
        raise CohortError("members are repeated or not in ascending order")
    return cohort
