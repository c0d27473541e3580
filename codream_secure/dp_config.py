"""The configuration of differential privacy, and the settings under which no claim of it could hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from codream_secure.sections import Section
from protocols import make_protocol

if TYPE_CHECKING:
    from codream_secure.config import Config


def _known_bounding(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(("adaptive", "quantile")):
        raise ValueError(
            "a bound that adapts to the contributions is one more release a step, which nothing here accounts for, and "
            "Adam on the dreams cancels the scale anyway: use 'normalise', or 'clip' with a fixed dp.clip"
        )
    return value


class DpTrainingConfig(Section):
    """Private training of the models that dream, for the unit "example"; see :mod:`codream_secure.privacy.dpsgd`."""

    steps: int = Field(60, ge=1, description="gradient steps, each on a fresh Poisson sample")
    sample_rate: float = Field(1.0, gt=0, le=1, description="q: each image takes part in a step by a coin of its own")
    max_grad_norm: float = Field(1.0, gt=0, description="bound on the L2 norm of one image's gradient")
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(1.0, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    average: float = Field(0.5, ge=0, lt=1, description="last part of the steps whose weights are averaged")
    moment_share: float = Field(
        0.1, ge=0, lt=1, description="share of the budget, in mu^2, for the moments that dreams are matched to"
    )
    distil: bool = Field(True, description="dreamers learn from dreams too; it costs no privacy")


class DpConfig(Section):
    """Whose presence is hidden, from whom, and how well."""

    unit: Literal["none", "client", "example", "local"] = "none"
    epsilon: float | None = Field(
        None, gt=0, description="the most that a run may spend; it stops before it spends more"
    )
    delta: float = Field(1e-5, gt=0, lt=1)
    adjacency: Literal["add_remove", "replace_one"] | None = Field(
        None, description="default: replace_one for the unit local, whose sending is no secret; else add_remove"
    )
    noise: Literal["auto", "server", "distributed"] = Field(
        "auto", description="who adds it; auto: clients where sums hide their messages, else a trusted server"
    )
    mechanism: Literal["discrete_gaussian", "skellam"] = "discrete_gaussian"
    noise_multiplier: float | None = Field(None, description="z of the dream updates; default: solved from the budget")
    label_share: float = Field(0.3, gt=0, lt=1, description="share of the budget, in mu^2, for soft labels")
    evaluation_share: float = Field(
        0.0, ge=0, lt=1, description="share of the budget, in mu^2, to release validation accuracies; 0: not released"
    )
    bounding: Annotated[Literal["normalise", "clip"], BeforeValidator(_known_bounding)] = Field(
        "normalise", description="bring every contribution to one norm, or only shorten what exceeds it"
    )
    clip: float = Field(1.0, gt=0, description="C: that norm, of a client's whole dream update of one step")
    colluders: int = Field(1, ge=0, description="so many clients may tell their share of the noise, or leave it out")
    training: DpTrainingConfig = DpTrainingConfig()

    @property
    def on(self) -> bool:
        """Whether anything is claimed."""
        return self.unit != "none"

    @property
    def neighbours(self) -> Literal["add_remove", "replace_one"]:
        """The adjacency, or its default."""
        return self.adjacency or ("replace_one" if self.unit == "local" else "add_remove")

    @property
    def noise_on_sums(self) -> bool:
        """Whether what leaves clients gets noise; for the unit "example" it is their training that does."""
        return self.unit in ("client", "local")

    @model_validator(mode="after")
    def _claims_have_noise(self) -> DpConfig:
        if not self.on:
            if self.epsilon is not None or self.noise_multiplier is not None:
                raise ValueError(
                    "dp.epsilon or dp.noise_multiplier is set, but dp.unit is 'none': say whose presence is hidden, "
                    "'client', 'example' or 'local'"
                )
            return self
        if self.noise_multiplier is not None and self.noise_multiplier <= 0:
            raise ValueError(
                f"dp.noise_multiplier is {self.noise_multiplier}: without noise no epsilon can be claimed; give a "
                "multiplier above 0, or set dp.unit = 'none'"
            )
        if self.noise_multiplier is None and self.epsilon is None:
            raise ValueError("dp.epsilon is missing: give a budget, or dp.noise_multiplier")
        if self.unit == "local" and self.adjacency == "add_remove":
            raise ValueError(
                "dp.adjacency is 'add_remove', but with dp.unit = 'local' the adversary sees that a client sends: what "
                "is hidden is what it sends, so use 'replace_one'"
            )
        if self.label_share + self.evaluation_share >= 1:
            raise ValueError("dp.label_share and dp.evaluation_share leave nothing for the dreams: lower one of them")
        return self

    def by_server(self, protection: str) -> bool:
        """Whether a trusted server adds the noise under this protection."""
        if self.noise == "auto":
            return self.unit == "client" and protection == "plain"
        return self.noise == "server"


def check_claims(config: Config) -> None:
    """Refuse what would make a claim of privacy untrue, with the reason.

    Raises:
        ValueError: two parts of the configuration contradict each other.
    """
    dp = config.dp
    if not dp.on:
        return
    if (config.run.select == "validation" or config.run.target_accuracy) and not dp.evaluation_share:
        raise ValueError(
            "run.select = 'validation' and run.target_accuracy choose by private data: release the validation "
            "accuracies (dp.evaluation_share above 0), or report the final round"
        )
    if dp.evaluation_share and not config.data.validation_samples:
        raise ValueError("dp.evaluation_share is set, but data.validation_samples is 0: there is nothing to release")
    if not config.dreaming.collaborative:
        raise ValueError("dreaming.collaborative is false: dreams of a single client have no others to hide among")
    if config.fedavg.weighted:
        raise ValueError(
            "fedavg.weighted weights clients by their number of images, which tells that number and lets one client "
            "weigh as much as all: use uniform weights with dp.unit"
        )
    if dp.noise_on_sums:
        _check_noisy_sums(config)
    else:
        _check_dreamers(config)


def _check_dreamers(config: Config) -> None:
    dp, dreaming = config.dp, config.dreaming
    if dp.evaluation_share:
        raise ValueError(
            "dp.evaluation_share releases sums with integer noise, which no accountant composes with the sampled steps "
            "of dp.unit = 'example': set it to 0"
        )
    if dreaming.features and not dp.training.moment_share:
        raise ValueError(
            "dp.training.moment_share is 0, but dreaming.features matches dreams to moments of private images: give "
            "the moments a share of the budget, or set dreaming.features = 0"
        )
    if dreaming.features and dreaming.moments != "channel":
        raise ValueError(
            f"dreaming.moments is {dreaming.moments!r}, but dp.unit = 'example' releases moments per channel only: set "
            "it to 'channel'"
        )


def _check_noisy_sums(config: Config) -> None:
    dp, protection = config.dp, config.protocol.protection
    if config.dreaming.labels == "logits":
        raise ValueError(
            f"dreaming.labels is {config.dreaming.labels!r}: with noise on what clients send, labels have to be "
            "'probabilities', whose norm is bounded whatever the model, or 'classes', which asks nobody"
        )
    bits = config.protocol.bits
    if bits.dream_updates or bits.soft_labels:
        raise ValueError(
            "protocol.bits is set for a sum with noise: there the noise decides how fine values are; leave it out"
        )
    sums = make_protocol(protection)
    if not sums.carries_noise:
        raise ValueError(
            f"protocol.protection is {protection!r}, whose sums are approximate: the privacy of integer noise rests on "
            "exact ones; use 'masked' or 'bfv'"
        )
    if dp.by_server(protection):
        if sums.has_authority:
            raise ValueError(
                f"dp.noise is 'server', but under {protection!r} the key authority opens sums before the server adds "
                "anything: use 'distributed'"
            )
        if dp.unit == "local":
            raise ValueError("dp.noise is 'server', but dp.unit = 'local' is noise that every client adds by itself")
        if sums.opened_by == "clients":
            raise ValueError(
                f"dp.noise is 'server', but under {protection!r} clients open the sums and the server cannot add "
                "anything to them unseen: use 'distributed'"
            )
        return
    if dp.unit == "client":
        if protection == "plain":
            raise ValueError(
                "dp.noise is 'distributed', but a 'plain' sum shows each message with its own small share of noise: "
                "protect it ('masked', 'bfv'), let a trusted server add the noise, or use dp.unit = 'local'"
            )
        _check_colluders(config)


def _check_colluders(config: Config) -> None:
    colluders, protocol = config.dp.colluders, config.protocol
    if not colluders:
        raise ValueError(
            "dp.colluders is 0, but clients see what sums are made into, and each knows its own share of the noise: "
            "use at least 1"
        )
    withstood = math.floor(protocol.corruption * config.data.clients + 1e-9)
    if protocol.protection == "masked" and colluders > withstood:
        raise ValueError(
            f"dp.colluders is {colluders}, but masks are made to withstand {withstood} of {config.data.clients} "
            f"(protocol.corruption is {protocol.corruption:g}), and more could open single messages: raise "
            "protocol.corruption, or lower dp.colluders"
        )
