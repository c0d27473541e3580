"""An audit's checks at their limits, on doctored plans and on transcripts of every kind of protocol."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from attacks.auditing import checks
from attacks.auditing.checks import (
    blind_check,
    duplicates_check,
    hidden_check,
    learnt_check,
    matched_check,
    null_check,
    references_check,
)
from attacks.auditing.membership_rows import null_auc
from attacks.auditing.observe import Observation
from attacks.auditing.plan import Plan, Size, make_plan
from attacks.laboratory import record_round, replayed
from attacks.membership import references
from attacks.transcript import Transcript
from codream_secure.config import make_config
from codream_secure.data import load_source
from codream_secure.federation import Federation
from codream_secure.methods import Method, find_method
from protocols import Simulation, Terms, make_protocol
from protocols.driver import Envelope

SOURCE = load_source("digits")
SMALL = (
    "data.clients=4",
    "data.samples_per_client=12",
    "data.validation_samples=0",
    "local.warmup_epochs=1",
    "local.epochs=1",
    "run.rounds=1",
    "dreaming.images=8",
    "dreaming.steps=2",
    "dreaming.space={kind='dct', size=2}",
    "distillation.epochs=1",
    "distillation.cutmix=0",
)


@pytest.fixture(scope="module")
def plan() -> Plan:
    config = make_config({}, ["data.samples_per_client=40"])
    return make_plan(config, SOURCE, size=Size(trials=6, canaries=10), seed=5)


@pytest.fixture(scope="module")
def recorded() -> tuple[Method, Transcript]:
    config = make_config({}, [*SMALL])
    method = find_method("codream")(Federation.create(config, source=SOURCE))
    method.federation.channel.begin_round(0)
    method.warm_up()
    return method, record_round(method, 1)


def with_images(plan: Plan, images: torch.Tensor) -> Plan:
    return replace(plan, pool=replace(plan.pool, images=replace(plan.pool.images, images=images)))


@pytest.mark.parametrize("side", ["brighter", "noisier", "darker outside"])
def test_members_that_look_different_are_found_without_a_model(plan: Plan, side: str) -> None:
    images = plan.pool.images.images.float()
    generator = torch.Generator().manual_seed(0)
    changed = {
        "brighter": (images + 0.3).clamp(max=1),
        "noisier": (images + 0.3 * torch.randn(images.shape, generator=generator)).clamp(0, 1),
        "darker outside": images * 0.5,
    }[side]
    which = torch.from_numpy(plan.members[0] == (side != "darker outside")).reshape(-1, 1, 1, 1)
    assert not blind_check(with_images(plan, torch.where(which, changed, images))).passed


def test_random_splits_are_not_called_different() -> None:
    """15 random splits. One fails with 1e-4 where the null is normal, so that none does but in 0.2 % of such draws."""
    config = make_config({}, ["data.samples_per_client=20"])
    for seed in range(15):
        assert blind_check(make_plan(config, SOURCE, size=Size(trials=6, canaries=0), seed=seed)).passed


def test_one_copy_in_twenty_is_allowed_and_one_more_is_not(plan: Plan) -> None:
    images = plan.pool.images.images.clone()
    inside, outside = np.flatnonzero(plan.members[0]), np.flatnonzero(~plan.members[0])
    allowed = len(outside) // 20
    assert allowed > 1
    images[outside[:allowed]] = images[inside[0]].clone()
    assert duplicates_check(with_images(plan, images)).passed
    images[outside[allowed]] = images[inside[0]].clone()
    found = duplicates_check(with_images(plan, images))
    assert not found.passed
    assert found.detail == f"{allowed + 1} of {len(outside)} non-members equal a member"


def test_references_with_the_target_among_them_are_refused(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(members: np.ndarray, target: int, *, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        ins, outs = references(members, target, generator=generator)
        ins[members[target], 0] = target
        return ins, outs

    monkeypatch.setattr(checks, "references", careless)
    found = references_check(plan)
    assert not found.passed
    assert "its own references" in found.detail


@pytest.mark.parametrize("exchanged", [True, False], ids=["exchanged", "unequal in number"])
def test_references_that_are_wrong_or_tell_by_their_number_are_refused(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, exchanged: bool
) -> None:
    def careless(members: np.ndarray, target: int, *, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        ins, outs = references(members, target, generator=generator)
        return (outs, ins) if exchanged else (ins[:, :1], outs)

    monkeypatch.setattr(checks, "references", careless)
    assert not references_check(plan).passed


@pytest.mark.parametrize(("train", "passed"), [(0.9, True), (0.899, False), (1.0, True), (0.1, False)])
def test_victims_have_to_know_nine_of_ten_images_of_their_own(train: float, passed: bool) -> None:
    seen = [Observation(train_accuracy=train, test_accuracy=0.5)] * 6
    found = learnt_check("fedavg", seen)
    assert found.passed is passed
    assert found.name == "victims have learnt (fedavg)"
    assert f"{100 * train:.1f} % on their own images" in found.detail


def test_what_was_never_measured_does_not_count_as_learnt() -> None:
    assert not learnt_check("codream", [Observation()]).passed


def test_methods_may_lie_a_tenth_apart_and_the_detail_says_how_far() -> None:
    assert matched_check({"fedavg": 0.9}).passed
    assert matched_check({"fedavg": 0.75, "codream": 0.66}).passed
    found = matched_check({"fedavg": 0.97, "codream": 0.86, "codream (dp)": 0.9})
    assert not found.passed
    assert "fedavg 97.0 %, codream 86.0 %" in found.detail


def test_scoring_that_finds_something_where_nothing_is_fails() -> None:
    assert all(null_check(value, "x", candidates=800).passed for value in (0.46, 0.5, 0.54))
    assert not any(null_check(value, "x", candidates=800).passed for value in (0.45, 0.55, 1.0))


def test_few_candidates_may_lie_further_from_chance() -> None:
    """The deviation is .33 / sqrt(N) with 6 trials; four of them are allowed."""
    assert null_check(0.6, "x", candidates=160).passed
    assert not null_check(0.6, "x", candidates=400).passed
    assert not null_check(0.62, "x", candidates=160).passed


def test_even_signals_that_tell_memberships_score_at_chance_on_redrawn_ones() -> None:
    """6 trials of 800 candidates, as in a quick audit: the deviation is near .01, and .06 is allowed."""
    generator = np.random.default_rng(0)
    members = np.random.default_rng(1).permuted(np.repeat(np.arange(6)[:, None] < 3, 800, axis=1), axis=0)
    signals = 3.0 * members + generator.standard_normal(members.shape) + 4 * generator.standard_normal(800)
    values = [null_auc(signals, members, generator=generator) for _ in range(8)]
    assert all(null_check(value, "x", candidates=800).passed for value in values)
    assert abs(np.mean(values) - 0.5) < 0.02


@pytest.mark.parametrize(
    ("protection", "detail"),
    [
        ("plain", r"(\d+) of \1 vectors in clear, in .* sums, which the server opened"),
        ("masked", r"0 of \d+ vectors in clear, in .* sums, which the server opened"),
        ("bfv", r"0 of \d+ vectors in clear, in .* sums, which the server could not open"),
    ],
)
def test_the_servers_view_holds_what_each_protocol_shows(
    recorded: tuple[Method, Transcript], protection: str, detail: str
) -> None:
    method, transcript = recorded
    if protection != "plain":
        transcript = replayed(transcript, method, protection, streams=("soft_labels",))
    found = hidden_check(transcript, label=f"codream, {protection}")
    assert found.passed
    assert found.name == f"server's view (codream, {protection})"
    assert re.fullmatch(detail, found.detail)


def test_vectors_beyond_the_bound_of_their_encoding_are_in_clear_all_the_same(
    recorded: tuple[Method, Transcript],
) -> None:
    _, transcript = recorded
    one = next(transcript.sums())
    far = {client: 1e6 * vector for client, vector in one.entered.items()}
    passed: list[Envelope] = []
    terms = Terms(streams={one.stream: transcript.streams[one.stream]}, steps=1)
    simulation = Simulation(make_protocol("plain"), range(transcript.clients), terms=terms, tap=passed.append)
    simulation.open()
    opened = simulation.sum(far, stream=one.stream)
    sent = replace(one, entered=far, envelopes=passed, mean=opened.mean())
    found = hidden_check(replace(transcript, events=[sent]), label="x")
    assert found.passed
    assert found.detail.startswith("4 of 4 vectors in clear")


def test_a_plain_server_that_reads_nothing_or_opens_nothing_fails(recorded: tuple[Method, Transcript]) -> None:
    """Then the record is incomplete, and every probe on it says too little."""
    _, transcript = recorded
    silent = replace(transcript, events=[replace(each, envelopes=[]) for each in transcript.sums()])
    assert not hidden_check(silent, label="x").passed
    unopened = replace(transcript, events=[replace(each, mean=None) for each in transcript.sums()])
    assert not hidden_check(unopened, label="x").passed


def test_vectors_that_a_masked_protocol_sends_in_clear_fail(recorded: tuple[Method, Transcript]) -> None:
    _, transcript = recorded
    assert not hidden_check(replace(transcript, protection="masked"), label="x").passed
