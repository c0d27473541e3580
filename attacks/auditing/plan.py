"""How large an audit is, and what it is made of: candidates, canaries, memberships."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from attacks.membership import balanced_memberships
from attacks.public import Public
from attacks.shadows import Pool, make_pool
from codream_secure.config import Config
from codream_secure.data import DataSource, ImageSet
from codream_secure.dreaming import make_space
from codream_secure.errors import ConfigError
from codream_secure.models import build_model
from codream_secure.seeding import derive_seed, seeded


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much an audit costs.

    Attributes:
        trials: M, federations of each kind; each in turn is the target, the others are the adversary's.
        canaries: candidates that get a wrong label, where averages would hide the most exposed; an eighth at most.
        pictures: images whose reconstruction from gradients is tried.
        repeats: draws of noise that a mechanism's own audit looks at, half with a client and half without.
    """

    trials: int = 16
    canaries: int = 40
    pictures: int = 4
    repeats: int = 400

    def __post_init__(self) -> None:
        if self.trials < 6 or self.trials % 2:
            raise ConfigError(f"trials is {self.trials}: give an even number, 6 or more, or references have no spread")
        if self.canaries < 0:
            raise ConfigError(f"canaries is {self.canaries}: give 0 or more")


_FEWEST_CANDIDATES = 40
_MOST_WRONG = 8
QUICK = Size(trials=6, canaries=40, pictures=1, repeats=100)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What all arms of an audit have in common.

    Attributes:
        source: the data set.
        pool: candidates, canaries among them with their wrong labels.
        reserve: images that no federation holds.
        members: (M, N) bool, balanced.
        canaries: (N,) bool.
        seed: of everything.
        size: how much is done.
    """

    source: DataSource = field(repr=False)
    pool: Pool = field(repr=False)
    reserve: ImageSet = field(repr=False)
    members: npt.NDArray[np.bool_] = field(repr=False)
    canaries: npt.NDArray[np.bool_] = field(repr=False)
    seed: int
    size: Size


def make_plan(config: Config, source: DataSource, *, size: Size, seed: int) -> Plan:
    """Draw candidates, canaries and memberships.

    Raises:
        PartitionError: the data set has too few images: candidates are twice as many as the clients hold.
        ConfigError: too few candidates, or no image is left for the public.
    """
    pool, reserve = make_pool(source, config, seed=seed)
    if len(pool) < _FEWEST_CANDIDATES:
        raise ConfigError(
            f"there are {len(pool)} candidates, twice data.clients times data.samples_per_client: an audit needs at "
            f"least {_FEWEST_CANDIDATES}"
        )
    wrong = min(size.canaries, len(pool) // _MOST_WRONG)
    if len(reserve) < 2 * source.num_classes:
        raise ConfigError(
            f"{len(reserve)} images are left for the public after {len(pool)} candidates: lower "
            "data.samples_per_client, data.clients or data.validation_samples"
        )
    rng = np.random.default_rng([seed, 0xA0D17])
    canaries = np.zeros(len(pool), dtype=bool)
    canaries[rng.permutation(len(pool))[:wrong]] = True
    members = balanced_memberships(len(pool), size.trials, generator=rng)
    return Plan(
        source=source,
        pool=_mislabelled(pool, canaries, source.num_classes, rng),
        reserve=reserve,
        members=members,
        canaries=canaries,
        seed=seed,
        size=size,
    )


def _mislabelled(pool: Pool, which: npt.NDArray[np.bool_], classes: int, rng: np.random.Generator) -> Pool:
    """Those candidates with a wrong label each, uniform among the wrong ones."""
    labels = pool.images.labels.clone()
    shifts = torch.from_numpy(rng.integers(1, classes, size=int(which.sum())))
    chosen = torch.from_numpy(which)
    labels[chosen] = (labels[chosen] + shifts) % classes
    return replace(pool, images=replace(pool.images, labels=labels))


def public_side(plan: Plan, config: Config, *, vote_norm: int | None = None) -> Public:
    """What an adversary of this configuration knows beforehand; ``vote_norm`` belongs to noisy labels."""
    source, dreaming = plan.source, config.dreaming
    # Plain values only: what this function holds, a probe can reach, and memberships must not be among it.
    seed, channels, image_size, num_classes = plan.seed, source.channels, source.image_size, source.num_classes

    def new_model(architecture: str) -> torch.nn.Module:
        with seeded(seed, "adversary", architecture):
            return build_model(architecture, channels=channels, image_size=image_size, num_classes=num_classes)

    lowest = [(0 - mean) / std for mean, std in zip(source.mean, source.std, strict=True)]
    highest = [(1 - mean) / std for mean, std in zip(source.mean, source.std, strict=True)]
    space = None
    if config.method == "codream":
        space = make_space(
            dreaming.space.kind,
            dreaming.space.size,
            channels=source.channels,
            image_size=source.image_size,
            seed=config.run.seed,
            lowest=lowest,
            highest=highest,
            device=torch.device("cpu"),
        )
    return Public(
        images=plan.pool.images.normalised(source.mean, source.std),
        labels=plan.pool.images.labels,
        owners=plan.pool.owners,
        reserve=plan.reserve.normalised(source.mean, source.std),
        reserve_labels=plan.reserve.labels,
        num_classes=source.num_classes,
        lowest=torch.tensor(lowest).reshape(-1, 1, 1),
        highest=torch.tensor(highest).reshape(-1, 1, 1),
        architectures=tuple(config.model.architecture(client) for client in range(config.data.clients)),
        new_model=new_model,
        settings=config.model_dump(mode="json", exclude={"run"}),
        space=space,
        dreams=dreaming.images,
        vote_norm=vote_norm,
        seed=derive_seed(plan.seed, "adversary"),
    )
