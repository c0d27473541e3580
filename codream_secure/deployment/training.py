"""The terms of training: what every party of a deployment holds alike before anything is sent.

A file of terms is a run's configuration with a section ``[images]`` that says what is public about the images, so that
a server that holds none, and a client that holds few classes, build the same models and dreams as everybody else. Its
digest is shown at the beginning of every round: a client that holds other terms leaves.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import Field, ValidationError, model_validator

from codream_secure.accounting import make_releases
from codream_secure.config import Config, make_config
from codream_secure.errors import ConfigError
from codream_secure.privacy.planning import NoisySums
from codream_secure.releases import NoisyReleases, OpenReleases, Releases
from codream_secure.sections import Section
from codream_secure.streams import make_terms
from protocols import Roster, SumProtocol, Terms, make_protocol

_DIGEST = b"codream-secure terms of training v1\0"
_MAX_BYTES = 1 << 20
_OWN_BUSINESS = (("run", "threads"), ("run", "device"), ("data", "root"), ("data", "download"))
"""What a party computes with, and where its files are."""


class ImagesSection(Section):
    """What is public about the images: an :class:`~codream_secure.data.ImageFacts`.

    Attributes:
        classes: how many, or their names in the order of their labels, by which folders of images are read.
        mean: one number per channel, in units of the [0, 1] range; agreed on, never measured on private images.
        std: likewise.
    """

    classes: Annotated[int, Field(ge=2)] | Annotated[tuple[str, ...], Field(min_length=2)]
    channels: int = Field(1, ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_constant_a_channel(self) -> ImagesSection:
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(
                f"images.mean has {len(self.mean)} and images.std {len(self.std)} numbers for {self.channels} "
                "channels: give one each"
            )
        return self

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """In the order of their labels, if they have names."""
        return None if isinstance(self.classes, int) else self.classes

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.height, self.width


@dataclass(frozen=True)
class TrainingTerms:
    """A configuration that a deployment can run, and what is public about its images.

    Raises:
        ConfigError: it asks for what deployments do not do.
        PrivacyError: the noise that a budget asks for has no room.
        protocols.TermsError: so few clients cannot be protected against so many that vanish or collude.
    """

    config: Config
    images: ImagesSection

    def __post_init__(self) -> None:
        _check(self.config)
        sums = self.sums
        if self.protocol.needs_credentials:
            sums.topology(self.config.data.clients)

    def to_toml(self) -> str:
        """Every value that parties have to agree on, in one spelling."""
        tree = self.config.model_dump(mode="json", exclude_none=True)
        for section, key in _OWN_BUSINESS:
            tree[section].pop(key, None)
        return tomli_w.dumps({**tree, "images": self.images.model_dump(mode="json")})

    @property
    def digest(self) -> bytes:
        """32 bytes that stand for all of it."""
        return hashlib.sha256(_DIGEST + self.to_toml().encode()).digest()

    @property
    def protocol(self) -> SumProtocol:
        """How sums are protected."""
        return make_protocol(self.config.protocol.protection)

    @property
    def sums(self) -> Terms:
        """The terms of every round's sums."""
        return make_terms(self.config, self._noisy)

    def make_releases(self) -> Releases:
        """How values may leave clients: a new account each time, with the noise that these terms ask for."""
        if not self.config.dp.on:
            return OpenReleases()
        # It loads torch, which a program that only hands keys on does without.
        from codream_secure.dreaming import coordinates_of

        space, images = self.config.dreaming.space, self.images
        coordinates = coordinates_of(space.kind, space.size, channels=images.channels, image_size=images.image_size)
        return make_releases(self.config, coordinates=coordinates, classes=images.num_classes, examples=0)

    @cached_property
    def _noisy(self) -> NoisySums | None:
        """Norms and noise of all streams, where there is noise."""
        releases = self.make_releases()
        return releases.sums if isinstance(releases, NoisyReleases) else None

    def check_roster(self, roster: Roster) -> None:
        """Return if the roster's members are the clients.

        Raises:
            ConfigError: they are numbered otherwise.
        """
        clients = self.config.data.clients
        strangers = [number for number in range(clients) if number not in roster]
        if len(roster) != clients or strangers:
            raise ConfigError(
                f"data.clients is {clients}, but the roster has {len(roster)} members"
                + (f" and nobody under the numbers {strangers}" if strangers else "")
                + f": clients are the members 0 to {clients - 1}"
            )


def load_training(path: Path, overrides: Sequence[str] = ()) -> TrainingTerms:
    """Read a file of terms and apply ``section.key=value`` overrides, which every party has to give alike.

    Raises:
        ConfigError: it is missing, malformed, or asks for what deployments do not do.
    """
    try:
        content = path.read_bytes()
        if len(content) > _MAX_BYTES:
            raise ConfigError(f"terms of training {str(path)!r} have more than {_MAX_BYTES} bytes: they are none")
        tree = tomllib.loads(content.decode())
    except OSError as error:
        raise ConfigError(f"terms of training {str(path)!r} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"terms of training {str(path)!r} are not valid TOML: {error}") from None
    return make_training(tree, overrides)


def make_training(tree: Mapping[str, Any], overrides: Sequence[str] = ()) -> TrainingTerms:
    """Terms from a nested mapping.

    Raises:
        ConfigError: a key or a value is not usable, or they ask for what deployments do not do.
    """
    if "images" not in tree:
        raise ConfigError("the section [images] is missing: say classes, channels, height, width, mean and std")
    config = make_config({name: section for name, section in tree.items() if name != "images"}, overrides)
    try:
        images = ImagesSection.model_validate(tree["images"])
    except ValidationError as error:
        found = "\n".join(f"images.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ConfigError(found) from None
    return TrainingTerms(config, images)


def _check(config: Config) -> None:
    """Return if a deployment can run it.

    Raises:
        ConfigError: it cannot; the message says which setting is in the way.
    """
    protocol = make_protocol(config.protocol.protection)
    obstacles = (
        (config.method != "codream", f"method is {config.method!r}: only 'codream' runs across machines"),
        (
            protocol.opened_by != "server" or protocol.has_authority,
            f"protocol.protection is {protocol.name!r}: across machines sums are opened by the server, so use "
            "'masked' or 'plain'",
        ),
        (
            config.dp.unit == "example",
            "dp.unit is 'example': models that are trained with noise do not dream across machines; use 'client'",
        ),
        (
            config.dp.on and config.dp.by_server(protocol.name),
            f"dp.noise is {config.dp.noise!r}, which under {protocol.name!r} leaves the noise to the server: across "
            "machines clients add it, so use protocol.protection = 'masked'",
        ),
        (
            config.dp.evaluation_share > 0,
            "dp.evaluation_share is set: across machines there are no common images to validate on; set it to 0",
        ),
        (
            config.dreaming.adaptive != "none",
            f"dreaming.adaptive is {config.dreaming.adaptive!r}: adaptive teaching does not run across machines; set "
            "it to 'none'",
        ),
        (
            not config.dreaming.collaborative,
            "dreaming.collaborative is false: dreams that one client makes alone do not run across machines",
        ),
        (
            any(config.faults.model_dump().values()),
            "[faults] are simulated: across machines clients vanish by themselves",
        ),
        (
            config.run.select != "final" or config.run.target_accuracy is not None,
            "run.select and run.target_accuracy look at held-out images that nobody has in common: leave them out",
        ),
    )
    for stands_in_the_way, reason in obstacles:
        if stands_in_the_way:
            raise ConfigError(reason)
