"""Events and statements: what they refuse, and that JSON gives back what it was given."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from codream_secure.errors import PrivacyError
from codream_secure.privacy import (
    Accountant,
    Adjacency,
    Adversary,
    DiscreteGaussianSum,
    ExactRelease,
    GaussianRelease,
    PrivacyStatement,
    PrivacyUnit,
    Release,
    SampledGaussianRelease,
    SkellamSum,
    release_from_json,
)

EVENTS: list[Release] = [
    GaussianRelease("updates", 20, count=200),
    SampledGaussianRelease("training", 1.1, sample_rate=0.02, steps=500),
    DiscreteGaussianSum("sums", sigma=3.5, clients=9, sensitivity=65_536, dimension=640, count=7),
    SkellamSum("sums", variance=12.25, clients=9, sensitivity=65_536, dimension=640, count=7),
    ExactRelease("dreams", "drawn from noise", private_data=False),
]
STATEMENT = PrivacyStatement(
    unit=PrivacyUnit.CLIENT,
    adjacency=Adjacency.REPLACE_ONE,
    epsilon=2.9432252,
    delta=1e-5,
    adversary=Adversary.SUM_SERVER,
    accountant=Accountant.CLOSED_FORM,
    releases=("updates", "labels"),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_an_event_survives_json(event: Release) -> None:
    content = json.loads(json.dumps(event.to_json(), allow_nan=False))
    assert release_from_json(content) == event
    assert type(release_from_json(content)) is type(event)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_json_with_a_field_too_few_or_too_many_is_refused(event: Release) -> None:
    content = event.to_json()
    with pytest.raises(PrivacyError, match="unknown fields: 'extra'"):
        release_from_json({**content, "extra": 1})
    for name in content:
        with pytest.raises(PrivacyError, match="kind" if name == "kind" else f"lacks {name}"):
            release_from_json({key: value for key, value in content.items() if key != name})


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
@pytest.mark.parametrize("value", [None, [], "nine", -1, math.nan, math.inf])
def test_json_with_values_of_another_type_is_refused(event: Release, value: Any) -> None:
    content = event.to_json()
    for name in content:
        if name in ("name", "reason", "kind") and value == "nine":
            continue
        with pytest.raises(PrivacyError):
            release_from_json({**content, name: value})


@pytest.mark.parametrize("content", [None, [], "gaussian", {"kind": "laplace", "name": "x"}, {"kind": ["gaussian"]}])
def test_json_of_no_known_kind_is_refused(content: Any) -> None:
    with pytest.raises(PrivacyError, match="kind"):
        release_from_json(content)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianRelease("x", 0), "noise_multiplier is 0.*ExactRelease"),
        (lambda: GaussianRelease("x", -1), "noise_multiplier is -1"),
        (lambda: GaussianRelease("x", math.nan), "noise_multiplier is nan"),
        (lambda: GaussianRelease("x", True), "noise_multiplier is True"),
        (lambda: GaussianRelease("", 1), "name is ''"),
        (lambda: GaussianRelease("a\nb", 1), "name is"),
        (lambda: GaussianRelease("x", 1, count=0), "count is 0"),
        (lambda: GaussianRelease("x", 1, count=True), "count is True"),
        (lambda: GaussianRelease("x", 1, count=10**13), "count is 10000000000000"),
        (lambda: SampledGaussianRelease("x", 1, sample_rate=0), "sample_rate is 0"),
        (lambda: SampledGaussianRelease("x", 1, sample_rate=1.01), "sample_rate is 1.01"),
        (lambda: SampledGaussianRelease("x", 1, sample_rate=0.1, steps=1.0), "steps is 1.0"),
        (lambda: DiscreteGaussianSum("x", sigma=0, clients=1, sensitivity=1, dimension=1), "sigma is 0.*ExactRelease"),
        (lambda: DiscreteGaussianSum("x", sigma=0.49, clients=1, sensitivity=1, dimension=1), "sigma is 0.49"),
        (lambda: DiscreteGaussianSum("x", sigma=1, clients=0, sensitivity=1, dimension=1), "clients is 0"),
        (lambda: DiscreteGaussianSum("x", sigma=1, clients=1, sensitivity=1.5, dimension=1), "sensitivity is 1.5"),
        (lambda: SkellamSum("x", variance=0, clients=1, sensitivity=1, dimension=1), "variance is 0.*ExactRelease"),
        (lambda: SkellamSum("x", variance=1, clients=1, sensitivity=1, dimension=0), "dimension is 0"),
        (lambda: ExactRelease("x", "", private_data=False), "reason is ''"),
        (lambda: ExactRelease("x", "y", private_data=0), "private_data is 0"),  # type: ignore[arg-type]
        (lambda: GaussianRelease("x", 1).times(0), "repeats is 0"),
    ],
)
def test_what_no_release_can_be_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(PrivacyError, match=message):
        make()


def test_equal_releases_merge_and_others_do_not() -> None:
    one = GaussianRelease("updates", 20, count=3)
    assert one.merged(GaussianRelease("updates", 20, count=4)) == GaussianRelease("updates", 20, count=7)
    assert one.merged(GaussianRelease("updates", 21)) is None
    assert one.merged(GaussianRelease("labels", 20)) is None
    assert one.merged(SampledGaussianRelease("updates", 20, sample_rate=1)) is None
    exact = ExactRelease("dreams", "noise", private_data=False)
    assert exact.merged(exact) == exact
    assert exact.merged(ExactRelease("dreams", "noise", private_data=True)) is None
    assert EVENTS[1].times(3) == SampledGaussianRelease("training", 1.1, sample_rate=0.02, steps=1500)


def test_a_statement_leaves_nothing_out() -> None:
    text = str(STATEMENT)
    for part in ("2.943", "1e-05", "client", "replace_one", "one client's data replaced", "updates, labels"):
        assert part in text
    assert STATEMENT.adversary.value in text
    assert STATEMENT.accountant.value in text
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.parametrize("epsilon", [0.0, 2.5, math.inf])
def test_a_statement_survives_strict_json(epsilon: float) -> None:
    content = {**STATEMENT.to_json(), "epsilon": epsilon if math.isfinite(epsilon) else "infinite"}
    found = PrivacyStatement.from_json(json.loads(json.dumps(content, allow_nan=False)))
    assert found.epsilon == epsilon
    assert found.to_json() == content
    assert PrivacyStatement.from_json(STATEMENT.to_json()) == STATEMENT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": -1}, "epsilon is -1"),
        ({"epsilon": "3"}, "epsilon is '3'"),
        ({"epsilon": math.nan}, "epsilon is nan"),
        ({"epsilon": math.inf}, 'written "infinite"'),
        ({"epsilon": -math.inf}, 'written "infinite"'),
        ({"delta": 0}, "delta is 0"),
        ({"unit": "user"}, "unit is 'user'"),
        ({"adjacency": None}, "adjacency is None"),
        ({"adversary": "nobody"}, "adversary is 'nobody'"),
        ({"accountant": "guess"}, "accountant is 'guess'"),
        ({"releases": "updates"}, "releases is 'updates'"),
        ({"releases": ["updates", "updates"]}, "name each release once"),
        ({"releases": [1]}, "releases is 1"),
        ({"extra": 1}, "unknown fields: 'extra'"),
    ],
)
def test_a_statement_that_says_something_else_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PrivacyError, match=message):
        PrivacyStatement.from_json({**STATEMENT.to_json(), **change})


def test_a_statement_without_one_of_its_parts_is_refused() -> None:
    content = STATEMENT.to_json()
    assert PrivacyStatement.from_json({key: value for key, value in content.items() if key != "colluders"}) == STATEMENT
    for name in content.keys() - {"colluders"}:
        with pytest.raises(PrivacyError, match=f"lacks {name}"):
            PrivacyStatement.from_json({key: value for key, value in content.items() if key != name})
