"""The cohort that a method works with: clients, channel, held-out images, and the seeds of every random choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from codream_secure import training
from codream_secure.accounting import make_releases
from codream_secure.base_channel import BaseChannel
from codream_secure.channel import Channel
from codream_secure.client import Client
from codream_secure.config import Config, OptimizationConfig
from codream_secure.data import DataSource, ImageFacts, ImageSet, Partition, hold_out, load_source, partition
from codream_secure.dreaming import coordinates_of
from codream_secure.errors import ConfigError, PartitionError
from codream_secure.faults import FaultRates, FaultyNetwork
from codream_secure.models import build_model
from codream_secure.releases import NoisyReleases
from codream_secure.seeding import derive_seed, generator, seeded
from codream_secure.streams import make_terms
from codream_secure.training import Optimization
from protocols import make_protocol

Observer = Callable[[str, int, int], None]
Labelled = tuple[torch.Tensor, torch.Tensor]


def _ignore(phase: str, done: int, total: int) -> None:
    """The observer of a run that nobody watches."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How good the clients' models are.

    Attributes:
        validation: mean accuracy over clients on images held out of the training data, from a sum over the channel;
            None where none were held out. Where privacy is claimed and such sums are not released it is an instrument
            of the experiment; where they are, it has noise, and may lie outside of [0, 1].
        test: the same on the test set, always without noise.
        client_test: each client's own test accuracy. An instrument of the experiment: no party of a deployment sees it.
    """

    validation: float | None
    test: float
    client_test: tuple[float, ...]


@dataclass(kw_only=True)
class Federation:
    """Everything that exists before a method runs. Build it with :meth:`create` or :meth:`of_some`.

    Attributes:
        clients: those that live in this process, in ascending order of their numbers.
        holds_server: whether the server lives here, with a student if it has one.
        source: what is public about the images.
    """

    config: Config
    clients: list[Client]
    channel: BaseChannel
    validation: Labelled
    test: Labelled
    source: ImageFacts
    class_table: torch.Tensor
    device: torch.device
    holds_server: bool = True
    observe: Observer = field(default=_ignore)

    @classmethod
    def create(cls, config: Config, *, source: DataSource | None = None, parts: Partition | None = None) -> Federation:
        """Load and partition the data, and give every client its images and its initial model.

        Held-out validation images leave the training data once, before the rest is partitioned.

        Args:
            config: the run.
            source: the data set, if it is already in memory; by default ``config.data`` says what to load.
            parts: which training images each client holds, in the place of the partition that ``config.data`` asks
                for.

        Raises:
            DataError: data are missing, broken, or too few for the partition; or the parts given do not fit.
            ModelError: an architecture is unknown or cannot take the images.
            ConfigError: the device is not there, faults would leave clients behind, or test images are too few.
        """
        data = config.data
        sums = make_protocol(config.protocol.protection)
        if sums.opened_by == "clients" and config.faults.setup:
            raise ConfigError(
                f"faults.setup is {config.faults.setup}: under {sums.name!r} a client that misses the set-up has no "
                "key and cannot follow the others; set it to 0, or choose a protection whose server opens sums"
            )
        source = source or load_source(data.source, root=data.root, download=data.download)
        device = resolve_device(config.run.device)
        remaining, held_out = hold_out(source.train.labels, data.validation_samples, seed=config.run.seed)
        if parts is None:
            parts = _drawn(source, config, remaining)
        else:
            _check_parts(parts, config, total=len(source.train), held_out=held_out)

        def ready(images: ImageSet) -> Labelled:
            return images.normalised(source.mean, source.std).to(device), images.labels.to(device)

        space = config.dreaming.space
        releases = make_releases(
            config,
            coordinates=coordinates_of(space.kind, space.size, channels=source.channels, image_size=source.image_size),
            classes=source.num_classes,
            examples=sum(map(len, parts.clients)),
        )
        noisy = releases.sums if isinstance(releases, NoisyReleases) else None
        federation = cls(
            config=config,
            clients=[],
            channel=Channel(
                sums,
                data.clients,
                terms=make_terms(config, noisy),
                network=FaultyNetwork(config.run.seed, FaultRates(**config.faults.model_dump())),
                releases=releases,
            ),
            validation=ready(source.train.subset(held_out)),
            test=ready(_tested(source.test, config)),
            source=source,
            class_table=parts.class_table(source.train.labels, source.num_classes),
            device=device,
        )
        for number, indices in enumerate(parts.clients):
            federation._add_client(number, ready(source.train.subset(indices)))
        return federation

    @classmethod
    def of_some(
        cls,
        config: Config,
        *,
        images: ImageFacts,
        channel: BaseChannel,
        clients: Mapping[int, ImageSet],
        holds_server: bool,
    ) -> Federation:
        """The part of a federation that lives in this process, the rest being elsewhere. It loads no data.

        Models and random choices are those that the same clients have in :meth:`create`: seeds depend on a client's
        number and on nothing else.

        Args:
            config: the run; its ``data`` section says no more here than how many clients there are.
            images: what everybody knows about the images.
            channel: to the others.
            clients: number to training images of the clients that live here.
            holds_server: whether the server does.

        Raises:
            ModelError: an architecture is unknown or cannot take the images.
            ConfigError: the device is not there.
        """
        device = resolve_device(config.run.device)
        nothing = torch.empty(0, device=device), torch.empty(0, dtype=torch.int64, device=device)
        federation = cls(
            config=config,
            clients=[],
            channel=channel,
            validation=nothing,
            test=nothing,
            source=images,
            class_table=torch.empty(0, images.num_classes, dtype=torch.int64),
            device=device,
            holds_server=holds_server,
        )
        for number, held in sorted(clients.items()):
            pixels = held.normalised(images.mean, images.std)
            federation._add_client(number, (pixels.to(device), held.labels.to(device)))
        return federation

    def _add_client(self, number: int, held: Labelled) -> None:
        architecture = self.config.model.architecture(number)
        model = self.new_model(architecture, "client", number)
        self.clients.append(Client(number, architecture, model=model, images=held[0], labels=held[1]))

    def new_model(self, architecture: str, *place: str | int) -> nn.Module:
        """A freshly initialised model for this data; the same place gives the same weights."""
        with seeded(self.config.run.seed, "model", *place):
            return build_model(
                architecture,
                channels=self.source.channels,
                image_size=self.source.image_size,
                num_classes=self.source.num_classes,
            ).to(self.device)

    def generator(self, *place: str | int) -> torch.Generator:
        """The stream of random numbers for one place of this run."""
        return generator(self.config.run.seed, *place)

    def train_locally(self, client: Client, *, epochs: int, place: str, number: int) -> float:
        """Local training as configured, with this place's own randomness (order of images, dropout)."""
        with seeded(self.config.run.seed, place, number, client.number):
            loss = client.train(
                epochs=epochs,
                optimization=optimization(self.config.local),
                generator=self.generator(place, number, client.number, "order"),
            )
            if self.config.local.recalibrate:
                training.recalibrate(client.model, client.images)
        return loss

    def evaluate(self, models: list[nn.Module], *, release: bool = True) -> Evaluation:
        """Test each client's model; what may leave the clients, if ``release`` is on, goes over the channel.

        Raises:
            BudgetExceededError: the privacy budget does not allow it.
        """
        parts = (self.validation, self.test)
        counts = [[training.count_correct(model, *part) if len(part[1]) else 0 for part in parts] for model in models]
        sizes = torch.tensor([max(1, len(part[1])) for part in parts])
        validation, test = self._means(torch.tensor(counts), sizes, release=release)
        return Evaluation(
            validation=validation if len(self.validation[1]) else None,
            test=test,
            client_test=tuple(count[1] / len(self.test[1]) for count in counts),
        )

    def _means(self, counts: torch.Tensor, sizes: torch.Tensor, *, release: bool) -> tuple[float | None, float]:
        """Mean validation and test accuracy, from (K, 2) counts and (2,) numbers of images."""
        channel = self.channel
        if channel.releases.ledger is None:
            sent = {number: [count.float()] for number, count in enumerate(counts)}
            (mean,) = channel.mean(sent, phase="evaluation")
            return mean[0].item() / sizes[0].item(), mean[1].item() / sizes[1].item()
        shares = counts.double() / sizes
        validation, test = shares.mean(dim=0).tolist()
        if channel.releases.publishes("evaluation") and not release:
            return None, test  # beside noisy ones, the exact accuracy would be one more release
        if channel.releases.publishes("evaluation"):
            (mean,) = channel.mean(
                {number: [share[:1]] for number, share in enumerate(shares)}, phase="evaluation", bound=1.0
            )
            validation = mean.item()
        return validation, test


def divided(source: DataSource, config: Config) -> Partition:
    """Which training images each client holds where one data set is divided among them.

    Raises:
        PartitionError: there are too few.
    """
    remaining, _ = hold_out(source.train.labels, config.data.validation_samples, seed=config.run.seed)
    return _drawn(source, config, remaining)


def _drawn(source: DataSource, config: Config, available: torch.Tensor) -> Partition:
    """The partition that the configuration asks for, of the training images available."""
    data = config.data
    return partition(
        source.train.labels,
        data.partition,
        clients=data.clients,
        seed=derive_seed(config.run.seed, "partition"),
        samples_per_client=None if data.samples_per_client == "all" else data.samples_per_client,
        alpha=data.alpha,
        classes_per_client=data.classes_per_client,
        available=available,
    )


def _check_parts(parts: Partition, config: Config, *, total: int, held_out: torch.Tensor) -> None:
    """Whether every client has images, and none of them is an image that validation is measured on.

    Raises:
        PartitionError: not so.
    """
    if len(parts) != config.data.clients:
        raise PartitionError(f"parts are for {len(parts)} clients, but data.clients is {config.data.clients}")
    for number, indices in enumerate(parts.clients):
        if not len(indices):
            raise PartitionError(f"parts give client {number} no image: every client needs at least one")
        if int(indices.max()) >= total:
            raise PartitionError(f"parts give client {number} index {int(indices.max())} of {total} training images")
    shared = int(torch.isin(torch.cat(parts.clients), held_out).sum())
    if shared:
        raise PartitionError(
            f"parts hold {shared} of the images held out for validation: leave them out, or set "
            "data.validation_samples = 0"
        )


def _tested(images: ImageSet, config: Config) -> ImageSet:
    """The test images, or as many random ones as the configuration says."""
    wanted = config.data.test_samples
    if wanted is None:
        return images
    if wanted >= len(images.labels):
        raise ConfigError(
            f"data.test_samples is {wanted}, but there are {len(images.labels)} test images: leave it out for all"
        )
    _, chosen = hold_out(images.labels, wanted, seed=derive_seed(config.run.seed, "test"))
    return images.subset(chosen)


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one.

    Raises:
        ConfigError: CUDA is asked for and not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device is 'cuda' but torch sees no CUDA device: use 'auto' or 'cpu'")
    return torch.device(name)


def optimization(section: OptimizationConfig) -> Optimization:
    """The training settings that a configuration section holds."""
    return Optimization(
        optimizer=section.optimizer,
        lr=section.lr,
        momentum=section.momentum,
        weight_decay=section.weight_decay,
        batch_size=section.batch_size,
        max_grad_norm=None if section.max_grad_norm == "off" else section.max_grad_norm,
        schedule=section.schedule,
    )
