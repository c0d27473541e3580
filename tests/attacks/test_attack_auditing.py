"""The checks of an audit fail when they should, and several seeds become one document."""

from __future__ import annotations

import gc
from dataclasses import replace
from types import FunctionType, ModuleType

import numpy as np
import pytest
import torch

from attacks.auditing.arms import Claim, arms_of
from attacks.auditing.checks import blind_check, duplicates_check, learnt_check, matched_check, references_check
from attacks.auditing.document import document, mean_victims, over_seeds
from attacks.auditing.findings import Findings
from attacks.auditing.observe import Observation
from attacks.auditing.plan import Plan, Size, make_plan, public_side
from attacks.probes.registry import MEMBERSHIP, choose
from attacks.rows import Check, Row
from codream_secure.config import make_config
from codream_secure.data import load_source
from codream_secure.errors import ConfigError

SOURCE = load_source("digits")


@pytest.fixture(scope="module")
def plan() -> Plan:
    config = make_config({}, ["data.samples_per_client=50"])
    return make_plan(config, SOURCE, size=Size(trials=6, canaries=20), seed=0)


def with_images(plan: Plan, images: torch.Tensor) -> Plan:
    return replace(plan, pool=replace(plan.pool, images=replace(plan.pool.images, images=images)))


def test_a_plan_is_balanced_and_its_canaries_have_wrong_labels(plan: Plan) -> None:
    honest = make_plan(make_config({}, ["data.samples_per_client=50"]), SOURCE, size=Size(trials=6, canaries=0), seed=0)
    assert (plan.members.sum(axis=0) == 3).all()
    differ = (plan.pool.images.labels != honest.pool.images.labels).numpy()
    assert np.array_equal(differ, plan.canaries)
    assert plan.canaries.sum() == 20


def test_memberships_cannot_be_reached_from_public_knowledge(plan: Plan) -> None:
    public = public_side(plan, make_config({}, ["data.samples_per_client=50"]))
    waiting: list[object] = [public, *(cell.cell_contents for cell in public.new_model.__closure__ or ())]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        assert one is not plan.members
        assert not isinstance(one, Plan)
        if id(one) not in seen and not isinstance(one, type | ModuleType | FunctionType):
            seen.add(id(one))
            waiting += gc.get_referents(one)


def test_checks_pass_on_a_random_split(plan: Plan) -> None:
    assert blind_check(plan).passed
    assert duplicates_check(plan).passed
    assert references_check(plan).passed


def test_members_that_are_brighter_are_found_without_a_model(plan: Plan) -> None:
    images = plan.pool.images.images.float()
    brighter = torch.from_numpy(plan.members[0]).reshape(-1, 1, 1, 1)
    check = blind_check(with_images(plan, torch.where(brighter, (images + 0.3).clamp(max=1.0), images)))
    assert not check.passed
    assert "must lie near .5" in check.detail


def test_copies_of_members_among_the_others_are_found(plan: Plan) -> None:
    images = plan.pool.images.images.clone()
    inside = np.flatnonzero(plan.members[0])
    outside = np.flatnonzero(~plan.members[0])[:60]
    images[outside] = images[inside[: len(outside)]]
    assert not duplicates_check(with_images(plan, images)).passed


def test_victims_that_do_not_know_their_images_make_an_audit_invalid() -> None:
    seen = [Observation(train_accuracy=0.5, test_accuracy=0.45)] * 6
    assert not learnt_check("codream", seen).passed
    assert learnt_check("codream", [Observation(train_accuracy=1.0, test_accuracy=0.9)] * 6).passed


def test_methods_of_very_different_accuracy_are_not_compared() -> None:
    assert matched_check({"fedavg": 0.95, "codream": 0.92}).passed
    assert not matched_check({"fedavg": 0.95, "codream": 0.7}).passed


def row(value: float | None, note: str = "") -> Row:
    return Row(
        method="codream",
        protection="plain",
        adversary="server",
        active=False,
        probe="weights sent, LiRA",
        metric="AUC",
        value=value,
        control=0.5,
        n=10,
        note=note,
    )


def test_several_seeds_give_a_mean_with_students_interval_and_their_own_rows() -> None:
    mean, *own = over_seeds({0: [row(0.5)], 1: [row(0.6)], 2: [row(0.7)]})
    assert mean.seed is None
    assert mean.value == pytest.approx(0.6)
    # t of 2 degrees of freedom is 4.303; the standard deviation .1; the root of 3.
    assert mean.high == pytest.approx(0.6 + 4.3027 * 0.1 / 3**0.5, abs=1e-4)
    assert [each.seed for each in own] == [0, 1, 2]
    assert over_seeds({4: [row(0.5)]}) == [replace(row(0.5), seed=4)]


def test_seeds_that_agree_by_luck_do_not_make_an_interval_that_they_have_not() -> None:
    each = replace(row(1.0), metric="rank 1 of 100", low=0.4, high=1.0)
    mean, *_ = over_seeds({0: [each], 1: [each], 2: [each]})
    assert (mean.value, mean.high) == (1.0, 1.0)
    assert mean.low == pytest.approx(1 - 0.6 * 3**0.5 / 3)


def test_victims_are_those_of_all_seeds() -> None:
    one = {"method": "fedavg", "train_accuracy": [0.9, 0.1], "test_accuracy": [0.8, 0.0], "trials": 6}
    other = {"method": "fedavg", "train_accuracy": [1.0, 0.0], "test_accuracy": [0.6, 0.2], "trials": 6}
    (found,) = mean_victims([[one], [other]])
    assert found == {
        "method": "fedavg",
        "train_accuracy": pytest.approx([0.95, 0.05]),
        "test_accuracy": pytest.approx([0.7, 0.1]),
        "trials": 12,
    }


def test_one_failed_check_makes_the_whole_audit_invalid() -> None:
    def made(*passed: bool) -> bool:
        checks = [Check(name=f"check {place}", passed=each, detail="") for place, each in enumerate(passed)]
        found = document(
            {0: Findings(rows=[row(None, "not in view: hidden")], checks=checks)},
            title="t",
            command="c",
            config="",
            adversaries=["server"],
            active=False,
        )
        return bool(found["valid"])

    assert made(True, True)
    assert not made(True, False)


def test_arms_are_fedavg_of_one_architecture_codream_and_what_is_claimed() -> None:
    config = make_config(
        {},
        [
            "data.clients=2",
            "model.clients=['small_cnn', 'mlp']",
            "dp.unit=example",
            "dp.epsilon=3",
            "dreaming.moments=channel",
            "dreaming.labels=probabilities",
        ],
    )
    fedavg, codream, private = arms_of(config, protections=("plain", "masked"))
    assert fedavg.config.model.clients == ("small_cnn",)
    assert codream.config.model.clients == ("small_cnn", "mlp")
    assert not codream.private
    assert private.protections == (("example-dp", "plain"),)
    with pytest.raises(ConfigError, match="protection 'mask' is unknown"):
        arms_of(config, protections=("mask",))


def test_claims_are_arms_beside_the_open_ones() -> None:
    config = make_config(
        {}, ["data.clients=4", "protocol.protection=bfv", "dreaming.labels=probabilities", "dreaming.moments=channel"]
    )
    claims = [Claim.parse("client:1"), Claim.parse("example:2.5"), Claim.parse("client:1")]
    *opened, client, example = arms_of(config, protections=("plain",), claims=claims)
    assert [arm.method for arm in opened] == ["fedavg", "codream"]
    assert client.protections == (("client-dp 1", "masked"),)
    assert client.config.dp.epsilon == 1
    assert not client.config.dp.by_server(client.config.protocol.protection)
    assert example.protections == (("example-dp 2.5", "bfv"),)
    for text in ("client", "server:1", "client:0", "example:inf", "client:nan", "client:x", ""):
        with pytest.raises(ConfigError, match="write client:1 or example:8"):
            Claim.parse(text)


def test_probes_are_chosen_by_name_adversary_and_activity() -> None:
    assert choose() == list(MEMBERSHIP)
    assert not any(probe.active for probe in choose(active=False))
    assert {probe.adversary for probe in choose(adversaries=("public",))} == {"public"}
    with pytest.raises(ConfigError, match="probe 'magic' is unknown"):
        choose(names=("magic",))
    with pytest.raises(ConfigError, match="no probe is left"):
        choose(names=("labels of named dreams",), active=False)


def test_sizes_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="trials is 5"):
        Size(trials=5)
