"""What was released, as immutable descriptions: an accountant reads them, a checkpoint stores them.

Every noise multiplier and every sensitivity is stated against C, the largest L2 norm of *one unit's contribution*, as
in DP-SGD. That is how far a sum moves when a unit is added or removed. That it moves by 2 C when one is replaced is
the accountant's business, and is never put into an event.
"""

from __future__ import annotations

import dataclasses
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from codream_secure.errors import PrivacyError
from codream_secure.privacy import checks

MAX_CLIENTS = 10**6
MAX_SENSITIVITY = 2**62
SMALLEST_SIGMA = 0.5


class Release(ABC):
    """Base of every event. ``name`` says what was released, in words for the reader of a statement."""

    kind: ClassVar[str]
    counter: ClassVar[str | None] = "count"
    """The field that says how often the same was released; None where once is as bad as ever."""
    name: str

    def times(self, repeats: int) -> Self:
        """The same release, ``repeats`` times as often.

        Raises:
            PrivacyError: ``repeats`` is no whole number of at least 1, or the total is too large.
        """
        checks.whole("repeats", repeats)
        if self.counter is None:
            return self
        return self._with_count(repeats * getattr(self, self.counter))

    def merged(self, other: Release) -> Self | None:
        """One event in place of both, if they differ in nothing but their counts; else None."""
        if type(other) is not type(self):
            return None
        if self.counter is None:
            return self if other == self else None
        if other._with_count(1) != self._with_count(1):
            return None
        return self._with_count(getattr(self, self.counter) + getattr(other, self.counter))

    def _with_count(self, count: int) -> Self:
        assert self.counter is not None
        return dataclasses.replace(self, **{self.counter: count})  # type: ignore[type-var]

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON, the kind among them."""
        return {"kind": self.kind, **dataclasses.asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class GaussianRelease(Release):
    """Sums with Gaussian noise to which every unit contributes (no sampling).

    Args:
        name: what was released.
        noise_multiplier: z > 0; the noise's standard deviation in every coordinate is z C.
        count: how many such sums, each with fresh noise.

    Raises:
        PrivacyError: an argument is out of range.
    """

    kind: ClassVar[str] = "gaussian"
    name: str
    noise_multiplier: float
    count: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        checks.text("name", self.name)
        object.__setattr__(self, "noise_multiplier", _noise("noise_multiplier", self.noise_multiplier))
        checks.whole("count", self.count)


@dataclass(frozen=True)
class SampledGaussianRelease(Release):
    """Sums with Gaussian noise over Poisson samples: each unit takes part in each step by a coin of its own (DP-SGD).

    Args:
        name: what was released.
        noise_multiplier: z > 0; the noise's standard deviation in every coordinate is z C.
        sample_rate: q in (0, 1], the probability with which a unit takes part in a step. For a loader that draws
            batches in another way (shuffled, without replacement, weighted) this event is not a description.
        steps: how many such sums, each with a fresh sample and fresh noise.

    Raises:
        PrivacyError: an argument is out of range.
    """

    kind: ClassVar[str] = "sampled_gaussian"
    counter: ClassVar[str | None] = "steps"
    name: str
    noise_multiplier: float
    sample_rate: float = field(kw_only=True)
    steps: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        checks.text("name", self.name)
        object.__setattr__(self, "noise_multiplier", _noise("noise_multiplier", self.noise_multiplier))
        rate = checks.real("sample_rate", self.sample_rate)
        if not 0 < rate <= 1:
            raise PrivacyError(f"sample_rate is {self.sample_rate}: it must lie in (0, 1]")
        object.__setattr__(self, "sample_rate", rate)
        checks.whole("steps", self.steps)


@dataclass(frozen=True)
class IntegerNoiseSum(Release):
    """Sums of integer vectors to which every client adds integer noise of its own; subclasses say of which kind.

    Args:
        name: what was released.
        clients: n, how many *honest* clients' noise is sure to be in every sum: drop-outs and colluders are not.
        sensitivity: largest L2 norm of one unit's integer vector.
        dimension: d, coordinates of a vector.
        count: how many such sums, each with fresh noise.

    Raises:
        PrivacyError: an argument is out of range.
    """

    name: str
    clients: int = field(kw_only=True)
    sensitivity: int = field(kw_only=True)
    dimension: int = field(kw_only=True)
    count: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        checks.text("name", self.name)
        checks.whole("clients", self.clients, MAX_CLIENTS)
        checks.whole("sensitivity", self.sensitivity, MAX_SENSITIVITY)
        checks.whole("dimension", self.dimension)
        checks.whole("count", self.count)


@dataclass(frozen=True)
class DiscreteGaussianSum(IntegerNoiseSum):
    """Discrete Gaussian noise; see :class:`IntegerNoiseSum`.

    Args:
        sigma: parameter of each client's noise, in ring units, at least 1/2 (below that the sum is not close enough
            to a discrete Gaussian for the bound: Kairouz, Liu and Steinke 2021, section 3).
    """

    kind: ClassVar[str] = "discrete_gaussian_sum"
    sigma: float = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sigma", _noise("sigma", self.sigma))
        if self.sigma < SMALLEST_SIGMA:
            raise PrivacyError(
                f"sigma is {self.sigma}: a client's discrete Gaussian needs at least {SMALLEST_SIGMA} ring units for "
                "the bound on the sum to hold; encode with a larger scale"
            )


@dataclass(frozen=True)
class SkellamSum(IntegerNoiseSum):
    """Skellam noise; see :class:`IntegerNoiseSum`.

    Args:
        variance: of each client's noise, in squared ring units. Skellam noise adds up exactly, so the sum's is
            ``clients * variance``.
    """

    kind: ClassVar[str] = "skellam_sum"
    variance: float = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "variance", _noise("variance", self.variance))


@dataclass(frozen=True)
class ExactRelease(Release):
    """Something that left without noise.

    Args:
        name: what was released.
        reason: why there is no noise, in words.
        private_data: whether private data had any influence on it. If so, epsilon is infinite.

    Raises:
        PrivacyError: an argument is not what it should be.
    """

    kind: ClassVar[str] = "exact"
    counter: ClassVar[str | None] = None
    name: str
    reason: str
    private_data: bool = field(kw_only=True)

    def __post_init__(self) -> None:
        checks.text("name", self.name)
        checks.text("reason", self.reason)
        if not isinstance(self.private_data, bool):
            raise PrivacyError(f"private_data is {self.private_data!r}: give True or False")


_KINDS: dict[str, type[Release]] = {
    kind.kind: kind for kind in (GaussianRelease, SampledGaussianRelease, DiscreteGaussianSum, SkellamSum, ExactRelease)
}


def release_from_json(content: Mapping[str, Any]) -> Release:
    """The reverse of :meth:`Release.to_json`.

    Raises:
        PrivacyError: the kind is unknown, or a field is missing, unknown or out of range.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("kind"), str):
        raise PrivacyError("a release has no kind: an object with the field 'kind' is needed")
    kind = _KINDS.get(content["kind"])
    if kind is None:
        raise PrivacyError(f"a release is of kind {content['kind']!r}: known are {', '.join(_KINDS)}")
    names = [entry.name for entry in dataclasses.fields(kind)]  # type: ignore[arg-type]
    found = checks.fields(f"a release of kind {kind.kind!r}", content, ("kind", *names))
    return kind(**{name: found[name] for name in names})


def _noise(argument: str, value: Any) -> float:
    number = checks.real(argument, value)
    if number == 0:
        raise PrivacyError(
            f"{argument} is 0: without noise no finite epsilon can be claimed; describe it as an ExactRelease"
        )
    return checks.positive(argument, number)
