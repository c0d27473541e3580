"""The configuration of a run: TOML in, validated and frozen models out.

Every section is a pydantic model with defaults, so an empty file is a complete run on the embedded data. An unknown
key is an error that names the nearest known one.
"""

from __future__ import annotations

import copy
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from codream_secure.dp_config import DpConfig, check_claims
from codream_secure.errors import ConfigError
from codream_secure.sections import Section


class DataConfig(Section):
    """Which images, and who holds which of them."""

    source: str = Field("digits", description="digits, mnist, ..., npz:FILE or images:FOLDER")
    root: str | None = Field(None, description="folder of the data files; default: $CODREAM_DATA_ROOT, else ./data")
    download: bool = Field(False, description="let torchvision download what is missing")
    clients: int = Field(4, ge=1)
    samples_per_client: Annotated[int, Field(ge=1)] | Literal["all"] = 50
    partition: Literal["iid", "dirichlet", "label_dirichlet", "classes"] = "iid"
    alpha: float | None = Field(None, gt=0, description="Dirichlet concentration")
    classes_per_client: int | None = Field(None, ge=1)
    validation_samples: int = Field(200, ge=0, description="held out of the training data, before it is partitioned")
    test_samples: int | None = Field(
        None, ge=1, description="random ones of the test images, where testing many clients on all takes too long"
    )

    @model_validator(mode="after")
    def _scheme_has_its_parameter(self) -> DataConfig:
        if self.partition.endswith("dirichlet") and self.alpha is None:
            raise ValueError(f"data.partition is {self.partition!r}: set data.alpha, for example 0.1")
        if self.partition == "classes" and self.classes_per_client is None:
            raise ValueError("data.partition is 'classes': set data.classes_per_client, for example 2")
        return self


class ModelConfig(Section):
    """The clients' architectures and, optionally, a student model at the server."""

    clients: Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)] = Field(
        ("small_cnn",), min_length=1, description="one name for all, or one name per client"
    )
    server: str | None = Field(None, description="architecture of the server's student; absent: no student")
    feature_layers: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="architecture name to the layers whose input moments are matched"
    )

    def architecture(self, client: int) -> str:
        """The architecture of one client."""
        return self.clients[client % len(self.clients)]


class OptimizationConfig(Section):
    """An optimiser and its batch size; see :class:`codream_secure.training.Optimization`."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(0.05, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    batch_size: int = Field(25, ge=1)
    max_grad_norm: Annotated[float, Field(gt=0)] | Literal["off"] = 5.0
    schedule: Literal["constant", "cosine"] = Field("constant", description="cosine: to 0 within each call")


class LocalConfig(OptimizationConfig):
    """Supervised training on a client's own images: the same for every method.

    CoDream's rehearsal comes on top of it; see ``distillation.rehearsal``.
    """

    warmup_epochs: int = Field(20, ge=0)
    epochs: int = Field(10, ge=0, description="per round, after the warm-up")
    recalibrate: bool = Field(True, description="end with the batch norms' statistics of the client's own images")


class SpaceConfig(Section):
    """What of the dreams clients optimise jointly; see :mod:`codream_secure.dreaming.spaces`."""

    kind: Literal["pixels", "dct", "subspace", "latents"] = "pixels"
    size: int | None = Field(
        None, ge=1, description="dct: side of the square of frequencies, by channel; else coordinates of one dream"
    )

    @model_validator(mode="after")
    def _size_belongs_to_the_kind(self) -> SpaceConfig:
        if self.kind == "pixels" and self.size is not None:
            raise ValueError(
                f"dreaming.space.size is {self.size}, but pixels are as many as they are: leave it out, or choose "
                "another dreaming.space.kind"
            )
        if self.kind != "pixels" and self.size is None:
            example = 4 if self.kind == "dct" else 32
            raise ValueError(f"dreaming.space.kind is {self.kind!r}: set dreaming.space.size, for example {example}")
        return self


class DreamingConfig(Section):
    """Knowledge extraction."""

    images: int = Field(128, ge=1, description="dreams per batch")
    batches: int = Field(1, ge=1, description="dream batches per round")
    steps: int = Field(30, ge=0, description="R, global steps; 0 labels random dreams")
    local_steps: int = Field(1, ge=1, description="M, local steps per global step; above 1 pseudo-gradients are sent")
    local_optimizer: Literal["adam", "sgd"] = "adam"
    local_lr: float = Field(0.05, gt=0)
    optimizer: Literal["adam", "fedavg", "fedadam"] = "adam"
    lr: float = Field(0.2, gt=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    entropy: float = Field(1.0, ge=0)
    features: float = Field(10.0, ge=0)
    moments: Literal["channel", "position"] = Field("position", description="what feature matching compares")
    classes: float = Field(
        0.0, ge=0, description="weight of the cross-entropy of dreams to public classes, spread evenly; 0 as published"
    )
    tv: float = Field(2.5e-5, ge=0)
    l2: float = Field(3e-8, ge=0)
    adaptive: Literal["none", "jsd", "server_entropy"] = "none"
    adaptive_weight: float = Field(1.0, ge=0)
    adaptive_from_round: int = Field(2, ge=1, description="before it, the student has learnt nothing")
    unit_updates: bool = Field(False, description="clients bring each update to L2 norm 1, so that all weigh alike")
    collaborative: bool = Field(True, description="false: each client dreams from its own model only")
    labels: Literal["logits", "probabilities", "classes"] = Field(
        "logits", description="mean predictions; or the public classes that dreams were made for, which asks nobody"
    )
    label_midway: bool = Field(False, description="also label and store the dreams at R/2")
    space: SpaceConfig = SpaceConfig()


class DistillationConfig(OptimizationConfig):
    """Knowledge acquisition."""

    batch_size: int = Field(128, ge=1)
    epochs: int = Field(8, ge=0)
    every: int = Field(1, ge=1, description="distil in each such round")
    temperature: float = Field(2.0, gt=0)
    buffer: int = Field(1280, ge=1, description="dreams kept, oldest dropped first")
    rehearsal: float = Field(
        1.0, ge=0, description="weight of the client's own images in each distillation step; 0 as published"
    )
    cutmix: int = Field(2, ge=0, description="CutMix copies of the buffer, labelled each round; 0 as published")
    relabel: bool = Field(True, description="label the whole buffer anew each round, by the clients as they are now")


class FedAvgConfig(Section):
    """FedAvg (McMahan et al. 2017)."""

    weighted: bool = Field(False, description="weight clients by their number of images, through the sum")


class ClipConfig(Section):
    """Bounds on the magnitude of the values that leave a client; what lies beyond is clipped to them, and counted."""

    dream_updates: float = Field(64.0, gt=0, description="gradients or pseudo-gradients of dreams")
    dreams: float = Field(64.0, gt=0, description="finished dreams of clients that dream alone, in normalised pixels")
    soft_labels: float = Field(128.0, gt=0, description="logits; probabilities have their own")
    weights: float = Field(256.0, gt=0, description="FedAvg's weights and batch-norm statistics")
    counts: float = Field(2.0**20, gt=0, description="correct predictions, in evaluation")


class BitsConfig(Section):
    """Bits of one value in the sum, sign included; absent: as many as the ring holds.

    Fewer bits make rounder values. Masked and plain sums are as long as before; homomorphic ones get shorter, because
    several values go into one integer of a ciphertext.
    """

    dream_updates: int | None = Field(None, ge=2, le=64)
    dreams: int | None = Field(None, ge=2, le=64)
    soft_labels: int | None = Field(None, ge=2, le=64)
    weights: int | None = Field(None, ge=2, le=64, description="of FedAvg, if the mean is not weighted")


class ProtocolConfig(Section):
    """How sums over clients are protected; see :class:`protocols.Terms`."""

    protection: str = Field("plain", description="plain, masked, bfv, ckks, bfv-authority or ckks-authority")
    ring_bits: Literal[32, 64] = 32
    steps: int | None = Field(None, ge=1, description="sums prepared by one set-up; default: as many as a round takes")
    dropout: float = Field(0.3, ge=0, lt=1, description="share of the clients that may be missing from a sum")
    corruption: float = Field(1 / 3, ge=0, lt=1, description="share of the clients that may collude with the server")
    active: bool = Field(False, description="guard against a server that deviates")
    clip: ClipConfig = ClipConfig()
    bits: BitsConfig = BitsConfig()


class FaultsConfig(Section):
    """Simulated dropouts; see :class:`codream_secure.faults.FaultRates`."""

    setup: float = Field(0.0, ge=0, lt=1, description="probability that a client is lost in a phase of the set-up")
    contribute: float = Field(0.0, ge=0, lt=1, description="probability that a client's vector is lost, per sum")
    open: float = Field(0.0, ge=0, lt=1, description="probability that a message that helps to open a sum is lost")


class RunConfig(Section):
    """Length, hardware and outputs of a run."""

    rounds: int = Field(10, ge=0)
    seed: int = Field(0, ge=0)
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    threads: int = Field(1, ge=1, description="torch threads; images this small do not gain from more")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the forward pass while dreaming")
    evaluate_every: int = Field(1, ge=1)
    select: Literal["final", "validation"] = Field("final", description="the round whose test accuracy is reported")
    target_accuracy: float | None = Field(
        None, gt=0, le=1, description="report bytes and seconds to this validation one"
    )
    dream_grids: bool = True
    tensorboard: bool = False


class Config(Section):
    """A whole run."""

    method: str = "codream"
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    local: LocalConfig = LocalConfig()
    dreaming: DreamingConfig = DreamingConfig()
    distillation: DistillationConfig = DistillationConfig()
    fedavg: FedAvgConfig = FedAvgConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    dp: DpConfig = DpConfig()
    faults: FaultsConfig = FaultsConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> Config:
        names = len(self.model.clients)
        if names not in (1, self.data.clients):
            raise ValueError(
                f"model.clients names {names} architectures for {self.data.clients} clients: name one, or one each"
            )
        if self.dreaming.adaptive != "none" and self.model.server is None:
            raise ValueError(
                f"dreaming.adaptive is {self.dreaming.adaptive!r}, which needs a student: set model.server, "
                "for example to 'small_cnn'"
            )
        if not self.data.validation_samples and (self.run.select == "validation" or self.run.target_accuracy):
            raise ValueError(
                "run.select = 'validation' and run.target_accuracy look at validation accuracy, but "
                "data.validation_samples is 0: hold some images out"
            )
        unused = [name for name in self.model.feature_layers if name not in self.model.clients]
        if unused:
            raise ValueError(f"model.feature_layers names {', '.join(unused)}, which no client has")
        if self.protocol.bits.weights and self.fedavg.weighted:
            raise ValueError(
                "protocol.bits.weights is set, but with fedavg.weighted = true weights travel scaled by numbers of "
                "images, at full precision: leave one of them out"
            )
        self._dreaming_fits()
        check_claims(self)
        return self

    def _dreaming_fits(self) -> None:
        dreaming = self.dreaming
        if self.distillation.buffer < dreaming.images:
            raise ValueError(
                f"distillation.buffer is {self.distillation.buffer}: it must hold a batch of {dreaming.images} dreams"
            )
        if dreaming.label_midway and (dreaming.steps < 2 or not dreaming.collaborative):
            raise ValueError("dreaming.label_midway needs at least two collaborative steps")
        if dreaming.classes and not dreaming.collaborative:
            raise ValueError(
                "dreaming.classes needs dreaming.collaborative = true: classes are those of the whole batch"
            )
        if dreaming.labels == "classes":
            if not (dreaming.classes and dreaming.steps):
                raise ValueError(
                    "dreaming.labels = 'classes' labels dreams by the classes they were made for: set "
                    "dreaming.classes, for example to 10, and dreaming.steps above 0"
                )
            if self.distillation.cutmix:
                raise ValueError(
                    "distillation.cutmix asks clients for labels, and dreaming.labels = 'classes' asks nobody: "
                    "set it to 0"
                )
        if dreaming.adaptive == "server_entropy" and (dreaming.local_steps > 1 or not dreaming.collaborative):
            raise ValueError(
                "dreaming.adaptive = 'server_entropy' adds the server's gradient to the clients' at every step: it "
                "needs dreaming.local_steps = 1 and dreaming.collaborative = true"
            )
        if not dreaming.collaborative and any(self.faults.model_dump().values()):
            raise ValueError(
                "faults with dreaming.collaborative = false: dreams that only one client makes are lost with it; set "
                "the rates to 0 or let clients dream together"
            )
        if not dreaming.collaborative and dreaming.images < self.data.clients:
            raise ValueError(
                f"dreaming.images is {dreaming.images}: without collaboration each of {self.data.clients} clients "
                "needs at least one"
            )

    def to_toml(self) -> str:
        """Every value, defaults included, as TOML that :func:`load_config` reads back to an equal configuration."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file and apply ``section.key=value`` overrides.

    Raises:
        ConfigError: the file is missing or no TOML, or :func:`make_config` refuses it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {str(path)!r} cannot be read: {error}") from None
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration {str(path)!r} is not valid TOML: {error}") from None
    return make_config(tree, overrides)


def make_config(tree: Mapping[str, Any] | None = None, overrides: Sequence[str] = ()) -> Config:
    """Validate a nested mapping and apply ``section.key=value`` overrides.

    A value is read as TOML (``true``, ``3``, ``0.1``, ``["a", "b"]``) and, where it is none, as a plain string.

    Raises:
        ConfigError: a key is unknown (the nearest is suggested), a value is out of range, or parts contradict.
    """
    merged: dict[str, Any] = copy.deepcopy(dict(tree or {}))
    for override in overrides:
        _apply(merged, override)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(detail) for detail in error.errors())) from None


def _apply(tree: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not separator or not all(keys):
        raise ConfigError(f"override {override!r} is not of the form section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *sections, last = keys
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"override {override!r}: {section!r} is a value, not a section")
    tree[last] = value


def _explain(detail: Any) -> str:
    location = [str(part) for part in detail["loc"]]
    path = ".".join(location)
    if detail["type"] != "extra_forbidden":
        given = "" if isinstance(detail["input"], dict | BaseModel) else f" (given: {detail['input']!r})"
        message = detail["msg"].removeprefix("Value error, ")
        return f"{path}: {message}{given}" if path else message
    known = _known_keys(location[:-1])
    near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
    hint = f"did you mean {'.'.join([*location[:-1], near[0]])!r}?" if near else f"known here: {', '.join(known)}"
    return f"{path}: unknown key; {hint}"


def _known_keys(sections: Sequence[str]) -> list[str]:
    model: Any = Config
    for section in sections:
        model = model.model_fields[section].annotation
    return list(model.model_fields)
