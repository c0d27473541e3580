"""Trade-offs: which settings there are, what their runs say of privacy, and that finished runs are not run again."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codream_secure.config import Config, load_config, make_config
from codream_secure.errors import CheckpointError, ConfigError
from codream_secure.privacy import Accountant, Adjacency, Adversary, PrivacyStatement, PrivacyUnit
from codream_secure.tradeoff import Cell, parse_budgets, parse_protections, plan_cells, sweep
from codream_secure.tradeoff.pareto import Point, unbeaten

TINY = (
    "data.clients=3",
    "data.samples_per_client=10",
    "data.validation_samples=20",
    "local.warmup_epochs=1",
    "local.epochs=1",
    "dreaming.images=8",
    "dreaming.steps=2",
    "dreaming.labels=probabilities",
    "distillation.epochs=1",
    "run.rounds=1",
)
PRIVATE = ("dp.unit=client", "dp.epsilon=2", "dp.delta=1e-3")


def tiny(*overrides: str) -> Config:
    return make_config({}, [*TINY, *overrides])


class Trace:
    """Notes every round that is really computed, and can stop the work before one of them."""

    def __init__(self, stop_before: int | None = None) -> None:
        self.runs: list[tuple[str, int, int, int]] = []
        self.rounds: list[tuple[str, int, int]] = []
        self.stop_before = stop_before

    def on_run(self, name: str, seed: int, done: int, total: int) -> None:
        self.runs.append((name, seed, done, total))

    def observe(self, phase: str, done: int, total: int) -> None:
        if phase == "round":
            if len(self.rounds) == self.stop_before:
                raise KeyboardInterrupt
            self.rounds.append((*self.runs[-1][:2], done))


@pytest.mark.parametrize("text", ["0", "-1", "nan", "1,,2", "1e999", "-inf", "one", "infinity", ""])
def test_budgets_are_positive_or_inf(text: str) -> None:
    with pytest.raises(ConfigError, match="epsilons is ") as error:
        parse_budgets(text)
    assert repr(text) in str(error.value)


def test_budgets_and_protections_stand_once() -> None:
    assert parse_budgets(" 3, 0.5 ,INF") == (3.0, 0.5, math.inf)
    assert parse_protections("plain, bfv") == ("plain", "bfv")
    with pytest.raises(ConfigError, match=r"epsilons is '1,1\.0'.*twice"):
        parse_budgets("1,1.0")
    with pytest.raises(ConfigError, match=r"protections is 'plain,plain'.*twice"):
        parse_protections("plain,plain")
    with pytest.raises(ConfigError, match=r"protections is 'plain,maskd'.*'masked'"):
        parse_protections("plain,maskd")


def names(cells: list[Cell]) -> list[str]:
    return [cell.name for cell in cells]


def test_every_budget_meets_every_protection_and_has_its_control() -> None:
    cells = plan_cells(tiny(*PRIVATE), budgets=(1.0, math.inf), protections=("masked", "bfv"))
    assert names(cells) == [
        "isolated",
        "budget 1, masked",
        "budget 1, bfv",
        "budget 1, control",
        "no noise, masked",
        "no noise, bfv",
        "no noise, control",
    ]
    assert len({cell.place for cell in cells}) == len(cells)
    by_name = {cell.name: cell for cell in cells}
    private, control, open_ = (by_name[name] for name in ("budget 1, bfv", "budget 1, control", "no noise, bfv"))
    assert private.config == tiny(*PRIVATE, "dp.epsilon=1", "protocol.protection=bfv")
    assert control.config == tiny(*PRIVATE, "dp.epsilon=1", "protocol.protection=masked", "dreaming.steps=0")
    assert open_.config == tiny("protocol.protection=bfv")
    assert open_.target == "infinite"


@pytest.mark.parametrize(
    ("overrides", "controls"),
    [
        (("dp.unit=example", "dreaming.moments=channel"), ["budget 4, control"]),
        (("dp.unit=local",), ["budget 1, control", "budget 4, control", "no noise, control"]),
        (("dreaming.steps=0",), []),
        (("dreaming.label_midway=true",), ["budget 1, control", "budget 4, control", "no noise, control"]),
    ],
    ids=["example: one", "local: all", "nothing to control", "labels midway of nothing"],
)
def test_there_are_controls_where_they_say_something(overrides: tuple[str, ...], controls: list[str]) -> None:
    cells = plan_cells(tiny(*PRIVATE, *overrides), budgets=(1.0, 4.0, math.inf), protections=("masked",))
    assert [cell.name for cell in cells if cell.control] == controls
    assert all(cell.obstacle is None for cell in cells)
    without = plan_cells(tiny(*PRIVATE), budgets=(1.0,), protections=("masked",), control=False)
    assert names(without) == ["isolated", "budget 1, masked"]


def test_a_method_is_compared_with_isolated_training_but_not_with_itself() -> None:
    cells = plan_cells(tiny("method=isolated"), budgets=(math.inf,), protections=("plain",))
    assert names(cells) == ["no noise, plain"]


def test_a_budget_needs_somebody_to_protect_and_room_for_its_noise() -> None:
    with pytest.raises(ConfigError, match=r"epsilons names 1, 3, but dp\.unit is 'none'"):
        plan_cells(tiny(), budgets=(1.0, 3.0, math.inf), protections=("plain",))
    fixed = tiny(*PRIVATE, "dp.noise_multiplier=2.5")
    with pytest.raises(ConfigError, match=r"dp\.noise_multiplier is 2\.5"):
        plan_cells(fixed, budgets=(1.0,), protections=("plain",))
    assert plan_cells(fixed, budgets=(math.inf,), protections=("plain",))[1].config == tiny()


def test_what_the_configuration_refuses_is_a_row_unless_it_is_all(tmp_path: Path) -> None:
    config = tiny(*PRIVATE)
    found = sweep(config, budgets=(2.0,), protections=("plain", "ckks"), control=False)
    plain, ckks = found["rows"][1:]
    assert plain["obstacle"] is None
    assert "approximate" in ckks["obstacle"]
    assert (ckks["statement"], ckks["test_accuracy"], ckks["pareto"]) == (None, None, False)
    with pytest.raises(ConfigError, match="none of these epsilons can run.*budget 2, ckks: .*approximate"):
        sweep(config, budgets=(2.0,), protections=("ckks",), control=False, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_only_the_run_refuses_is_a_row_too() -> None:
    """A delta that n clients allow nothing with is known to the account alone."""
    trace = Trace()
    config = tiny(*PRIVATE, "dp.delta=0.4")
    found = sweep(config, budgets=(2.0, math.inf), protections=("plain",), seeds=2, on_run=trace.on_run)
    rows = {row["name"]: row for row in found["rows"]}
    assert "must be below 1/3" in rows["budget 2, plain"]["obstacle"]
    assert rows["no noise, plain"]["obstacle"] is None
    assert [seed for name, seed, *_ in trace.runs if name == "budget 2, plain"] == [0], "one refusal is enough"
    with pytest.raises(ConfigError, match="none of these epsilons"):
        sweep(config, budgets=(2.0,), protections=("plain",))


@pytest.mark.parametrize("seeds", [0, -1])
def test_a_trade_off_needs_a_seed(seeds: int) -> None:
    with pytest.raises(ValueError, match=f"seeds is {seeds}"):
        sweep(tiny(), budgets=(math.inf,), protections=("plain",), seeds=seeds)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("tradeoff")
    config = tiny(*PRIVATE, "run.seed=3")
    return out, sweep(config, budgets=(8.0, math.inf), protections=("plain", "masked"), seeds=2, out=out)


def test_the_file_is_the_returned_value_and_rows_hold_what_the_runs_say(swept: tuple[Path, dict[str, Any]]) -> None:
    out, found = swept
    assert json.loads((out / "tradeoff.json").read_text()) == found
    assert (found["epsilons"], found["protections"], found["seeds"]) == ([8.0, "infinite"], ["plain", "masked"], [3, 4])
    assert (found["unit"], found["delta"]) == ("client", 1e-3)
    assert make_config(tomllib.loads(found["config"])) == tiny(*PRIVATE, "run.seed=3")
    for row in found["rows"]:
        assert row["obstacle"] is None
        folder = out / row["name"].replace(", ", "/").replace(" ", "_")
        summaries = [json.loads((folder / f"seed_{seed}" / "summary.json").read_text()) for seed in (3, 4)]
        for key in ("test_accuracy", "validation_accuracy", "bytes_up", "bytes_down", "seconds"):
            assert row[key]["values"] == [one[key] for one in summaries]
        assert row["test_accuracy"]["std"] is not None
        one = load_config(folder / "seed_4" / "config.toml")
        assert one.dp.epsilon == (8.0 if row["epsilon"] in (8.0, None) else None)
        assert [one["privacy"] and one["privacy"]["statement"] for one in summaries] == [row["statement"]] * 2


def test_no_budget_stands_without_its_statement(swept: tuple[Path, dict[str, Any]]) -> None:
    for row in swept[1]["rows"]:
        if row["epsilon"] == "infinite":
            assert (row["statement"], row["text"], row["texts"]) == (None, None, [])
            continue
        statement = PrivacyStatement.from_json(row["statement"])
        assert statement.unit is PrivacyUnit.CLIENT
        assert row["text"] == str(statement)
        assert row["texts"] == [row["text"]]
        if row["epsilon"] is None:
            assert (statement.epsilon, statement.releases) == (0, ())
        else:
            assert 0.9 * row["epsilon"] < statement.epsilon <= row["epsilon"]
            assert statement.releases == (("soft_labels",) if row["control"] else ("dream_updates", "soft_labels"))
    adversaries = {row["name"]: (row["statement"] or {}).get("adversary") for row in swept[1]["rows"]}
    assert adversaries["budget 8, plain"] == Adversary.RECIPIENT.value
    assert adversaries["budget 8, masked"] == Adversary.SUM_SERVER.value


def test_finished_runs_are_read_and_others_added(swept: tuple[Path, dict[str, Any]]) -> None:
    out, found = swept
    trace = Trace()
    again = sweep(
        tiny(*PRIVATE, "run.seed=3"),
        budgets=(8.0, math.inf),
        protections=("plain", "masked", "bfv"),
        seeds=2,
        out=out,
        observe=trace.observe,
        on_run=trace.on_run,
    )
    assert {name for name, *_ in trace.rounds} == {"budget 8, bfv", "no noise, bfv"}
    assert len(trace.runs) == 18
    kept = {row["name"]: row for row in again["rows"]}
    for row in found["rows"]:
        assert kept[row["name"]] | {"pareto": None} == row | {"pareto": None}
    with pytest.raises(CheckpointError, match="another configuration"):
        sweep(tiny(*PRIVATE, "run.seed=3", "local.lr=0.01"), budgets=(8.0,), protections=("plain",), seeds=1, out=out)


@pytest.mark.parametrize("stop_before", [0, 3, 5])
def test_an_interrupted_trade_off_goes_on_where_it_stopped(stop_before: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"budgets": (8.0,), "protections": ("masked",), "control": False, "seeds": 2}
    begun, rest = Trace(stop_before), Trace()
    with pytest.raises(KeyboardInterrupt):
        sweep(tiny(*PRIVATE), **settings, out=tmp_path, observe=begun.observe, on_run=begun.on_run)
    assert not (tmp_path / "tradeoff.json").exists()
    found = sweep(tiny(*PRIVATE), **settings, out=tmp_path, observe=rest.observe, on_run=rest.on_run)
    whole = [(name, seed, n) for seed in (0, 1) for name in ("isolated", "budget 8, masked") for n in (0, 1)]
    assert begun.rounds + rest.rounds == whole
    assert all(row["obstacle"] is None for row in found["rows"])


def test_without_any_noise_nothing_is_claimed() -> None:
    found = sweep(tiny(), budgets=(math.inf,), protections=("plain",))
    assert (found["unit"], found["delta"]) == (None, None)
    assert all(row["statement"] is None and row["texts"] == [] for row in found["rows"])


def point(accuracy: float, spent: float, cost: float = 1.0, *, against: Adversary | None = None) -> Point:
    statement = PrivacyStatement(
        unit=PrivacyUnit.CLIENT,
        adjacency=Adjacency.ADD_REMOVE,
        epsilon=spent,
        delta=1e-5,
        adversary=against or Adversary.SUM_SERVER,
        accountant=Accountant.CLOSED_FORM,
        releases=("dream_updates",) if spent else (),
    )
    return Point(accuracy=accuracy, statement=statement if spent < math.inf else None, bytes=cost, seconds=1.0)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12))
def test_without_adversaries_it_is_the_pareto_front(values: list[tuple[int, int, int]]) -> None:
    def beaten(one: tuple[int, int, int]) -> bool:
        return any(a >= one[0] and e <= one[1] and c <= one[2] and (a, e, c) != one for a, e, c in values)

    points = [point(a / 3, 1.0 + e, 1.0 + c) for a, e, c in values]
    assert unbeaten(points) == [not beaten(one) for one in values]


def test_a_weaker_claim_beats_no_stronger_one() -> None:
    trusted = point(0.9, 1.0, against=Adversary.RECIPIENT)
    masked, opened = point(0.8, 1.0, 5.0), point(0.8, 1.0, 9.0, against=Adversary.SUM_CLIENT)
    assert unbeaten([trusted, masked, opened]) == [True, True, True]
    assert unbeaten([point(0.95, 1.0), trusted]) == [True, False]
    local = point(0.95, 1.0, against=Adversary.SERVER)
    assert unbeaten([local, trusted, masked, opened]) == [True, False, False, False]
    assert unbeaten([point(0.9, math.inf), point(0.9, 8.0)]) == [False, True], "noise for nothing lost"
    assert unbeaten([point(0.9, 0.0, 0.5), local, opened]) == [True, True, False], "nothing released, nothing learnt"
