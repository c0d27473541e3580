"""The whole dreaming loss: its gradient, its switches, and that it leaves the model bit for bit as it was."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from codream_secure.dreaming import Coefficients, DreamObjective, frozen
from codream_secure.models import build_model

NAMES = ("small_cnn", "lenet5", "small_cnn_gn", "mlp")


def model_of(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = build_model(name, channels=1, image_size=(8, 8), num_classes=10)
    model.train()
    with torch.no_grad():
        model(images(30, seed=3))  # moves the batch norms' statistics off their initial values
    return model


def images(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_dreaming_leaves_weights_buffers_modes_and_flags_bit_identical(name: str) -> None:
    model = model_of(name)
    model.train()
    first = next(model.parameters())
    first.requires_grad_(False)
    before, modes = state_of(model), [module.training for module in model.modules()]
    with DreamObjective(model, images(20), coefficients=Coefficients(jsd=1.0), student=model_of("mlp")) as objective:
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not any(module.training for module in model.modules())
        dreams = images(6, seed=2)
        for _ in range(3):
            dreams = dreams - objective.gradient(dreams)
    after = state_of(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert [module.training for module in model.modules()] == modes
    assert not first.requires_grad
    assert all(p.requires_grad and p.grad is None for p in list(model.parameters())[1:])


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_agrees_with_finite_differences_in_float64(name: str) -> None:
    model = model_of(name).double()
    private, dreams = images(20).double(), images(3, seed=2).double()
    # Larger weights than the defaults, so that every term shows in the sum.
    weights = Coefficients(entropy=1.0, features=0.7, tv=0.5, l2=0.3, jsd=0.9)
    objective = DreamObjective(model, private, coefficients=weights, student=model_of("mlp", seed=5).double())
    with objective:
        # The objective measures in float32; the oracle needs targets of the dreams' own precision.
        objective._targets = [(mean.double(), variance.double()) for mean, variance in objective._targets]
        gradient = objective.gradient(dreams)
        generator = torch.Generator().manual_seed(7)
        for _ in range(5):
            direction = torch.randn(dreams.shape, generator=generator, dtype=torch.float64)
            step = 1e-6
            up, down = (
                sum(term.item() for term in objective.terms(dreams + sign * step * direction).values())
                for sign in (1, -1)
            )
            assert (gradient * direction).sum().item() == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-7)


def test_terms_equal_the_formulas_of_the_paper() -> None:
    model = model_of("small_cnn")
    dreams = images(5, seed=2)
    with DreamObjective(model, images(20)) as objective:
        terms = {name: term.item() for name, term in objective.terms(dreams).items()}

    inputs: dict[nn.Module, torch.Tensor] = {}
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    handles = [norm.register_forward_hook(lambda m, args, out: inputs.__setitem__(m, args[0])) for norm in norms]
    p = F.softmax(model.eval()(dreams), dim=1)
    for handle in handles:
        handle.remove()
    expected_features = torch.zeros(())
    for norm in norms:
        by_channel = inputs[norm].permute(1, 0, 2, 3).reshape(norm.num_features, -1)
        expected_features += (norm.running_mean - by_channel.mean(1)).norm()
        expected_features += (norm.running_var - by_channel.var(1, unbiased=False)).norm()
    assert terms["entropy"] == pytest.approx(-(p * p.log()).sum(1).mean().item(), rel=1e-5)
    assert terms["features"] == pytest.approx(10 * expected_features.item(), rel=1e-4)
    assert terms["l2"] == pytest.approx(3e-8 * dreams.norm().item(), rel=1e-5)
    assert set(terms) == {"entropy", "features", "tv", "l2"}


@pytest.mark.parametrize("term", ["entropy", "features", "tv", "l2"])
def test_each_term_has_its_own_switch(term: str) -> None:
    off = Coefficients(**{**dict.fromkeys(("entropy", "features", "tv", "l2"), 0.0), term: 1.0})
    with DreamObjective(model_of("small_cnn"), images(20), coefficients=off) as objective:
        assert set(objective.terms(images(2))) == {term}


def test_all_terms_off_is_a_zero_gradient() -> None:
    nothing = Coefficients(entropy=0, features=0, tv=0, l2=0)
    with DreamObjective(model_of("mlp"), images(20), coefficients=nothing) as objective:
        assert torch.equal(objective.gradient(images(2)), torch.zeros(2, 1, 8, 8))


def test_jsd_without_a_student_is_refused() -> None:
    with pytest.raises(ValueError, match="no student"):
        DreamObjective(model_of("mlp"), images(2), coefficients=Coefficients(jsd=1.0))


def test_jsd_moves_dreams_to_where_client_and_student_disagree() -> None:
    client, student = model_of("mlp", seed=1), model_of("mlp", seed=2)
    only = Coefficients(entropy=0, features=0, tv=0, l2=0, jsd=1.0)
    dreams = images(8)
    with DreamObjective(client, images(20), coefficients=only, student=student) as objective:
        before = objective.terms(dreams)["jsd"].item()
        for _ in range(20):
            dreams = dreams - 5 * objective.gradient(dreams)
        after = objective.terms(dreams)["jsd"].item()
    assert after < before < 0


def test_a_batch_of_one_dream_has_a_finite_gradient() -> None:
    for name in NAMES:
        with DreamObjective(model_of(name), images(1)) as objective:
            assert torch.isfinite(objective.gradient(images(1))).all()


def test_bfloat16_gives_nearly_the_same_direction() -> None:
    model = model_of("small_cnn")
    with (
        DreamObjective(model, images(20)) as exact,
        DreamObjective(model, images(20), autocast=torch.bfloat16) as rounded,
    ):
        a, b = exact.gradient(images(32)).flatten(), rounded.gradient(images(32)).flatten()
    assert b.dtype == torch.float32
    assert F.cosine_similarity(a, b, dim=0) > 0.98


def test_frozen_restores_after_an_error() -> None:
    model = model_of("small_cnn").train()
    with pytest.raises(RuntimeError, match="stop"), frozen(model):
        raise RuntimeError("stop")
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
