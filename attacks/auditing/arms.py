"""What is audited side by side: methods, trained with and without noise, each under several protections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from codream_secure.config import Config, make_config
from codream_secure.errors import ConfigError
from protocols import available_protocols
from protocols.plain import PlainSum

PROTECTIONS = ("plain", "masked", "bfv", "ckks")
_UNITS = ("client", "example")


@dataclass(frozen=True)
class Claim:
    """A claim of privacy that CoDream is also trained under.

    Attributes:
        unit: "client" or "example". Under the first, clients add the noise within masked sums; under the second, models
            that dream are trained with noise, and sums are as the configuration has them.
        epsilon: the budget, at the configuration's delta.
    """

    unit: str
    epsilon: float

    @classmethod
    def parse(cls, text: str) -> Claim:
        """From "unit:epsilon".

        Raises:
            ConfigError: it is something else.
        """
        unit, _, epsilon = text.partition(":")
        try:
            budget = float(epsilon)
        except ValueError:
            budget = math.nan
        if unit not in _UNITS or not 0 < budget < math.inf:
            raise ConfigError(f"claim {text!r} is not understood: write client:1 or example:8, unit and epsilon")
        return cls(unit, budget)

    @property
    def label(self) -> str:
        """How rows call it."""
        return f"{self.unit}-dp {self.epsilon:g}"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One method under one way of training; protections of sums change what is seen, not what is learnt.

    Attributes:
        method: how rows call it.
        config: what is trained. Its own protection is "plain", unless noise has to be added by clients.
        protections: how rows call it, and the protocol that is meant.
    """

    method: str
    config: Config
    protections: tuple[tuple[str, str], ...]

    @property
    def private(self) -> bool:
        """Whether privacy is claimed."""
        return self.config.dp.on


def arms_of(config: Config, *, protections: Sequence[str] = PROTECTIONS, claims: Sequence[Claim] = ()) -> list[Arm]:
    """FedAvg and CoDream without noise, and CoDream under what the configuration and the caller claim.

    FedAvg needs one architecture: all its clients get the first client's.

    Args:
        config: of the run under audit; FedAvg's clients all get the first one's architecture, and equal weight.
        protections: protocols to look through where there is no noise.
        claims: besides the configuration's own.

    Raises:
        ConfigError: a protection is unknown, the method of the run is neither of the two, or a server is to add
            noise to sums whose single vectors it does not see.
    """
    for name in protections:
        if name not in available_protocols():
            raise ConfigError(f"protection {name!r} is unknown: choose among {', '.join(available_protocols())}")
    if config.method not in ("codream", "fedavg"):
        raise ConfigError(f"method is {config.method!r}: an audit compares 'codream' with 'fedavg'")
    seen = tuple((name, name) for name in protections)
    open_sums: dict[str, object] = {"protocol": _plain_protocol(config), "dp": {"unit": "none"}}
    arms = [
        Arm(
            method="fedavg",
            config=_changed(config, method="fedavg", model=_uniform(config), fedavg={"weighted": False}, **open_sums),
            protections=seen,
        ),
        Arm(method="codream", config=_changed(config, method="codream", **open_sums), protections=seen),
    ]
    if config.dp.on:
        protocol = config.protocol.protection
        if config.dp.unit == "client" and config.dp.by_server(protocol) and protocol != PlainSum.name:
            raise ConfigError(
                f"protocol.protection is {protocol!r} and the server adds the noise: views of such sums are not "
                "modelled, audit noise by clients (dp.noise = 'distributed') or plain sums"
            )
        label = f"{config.dp.unit}-dp"
        arms.append(Arm(method="codream", config=config, protections=((label, config.protocol.protection),)))
    return arms + [_claimed(config, claim) for claim in dict.fromkeys(claims)]


def _claimed(config: Config, claim: Claim) -> Arm:
    dp = {**config.dp.model_dump(mode="json", exclude_none=True), "unit": claim.unit, "epsilon": claim.epsilon}
    dp |= {"noise": "auto", "noise_multiplier": None, "adjacency": None}
    protocol = config.protocol.model_dump(mode="json", exclude_none=True)
    if claim.unit == "client":
        protocol["protection"] = "masked"
    changed = _changed(config, method="codream", protocol=protocol, dp=dp)
    return Arm(method="codream", config=changed, protections=((claim.label, changed.protocol.protection),))


def _uniform(config: Config) -> dict[str, object]:
    return {"clients": [config.model.architecture(0)], "server": None}


def _plain_protocol(config: Config) -> dict[str, object]:
    return {**config.protocol.model_dump(mode="json", exclude_none=True), "protection": "plain"}


def _changed(config: Config, **sections: object) -> Config:
    """The configuration with some sections, or single values, put in the place of its own."""
    tree = config.model_dump(mode="json", exclude_none=True)
    for name, value in sections.items():
        tree[name] = value if not isinstance(value, dict) else {k: v for k, v in value.items() if v is not None}
    return make_config(tree)
