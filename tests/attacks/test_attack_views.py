"""What each adversary holds under each protocol, and that nothing else can be reached from a view."""

from __future__ import annotations

import gc
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from attacks.laboratory import record_round, replayed
from attacks.transcript import Transcript
from attacks.views import ClientView, NotInViewError, PublicView, ServerView, UnnamedStreamError, view_of
from codream_secure.config import make_config
from codream_secure.data import load_source
from codream_secure.federation import Federation
from codream_secure.methods import Method, find_method
from protocols import SERVER, wire

SMALL = (
    "data.clients=4",
    "data.samples_per_client=20",
    "data.validation_samples=20",
    "local.warmup_epochs=1",
    "local.epochs=1",
    "run.rounds=1",
    "dreaming.images=32",
    "dreaming.steps=3",
    "distillation.epochs=1",
    "distillation.cutmix=1",
    "model.server=small_cnn",
)
SOURCE = load_source("digits")


def run_of(*overrides: str) -> tuple[Method, Transcript]:
    config = make_config({}, [*SMALL, *overrides])
    method = find_method(config.method)(Federation.create(config, source=SOURCE))
    method.federation.channel.begin_round(0)
    method.warm_up()
    return method, record_round(method, 1)


@pytest.fixture(scope="module")
def codream() -> tuple[Method, Transcript]:
    return run_of()


@pytest.fixture(scope="module")
def fedavg() -> tuple[Method, Transcript]:
    return run_of("method=fedavg", "model={clients=['small_cnn']}")


def reachable(root: object) -> list[object]:
    """All objects that can be reached by references, code and modules left aside."""
    found: dict[int, object] = {}
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in found or isinstance(one, type | ModuleType | FunctionType | CodeType):
            continue
        found[id(one)] = one
        waiting += gc.get_referents(one)
    return list(found.values())


def holds(root: object, vector: np.ndarray) -> bool:
    """Whether an array that can be reached has these numbers, up to the encoding's rounding."""
    return any(
        isinstance(one, np.ndarray)
        and one.size == vector.size
        and one.dtype.kind == "f"
        and np.allclose(one.reshape(-1), vector, atol=1e-4)
        for one in reachable(root)
    )


def test_a_plain_server_reads_every_clients_vector_from_its_bytes(codream: tuple[Method, Transcript]) -> None:
    _, transcript = codream
    view = ServerView.of_transcript(transcript)
    for seen, truth in zip(view.sums, transcript.sums(), strict=True):
        assert set(seen.vectors) == set(truth.entered) == set(range(4))
        for client, vector in truth.entered.items():
            assert np.abs(seen.vectors[client] - vector).max() <= transcript.streams[seen.stream].resolution


@pytest.mark.parametrize("protection", ["masked", "bfv", "ckks", "bfv-authority", "ckks-authority"])
def test_what_a_protocol_hides_cannot_be_reached_from_the_servers_view(
    codream: tuple[Method, Transcript], protection: str
) -> None:
    method, recorded = codream
    transcript = replayed(recorded, method, protection, streams=("soft_labels",))
    view = ServerView.of_transcript(transcript)
    with pytest.raises(NotInViewError, match="sees no client's 'soft_labels'"):
        view.vectors("soft_labels")
    (first, *_) = transcript.sums("soft_labels")
    for vector in first.entered.values():
        assert not holds(view, vector)
    for client in method.federation.clients:
        private = client.images.numpy().reshape(-1)
        assert not holds(view, private)
        assert not any(one is client or one is client.model for one in reachable(view))
    opened = transcript.opened_by == "server"
    assert holds(view, first.mean) == opened  # type: ignore[arg-type]
    if not opened:
        with pytest.raises(NotInViewError, match="does not learn sums"):
            view.means("soft_labels")


def test_the_search_for_hidden_values_finds_them_where_they_are(codream: tuple[Method, Transcript]) -> None:
    _, transcript = codream
    (first, *_) = transcript.sums("soft_labels")
    assert all(holds(ServerView.of_transcript(transcript), vector) for vector in first.entered.values())


def test_sums_that_no_probe_named_are_no_matter_of_views(codream: tuple[Method, Transcript]) -> None:
    """Else a probe that forgets to name them would be reported as one that has nothing to look at."""
    method, recorded = codream
    transcript = replayed(recorded, method, "masked", streams=("soft_labels",))
    for view in (ServerView.of_transcript(transcript), ClientView.of_transcript(transcript, [0])):
        assert view.of("soft_labels")
        with pytest.raises(UnnamedStreamError, match="name it in the probe's streams"):
            view.means("dream_updates")
        with pytest.raises(NotInViewError):
            view.of("weights")


def test_single_masked_messages_are_uniform(codream: tuple[Method, Transcript]) -> None:
    """Chi-square over the 256 values of the ring elements' bytes; false alarm below 1e-6 a message."""
    method, recorded = codream
    view = ServerView.of_transcript(replayed(recorded, method, "masked", streams=("dream_updates",)))
    seen = 0
    for one in view.sums:
        for envelope in one.messages:
            if envelope.recipient != SERVER:
                continue
            try:
                message = wire.decode(envelope.message, wire.Contribution, limit=len(envelope.message))
            except wire.PhaseError:
                continue
            counts = np.bincount(np.frombuffer(message.ring, dtype=np.uint8), minlength=256)
            assert stats.chisquare(counts).pvalue > 1e-6
            seen += 1
    assert seen == 3 * 4


@pytest.mark.parametrize("protection", ["masked", "bfv", "bfv-authority"])
def test_a_replayed_round_has_the_very_sums_of_the_recorded_one(
    codream: tuple[Method, Transcript], protection: str
) -> None:
    method, recorded = codream
    again = replayed(recorded, method, protection)
    for one, other in zip(recorded.sums(), again.sums(), strict=True):
        assert one.stream == other.stream
        assert one.total is not None
        assert other.total is not None
        assert np.array_equal(one.total, other.total)


def test_a_replayed_round_is_what_a_run_under_that_protection_gives(codream: tuple[Method, Transcript]) -> None:
    method, recorded = codream
    again = replayed(recorded, method, "masked")
    _, real = run_of("protocol.protection=masked")
    assert [one.stream for one in again.sums()] == [one.stream for one in real.sums()]
    for one, other in zip(again.sums(), real.sums(), strict=True):
        assert np.array_equal(one.total, other.total)  # type: ignore[arg-type]
    shown, expected = (ServerView.of_transcript(each).arrays for each in (again, real))
    assert [name for name, _ in shown] == [name for name, _ in expected]
    for (_, found), (_, wanted) in zip(shown, expected, strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_where_clients_open_sums_the_server_holds_what_a_real_run_shows_it() -> None:
    method, recorded = run_of("model={clients=['small_cnn']}")
    replay = ServerView.of_transcript(replayed(recorded, method, "bfv"))
    _, real = run_of("model={clients=['small_cnn']}", "protocol.protection=bfv")
    expected = ServerView.of_transcript(real)
    assert [name for name, _ in replay.arrays] == [name for name, _ in expected.arrays]
    assert all(one.mean is None and not one.vectors for one in (*replay.sums, *expected.sums))


def test_a_client_holds_its_own_vectors_and_what_clients_are_shown(codream: tuple[Method, Transcript]) -> None:
    method, recorded = codream
    transcript = replayed(recorded, method, "masked", streams=("soft_labels",))
    view = ClientView.of_transcript(transcript, [0, 2])
    assert all(set(one.vectors) == {0, 2} for one in view.sums)
    (first, *_) = transcript.sums("soft_labels")
    assert holds(view, first.entered[2])
    assert not holds(view, first.entered[1])
    assert view.shown("soft_labels")


def test_the_public_holds_the_published_model_alone(
    codream: tuple[Method, Transcript], fedavg: tuple[Method, Transcript]
) -> None:
    for _, transcript in (codream, fedavg):
        view = PublicView.of_transcript(transcript)
        assert {name for name, _ in view.arrays} == {"published"}
        assert not view.sums


def test_a_fedavg_server_under_masks_holds_the_mean_and_no_clients_weights(fedavg: tuple[Method, Transcript]) -> None:
    method, recorded = fedavg
    view = view_of(replayed(recorded, method, "masked"), "server")
    mean = view.means("weights")[-1]
    weights = [
        torch.cat([tensor.reshape(-1) for tensor in model.state_dict().values() if tensor.is_floating_point()])
        for model in method.models()
    ]
    assert np.allclose(mean, weights[0].numpy(), atol=1e-4)
    (one,) = recorded.sums("weights")
    assert not any(holds(view, vector) for vector in one.entered.values())


def test_a_view_does_not_change_with_the_transcript_it_was_copied_from(codream: tuple[Method, Transcript]) -> None:
    _, transcript = codream
    view = ServerView.of_transcript(transcript)
    shared: list[Any] = [one for one in reachable(view) if isinstance(one, np.ndarray)]
    owned = {id(one) for one in reachable(transcript) if isinstance(one, np.ndarray)}
    assert not any(id(one) in owned for one in shared)


@pytest.mark.parametrize("overrides", [("dreaming.batches=2",), ("dreaming.label_midway=true", "dreaming.batches=2")])
def test_every_batch_begins_with_noise_that_the_server_hands_out(overrides: tuple[str, ...]) -> None:
    method, recorded = run_of("model={clients=['small_cnn']}", *overrides)
    replay = ServerView.of_transcript(replayed(recorded, method, "bfv", streams=("soft_labels",)))
    _, real = run_of("model={clients=['small_cnn']}", "protocol.protection=bfv", *overrides)
    expected = ServerView.of_transcript(real)
    assert [name for name, _ in replay.arrays] == [name for name, _ in expected.arrays]
    assert sum(name == "dreams" for name, _ in replay.arrays) == 2
    for (_, found), (_, wanted) in zip(replay.arrays, expected.arrays, strict=True):
        assert np.array_equal(found[0], wanted[0])


def test_nothing_private_is_in_the_repr_of_what_passes_through_an_audit(codream: tuple[Method, Transcript]) -> None:
    _, transcript = codream
    (first, *_) = transcript.sums("soft_labels")
    number = f"{first.entered[0][0]:.4f}"
    for one in (transcript, first, ServerView.of_transcript(transcript), ClientView.of_transcript(transcript, [0])):
        assert number not in repr(one)
        assert "envelopes" not in repr(one)
        assert len(repr(one)) < 1000 + 200 * len(transcript.streams)
