"""CoDream's rounds: what is learnt, what is sent, and the faults of the published code that must not come back."""

from __future__ import annotations

import pytest
import torch

from codream_secure.config import Config, make_config
from codream_secure.dreaming import DreamObjective, ServerOptimizer
from codream_secure.dreaming.synthesis import Schedule, dream_alone, dream_together
from codream_secure.errors import ConfigError
from codream_secure.federation import Federation
from codream_secure.methods.codream import CoDream
from codream_secure.methods.fedavg import averaged_tensors
from codream_secure.training import predict

SMALL = (
    "local.warmup_epochs=2",
    "local.epochs=1",
    "dreaming.images=12",
    "dreaming.steps=4",
    "distillation.epochs=1",
    "distillation.cutmix=0",
    "data.validation_samples=20",
)

FRAME = 128
"""More than the fixed part of any message of a plain sum."""


def config(*overrides: str) -> Config:
    return make_config({}, [*SMALL, *overrides])


def warmed_up(*overrides: str) -> CoDream:
    method = CoDream(Federation.create(config(*overrides)))
    method.warm_up()
    return method


def start_noise(method: CoDream, number: int = 1) -> torch.Tensor:
    return torch.randn(12, 1, 8, 8, generator=method.federation.generator("dreams", number, 0))


def test_a_dream_step_is_adam_on_the_mean_of_the_clients_gradients() -> None:
    method = warmed_up("dreaming.steps=1")
    start = start_noise(method)
    gradients = []
    for client in method.federation.clients:
        with DreamObjective(client.model, client.images) as objective:
            gradients.append(objective.gradient(start))
    mean = torch.stack(gradients).mean(dim=0)
    opened = {
        client.number: DreamObjective(client.model, client.images).__enter__() for client in method.federation.clients
    }
    dreams = dream_together(start, opened, method.federation.channel, schedule=Schedule(steps=1, lr=0.05))
    # Adam's first step is lr * g / (|g| + eps).
    torch.testing.assert_close(dreams, start - 0.05 * mean / (mean.abs() + 1e-8), rtol=1e-3, atol=1e-4)


def test_bytes_of_a_round_are_steps_times_dreams_plus_labels() -> None:
    method = warmed_up()
    method.run_round(1)
    dreams, labels = 12 * 64 * 4, 12 * 10 * 4
    phases = method.federation.channel.ledger.by_phase(3)
    assert set(phases) == {"dream_updates", "dreams", "soft_labels", "protocol_setup"}
    assert phases["dreams"] == (0, 5 * dreams)
    assert 0 < phases["dream_updates"][0] - 4 * dreams < 4 * FRAME
    assert phases["dream_updates"][1] < 4 * FRAME
    assert all(0 < found - labels < FRAME for found in phases["soft_labels"])


def test_soft_labels_are_the_mean_of_the_clients_logits() -> None:
    method = warmed_up("dreaming.steps=0")
    start = start_noise(method)
    with torch.no_grad():
        expected = torch.stack([client.model.eval()(start) for client in method.federation.clients]).mean(dim=0)
    method.run_round(1)
    state = method.state_dict()
    torch.testing.assert_close(state["buffer"]["labels"], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(state["buffer"]["images"], start)


def test_probability_labels_are_logarithms_of_mean_probabilities() -> None:
    method = warmed_up("dreaming.steps=0", "dreaming.labels=probabilities")
    start = start_noise(method)
    with torch.no_grad():
        probabilities = [client.model.eval()(start).softmax(dim=1) for client in method.federation.clients]
    method.run_round(1)
    labels = method.state_dict()["buffer"]["labels"]
    torch.testing.assert_close(labels.softmax(dim=1), torch.stack(probabilities).mean(dim=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("midway", [False, True])
def test_labelling_midway_does_not_disturb_the_optimiser(midway: bool) -> None:
    """In the published code Adam started afresh after the labelling at R/2, and that entry's images changed later."""
    plain, labelled = warmed_up(), warmed_up("dreaming.label_midway=true")
    seen: list[torch.Tensor] = []
    store = labelled._store

    def remember(dreams: torch.Tensor) -> None:
        seen.append(dreams.clone())
        store(dreams)

    labelled._store = remember  # type: ignore[method-assign]
    plain.run_round(1)
    labelled.run_round(1)
    assert torch.equal(plain.dreams(), labelled.dreams())
    images = labelled.state_dict()["buffer"]["images"]
    assert len(images) == 24
    assert torch.equal(images[:12], seen[0])
    assert not torch.equal(images[:12], images[12:])


def test_clients_of_four_architectures_dream_together() -> None:
    """In the published code heterogeneous clients crashed outside the fast variant."""
    method = warmed_up('model.clients=["small_cnn", "lenet5", "small_cnn_gn", "mlp"]')
    figures = method.run_round(1)
    assert all(torch.isfinite(torch.tensor(value)) for value in figures.values())
    assert not torch.equal(method.dreams(), start_noise(method))


@pytest.mark.parametrize("form", ["none", "jsd", "server_entropy"])
def test_each_form_of_adaptive_teaching_runs_and_changes_the_dreams(form: str) -> None:
    """In the published code turning adaptive teaching off crashed."""
    method = warmed_up(
        "model.server=mlp", f"dreaming.adaptive={form}", "dreaming.features=0", "dreaming.adaptive_from_round=1"
    )
    without = warmed_up("model.server=mlp", "dreaming.features=0")
    method.run_round(1)
    without.run_round(1)
    assert torch.equal(method.dreams(), without.dreams()) == (form == "none")
    assert torch.isfinite(method.dreams()).all()


def test_adaptive_teaching_waits_for_its_round() -> None:
    late = warmed_up("model.server=mlp", "dreaming.adaptive=jsd", "dreaming.adaptive_from_round=2")
    never = warmed_up("model.server=mlp")
    for number, equal in ((1, True), (2, False)):
        late.run_round(number)
        never.run_round(number)
        assert torch.equal(late.dreams(), never.dreams()) is equal


def test_the_students_way_to_the_clients_is_counted() -> None:
    method = warmed_up("model.server=mlp", "dreaming.adaptive=jsd", "dreaming.adaptive_from_round=1")
    student = method.server_model()
    assert student is not None
    size = 4 * sum(tensor.numel() for tensor in averaged_tensors(student))
    method.run_round(1)
    assert method.federation.channel.ledger.by_phase(0)["student"] == (0, size)


def test_dreaming_alone_uses_each_clients_own_model_on_its_own_slice() -> None:
    method = warmed_up()
    clients = method.federation.clients
    start = start_noise(method)
    schedule = Schedule(steps=3)
    opened = {client.number: DreamObjective(client.model, client.images).__enter__() for client in clients}
    dreams = dream_alone(start, opened, method.federation.channel, schedule=schedule)
    own = ServerOptimizer(start[3:6], lr=schedule.lr)
    for _ in range(3):
        own.step(opened[1].gradient(own.dreams))
    alone = own.dreams
    torch.testing.assert_close(dreams[3:6], alone)
    with pytest.raises(ValueError, match="start has 3 dreams for 4 clients"):
        dream_alone(start[:3], opened, method.federation.channel, schedule=schedule)


def test_dreaming_touches_no_model() -> None:
    """In the published code dreaming could run in train mode and overwrite batch-norm statistics."""
    method = warmed_up("distillation.epochs=0", "local.epochs=0")
    before = [{k: v.clone() for k, v in client.model.state_dict().items()} for client in method.federation.clients]
    method.run_round(1)
    for client, state in zip(method.federation.clients, before, strict=True):
        after = client.model.state_dict()
        assert all(torch.equal(state[key], after[key]) for key in state)


@pytest.mark.parametrize(
    "overrides",
    [
        ("data.clients=1",),
        ("data.samples_per_client=1",),
        ("data.partition=classes", "data.classes_per_client=1"),
        ("dreaming.images=1",),
        ("local.batch_size=1", "distillation.batch_size=1", "data.samples_per_client=3"),
    ],
    ids=["one client", "one image", "one class", "one dream", "batches of one"],
)
@pytest.mark.parametrize("architecture", ["small_cnn", "lenet5"])
def test_tiny_federations_train_with_finite_numbers(overrides: tuple[str, ...], architecture: str) -> None:
    method = warmed_up(*overrides, f"model.clients={architecture}")
    figures = method.run_round(1)
    assert all(torch.isfinite(torch.tensor(value)) for value in figures.values())
    for client in method.federation.clients:
        assert all(torch.isfinite(tensor).all() for tensor in averaged_tensors(client.model))


def test_a_method_continues_from_its_state() -> None:
    whole, first = warmed_up("model.server=mlp"), warmed_up("model.server=mlp")
    for number in (1, 2):
        whole.run_round(number)
    first.run_round(1)
    second = CoDream(Federation.create(config("model.server=mlp")))
    second.load_state_dict(first.state_dict())
    second.run_round(2)
    for one, other in zip(whole.models(), second.models(), strict=True):
        for a, b in zip(averaged_tensors(one), averaged_tensors(other), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("relabel", [False, True])
def test_relabelling_asks_todays_models_about_yesterdays_dreams(relabel: bool) -> None:
    method = warmed_up(f"distillation.relabel={str(relabel).lower()}", "dreaming.steps=1")
    method.run_round(1)
    first = method.state_dict()["buffer"]
    with torch.no_grad():
        todays = torch.stack([model.eval()(first["images"]) for model in method.models()]).mean(dim=0)
    method.run_round(2)
    second = method.state_dict()["buffer"]
    assert torch.equal(second["images"][:12], first["images"])
    assert len(second["images"]) == 24
    expected = todays if relabel else first["labels"]
    torch.testing.assert_close(second["labels"][:12], expected, rtol=1e-3, atol=1e-3)
    sent, _ = method.federation.channel.ledger.by_phase(0)["soft_labels"]
    assert sent // (12 * 10 * 4) == (3 if relabel else 2)


def test_rehearsal_keeps_a_clients_own_images_in_mind() -> None:
    losses = {}
    for weight in (0.0, 1.0):
        method = warmed_up(
            f"distillation.rehearsal={weight}", "local.epochs=0", "local.warmup_epochs=20", "distillation.epochs=20"
        )
        for number in (1, 2):
            method.run_round(number)
        client = method.federation.clients[0]
        losses[weight] = torch.nn.functional.cross_entropy(predict(client.model, client.images), client.labels).item()
    assert losses[1.0] < 0.5 * losses[0.0]


def test_cutmix_copies_cost_their_labels_and_nothing_else() -> None:
    plain, mixed = warmed_up(), warmed_up("distillation.cutmix=2")
    for method in (plain, mixed):
        method.run_round(1)
    before, after = (method.federation.channel.ledger.by_phase(0) for method in (plain, mixed))
    labels = 12 * 10 * 4
    assert [found // labels for found in after.pop("soft_labels")] == [3, 3]
    assert [found // labels for found in before.pop("soft_labels")] == [1, 1]
    assert before == after
    assert len(mixed.state_dict()["buffer"]["images"]) == 12


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("dreaming.collaborative=false", "dreaming.label_midway=true"), "at least two collaborative steps"),
        (("dreaming.steps=1", "dreaming.label_midway=true"), "at least two collaborative steps"),
        (("dreaming.collaborative=false", "dreaming.images=3"), "each of 4 clients"),
        (("distillation.buffer=11",), "must hold a batch of 12 dreams"),
        (("model.server=mlp", "dreaming.adaptive=server_entropy", "dreaming.local_steps=2"), "local_steps = 1"),
        (("dreaming.betas=[1.5, 0.9]",), "less than 1"),
        (("data.validation_samples=0", "run.target_accuracy=0.5"), "hold some images out"),
        (("model.feature_layers={lenet=['conv2']}",), "names lenet, which no client has"),
    ],
)
def test_options_that_would_do_nothing_together_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(*overrides)
