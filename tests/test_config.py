"""Configurations: defaults, overrides, refusals, and the way to TOML and back."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codream_secure.config import Config, load_config, make_config
from codream_secure.errors import ConfigError


def test_an_empty_file_is_a_complete_run(tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.write_text("")
    assert load_config(path) == Config()


@given(
    rounds=st.integers(0, 999),
    lr=st.floats(1e-6, 10),
    samples=st.one_of(st.integers(1, 9999), st.just("all")),
    clients=st.lists(st.sampled_from(["small_cnn", "lenet5", "mod:fn"]), min_size=4, max_size=4),
)
def test_toml_and_back_is_the_identity(rounds: int, lr: float, samples: object, clients: list[str]) -> None:
    config = make_config(
        {
            "run": {"rounds": rounds},
            "dreaming": {"lr": lr},
            "data": {"samples_per_client": samples},
            "model": {"clients": clients, "feature_layers": {clients[0]: ["conv2"]}},
        }
    )
    assert make_config(tomllib.loads(config.to_toml())) == config


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("run.rounds=7", ("run", "rounds"), 7),
        ("dreaming.lr = 0.5", ("dreaming", "lr"), 0.5),
        ("run.dream_grids=false", ("run", "dream_grids"), False),
        ("data.source=npz:/tmp/a b.npz", ("data", "source"), "npz:/tmp/a b.npz"),
        ('model.clients=["a", "b", "c", "d"]', ("model", "clients"), ("a", "b", "c", "d")),
        ("model.clients=lenet5", ("model", "clients"), ("lenet5",)),
        ("data.samples_per_client=all", ("data", "samples_per_client"), "all"),
    ],
)
def test_overrides_are_typed_like_toml(override: str, path: tuple[str, str], value: object) -> None:
    config = make_config({}, [override])
    assert getattr(getattr(config, path[0]), path[1]) == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dreaming.stepz=3", "dreaming.stepz: unknown key; did you mean 'dreaming.steps'?"),
        ("dreeming.steps=3", "dreeming: unknown key; did you mean 'dreaming'?"),
        ("run.xyzzy=3", "run.xyzzy: unknown key; known here: rounds, seed"),
        ("run.rounds=-1", r"run.rounds: Input should be greater than or equal to 0 \(given: -1\)"),
        ("dreaming.lr=nan", "dreaming.lr: Input should be a finite number"),
        ("dreaming.optimizer=adamw", "dreaming.optimizer: Input should be 'adam', 'fedavg' or 'fedadam'"),
        ("data.partition=dirichlet", "set data.alpha"),
        ("data.partition=classes", "set data.classes_per_client"),
        ('model.clients=["a","b"]', "model.clients names 2 architectures for 4 clients"),
        ("dreaming.adaptive=jsd", "needs a student: set model.server"),
        ("rounds", "not of the form section.key=value"),
        ("=3", "not of the form section.key=value"),
    ],
)
def test_wrong_overrides_say_what_is_wrong_and_what_to_do(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        make_config({}, [override])


def test_every_fault_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make_config({"run": {"rouns": 1, "seed": -1}, "datta": {}})
    assert len(str(caught.value).splitlines()) == 3


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'nowhere.toml' cannot be read"):
        load_config("nowhere.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[run\n")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_config(broken)


def test_overriding_leaves_the_callers_mapping_alone() -> None:
    tree = {"run": {"rounds": 3}}
    make_config(tree, ["run.rounds=4"])
    assert tree == {"run": {"rounds": 3}}
