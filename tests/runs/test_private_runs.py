"""Runs under a privacy budget: what they spend, where they end, and what they know after a kill."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from codream_secure.accounting import sums_in_round, sums_in_run
from codream_secure.channel import Channel
from codream_secure.config import Config, make_config
from codream_secure.errors import BudgetExceededError, CheckpointError, PrivacyError
from codream_secure.privacy import PrivacyStatement
from codream_secure.runs import run
from protocols import SumResult

SMALL = (
    "data.clients=4",
    "data.samples_per_client=10",
    "data.validation_samples=20",
    "run.rounds=2",
    "local.warmup_epochs=1",
    "local.epochs=1",
    "dreaming.images=6",
    "dreaming.steps=3",
    "dreaming.labels=probabilities",
    "distillation.epochs=1",
)
PRIVATE = (*SMALL, "dp.unit=client", "dp.delta=1e-3", "protocol.dropout=0")


def settings(*overrides: str) -> Config:
    budget = () if any("noise_multiplier" in each for each in overrides) else ("dp.epsilon=5",)
    return make_config({}, [*PRIVATE, *budget, *overrides])


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("dreaming.batches=2", "dreaming.label_midway=true"),
        ("distillation.every=2", "distillation.cutmix=0"),
        ("distillation.relabel=false", "run.evaluate_every=2", "run.rounds=3"),
        ("dreaming.collaborative=false",),
        ("dreaming.steps=0",),
        ("method=isolated",),
        ("method=fedavg",),
    ],
)
def test_planned_sums_are_those_that_are_taken(overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Counter[str]] = []
    begin, take = Channel.begin_round, Channel._sum

    def counted_begin(self: Channel, number: int) -> None:
        taken.append(Counter())
        begin(self, number)

    def counted_sum(self: Channel, contributions: Any, phase: str, *args: Any, **kwargs: Any) -> SumResult:
        taken[-1][phase] += 1
        return take(self, contributions, phase, *args, **kwargs)

    monkeypatch.setattr(Channel, "begin_round", counted_begin)
    monkeypatch.setattr(Channel, "_sum", counted_sum)
    config = make_config({}, [*SMALL, *overrides])
    run(config)
    assert [dict(counts) for counts in taken] == [
        sums_in_round(config, number) for number in range(config.run.rounds + 1)
    ]
    assert dict(sum(taken, Counter())) == sums_in_run(config)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("protocol.protection=masked",),
        ("protocol.protection=masked", "dp.mechanism=skellam", "dp.evaluation_share=0.2"),
        ("dp.unit=local",),
        ("dp.unit=local", "protocol.dropout=0.3"),
        ("dreaming.steps=0",),
    ],
)
def test_a_run_spends_its_budget_and_says_so_with_everything_that_gives_it_meaning(overrides: tuple[str, ...]) -> None:
    summary = run(settings(*overrides)).summary
    privacy = summary["privacy"]
    statement = PrivacyStatement.from_json(privacy["statement"])
    # Skellam's extra terms come in steps, and sums shorter than the longest planned cost a little less.
    assert 4.8 < statement.epsilon <= 5
    assert statement.delta == 1e-3
    assert privacy["text"] == str(statement)
    assert privacy["stopped"] is None
    assert privacy["budget"] == {"epsilon": 5.0, "delta": 1e-3}
    streams = {"dream_updates", "soft_labels"} if not any("steps=0" in each for each in overrides) else {"soft_labels"}
    if any("evaluation_share" in each for each in overrides):
        streams |= {"evaluation"}
    assert set(statement.releases) == set(privacy["noise_multipliers"]) == streams
    assert (privacy["signal"] is None) == ("dream_updates" not in streams)


def test_isolated_clients_release_nothing() -> None:
    privacy = run(settings("method=isolated")).summary["privacy"]
    statement = PrivacyStatement.from_json(privacy["statement"])
    assert (statement.epsilon, statement.releases) == (0.0, ())


def test_a_run_ends_where_its_budget_does_and_keeps_its_results(tmp_path: Path) -> None:
    whole = run(settings("dp.noise_multiplier=3", "run.rounds=1")).summary["privacy"]
    budget = whole["statement"]["epsilon"] * 1.01
    config = settings("dp.noise_multiplier=3", f"dp.epsilon={budget}", "run.rounds=5")
    result = run(config, out=tmp_path)
    # The shares of mu^2 depend on the numbers of sums planned, so five planned rounds are not five times one.
    privacy = result.summary["privacy"]
    reached = result.rows[-1]["round"]
    assert reached < 5
    assert f"before the end of round {reached + 1}" in privacy["stopped"]
    assert privacy["statement"]["epsilon"] <= budget
    assert json.loads((tmp_path / "summary.json").read_text()) == result.summary
    again = run(config, out=tmp_path, resume=True)
    assert again.summary["privacy"] == privacy
    assert again.summary["weights_sha256"] == result.summary["weights_sha256"]


def test_a_run_whose_budget_ends_within_a_round_has_the_models_of_the_round_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if sums had been asked for again: each is accounted for twice."""
    from codream_secure.releases import NoisyReleases

    once = NoisyReleases.before_sum

    def twice(self: NoisyReleases, stream: str, *, values: int) -> None:
        once(self, stream, values=values)
        once(self, stream, values=values)

    config = settings("run.rounds=1")
    untouched = run(make_config({}, [*PRIVATE, "dp.epsilon=5", "run.rounds=0", "method=isolated"]))
    monkeypatch.setattr(NoisyReleases, "before_sum", twice)
    result = run(config)
    assert "before the end of round 1" in result.summary["privacy"]["stopped"]
    assert result.summary["privacy"]["statement"]["epsilon"] <= 5
    assert result.summary["round"] == 0
    assert result.summary["weights_sha256"] == untouched.summary["weights_sha256"]


class _Killed(Exception):
    pass


def test_what_a_killed_round_released_still_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings("dp.noise_multiplier=5")
    sums = 0
    take = Channel._sum

    def dying(self: Channel, contributions: Any, phase: str, *args: Any, **kwargs: Any) -> SumResult:
        nonlocal sums
        sums += 1
        if sums == 6:
            raise _Killed
        return take(self, contributions, phase, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Channel, "_sum", dying)
        with pytest.raises(_Killed):
            run(config, out=tmp_path)
    before = {event["name"]: event["count"] for event in json.loads((tmp_path / "privacy.json").read_text())["events"]}
    assert sum(before.values()) == 5
    run(config, out=tmp_path, resume=True)
    after = Counter()
    for event in json.loads((tmp_path / "privacy.json").read_text())["events"]:
        after[event["name"]] += event["count"]
    planned = sums_in_run(config)
    # Round 1 was cut off before its checkpoint, so all of it was released once more.
    assert after == {stream: planned[stream] + before[stream] for stream in ("dream_updates", "soft_labels")}


def test_a_run_without_its_account_does_not_go_on(tmp_path: Path) -> None:
    config = settings("run.rounds=1")
    run(config, out=tmp_path)
    account = tmp_path / "privacy.json"
    content = account.read_text()
    account.write_text(content[:-20])
    with pytest.raises(CheckpointError, match="cannot be read"):
        run(config, out=tmp_path, resume=True)
    account.write_text(content.replace('"client"', '"local"'))
    with pytest.raises(PrivacyError, match="conditions"):
        run(config, out=tmp_path, resume=True)
    account.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        run(config, out=tmp_path, resume=True)


def test_released_accuracies_have_noise_and_others_are_instruments() -> None:
    """Noise of z = 0.2 over 4 clients: some accuracy of three differs from the true mean of 20 images by a third."""
    result = run(settings("dp.noise_multiplier=5", "dp.evaluation_share=0.5"))
    released = [row["validation_accuracy"] for row in result.rows]
    assert not all((80 * value) == pytest.approx(round(80 * value), abs=1e-6) for value in released)
    kept = run(settings("dp.noise_multiplier=5"))
    assert all(
        (80 * row["validation_accuracy"]) == pytest.approx(round(80 * row["validation_accuracy"]), abs=1e-6)
        for row in kept.rows
    )
    assert "evaluation" not in kept.summary["bytes_by_phase"]


def test_noise_differs_from_run_to_run_of_the_same_seed() -> None:
    first, second = (run(settings("run.rounds=1")).summary["weights_sha256"] for _ in range(2))
    assert first != second


def test_nothing_changes_where_nothing_is_claimed(tmp_path: Path) -> None:
    config = make_config({}, [*SMALL, "run.rounds=1"])
    result = run(config, out=tmp_path)
    assert result.summary["privacy"] is None
    assert not (tmp_path / "privacy.json").exists()
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["config"] == config.to_toml()


def test_an_account_older_than_the_checkpoint_is_refused(tmp_path: Path) -> None:
    config = settings("dp.noise_multiplier=5")

    def stop(row: dict[str, Any]) -> None:
        if row["round"] == 1:
            raise _Killed

    with pytest.raises(_Killed):
        run(config, out=tmp_path, on_round=stop)
    account = tmp_path / "privacy.json"
    state = json.loads(account.read_text())
    state["events"][0]["count"] -= 1
    account.write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="lacks releases that the checkpoint knows of"):
        run(config, out=tmp_path, resume=True)


def test_nothing_is_claimed_beside_an_account(tmp_path: Path) -> None:
    (tmp_path / "privacy.json").write_text("{}")
    with pytest.raises(CheckpointError, match="this one claims none"):
        run(make_config({}, [*SMALL, "run.rounds=0"]), out=tmp_path)


def test_an_accuracy_that_may_not_be_released_chooses_no_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the budget ends at an evaluation, the exact accuracy does not stand in for the noisy one."""
    from codream_secure.releases import NoisyReleases

    once, seen = NoisyReleases.before_sum, 0

    def expensive(self: NoisyReleases, stream: str, *, values: int) -> None:
        nonlocal seen
        seen += stream == "evaluation"
        for _ in range(100 if seen == 3 else 1):
            once(self, stream, values=values)

    monkeypatch.setattr(NoisyReleases, "before_sum", expensive)
    result = run(settings("dp.evaluation_share=0.5", "run.select=validation"))
    assert "at the evaluation of round 2" in result.summary["privacy"]["stopped"]
    assert result.rows[-1]["validation_accuracy"] is None
    assert result.summary["round"] in (0, 1)


def test_a_budget_that_does_not_cover_the_warm_up_leaves_nothing() -> None:
    config = make_config(
        {},
        [
            *SMALL,
            "dp.unit=example",
            "dp.delta=1e-3",
            "dp.epsilon=1",
            "dp.noise_multiplier=0.5",
            "dreaming.moments=channel",
            "model.clients=small_cnn_gn",
        ],
    )
    with pytest.raises(BudgetExceededError, match="does not cover the warm-up"):
        run(config)
