"""FedAvg against the average written by hand, and the baselines' ground rules."""

from __future__ import annotations

import copy

import pytest
import torch

from codream_secure.config import Config, make_config
from codream_secure.errors import ConfigError
from codream_secure.federation import Federation
from codream_secure.methods import METHODS, find_method
from codream_secure.methods.fedavg import FedAvg, averaged_tensors


def config(*overrides: str) -> Config:
    return make_config({}, ["local.warmup_epochs=1", "local.epochs=1", "data.validation_samples=20", *overrides])


def trained_apart(federation: Federation, start: dict[str, torch.Tensor]) -> list[list[torch.Tensor]]:
    """Each client's weights after round 1 from a common start, by hand."""
    results = []
    for client in federation.clients:
        client.model.load_state_dict(copy.deepcopy(start))
        federation.train_locally(client, epochs=1, place="local", number=1)
        results.append([tensor.clone() for tensor in averaged_tensors(client.model)])
    return results


@pytest.mark.parametrize("weighted", [False, True])
def test_a_round_is_the_mean_of_the_clients_weights_and_buffers(weighted: bool) -> None:
    settings = config(
        f"fedavg.weighted={str(weighted).lower()}", "data.partition=label_dirichlet", "data.alpha=0.5", "data.clients=3"
    )
    method = FedAvg(Federation.create(settings))
    method.warm_up()
    start = copy.deepcopy(method.models()[0].state_dict())
    method.run_round(1)
    by_hand = Federation.create(settings)
    sizes = [len(client.images) for client in by_hand.clients]
    shares = [size / sum(sizes) for size in sizes] if weighted else [1 / 3] * 3
    assert len(set(sizes)) > 1
    results = trained_apart(by_hand, start)
    for index, tensor in enumerate(averaged_tensors(method.models()[0])):
        expected = sum(share * result[index].double() for share, result in zip(shares, results, strict=True))
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-6)


def test_every_round_costs_the_model_both_ways_and_nothing_else() -> None:
    method = FedAvg(Federation.create(config()))
    method.warm_up()
    method.run_round(1)
    size = 4 * sum(tensor.numel() for tensor in averaged_tensors(method.models()[0]))
    phases = method.federation.channel.ledger.by_phase(2)
    assert set(phases) == {"weights", "protocol_setup"}
    assert all(0 < found - times * size < 300 for found, times in zip(phases["weights"], (2, 3), strict=True))


def test_different_architectures_are_an_obstacle() -> None:
    mixed = config('model.clients=["small_cnn", "lenet5", "mlp", "mlp"]')
    assert FedAvg.obstacle(mixed) == "needs one architecture, the clients have 3"
    assert FedAvg.obstacle(config()) is None


def test_all_methods_start_from_the_same_data_and_weights() -> None:
    federations = [Federation.create(config()) for _ in range(2)]
    for one, other in zip(federations[0].clients, federations[1].clients, strict=True):
        assert torch.equal(one.images, other.images)
        for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(a, b)


def test_centralised_sees_every_image_and_pays_for_it() -> None:
    federation = Federation.create(config())
    method = METHODS["centralised"](federation)
    method.warm_up()
    assert federation.channel.ledger.client_total(0) == (50 * (8 * 8 * 4 + 8), 0)
    assert len({id(model) for model in method.models()}) == 1


def test_isolated_clients_exchange_nothing() -> None:
    federation = Federation.create(config())
    method = METHODS["isolated"](federation)
    method.warm_up()
    method.run_round(1)
    assert all(federation.channel.ledger.client_total(k) == (0, 0) for k in range(4))


def test_validation_images_come_out_of_training_data_and_go_to_nobody() -> None:
    federation = Federation.create(config("data.samples_per_client=300", "data.validation_samples=200"))
    held_out = {tuple(image.flatten().tolist()) for image in federation.validation[0]}
    everything = {tuple(image.flatten().tolist()) for c in federation.clients for image in c.images}
    train = federation.source.train.normalised(federation.source.mean, federation.source.std)
    assert held_out <= {tuple(image.flatten().tolist()) for image in train}
    assert not held_out & everything


def test_evaluation_means_come_from_counts() -> None:
    federation = Federation.create(config())
    found = federation.evaluate([client.model for client in federation.clients])
    assert found.test == pytest.approx(sum(found.client_test) / 4)
    sent, _ = federation.channel.ledger.by_phase(0)["evaluation"]
    assert 8 < sent < 8 + 64


def test_unknown_methods_suggest_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fedavg'"):
        find_method("fedavgg")
