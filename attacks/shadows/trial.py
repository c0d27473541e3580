"""One federation on its members of the pool: made, trained round by round, and made again from what was kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from attacks.shadows.pool import Pool
from codream_secure import training
from codream_secure.config import Config, make_config
from codream_secure.data import DataSource
from codream_secure.errors import ConfigError
from codream_secure.federation import Federation, Observer
from codream_secure.methods import Method, find_method


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What is kept of a federation after its last round.

    Attributes:
        trial: its number, which is its row of the memberships.
        seed: of its run.
        state: of its method, from which :func:`rebuild` makes the method again.
        train_accuracy: client by client, on the client's own images.
        test_accuracy: client by client, on the test images.
        seconds: of its training. Of federations that were trained together, each one's equal share.
        account: of its releases, where privacy is claimed.
    """

    trial: int
    seed: int
    state: dict[str, Any] = field(repr=False)
    train_accuracy: tuple[float, ...]
    test_accuracy: tuple[float, ...]
    seconds: float
    account: dict[str, Any] | None = field(default=None, repr=False)


def trial_config(config: Config, *, seed: int) -> Config:
    """The configuration with that seed, and without images for validation: the pool has none.

    Raises:
        ConfigError: it claims something that rests on validation.
    """
    tree = config.model_dump(mode="json", exclude_none=True)
    tree["data"]["validation_samples"] = 0
    tree["run"] = {**tree["run"], "seed": seed, "select": "final"}
    tree["run"].pop("target_accuracy", None)
    return make_config(tree)


def make_method(config: Config, source: DataSource, pool: Pool, row: torch.Tensor, *, seed: int) -> Method:
    """The method of one trial, before its warm-up.

    Args:
        config: of all trials.
        source: has the test images and the constants for normalising; its training images are not used.
        pool: all candidates.
        row: (N,) bool, which of them are members.
        seed: of this trial.

    Raises:
        ConfigError: the method cannot run this configuration.
        PartitionError: a client has no image.
        DataError: the pool lacks a class that is not the last.
    """
    own = trial_config(config, seed=seed)
    kind = find_method(own.method)
    obstacle = kind.obstacle(own)
    if obstacle:
        raise ConfigError(f"method {own.method!r} cannot run this configuration: it {obstacle}")
    parts = pool.parts(row, clients=own.data.clients)
    return kind(Federation.create(own, source=replace(source, train=pool.images), parts=parts))


def advance(method: Method, *, rounds: int | None = None, observe: Observer | None = None) -> None:
    """Warm-up and so many rounds, or all, as a run takes them; no evaluation in between.

    Raises:
        NumericalError: training left the finite numbers.
        BudgetExceededError: the privacy budget does not cover all rounds.
    """
    if observe is not None:
        method.federation.observe = observe
    last = method.config.run.rounds if rounds is None else rounds
    for number in range(last + 1):
        method.federation.observe("round", number, last)  # some methods report nothing by themselves
        method.federation.channel.begin_round(number)
        if number:
            method.run_round(number)
        else:
            method.warm_up()


def measured(method: Method, *, trial: int, seconds: float) -> Trained:
    """What is kept of a federation that is through. The state's tensors are copies."""
    federation = method.federation
    ledger = federation.channel.releases.ledger

    def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
        return training.count_correct(model, images, labels) / len(labels)

    return Trained(
        trial=trial,
        seed=method.config.run.seed,
        state=_copied(method.state_dict()),
        train_accuracy=tuple(
            accuracy(model, client.images, client.labels)
            for model, client in zip(method.models(), federation.clients, strict=True)
        ),
        test_accuracy=tuple(accuracy(model, *federation.test) for model in method.models()),
        seconds=seconds,
        account=ledger.state_dict() if ledger is not None else None,
    )


def rebuild(config: Config, source: DataSource, pool: Pool, row: torch.Tensor, trained: Trained) -> Method:
    """The method of a trial as it was after its last round, with the account of its releases.

    Args:
        config: as it was trained with.
        source: likewise.
        pool: likewise.
        row: (N,) bool, the members of that trial.
        trained: what was kept of it.
    """
    method = make_method(config, source, pool, row, seed=trained.seed)
    method.load_state_dict(trained.state)
    ledger = method.federation.channel.releases.ledger
    if ledger is not None and trained.account is not None:
        ledger.load_state_dict(trained.account)
    return method


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(each) for each in value)
    return value
