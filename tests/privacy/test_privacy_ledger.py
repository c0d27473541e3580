"""The ledger: a budget that is checked first, states that change only on success, checkpoints."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codream_secure.errors import BudgetExceededError, CodreamError, PrivacyError
from codream_secure.privacy import (
    Adjacency,
    Adversary,
    Budget,
    DiscreteGaussianSum,
    ExactRelease,
    GaussianRelease,
    PrivacyLedger,
    PrivacyUnit,
    SampledGaussianRelease,
    noise_multiplier_for,
    spent,
)

DELTA = 1e-5
STEP = GaussianRelease("updates", 20)
PUBLIC = ExactRelease("initial dreams", "drawn from noise", private_data=False)
PRIVATE = ExactRelease("sample counts", "the weights need them", private_data=True)


def ledger(epsilon: float | None = 3, **changes: Any) -> PrivacyLedger:
    given: dict[str, Any] = {
        "unit": PrivacyUnit.CLIENT,
        "adjacency": Adjacency.ADD_REMOVE,
        "adversary": Adversary.SUM_SERVER,
    }
    return PrivacyLedger(None if epsilon is None else Budget(epsilon, DELTA), **{**given, **changes})


def test_a_release_over_the_budget_is_refused_before_it_is_recorded() -> None:
    kept = ledger()
    kept.record(STEP.times(200))
    before = kept.state_dict()
    with pytest.raises(
        BudgetExceededError, match=r"'updates' exceeds the budget of epsilon 3.*must not be made"
    ) as stop:
        kept.record(STEP.times(20))
    assert isinstance(stop.value, CodreamError)
    assert "against a server" in str(stop.value), "no epsilon without its statement"
    assert kept.state_dict() == before
    kept.record(STEP)
    assert kept.events == (STEP.times(201),)


def test_the_noise_for_a_budget_lasts_as_long_as_was_asked_and_no_longer() -> None:
    step = GaussianRelease("updates", noise_multiplier_for(3, DELTA, count=50))
    kept = ledger()
    assert kept.remaining(step) == 50
    for left in range(50, 0, -1):
        if left in (50, 17, 1):
            assert kept.remaining(step) == left
        kept.record(step)
    assert kept.remaining(step) == 0
    with pytest.raises(BudgetExceededError):
        kept.record(step)


def test_what_remains_is_counted_in_the_release_as_it_is() -> None:
    kept = ledger()
    single = kept.remaining(STEP)
    assert single is not None
    assert kept.remaining(STEP.times(10)) == single // 10
    kept.record(STEP.times(single))
    with pytest.raises(BudgetExceededError):
        kept.record(STEP)


def test_what_costs_nothing_remains_for_ever_and_what_costs_everything_never() -> None:
    assert ledger().remaining(PUBLIC) is None
    assert ledger().remaining(PRIVATE) == 0
    assert ledger(None).remaining(STEP) is None
    plenty = ledger().remaining(GaussianRelease("updates", 1e9))
    assert plenty == 10**12


def test_an_exact_release_of_private_data_never_fits_a_budget() -> None:
    kept = ledger()
    kept.record(PUBLIC)
    with pytest.raises(BudgetExceededError, match="it has no noise"):
        kept.record(PRIVATE)
    assert kept.events == (PUBLIC,)
    free = ledger(None)
    free.record(PRIVATE)
    assert free.statement(delta=DELTA).epsilon == float("inf")


@given(counts=st.lists(st.integers(1, 50), min_size=1, max_size=8), z=st.floats(5, 100))
@settings(max_examples=30)
def test_step_by_step_is_the_same_as_all_at_once(counts: list[int], z: float) -> None:
    kept = ledger(None)
    labels = GaussianRelease("labels", 2 * z)
    for count in counts:
        kept.record(GaussianRelease("updates", z, count=count))
        kept.record(labels)
    once = [GaussianRelease("updates", z, count=sum(counts)), labels.times(len(counts))]
    at_once = spent(
        once,
        delta=DELTA,
        unit=PrivacyUnit.CLIENT,
        adjacency=Adjacency.ADD_REMOVE,
        adversary=Adversary.SUM_SERVER,
    )
    assert kept.statement(delta=DELTA) == at_once
    assert kept.events == tuple(once)


def test_a_checkpoint_resumes_to_the_same_epsilon_and_budget() -> None:
    kept = ledger(units=100)
    kept.record(PUBLIC)
    kept.record(STEP.times(150))
    kept.record(DiscreteGaussianSum("labels", sigma=1e6, clients=50, sensitivity=65_536, dimension=640))
    resumed = ledger(units=100)
    resumed.load_state_dict(json.loads(json.dumps(kept.state_dict(), allow_nan=False)))
    assert resumed.statement() == kept.statement()
    assert resumed.remaining(STEP) == kept.remaining(STEP)
    assert resumed.state_dict() == kept.state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format is 2"),
        ({"format": True}, "format is True"),
        ({"unit": "example"}, "unit is 'example'"),
        ({"adjacency": "replace_one"}, "adjacency is 'replace_one'"),
        ({"adversary": Adversary.RECIPIENT.value}, "adversary is"),
        ({"budget": None}, "budget is None"),
        ({"budget": {"epsilon": 30.0, "delta": DELTA}}, "budget is"),
        ({"units": 5}, "units is 5"),
        ({"events": {}}, "events is dict"),
        ({"events": [{"kind": "laplace"}]}, "of kind 'laplace'"),
        ({"events": [{**STEP.to_json(), "extra": 0}]}, "unknown fields"),
        ({"events": [STEP.times(2000).to_json()]}, "exceeds the budget"),
        ({"more": 1}, "unknown fields: 'more'"),
    ],
)
def test_another_state_is_refused_and_changes_nothing(change: dict[str, Any], message: str) -> None:
    kept = ledger()
    kept.record(STEP)
    before = kept.state_dict()
    with pytest.raises(PrivacyError, match=message):
        kept.load_state_dict({**before, **change})
    assert kept.state_dict() == before
    for name in before:
        with pytest.raises(PrivacyError, match=f"lacks {name}"):
            kept.load_state_dict({key: value for key, value in before.items() if key != name})


@pytest.mark.parametrize("epsilon", [3, None])
def test_an_untrue_claim_is_refused_with_or_without_a_budget(epsilon: float | None) -> None:
    kept = ledger(epsilon)
    sampled = SampledGaussianRelease("updates", 20, sample_rate=0.1)
    for attempt in (kept.record, kept.remaining):
        with pytest.raises(PrivacyError, match="amplification"):
            attempt(sampled)
    assert kept.events == ()


@pytest.mark.parametrize("epsilon", [30, None])
def test_releases_that_no_accountant_covers_together_are_refused_when_recorded(epsilon: float | None) -> None:
    kept = ledger(epsilon, unit=PrivacyUnit.EXAMPLE)
    kept.record(DiscreteGaussianSum("sums", sigma=1e6, clients=50, sensitivity=65_536, dimension=640))
    before = kept.state_dict()
    with pytest.raises(PrivacyError, match="no accountant covers both"):
        kept.record(SampledGaussianRelease("training", 2, sample_rate=0.1))
    assert kept.state_dict() == before


def test_a_delta_that_would_allow_to_publish_a_unit_is_refused() -> None:
    with pytest.raises(PrivacyError, match="delta is 1e-05 with 100000 units"):
        ledger(units=100_000)
    assert ledger(units=99_999).units == 99_999
    free = ledger(None, units=10)
    with pytest.raises(PrivacyError, match=r"delta is 0\.1 with 10 units"):
        free.statement(delta=0.1)
    assert free.statement(delta=0.01).epsilon == 0


def test_a_ledger_without_a_budget_asks_for_a_delta() -> None:
    with pytest.raises(PrivacyError, match="delta is missing"):
        ledger(None).statement()


def test_what_is_no_release_is_refused() -> None:
    with pytest.raises(PrivacyError, match="event is dict"):
        ledger().record(STEP.to_json())  # type: ignore[arg-type]


@pytest.mark.parametrize(("epsilon", "delta"), [(0, DELTA), (float("inf"), DELTA), (1, 0), (1, 1), ("1", DELTA)])
def test_a_budget_that_is_none_is_refused(epsilon: Any, delta: float) -> None:
    with pytest.raises(PrivacyError, match="epsilon is|delta is"):
        Budget(epsilon, delta)


def test_a_ledger_covers_its_own_past_and_no_other() -> None:
    earlier, later = ledger(8), ledger(8)
    assert later.covers(earlier.state_dict())
    earlier.record(GaussianRelease("updates", 20.0, count=3))
    assert not later.covers(earlier.state_dict())
    later.record(GaussianRelease("updates", 20.0, count=2))
    assert not later.covers(earlier.state_dict())
    later.record(GaussianRelease("updates", 20.0, count=2))
    assert later.covers(earlier.state_dict())
    earlier.record(GaussianRelease("updates", 21.0))
    assert not later.covers(earlier.state_dict())


def test_what_is_allowed_is_what_could_be_recorded() -> None:
    held = ledger(3)
    held.record(GaussianRelease("updates", 20.0, count=200))
    most = held.remaining(GaussianRelease("updates", 20.0))
    assert most is not None
    assert held.allows([GaussianRelease("updates", 20.0, count=most)])
    assert not held.allows([GaussianRelease("updates", 20.0, count=most), GaussianRelease("labels", 20.0)])
    assert held.remaining(GaussianRelease("updates", 20.0)) == most
