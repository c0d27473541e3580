"""The terms that a configuration leads to."""

from __future__ import annotations

import pytest

from codream_secure.config import make_config
from codream_secure.errors import ConfigError
from codream_secure.streams import MAX_IMAGES, make_terms


def test_each_kind_of_value_has_its_own_bound() -> None:
    terms = make_terms(make_config({}, ["protocol.clip.soft_labels=3"]))
    assert {name: encoding.clip for name, encoding in terms.streams.items()} == {
        "dream_updates": 64.0,
        "dreams": 64.0,
        "soft_labels": 3.0,
        "weights": 256.0,
        "evaluation": 2.0**20,
    }
    assert all(encoding.max_weight is None for encoding in terms.streams.values())


def test_probabilities_are_bounded_by_one() -> None:
    terms = make_terms(make_config({}, ["dreaming.labels=probabilities"]))
    assert terms.streams["soft_labels"].clip == 1.0
    assert terms.streams["soft_labels"].resolution < 1e-8


def test_counts_are_summed_exactly() -> None:
    encoding = make_terms(make_config({}, ["data.clients=100"])).streams["evaluation"]
    assert encoding.resolution <= 1


def test_weighted_averages_have_room_for_the_weights() -> None:
    encoding = make_terms(make_config({}, ["fedavg.weighted=true"])).streams["weights"]
    assert encoding.max_weight == MAX_IMAGES
    assert encoding.resolution < 1e-9


def test_a_round_of_each_method_fits_into_one_set_up() -> None:
    assert make_terms(make_config({}, ["dreaming.steps=30", "dreaming.batches=2"])).steps > 62
    assert make_terms(make_config({}, ["method=fedavg"])).steps < 10
    assert make_terms(make_config({}, ["protocol.steps=7"])).steps == 7


def test_faults_that_would_lose_finished_dreams_are_refused() -> None:
    with pytest.raises(ConfigError, match="only one client makes"):
        make_config({}, ["faults.contribute=0.1", "dreaming.collaborative=false"])
