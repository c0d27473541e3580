"""The published LiRA comparison: which models are asked, how they are scored, and what the table says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from attacks.auditing.plan import Plan, Size, make_plan
from attacks.shadows import rebuild, train_trials
from attacks.shadows.trial import Trained
from codream_secure.config import Config, make_config
from codream_secure.data import load_source
from codream_secure.errors import ConfigError
from experiments.published_lira import (
    COMPARED,
    METHODS,
    PUBLISHED,
    UNREHEARSED,
    attack,
    choose_arms,
    halved,
    main,
    without_root,
)
from experiments.released_models import (
    GLOBAL,
    OTHER,
    OWN,
    STUDENT,
    TUNED,
    Answers,
    Judged,
    answers_of,
    judged,
    released_rows,
    set_side_by_side,
)
from experiments.tables import released_markdown

TRIALS = 6
SMALL = [
    "data.clients=2",
    "data.samples_per_client=20",
    "local.epochs=2",
    "run.rounds=1",
    "model.server=small_cnn",
    "dreaming.images=8",
    "dreaming.steps=2",
    "distillation.epochs=1",
    "distillation.buffer=8",
]


@pytest.fixture(scope="module")
def config() -> Config:
    return make_config({}, SMALL)


@pytest.fixture(scope="module")
def plan(config: Config) -> Plan:
    return make_plan(config, load_source("digits"), size=Size(trials=TRIALS, canaries=0), seed=0)


def trained_on(plan: Plan, config: Config, trials: int = TRIALS) -> list[Trained]:
    return train_trials(config, plan.source, plan.pool, plan.members[:trials], seed=0)


def test_methods_differ_in_nothing_but_what_makes_them(config: Config) -> None:
    isolated, fedavg, codream, unrehearsed = (arm.config for arm in choose_arms(config))
    assert [arm.method for arm in choose_arms(config)] == list(METHODS)
    assert (isolated.method, fedavg.method, codream.method, unrehearsed.method) == (
        "isolated",
        "fedavg",
        *2 * ["codream"],
    )
    for each in (isolated, fedavg, unrehearsed):
        assert each.data == codream.data
        assert each.local == codream.local
        assert each.run == codream.run
        assert each.model.clients == codream.model.clients
    assert codream.distillation.rehearsal == 1
    assert unrehearsed == codream.model_copy(
        update={"distillation": codream.distillation.model_copy(update={"rehearsal": 0.0})}
    )


@pytest.mark.parametrize("names", [[], ["fedprox"], ["codream", "codream"]])
def test_unusable_methods_are_refused(config: Config, names: list[str]) -> None:
    with pytest.raises(ConfigError, match="--methods is"):
        choose_arms(config, names)


def test_noise_is_refused() -> None:
    private = make_config(
        {}, [*SMALL, "dp.unit=client", "dp.epsilon=8", "dp.delta=0.01", "dreaming.labels=probabilities"]
    )
    with pytest.raises(ConfigError, match="dp.unit is 'client'"):
        choose_arms(private)


def test_each_candidate_is_asked_of_the_model_that_the_row_names(config: Config, plan: Plan) -> None:
    (arm,) = choose_arms(config, ["codream"])
    (trained,) = trained_on(plan, arm.config, 1)
    method = rebuild(arm.config, plan.source, plan.pool, torch.from_numpy(plan.members[0]), trained)
    images = plan.pool.images.normalised(plan.source.mean, plan.source.std)
    labels, owners = plan.pool.images.labels, plan.pool.owners
    found = answers_of(method, images, labels, owners=owners)
    assert list(found) == [OWN, OTHER, STUDENT]
    first, second = method.models()
    student = method.server_model()
    assert student is not None
    for candidate in range(12):
        asked = {OWN: (first, second)[owners[candidate]], OTHER: (second, first)[owners[candidate]], STUDENT: student}
        for name, model in asked.items():
            model.eval()
            with torch.no_grad():
                logits = model(images[candidate : candidate + 1]).double()[0]
            likely = logits.softmax(dim=0)[labels[candidate]].item()
            assert found[name].signal[candidate] == pytest.approx(np.log(likely / (1 - likely)), abs=1e-4)
            assert found[name].correct[candidate] == (logits.argmax() == labels[candidate]).item()
    assert found[OWN].test_accuracy == pytest.approx(np.mean(trained.test_accuracy))


def test_fedavg_releases_one_model_and_each_clients_copy_fits_its_own_images_better(config: Config, plan: Plan) -> None:
    (arm,) = choose_arms(config, ["fedavg"])
    shared, tuned = attack(arm, plan, trained_on(plan, arm.config))
    assert (shared.model, tuned.model) == (GLOBAL, TUNED)
    assert tuned.signals[plan.members].mean() > shared.signals[plan.members].mean()
    assert not np.array_equal(tuned.signals, shared.signals)


def test_alone_a_client_tells_of_its_own_images_and_not_of_others(config: Config, plan: Plan) -> None:
    (arm,) = choose_arms(config, ["isolated"])
    own, other = attack(arm, plan, trained_on(plan, arm.config))
    assert (own.model, other.model) == (OWN, OTHER)
    (row, *_), (control, *_) = (released_rows(each, plan.members, seed=0) for each in (own, other))
    assert row.low is not None
    assert row.low > 0.6
    assert control.low is not None
    assert control.high is not None
    assert control.low < 0.5 < control.high
    assert own.train_accuracy.mean() > own.test_accuracy.mean()


def random_answers(members: np.ndarray, *, lift: float, seed: int) -> list[Answers]:
    signals = np.random.default_rng(seed).normal(size=members.shape) + lift * members
    return [Answers(signal=row, correct=row > 0, test_accuracy=0.5) for row in signals]


@pytest.fixture(scope="module")
def members() -> np.ndarray:
    """(12, 200), as many non-members as a rate of 0.1 % takes, and 200 more."""
    order = np.random.default_rng(7).random((12, 200)).argsort(axis=0)
    return order < 6


@pytest.fixture(scope="module")
def three(members: np.ndarray) -> list[Judged]:
    lifts = zip(COMPARED, (3.0, 1.5, 0.0), strict=True)
    return [
        judged(*place, random_answers(members, lift=lift, seed=seed), members, seed=0)
        for seed, (place, lift) in enumerate(lifts)
    ]


def test_figures_are_those_of_an_independent_implementation(three: list[Judged], members: np.ndarray) -> None:
    for each in three:
        rows = {row.metric: row for row in released_rows(each, members, seed=0)}
        assert rows["AUC"].value == pytest.approx(roc_auc_score(members.ravel(), each.scores.ravel()))
        fpr, tpr, _ = roc_curve(members.ravel(), each.scores.ravel(), drop_intermediate=False)
        for rate, metric in ((0.01, "TPR@1%FPR"), (0.001, "TPR@0.1%FPR")):
            assert rows[metric].value == pytest.approx(tpr[fpr <= rate].max())
        alone = [roc_auc_score(inside, row) for inside, row in zip(members, each.scores, strict=True)]
        assert each.targets(members) == pytest.approx(alone)


def test_the_order_has_differences_with_intervals_and_a_count_of_targets(
    three: list[Judged], members: np.ndarray
) -> None:
    order = set_side_by_side(three, COMPARED, members, seed=0)
    assert order["models"] == [list(place) for place in COMPARED]
    assert (order["falling"], order["targets"]) == (12, 12)
    pairs = ((0, 1), (0, 2), (1, 2))
    assert [(each["of"], each["over"]) for each in order["differences"]] == [
        (COMPARED[above][0], COMPARED[below][0]) for above, below in pairs
    ]
    for each, (above, below) in zip(order["differences"], pairs, strict=True):
        expected = [roc_auc_score(members.ravel(), three[place].scores.ravel()) for place in (above, below)]
        assert each["value"] == pytest.approx(expected[0] - expected[1])
        assert 0 < each["low"] < each["value"] < each["high"]
    turned = set_side_by_side(three, COMPARED[::-1], members, seed=0)
    assert turned["falling"] == 0
    assert turned["differences"][0]["value"] == pytest.approx(-order["differences"][2]["value"])
    same = set_side_by_side([three[0], three[0]], [COMPARED[0], COMPARED[0]], members, seed=0)
    assert same["differences"][0]["low"] == same["differences"][0]["high"] == 0
    assert set_side_by_side(three[:1], COMPARED, members, seed=0)["differences"] == []


def test_the_table_has_what_was_found_beside_what_was_printed(three: list[Judged], members: np.ndarray) -> None:
    found = {
        "published": PUBLISHED,
        "released": [each.to_json(members) for each in three],
        "rows": [row.to_json() for each in three for row in released_rows(each, members, seed=0)],
        "order": set_side_by_side(three, COMPARED, members, seed=0),
    }
    _, _, isolated, fedavg, codream, _, order = released_markdown(found).splitlines()
    assert isolated.startswith(f"| isolated: {OWN} | ")
    assert isolated.endswith(" | 0.656 | 0.724 |")
    assert fedavg.endswith(" | 0.632 | 0.537 |")
    value = roc_auc_score(members.ravel(), three[2].scores.ravel())
    assert f" | 50.0 | {value:.3f} (" in codream
    assert order.endswith("The order isolated > fedavg > codream holds in 12 of 12 single targets.")
    few = members[:, :60]
    small = judged(*COMPARED[0], random_answers(few, lift=1.0, seed=0), few, seed=0)
    found = {
        **found,
        "released": [small.to_json(few)],
        "rows": [row.to_json() for row in released_rows(small, few, seed=0)],
        "order": set_side_by_side([small], COMPARED, few, seed=0),
    }
    assert "| not resolvable |" in released_markdown(found)
    assert "The order" not in released_markdown(found)


def test_halved_images_are_means_of_four_pixels() -> None:
    source = load_source("digits")
    small = halved(source)
    assert small.image_size == (4, 4)
    expected = source.train.images[5, 0, 2:4, 4:6].mean()
    assert small.train.images[5, 0, 1, 2] == pytest.approx(expected.item())
    assert torch.equal(small.train.labels, source.train.labels)
    parts = {part: getattr(source, part) for part in ("train", "test")}
    counted = replace(
        source, **{name: replace(part, images=(part.images * 16).to(torch.uint8)) for name, part in parts.items()}
    )
    rounded = halved(counted).train.images
    assert rounded.dtype == torch.uint8
    assert (rounded.float() - 16 * small.train.images).abs().max() <= 0.5
    with pytest.raises(ConfigError, match=r"--halve with images of \(1, 1\) pixels"):
        halved(halved(halved(small)))


def test_the_result_does_not_name_the_folder_of_the_data() -> None:
    config = make_config({"data": {"root": "/somewhere", "source": "npz:mine.npz"}})
    assert "somewhere" in config.to_toml()
    assert "somewhere" not in without_root(config).to_toml()
    assert without_root(config).data.source == "npz:mine.npz"


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(out=tmp_path, methods="isolated; fedavg", overrides=SMALL, trials=TRIALS, source=None, root=None, workers=1)
    found = json.loads((tmp_path / "published_lira.json").read_text())
    printed = capsys.readouterr().out
    assert released_markdown(found) in printed
    assert f"isolated: {OTHER}" in printed
    assert UNREHEARSED not in printed
    assert found["environment"]["torch_threads"] == 1
    assert found["references"] == TRIALS - 2
    assert found["valid"]
    assert {row["metric"] for row in found["rows"]} >= {"AUC", "TPR@1%FPR", "TPR@0.1%FPR"}
