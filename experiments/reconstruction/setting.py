"""Who has which images, what an adversary sees of a transcript, and the sheet that rows are written on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from attacks.auditing.subject import up_to_first_sum
from attacks.estimates import Estimate, unresolvable
from attacks.laboratory import replayed
from attacks.reconstruction import COSINE_TV, Matching, PixelBounds, assess
from attacks.rows import Row
from attacks.transcript import Transcript
from codream_secure.config import make_config
from codream_secure.data import DataSource, Partition
from codream_secure.errors import DataError
from codream_secure.federation import Federation
from codream_secure.methods import Method
from codream_secure.models import build_model
from codream_secure.seeding import generator, seeded
from protocols import make_protocol

PROTECTIONS = ("plain", "masked", "bfv")
CLIENTS = 4
RANKED = 99
"""Draws of held-out images that a target is ranked among: chance is one in a hundred."""
_PUBLIC = 150
_ENDLESS = 1e6
"""JSON has no infinity."""

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is done.

    Attributes:
        models: networks handed out for single steps, each with images of its own.
        matching: settings of gradient matching, of which the best on public images is taken.
        public_trials: on how many.
        samples: images of each client, where nothing else is said.
        dreams: in a batch that a malicious server fills.
        steps: of dreaming, and of following clients' answers to named dreams.
        cohorts: sizes of cohorts whose sums are fitted.
        sizes: images of a client whose statistics are looked for.
        iterations: of each fit, at most.
        wrong_iterations: likewise, where weights are wrong, so that no fit can explain what is seen.
    """

    models: int = 2
    matching: tuple[Matching, ...] = (COSINE_TV, replace(COSINE_TV, tv=1e-3))
    public_trials: int = 2
    samples: int = 50
    dreams: int = 128
    steps: int = 30
    cohorts: tuple[int, ...] = (2, 4, 8)
    sizes: tuple[int, ...] = (1, 8, 50)
    iterations: int = 40
    wrong_iterations: int = 10


@dataclass(kw_only=True, eq=False)
class Setting:
    """One seed's images, split into clients', the adversary's own and held-out ones, and the rows found so far.

    Attributes:
        source: the data set; only its training part is used.
        name: how a configuration calls it.
        root: folder of its files.
        seed: of the split, of the federations and of the adversary.
        effort: how much is done.
        rows: found so far.
        chosen: settings of gradient matching by architecture, once they are chosen.
    """

    source: DataSource = field(repr=False)
    name: str
    root: str | None
    seed: int
    effort: Effort
    tell: Tell = print
    rows: list[Row] = field(default_factory=list, repr=False)
    chosen: dict[str, Matching] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        needed = max(*self.effort.cohorts, CLIENTS) * self.effort.samples + _PUBLIC + RANKED * CLIENTS
        total = len(self.source.train)
        if total < needed:
            raise DataError(f"{self.name} has {total} training images, {needed} are needed: take a larger data set")
        self._order = torch.randperm(total, generator=generator(self.seed, "reconstruction"))

    @property
    def bounds(self) -> PixelBounds:
        """Black and white in normalised pixels."""
        return PixelBounds.normalised(self.source.mean, self.source.std)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        height, width = self.source.image_size
        return self.source.channels, height, width

    @property
    def public(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The adversary's own images (150, C, H, W), normalised, and their labels; no control uses them."""
        return self._ready(self._order[-_PUBLIC:])

    @property
    def held_out(self) -> torch.Tensor:
        """Images (396, C, H, W), normalised, that no client and no adversary has."""
        return self._ready(self._order[-_PUBLIC - RANKED * CLIENTS : -_PUBLIC])[0]

    def _ready(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = self.source.train.subset(indices)
        return chosen.normalised(self.source.mean, self.source.std), chosen.labels

    def federation(
        self, method: str, architecture: str, *, clients: int = CLIENTS, samples: int | None = None, **sections: Any
    ) -> Federation:
        """Clients with images and initial models; the first ones have the same images whatever the method.

        Args:
            method: "fedavg" or "codream".
            architecture: of all clients.
            clients: K.
            samples: n_k; by default the effort's.
            sections: what else the configuration says.
        """
        count = self.effort.samples if samples is None else samples
        data = {"source": self.name, "clients": clients, "samples_per_client": count, "validation_samples": 0}
        tree = {
            "method": method,
            "data": data | ({"root": self.root} if self.root else {}),
            "model": {"clients": [architecture]},
            "run": {"seed": self.seed, "rounds": 1},
            **sections,
        }
        parts = Partition(clients=tuple(self._order[: clients * count].split(count)))
        return Federation.create(make_config(tree), source=self.source, parts=parts)

    def new_model(self, architecture: str, *place: str | int) -> nn.Module:
        """A freshly initialised model of somebody's, who is named by the place."""
        with seeded(self.seed, "reconstruction", architecture, *place):
            return build_model(
                architecture,
                channels=self.source.channels,
                image_size=self.source.image_size,
                num_classes=self.source.num_classes,
            )

    def add(self, row: Row, estimate: Estimate, *, control: float | None = None) -> None:
        """Write a row with an estimate's figures; its own note comes first."""
        self.rows.append(
            replace(
                row,
                value=_finite(estimate.value),
                low=_finite(estimate.low),
                high=_finite(estimate.high),
                control=_finite(control),
                n=estimate.n,
                seed=self.seed,
                note="; ".join(part for part in (row.note, estimate.note) if part),
            )
        )

    def nothing(self, row: Row, reason: str) -> None:
        """Write a row without a figure, and why."""
        self.add(row, unresolvable(0, reason))

    def unseen(self, row: Row, reason: Exception) -> None:
        """Write the row of an attack that has nothing to look at."""
        self.nothing(row, f"not in view: {reason}")

    def reconstructed(self, row: Row, guesses: torch.Tensor, targets: torch.Tensor, *, batch: int = 1) -> None:
        """Write PSNR and rank of reconstructions, both normalised, of batches of so many images."""
        held_out = self.held_out[: RANKED * batch]
        unit = self.bounds.to_unit
        found = assess(unit(guesses), unit(targets), held_out=unit(held_out), batch_size=batch)
        control = f"control: best of {len(held_out)} held-out images; plain grey {found.grey.value:.1f} dB"
        self.add(noted(row, control), found.psnr, control=found.held_out.value)
        self.add(replace(row, metric=f"rank 1 of {found.ranked + 1}"), found.first, control=found.chance)


def under(method: Method, transcript: Transcript, protection: str) -> Transcript:
    """A transcript as it would be under another protection. Where clients open sums, up to the first one: a server
    learns no more from the others, and encrypting them takes long."""
    if make_protocol(protection).opened_by == "clients":
        transcript = replace(transcript, events=up_to_first_sum(transcript))
    return transcript if protection == transcript.protection else replayed(transcript, method, protection)


def noted(row: Row, note: str) -> Row:
    """The row with one more note."""
    return replace(row, note="; ".join(part for part in (row.note, note) if part))


def each_protection(row: Row) -> Iterator[Row]:
    """The row under every protection."""
    return (replace(row, protection=protection) for protection in PROTECTIONS)


def split_by_name(vector: np.ndarray, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A flat vector as float64 tensors of those names and shapes."""
    parts = torch.from_numpy(np.asarray(vector, dtype=np.float64)).split([each.numel() for each in like.values()])
    return {name: part.reshape(each.shape) for part, (name, each) in zip(parts, like.items(), strict=True)}


def _finite(value: float | None) -> float | None:
    """The value within what JSON holds."""
    return None if value is None else float(np.clip(value, -_ENDLESS, _ENDLESS))
