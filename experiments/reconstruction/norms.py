"""Running statistics of clients' batch norms, from the stream of dream gradients.

FedAvg sends them, as buffers among its weights. CoDream keeps them at home and matches dreams to them, and gradients of
that matching show them to somebody who knows the clients' weights. Who does not is a row of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from attacks.estimates import Estimate
from attacks.laboratory import record_round
from attacks.reconstruction.batchnorm_statistics import (
    DreamStep,
    mean_statistics,
    public_statistics,
    recover_statistics,
    relative_errors,
)
from attacks.reconstruction.dream_gradient import DreamGradient
from attacks.rows import Row
from attacks.transcript import Transcript, Vector
from attacks.views import NotInViewError, ServerView
from codream_secure import training
from codream_secure.dreaming.losses import Moments
from codream_secure.dreaming.objective import Coefficients
from codream_secure.federation import optimization
from codream_secure.methods.codream import CoDream
from codream_secure.methods.fedavg import FedAvg
from experiments.reconstruction.networks import NARROW
from experiments.reconstruction.setting import CLIENTS, Setting, noted, split_by_name, under

DREAMS = 16
MOST_STEPS = 26
_EACH, _MEAN = "relative error, each client", "relative error, clients' mean"
_TRIES = ((3, 150), (5, 8), (8, 50))
"""Steps that are fitted, and public images whose statistics are the start, in turn."""
_EXPLAINED = 1e-3
_FEW = {"epochs": 1, "cutmix": 0}
_WEIGHTS = "knows the loss, the dreams and every client's weights, not its buffers; begins at what public images give"
_INITIAL = "the same, but takes clients' weights for the initial ones, each client's own, which it knows"
_OWN = "the same, but knows no client's weights: takes a network of its own, trained on public images, in their place"
_FEDAVG = "follows the protocol; reads the buffers among the weights that clients send"


@dataclass(kw_only=True, eq=False)
class Cohort:
    """Clients that have trained and dreamt once, and what the laboratory recorded.

    Attributes:
        method: the federation.
        initial: models before training.
        trained: models while they dreamt.
        transcript: of the round.
    """

    method: CoDream
    initial: list[nn.Module] = field(repr=False)
    trained: list[nn.Module] = field(repr=False)
    transcript: Transcript = field(repr=False)

    @property
    def clip(self) -> float:
        """What dream gradients are clipped to before they are sent, value by value."""
        return self.method.config.protocol.clip.dream_updates

    @property
    def coefficients(self) -> Coefficients:
        """Of the loss, which are public."""
        dreaming = self.method.config.dreaming
        return Coefficients(entropy=dreaming.entropy, features=dreaming.features, tv=dreaming.tv, l2=dreaming.l2)


def dreamt(setting: Setting, *, clients: int, samples: int, moments: str = "channel") -> Cohort:
    """A cohort of narrow networks after the warm-up, and one round of dreaming."""
    dreaming = {"images": DREAMS, "steps": max(2, min(MOST_STEPS, setting.effort.steps)), "moments": moments}
    method = CoDream(
        setting.federation(
            "codream", NARROW, clients=clients, samples=samples, dreaming=dreaming, distillation=dict(_FEW)
        )
    )
    models = [client.model for client in method.federation.clients]
    initial = copy.deepcopy(models)
    method.warm_up()
    trained = copy.deepcopy(models)
    return Cohort(method=method, initial=initial, trained=trained, transcript=record_round(method, 1))


def steps_of(
    dreams: Sequence[torch.Tensor], gradients: Sequence[Vector], *, clip: float, wanted: int = 3
) -> list[DreamStep]:
    """Some steps, as far apart as they can be, without those whose gradient was clipped before it was sent.

    What is clipped fits no statistics; the bound is public and a value at the bound shows.
    """
    whole = [step for step, gradient in enumerate(gradients) if np.abs(gradient).max() < 0.999 * clip]
    if len(whole) < 2:
        raise NotInViewError("all steps but one were clipped before they were sent")
    last = len(whole) - 1
    chosen = sorted({whole[round(last * part / (wanted - 1))] for part in range(wanted)})
    return [
        DreamStep(dreams=dreams[step], gradient=torch.from_numpy(gradients[step]).view(dreams[step].shape))
        for step in chosen
    ]


def statistics_recovered(setting: Setting) -> None:
    """All rows about batch norms."""
    sizes = [(CLIENTS, size) for size in setting.effort.sizes]
    cohorts = [(clients, setting.effort.samples) for clients in setting.effort.cohorts]
    for clients, samples in dict.fromkeys(sizes + cohorts):
        name = f"batch-norm statistics, K = {clients}, {samples} image{'s' if samples > 1 else ''} each"
        row = Row(
            method="codream",
            protection="plain",
            adversary="server",
            active=False,
            probe=name,
            metric=_EACH,
            value=None,
            assumptions=_WEIGHTS,
        )
        if samples == 1:
            reason = "a client with one image trains no statistics: they keep their initial values, which are public"
            for protection in ("plain", "masked"):
                setting.nothing(replace(row, protection=protection), reason)
            continue
        setting.tell(f"{name}: FedAvg")
        _sent_by_fedavg(setting, row, clients=clients, samples=samples)
        setting.tell(f"{name}: training and dreaming")
        cohort = dreamt(setting, clients=clients, samples=samples)
        truth = [kept(model) for model in cohort.trained]
        for protection in ("plain", "masked", "bfv"):
            one = replace(row, protection=protection)
            setting.tell(f"{name}, {protection}")
            if protection == "plain":
                _scored(setting, one, _each_alone(setting, cohort, cohort.trained), truth, cohort.trained)
            else:
                _of_the_sum(setting, one, cohort, cohort.trained, truth)
        if (clients, samples) == (CLIENTS, setting.effort.samples):
            own = _own_network(setting)
            for models, what, assumptions in (
                (cohort.initial, "initial weights", _INITIAL),
                ([own] * clients, "own network's weights", _OWN),
            ):
                setting.tell(f"{name}, {what}")
                one = replace(row, probe=f"{name}, by {what}", assumptions=assumptions)
                _scored(setting, one, _each_alone(setting, cohort, models), truth, models)
                for protection in ("masked", "bfv"):
                    # One network in everybody's place gives one answer for all: fitted once, for their mean.
                    _of_the_sum(setting, replace(one, protection=protection), cohort, models, truth)


Found = tuple[list[list[Moments]], str]


def _each_alone(setting: Setting, cohort: Cohort, models: Sequence[nn.Module]) -> Found:
    """Every client's statistics from its own gradients, by those weights."""
    view = ServerView.of_transcript(under(cohort.method, cohort.transcript, "plain"))
    dreams = [torch.from_numpy(arrays[0]) for arrays in view.shown("dreams")]
    vectors = view.vectors("dream_updates")
    found, residuals = [], []
    for number, model in enumerate(models):
        gradients = [step[number] for step in vectors]
        fitted = fit(setting, [model], dreams, gradients, cohort, believed=model is cohort.trained[number])
        found += fitted[0]
        residuals.append(fitted[1])
    return found, f"relative residual up to {max(residuals):.1e}"


def _of_the_sum(
    setting: Setting, row: Row, cohort: Cohort, models: Sequence[nn.Module], truth: Sequence[Sequence[Moments]]
) -> None:
    """Everybody's at once from the mean of all clients' gradients."""
    view = ServerView.of_transcript(under(cohort.method, cohort.transcript, row.protection))
    try:
        means = view.means("dream_updates")
    except NotInViewError as reason:
        setting.unseen(row, reason)
        return
    dreams = [torch.from_numpy(arrays[0]) for arrays in view.shown("dreams")]
    same = len({id(model) for model in models}) == 1
    found, residual = fit(
        setting, models[:1] if same else models, dreams, means, cohort, believed=models is cohort.trained
    )
    if same:
        found = found * len(models)
    _scored(setting, row, (found, f"relative residual {residual:.1e}"), truth, models)


def fit(
    setting: Setting,
    models: Sequence[nn.Module],
    dreams: Sequence[torch.Tensor],
    gradients: Sequence[Vector],
    cohort: Cohort,
    *,
    believed: bool = True,
) -> tuple[list[list[Moments]], float]:
    """Statistics of those networks that explain the steps, and the relative residual that is left.

    Fits end in local minima. An adversary that sees a residual tries again from fewer public images, with more steps.

    Args:
        setting: has the public images.
        models: whose weights the adversary takes the clients' to be.
        dreams: broadcasts.
        gradients: one client's, or means, step by step.
        cohort: whose loss it is.
        believed: whether these are the clients' weights; if not, one short try.
    """
    public, _ = setting.public
    blind = [_without_statistics(model) for model in models]
    best: tuple[list[list[Moments]], float] | None = None
    for wanted, strangers in _TRIES if believed else _TRIES[:1]:
        found = recover_statistics(
            blind,
            steps_of(dreams, gradients, clip=cohort.clip, wanted=wanted),
            start=[public_statistics(model, public[:strangers]) for model in blind],
            coefficients=cohort.coefficients,
            iterations=setting.effort.iterations if believed else setting.effort.wrong_iterations,
        )
        if best is None or found.residual < best[1]:
            best = found.statistics, found.residual
        if best[1] < _EXPLAINED:
            break
    assert best is not None  # there is at least one try
    return best


def _scored(
    setting: Setting, row: Row, found: Found, truth: Sequence[Sequence[Moments]], models: Sequence[nn.Module]
) -> None:
    """Errors of what was found, beside those of what public images give under the weights that the adversary has."""
    public, _ = setting.public
    statistics, note = found
    strangers = [public_statistics(_without_statistics(model), public) for model in models]
    row = noted(noted(row, note), "control: statistics of public images under the same weights")
    setting.add(row, errors(statistics, truth), control=errors(strangers, truth).value)
    together, control = (
        max(relative_errors(mean_statistics(each), mean_statistics(truth))) for each in (statistics, strangers)
    )
    setting.add(
        replace(row, metric=_MEAN),
        Estimate(value=together, low=None, high=None, n=len(truth)),
        control=control,
    )


def errors(found: Sequence[Sequence[Moments]], truth: Sequence[Sequence[Moments]]) -> Estimate:
    """The worst client's relative error, of its means or of its variances, whichever is larger."""
    each = [max(relative_errors(own, true)) for own, true in zip(found, truth, strict=True)]
    return Estimate(
        value=max(each), low=None, high=None, n=len(each), note=f"the worst of {len(each)}; the best {min(each):.1e}"
    )


def kept(model: nn.Module) -> list[Moments]:
    """A model's own statistics, in float64."""
    return DreamGradient(model, Coefficients(features=0.0), feature_layers=()).kept()


def _without_statistics(model: nn.Module) -> nn.Module:
    """A copy whose buffers say nothing: an attack is never given the truth."""
    blind = copy.deepcopy(model)
    for layer in blind.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
    return blind


def _own_network(setting: Setting) -> nn.Module:
    model = setting.new_model(NARROW, "adversary")
    local = setting.federation("codream", NARROW).config.local
    training.fit(
        model,
        setting.public,
        training.cross_entropy,
        epochs=local.warmup_epochs,
        optimization=optimization(local),
        generator=torch.Generator().manual_seed(setting.seed),
    )
    return model.eval()


def _sent_by_fedavg(setting: Setting, row: Row, *, clients: int, samples: int) -> None:
    """The same figures of FedAvg, whose clients send statistics with their weights."""
    method = FedAvg(setting.federation("fedavg", NARROW, clients=clients, samples=samples))
    method.warm_up()
    transcript = record_round(method, 1)
    model = method.federation.clients[0].model
    entered = next(transcript.sums("weights")).entered
    truth = [_buffers(entered[number], model) for number in range(clients)]
    # The weights of the round, which a passive server has as well: its control is what public images give under them.
    control = [public_statistics(_without_statistics(model), setting.public[0])] * clients
    for protection in ("plain", "masked", "bfv"):
        one = replace(row, method="fedavg", protection=protection, assumptions=_FEDAVG)
        view = ServerView.of_transcript(under(method, transcript, protection))
        try:
            try:
                found = [_buffers(view.vectors("weights")[0][number], model) for number in range(clients)]
            except NotInViewError:
                found = [_buffers(view.means("weights")[0], model)] * clients
        except NotInViewError as reason:
            setting.unseen(one, reason)
            continue
        one = noted(one, "control: statistics of public images under the mean weights")
        setting.add(one, errors(found, truth), control=errors(control, truth).value)
        together, stranger = (
            max(relative_errors(mean_statistics(each), mean_statistics(truth))) for each in (found, control)
        )
        setting.add(
            replace(one, metric=_MEAN), Estimate(value=together, low=None, high=None, n=clients), control=stranger
        )


def _buffers(vector: Vector, model: nn.Module) -> list[Moments]:
    """Batch norms' statistics among flat weights as FedAvg sends them."""
    like = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    parts = split_by_name(vector, like)
    means = [name for name in parts if name.endswith("running_mean")]
    return [(parts[name], parts[name.replace("running_mean", "running_var")]) for name in means]
