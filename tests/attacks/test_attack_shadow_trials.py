"""Pools, trials and their files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks.shadows import Pool, Trained, make_pool, rebuild, train, train_trials
from attacks.shadows.trial import advance
from codream_secure.config import Config, make_config
from codream_secure.data import DataSource, Partition, hold_out, load_source, partition
from codream_secure.errors import ConfigError, NumericalError, PartitionError
from codream_secure.federation import Federation
from codream_secure.methods import find_method
from codream_secure.runs.loop import fingerprint, run
from codream_secure.seeding import derive_seed


def quick(method: str = "fedavg", *overrides: str) -> Config:
    return make_config(
        {"method": method},
        [
            "data.clients=2",
            "data.samples_per_client=20",
            "local.warmup_epochs=1",
            "local.epochs=1",
            "run.rounds=1",
            "dreaming.images=8",
            "dreaming.steps=2",
            "distillation.epochs=1",
            "distillation.buffer=8",
            *overrides,
        ],
    )


@pytest.fixture(scope="module")
def source() -> DataSource:
    return load_source("digits")


def memberships(trials: int, pool: Pool) -> np.ndarray:
    return np.random.default_rng(1).random((trials, len(pool))) < 0.5


def same(one: Trained, other: Trained, *, atol: float = 0.0) -> bool:
    pairs = zip(one.state["clients"], other.state["clients"], strict=True)
    return all(torch.allclose(a[name], b[name], rtol=0, atol=atol) for a, b in pairs for name in a)


def test_a_pool_is_twice_the_clients_images_and_the_reserve_is_what_no_one_holds(source: DataSource) -> None:
    config = quick()
    pool, reserve = make_pool(source, config, seed=4)
    assert torch.bincount(pool.owners).tolist() == [40, 40]
    _, held_out = hold_out(source.train.labels, config.data.validation_samples, seed=4)
    drawn = torch.cat([pool.images.images, reserve.images, source.train.images[held_out]]).flatten(1)
    assert sorted(map(bytes, drawn.numpy())) == sorted(map(bytes, source.train.images.flatten(1).numpy()))
    again, _ = make_pool(source, config, seed=4)
    other, _ = make_pool(source, config, seed=5)
    assert pool.digest() == again.digest() != other.digest()


def test_owners_keep_their_own_distribution(source: DataSource) -> None:
    pool, _ = make_pool(source, quick("fedavg", "data.partition=classes", "data.classes_per_client=2"), seed=1)
    for client in range(2):
        assert len(pool.images.labels[pool.owners == client].unique()) == 2
    whole, reserve = make_pool(source, quick("fedavg", "data.samples_per_client=all"), seed=1)
    assert len(whole) == len(source.train) - 200
    assert len(reserve) == 0


def test_a_pool_refuses_owners_that_are_none(source: DataSource) -> None:
    images = source.train.subset([0, 1, 2])
    for owners in (torch.zeros(2, dtype=torch.int64), torch.zeros(3), torch.tensor([0, -1, 0])):
        with pytest.raises(PartitionError, match="owners"):
            Pool(images=images, owners=owners)
    pool = Pool(images=images, owners=torch.tensor([0, 1, 1]))
    assert [part.tolist() for part in pool.parts(torch.tensor([True, False, True]), clients=3).clients] == [
        [0],
        [2],
        [],
    ]
    with pytest.raises(PartitionError, match="client 1"):
        pool.parts(torch.ones(3, dtype=torch.bool), clients=1)
    with pytest.raises(PartitionError, match="members"):
        pool.parts(torch.ones(3), clients=2)


@pytest.mark.parametrize("method", ["fedavg", "codream"])
def test_the_partition_that_a_run_draws_gives_the_run(source: DataSource, method: str) -> None:
    config = quick(method)
    remaining, _ = hold_out(source.train.labels, config.data.validation_samples, seed=config.run.seed)
    seed = derive_seed(config.run.seed, "partition")
    parts = partition(source.train.labels, "iid", clients=2, seed=seed, samples_per_client=20, available=remaining)
    federation = find_method(method)(Federation.create(config, source=source, parts=parts))
    advance(federation)
    assert fingerprint(federation) == run(config, source=source).summary["weights_sha256"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([[0, 1]], "for 1 clients"),
        ([[0, 1], []], "client 1 no image"),
        ([[0, 1], [10**6]], "index 1000000"),
        ([list(range(0, 700)), list(range(700, 1400))], "held out"),
    ],
)
def test_parts_that_do_not_fit_are_refused(source: DataSource, parts: list[list[int]], message: str) -> None:
    given = Partition(clients=tuple(torch.tensor(part, dtype=torch.int64) for part in parts))
    with pytest.raises(PartitionError, match=message):
        Federation.create(quick(), source=source, parts=given)


@pytest.mark.parametrize("method", ["fedavg", "codream"])
def test_trials_together_are_trials_alone(source: DataSource, method: str) -> None:
    config = quick(method)
    pool, _ = make_pool(source, config, seed=0)
    members = memberships(5, pool)
    alone = train_trials(config, source, pool, members, seed=9, together=1)
    together = train_trials(config, source, pool, members, seed=9, together=3)
    assert [trained.trial for trained in together] == list(range(5))
    assert [trained.seed for trained in together] == list(range(9, 14))
    assert all(same(one, other, atol=2e-3) for one, other in zip(alone, together, strict=True))
    assert not same(alone[0], alone[1], atol=2e-2)


def test_a_trial_can_be_made_again(source: DataSource) -> None:
    config = quick("codream", "local.warmup_epochs=8")
    pool, _ = make_pool(source, config, seed=0)
    members = torch.from_numpy(memberships(2, pool))
    trained = train_trials(config, source, pool, members, seed=3)[1]
    method = rebuild(config, source, pool, members[1], trained)
    held = [len(client.images) for client in method.federation.clients]
    assert held == torch.bincount(pool.owners[members[1]]).tolist()
    assert method.dreams() is not None
    for client, accuracy in zip(method.federation.clients, trained.train_accuracy, strict=True):
        found = (client.model.eval()(client.images).argmax(1) == client.labels).double().mean().item()
        assert found == pytest.approx(accuracy)


def test_finished_trials_are_read_and_damaged_ones_trained_again(
    source: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = quick()
    pool, _ = make_pool(source, config, seed=0)
    members = memberships(2, pool)
    seen: list[tuple[int, int]] = []
    first = train_trials(
        config, source, pool, members, seed=0, cache=tmp_path, observe=lambda _, done, total: seen.append((done, total))
    )
    assert seen == [(0, 2), (1, 2), (2, 2)]
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    with monkeypatch.context() as patch:
        patch.setattr(train, "make_method", None)
        second = train_trials(config, source, pool, members, seed=0, cache=tmp_path)
        assert all(map(same, first, second))
        with pytest.raises(TypeError):
            train_trials(config, source, pool, ~members, seed=0, cache=tmp_path)
    files[0].write_bytes(files[0].read_bytes()[:1000])
    assert len(train_trials(config, source, pool, members, seed=0, cache=tmp_path)) == 2
    assert sorted(tmp_path.iterdir()) == files


def test_errors_name_the_trial(source: DataSource) -> None:
    pool, _ = make_pool(source, quick(), seed=0)
    members = memberships(3, pool)
    for together in (1, 3):
        with pytest.raises(NumericalError) as caught:
            train_trials(
                quick("fedavg", "local.lr=1e30", "local.max_grad_norm=off", "local.warmup_epochs=4"),
                source,
                pool,
                members,
                seed=5,
                together=together,
            )
        assert any("in trial 0 (run.seed = 5)" in note for note in caught.value.__notes__)
    members[2, pool.owners.numpy() == 1] = False
    with pytest.raises(PartitionError, match="client 1 no image") as refused:
        train_trials(quick(), source, pool, members, seed=5)
    assert any("in trial 2" in note for note in refused.value.__notes__)
    with pytest.raises(ConfigError, match="members must be bool"):
        train_trials(quick(), source, pool, members[:, 1:], seed=5)
    with pytest.raises(ConfigError, match="workers is 0"):
        train_trials(quick(), source, pool, members, seed=5, workers=0)


@pytest.mark.slow
def test_workers_end_with_the_same_bits_and_hand_errors_on(source: DataSource) -> None:
    config = quick()
    pool, _ = make_pool(source, config, seed=0)
    members = memberships(3, pool)
    here = train_trials(config, source, pool, members, seed=0, together=1)
    there = train_trials(config, source, pool, members, seed=0, together=1, workers=2)
    assert all(map(same, here, there))
    broken = quick("fedavg", "local.lr=1e30", "local.max_grad_norm=off", "local.warmup_epochs=4")
    with pytest.raises(NumericalError) as caught:
        train_trials(broken, source, pool, members, seed=0, together=1, workers=2)
    assert any("in trial" in note for note in caught.value.__notes__)


INTERRUPTED = """
import signal
import numpy as np
from attacks.shadows import make_pool, train_trials
from codream_secure.config import make_config
from codream_secure.data import load_source

if __name__ == "__main__":
    # Also where whoever runs the tests ignores interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config = make_config({"method": "fedavg"}, ["run.rounds=5"])
    source = load_source("digits")
    pool, _ = make_pool(source, config, seed=0)
    members = np.random.default_rng(0).random((400, len(pool))) < 0.5
    train_trials(
        config, source, pool, members, seed=0, workers=2, together=2, observe=lambda *_: print("seen", flush=True)
    )
"""


def living(group: int) -> list[str]:
    """Processes of a group that have not ended; those that nobody has waited for are no more than a number."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, their_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(their_group) == group and state != "Z":
            found.append(stat.parent.name)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_an_interrupt_ends_the_workers_too(tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
        text=True,
    )
    try:
        assert process.stdout is not None
        # Once before anything is trained, and then for each of the trials: workers are at work.
        assert [process.stdout.readline() for _ in range(4)] == ["seen\n"] * 4
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) != 0
        deadline = time.monotonic() + 10
        while living(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert living(process.pid) == []
    finally:
        if living(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
