"""A curious client among two: the mean less its own part is what the other one sent, under any protection.

FedAvg's client is handed the new weights, which tell the mean gradient. CoDream's client sees dreams that Adam moved;
where clients open sums it sees the mean itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from attacks.laboratory import fedsgd, replayed
from attacks.reconstruction.aggregate_difference import invert_trajectory, others_sum
from attacks.reconstruction.batchnorm_statistics import public_statistics
from attacks.rows import Row
from attacks.transcript import Shown, Transcript
from attacks.views import ClientView, NotInViewError
from codream_secure.methods import Method
from codream_secure.methods.fedavg import FedAvg
from experiments.reconstruction.gradients import PROBES, chosen_settings, inverted
from experiments.reconstruction.norms import dreamt, errors, fit, kept
from experiments.reconstruction.setting import Setting, each_protection, noted

_CLIENTS, _OTHER, _OWN = 2, 0, 1
_LR = 0.1
_ROW = Row(
    method="fedavg", protection="plain", adversary="client", active=False, probe="", metric="PSNR, dB", value=None
)
_FEDSGD = (
    f"one of two clients; follows the protocol; has the weights before and after a step of FedSGD at {_LR:g}, as "
    "float32, and its own gradient of one image"
)
_DREAMS = (
    "one of two clients; follows the protocol; has all dreams and its own gradients; knows the loss and the other's "
    "weights, not its buffers"
)


def other_ones_image(setting: Setting, architecture: str) -> None:
    """Rows of FedSGD with two clients of one image each."""
    method = FedAvg(setting.federation("fedavg", architecture, clients=_CLIENTS))
    clients = method.federation.clients
    count = min(setting.effort.models, len(clients[0].images))
    probe = f"{PROBES[architecture]}, mean less one's own"
    settings = chosen_settings(setting, architecture)
    known: dict[bytes, torch.Tensor] = {}  # protections that show the same bits are not inverted twice
    for one in each_protection(replace(_ROW, probe=probe, assumptions=_FEDSGD)):
        guesses, targets = [], []
        for index in range(count):
            setting.tell(f"{one.probe}, {one.protection}: network {index + 1} of {count}")
            model = setting.new_model(architecture, "two clients", index)
            images = {client.number: client.images[index : index + 1] for client in clients}
            labels = {client.number: client.labels[index : index + 1] for client in clients}
            transcript = handed_out(fedsgd(method, model, images, labels), model)
            view = _view(method, transcript, one.protection)
            mean = torch.from_numpy(_mean_gradient(view))
            own = torch.from_numpy(view.vectors("weights")[0][_OWN])
            rest = others_sum(mean, [own], clients=_CLIENTS)
            bits = rest.numpy().tobytes()
            if bits not in known:
                known[bits] = inverted(setting, model, rest.numpy(), index, settings=settings)
            guesses.append(known[bits])
            targets.append(images[_OTHER])
        setting.reconstructed(noted(one, f"{count} networks"), torch.cat(guesses), torch.cat(targets))


def other_ones_statistics(setting: Setting) -> None:
    """Rows of CoDream with two clients."""
    setting.tell("the other client's statistics: training and dreaming")
    cohort = dreamt(setting, clients=_CLIENTS, samples=setting.effort.samples)
    truth = [kept(cohort.trained[_OTHER])]
    schedule = cohort.method.config.dreaming
    for one in each_protection(
        replace(
            _ROW,
            method="codream",
            probe="batch-norm statistics, mean less one's own, K = 2",
            metric="relative error",
            assumptions=_DREAMS,
        )
    ):
        setting.tell(f"{one.probe}, {one.protection}")
        view = _view(cohort.method, cohort.transcript, one.protection)
        dreams = [torch.from_numpy(arrays[0]) for arrays in view.shown("dreams")]
        own = [torch.from_numpy(vectors[_OWN]).view(dreams[0].shape) for vectors in view.vectors("dream_updates")]
        try:
            means = [torch.from_numpy(mean).view(dreams[0].shape) for mean in view.means("dream_updates")]
            one = noted(one, "opens the sums itself")
        except NotInViewError:
            steps = invert_trajectory(dreams, optimizer=schedule.optimizer, lr=schedule.lr, betas=schedule.betas)
            means = [step.gradient for step in steps]
            apart = _apart(means, cohort.transcript)
            one = noted(one, f"means by inverting Adam are off by a median of {apart:.1e} of their length")
        rest = [others_sum(mean, [part], clients=_CLIENTS) for mean, part in zip(means, own, strict=True)]
        usable = [each.flatten().nan_to_num(0.0, 0.0, 0.0).numpy() for each in rest]
        model = cohort.trained[_OTHER]
        found, residual = fit(setting, [model], dreams, usable, cohort)
        control = errors([public_statistics(model, setting.public[0])], truth).value
        one = noted(
            one, f"relative residual {residual:.1e}; control: statistics of public images under the same weights"
        )
        setting.add(one, errors(found, truth), control=control)


def handed_out(transcript: Transcript, model: nn.Module) -> Transcript:
    """With what an honest server hands out before and after the step: weights as float32."""
    before = [parameter.detach() for parameter in model.parameters()]
    mean = next(transcript.sums("weights")).mean
    assert mean is not None  # the laboratory opens every sum
    parts = torch.from_numpy(mean).split([parameter.numel() for parameter in before])
    after = [weight - _LR * part.float().view(weight.shape) for weight, part in zip(before, parts, strict=True)]
    first, last = (
        Shown(phase="weights", arrays=tuple(tensor.numpy() for tensor in tensors), by_server=True)
        for tensors in (before, after)
    )
    return replace(transcript, events=[first, *transcript.events, last])


def _mean_gradient(view: ClientView) -> np.ndarray:
    """Opened, where this client opens it; else from two broadcasts."""
    try:
        return view.means("weights")[0]
    except NotInViewError:
        before, after = (
            np.concatenate([array.astype(np.float64).reshape(-1) for array in arrays])
            for arrays in (view.shown("weights")[0], view.shown("weights")[-1])
        )
        return np.asarray((before - after) / _LR)


def _view(method: Method, transcript: Transcript, protection: str) -> ClientView:
    if protection != transcript.protection:
        streams = {"weights", "dream_updates"}
        transcript = replayed(transcript, method, protection, streams=streams)
    return ClientView.of_transcript(transcript, own=(_OWN,))


def _apart(means: Sequence[torch.Tensor], transcript: Transcript) -> float:
    """Median over steps of the relative error of inverted means; for the note only."""
    found = []
    for mean, true in zip(means, transcript.sums("dream_updates"), strict=True):
        exact = torch.from_numpy(true.mean).view(mean.shape)
        found.append(float((mean.nan_to_num(0.0, 0.0, 0.0) - exact).norm() / exact.norm()))
    return sorted(found)[len(found) // 2]
