"""The candidates of an audit: images, each with the one client that would hold it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch

from codream_secure.config import Config
from codream_secure.data import DataSource, ImageSet, Partition, hold_out, partition
from codream_secure.errors import PartitionError
from codream_secure.seeding import derive_seed


@dataclass(frozen=True, eq=False)
class Pool:
    """Candidate images, whose membership the adversary guesses.

    Attributes:
        images: the candidates. They need not be of a data set: a canary may have a wrong label.
        owners: (N,) int64, the client, from 0, that holds candidate i in the trials that it is a member of.

    Raises:
        PartitionError: ``owners`` is no such tensor.
    """

    images: ImageSet = field(repr=False)
    owners: torch.Tensor = field(repr=False)

    def __post_init__(self) -> None:
        if self.owners.dtype != torch.int64 or self.owners.shape != (len(self.images),):
            raise PartitionError(
                f"owners must be int64 of shape ({len(self.images)},), one for each image, got {self.owners.dtype} of "
                f"shape {tuple(self.owners.shape)}"
            )
        if len(self.owners) and self.owners.min() < 0:
            raise PartitionError(f"owners hold {int(self.owners.min())}, but clients count from 0")

    def __len__(self) -> int:
        return len(self.owners)

    def parts(self, members: torch.Tensor, *, clients: int) -> Partition:
        """The members of one trial, client by client, as indices into the pool.

        Args:
            members: (N,) bool, which candidates are trained on.
            clients: how many clients there are.

        Raises:
            PartitionError: ``members`` is no such tensor, or an owner is no client.
        """
        if members.dtype != torch.bool or members.shape != self.owners.shape:
            raise PartitionError(
                f"members must be bool of shape {tuple(self.owners.shape)}, got {members.dtype} of shape "
                f"{tuple(members.shape)}"
            )
        if len(self.owners) and int(self.owners.max()) >= clients:
            raise PartitionError(f"owners name client {int(self.owners.max())}, but there are {clients} clients")
        return Partition(
            clients=tuple(torch.nonzero(members & (self.owners == client)).flatten() for client in range(clients))
        )

    def digest(self) -> str:
        """SHA-256 of images, labels and owners: the same for the same pool."""
        digest = hashlib.sha256()
        for tensor in (self.images.images, self.images.labels, self.owners):
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def make_pool(source: DataSource, config: Config, *, seed: int) -> tuple[Pool, ImageSet]:
    """Draw twice the clients' images, so that each federation can hold a random half, and keep the rest public.

    The draw is the configuration's own partition at twice ``data.samples_per_client``: a client's candidates come from
    one distribution, members or not. Images for validation are drawn as by a run with this seed, and are in neither.

    Args:
        source: the data set.
        config: its ``data`` section says how many clients, how many images each, and how they are partitioned.
        seed: non-negative; the result depends on the arguments alone.

    Returns:
        The pool, in random order, and the public reserve: images that no federation holds, of which there are none if
        ``data.samples_per_client`` is "all".

    Raises:
        PartitionError: the data set is too small, as the partition says.
    """
    data = config.data
    remaining, _ = hold_out(source.train.labels, data.validation_samples, seed=seed)
    parts = partition(
        source.train.labels,
        data.partition,
        clients=data.clients,
        seed=derive_seed(seed, "pool"),
        samples_per_client=None if data.samples_per_client == "all" else 2 * data.samples_per_client,
        alpha=data.alpha,
        classes_per_client=data.classes_per_client,
        available=remaining,
    )
    chosen = torch.cat(parts.clients)
    owners = torch.repeat_interleave(torch.tensor([len(indices) for indices in parts.clients]))
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(derive_seed(seed, "pool order")))
    pool = Pool(images=source.train.subset(chosen[order]), owners=owners[order])
    return pool, source.train.subset(remaining[~torch.isin(remaining, chosen)])
