"""CoDream in every space of dreams: what is sent, what is learnt, and that all parties compute the same images."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from codream_secure.channel import Channel
from codream_secure.config import Config, make_config
from codream_secure.dreaming import DreamObjective, ServerOptimizer
from codream_secure.dreaming.synthesis import Schedule, dream_alone, dream_together
from codream_secure.errors import ConfigError
from codream_secure.federation import Federation
from codream_secure.methods.codream import CoDream
from codream_secure.runs import run

SMALL = (
    "local.warmup_epochs=2",
    "local.epochs=1",
    "dreaming.images=12",
    "dreaming.steps=4",
    "distillation.epochs=1",
    "distillation.cutmix=0",
    "data.validation_samples=20",
)
SPACES = {
    "pixels": ((), 64),
    "dct": (("dreaming.space.kind=dct", "dreaming.space.size=3"), 9),
    "subspace": (("dreaming.space.kind=subspace", "dreaming.space.size=16"), 16),
    "latents": (("dreaming.space.kind=latents", "dreaming.space.size=10"), 10),
}
SMALLER = [kind for kind in SPACES if kind != "pixels"]


def config(*overrides: str) -> Config:
    return make_config({}, [*SMALL, *overrides])


def warmed_up(kind: str, *overrides: str) -> CoDream:
    method = CoDream(Federation.create(config(*SPACES[kind][0], *overrides)))
    method.warm_up()
    return method


def start_points(method: CoDream, number: int = 1) -> torch.Tensor:
    return method._space.start(12, method.federation.generator("dreams", number, 0))


def opened(method: CoDream) -> dict[int, DreamObjective]:
    return {
        client.number: DreamObjective(client.model, client.images).__enter__() for client in method.federation.clients
    }


@pytest.mark.parametrize("kind", SPACES)
def test_every_sum_of_updates_has_as_many_values_as_the_points(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, ...]] = []
    mean = Channel.mean

    def spy(channel: Channel, contributions: Mapping[int, Any], *, phase: str, **others: Any) -> list[torch.Tensor]:
        if phase == "dream_updates":
            sent.extend(tuple(tensors[0].shape) for tensors in contributions.values())
        return mean(channel, contributions, phase=phase, **others)

    monkeypatch.setattr(Channel, "mean", spy)
    method = warmed_up(kind)
    figures = method.run_round(1)
    assert len(sent) == 4 * 4
    assert {torch.Size(shape).numel() for shape in sent} == {12 * SPACES[kind][1]}
    assert all(torch.isfinite(torch.tensor(value)) for value in figures.values())
    assert method.federation.channel.ledger.clipped_fraction() == 0


@pytest.mark.parametrize("kind", SPACES)
def test_bytes_are_those_of_points_and_of_labels(kind: str) -> None:
    method = warmed_up(kind)
    method.run_round(1)
    phases = method.federation.channel.ledger.by_phase(2)
    points = 12 * SPACES[kind][1] * 4
    # Four steps begin with the points' way down, and the finished ones go down to be labelled.
    assert phases["dreams"] == (0, 5 * points)
    assert 0 < phases["dream_updates"][0] - 4 * points < 4 * 128


@pytest.mark.parametrize("kind", SPACES)
def test_what_is_stored_labelled_and_shown_are_images(kind: str) -> None:
    method = warmed_up(kind, "dreaming.label_midway=true")
    labelled: list[torch.Tensor] = []
    label = method._label

    def remember(images: torch.Tensor) -> torch.Tensor:
        labelled.append(images.clone())
        return label(images)

    method._label = remember  # type: ignore[method-assign]
    method.run_round(1)
    buffer = method.state_dict()["buffer"]["images"]
    shown = method.dreams()
    assert shown is not None
    assert shown.shape == (12, 1, 8, 8)
    assert not shown.requires_grad
    assert torch.equal(buffer, torch.cat(labelled))
    assert torch.equal(buffer[12:], shown)
    assert not torch.equal(buffer[:12], shown)


@pytest.mark.parametrize("kind", SPACES)
def test_a_step_is_adam_on_the_mean_gradient_by_points(kind: str) -> None:
    """The gradients by points are autograd's, through images and loss at once."""
    method = warmed_up(kind)
    space, start, objectives = method._space, start_points(method), opened(method)
    gradients = []
    for objective in objectives.values():
        leaf = start.clone().requires_grad_()
        loss = torch.stack(list(objective.terms(space.images(leaf)).values())).sum()
        gradients.append(torch.autograd.grad(loss, leaf)[0])
    mean = torch.stack(gradients).mean(dim=0)
    points = dream_together(
        start, objectives, method.federation.channel, schedule=Schedule(steps=1, lr=0.05), space=space
    )
    # Adam's first step is lr * g / (|g| + eps); gradients near the encoding's resolution may round to another sign.
    clear = mean.abs() > 1e-5
    assert clear.float().mean() > 0.8
    expected = start - 0.05 * mean / (mean.abs() + 1e-8)
    torch.testing.assert_close(points[clear], expected[clear], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", SMALLER)
def test_the_servers_gradient_is_pulled_back_to_points(kind: str) -> None:
    """It is large beside the clients', so the one step of plain averaging shows it."""
    method = warmed_up(kind)
    space, start = method._space, start_points(method)
    seen: list[torch.Tensor] = []

    def wish(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return images - 3.0

    schedule = Schedule(steps=1, optimizer="fedavg", lr=1.0)
    without, with_it = (
        dream_together(
            start, opened(method), method.federation.channel, schedule=schedule, space=space, server_gradient=gradient
        )
        for gradient in (None, wish)
    )
    leaf = start.clone().requires_grad_()
    (expected,) = torch.autograd.grad((space.images(leaf) - 3.0).square().sum() / 2, leaf)
    torch.testing.assert_close(without - with_it, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(seen[0], space.images(start))


@pytest.mark.parametrize("form", ["jsd", "server_entropy"])
@pytest.mark.parametrize("kind", SMALLER)
def test_both_forms_of_adaptive_teaching_change_the_dreams(kind: str, form: str) -> None:
    student = ("model.server=mlp", "dreaming.features=0")
    method = warmed_up(kind, *student, f"dreaming.adaptive={form}", "dreaming.adaptive_from_round=1")
    without = warmed_up(kind, *student)
    method.run_round(1)
    without.run_round(1)
    one, other = method.dreams(), without.dreams()
    assert one is not None
    assert other is not None
    assert not torch.equal(one, other)
    assert torch.isfinite(one).all()


@pytest.mark.parametrize("kind", SMALLER)
def test_dreaming_alone_moves_each_clients_own_points(kind: str) -> None:
    method = warmed_up(kind)
    start, schedule, objectives = start_points(method), Schedule(steps=3), opened(method)
    points = dream_alone(start, objectives, method.federation.channel, schedule=schedule, space=method._space)
    own = ServerOptimizer(start[3:6], lr=schedule.lr)
    for _ in range(3):
        own.step(method._space.pull_back(objectives[1].gradient)(own.dreams))
    assert points.shape == start.shape
    torch.testing.assert_close(points[3:6], own.dreams)


@pytest.mark.parametrize("kind", SMALLER)
def test_dreaming_alone_runs(kind: str) -> None:
    method = warmed_up(kind, "dreaming.collaborative=false")
    method.run_round(1)
    assert method.dreams().shape == (12, 1, 8, 8)
    sent, _ = method.federation.channel.ledger.by_phase(0)["dreams"]
    assert 0 < sent - 12 * SPACES[kind][1] * 4 < 128


def test_local_steps_are_taken_in_the_space() -> None:
    method = warmed_up("dct", "dreaming.local_steps=3", "dreaming.optimizer=fedadam")
    method.run_round(1)
    single = warmed_up("dct", "dreaming.optimizer=fedadam")
    single.run_round(1)
    assert torch.isfinite(method.dreams()).all()
    assert not torch.equal(method.dreams(), single.dreams())


@pytest.mark.parametrize("kind", SMALLER)
def test_dreams_of_a_linear_space_or_of_latents_lie_in_it_whatever_clients_want(kind: str) -> None:
    """An image is in the space if the nearest point's image is the image itself."""
    method = warmed_up(kind)
    method.run_round(1)
    dreams, space = method.dreams(), method._space
    assert dreams is not None
    if kind == "latents":
        source = method.federation.source
        assert dreams.min() >= (0 - source.mean[0]) / source.std[0] - 1e-5
        assert dreams.max() <= (1 - source.mean[0]) / source.std[0] + 1e-5
        return
    basis = space.images(torch.eye(space.coordinates)).flatten(1)
    nearest = torch.linalg.lstsq(basis.T, dreams.flatten(1).T).solution
    torch.testing.assert_close((basis.T @ nearest).T, dreams.flatten(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", SMALLER)
@pytest.mark.parametrize("protection", ["masked", "bfv"])
def test_protected_runs_end_with_the_weights_of_plain_runs(kind: str, protection: str) -> None:
    found = [
        run(
            config(*SPACES[kind][0], "run.rounds=1", "dreaming.label_midway=true", f"protocol.protection={protection}")
        ).summary
        for protection in ("plain", protection)
    ]
    assert found[0]["weights_sha256"] == found[1]["weights_sha256"]


@pytest.mark.parametrize("kind", SMALLER)
def test_where_clients_open_sums_the_server_is_shown_the_first_points_only(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, ...]] = []
    broadcast = Channel.broadcast

    def spy(channel: Channel, tensors: Sequence[torch.Tensor], *, phase: str) -> list[torch.Tensor]:
        shown.extend(tuple(tensor.shape) for tensor in tensors)
        return broadcast(channel, tensors, phase=phase)

    monkeypatch.setattr(Channel, "broadcast", spy)
    run(config(*SPACES[kind][0], "run.rounds=1", "protocol.protection=bfv"))
    assert shown == [(12, SPACES[kind][1])]


@pytest.mark.parametrize("kind", SMALLER)
def test_a_method_continues_from_its_state_in_the_same_space(kind: str) -> None:
    whole, first = warmed_up(kind), warmed_up(kind)
    for number in (1, 2):
        whole.run_round(number)
    first.run_round(1)
    second = CoDream(Federation.create(config(*SPACES[kind][0])))
    second.load_state_dict(first.state_dict())
    second.run_round(2)
    assert torch.equal(whole.dreams(), second.dreams())
    for one, other in zip(whole.models(), second.models(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_default_is_pixels_and_settings_survive_toml() -> None:
    assert make_config().dreaming.space.kind == "pixels"
    given = config("dreaming.space.kind=latents", "dreaming.space.size=10")
    assert make_config(tomllib.loads(given.to_toml())) == given


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("dreaming.space.size=4",), "dreaming.space.size is 4, but pixels"),
        (("dreaming.space.kind=dct",), "dreaming.space.kind is 'dct': set dreaming.space.size, for example 4"),
        (("dreaming.space.kind=dct", "dreaming.space.size=0"), "dreaming.space.size: .*greater than or equal to 1"),
        (("dreaming.space.kind=dtc", "dreaming.space.size=4"), "dreaming.space.kind"),
        (("dreaming.space.sise=4",), "did you mean 'dreaming.space.size'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config({}, overrides)


def test_a_size_that_the_images_do_not_have_is_refused_when_they_are_known() -> None:
    with pytest.raises(ConfigError, match="dreaming.space.size is 9: for 'dct' on images of 1x8x8 use 1 to 8"):
        CoDream(Federation.create(config("dreaming.space.kind=dct", "dreaming.space.size=9")))
