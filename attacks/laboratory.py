"""Where federations under audit are run and recorded. It knows everything, and hands out transcripts only.

Protection does not change what is learnt: sums under ``masked`` and ``bfv`` are those under ``plain`` to the last bit,
those under ``ckks`` up to its rounding. So a round is run once and recorded, and what its clients put into each sum is
put once more through the real machines of each other protocol (:func:`replayed`), which gives the very bytes that
would have passed. What an active server asks (:func:`asked`) goes through those machines in the first place.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from attacks.public import Query, nearest_points
from attacks.reconstruction import fedsgd_gradient
from attacks.transcript import Shown, Sum, Transcript, TranscriptRecorder, public_streams
from attacks.views import PUBLISHED, NotInViewError
from codream_secure.channel import Channel
from codream_secure.errors import ConfigError
from codream_secure.methods import Method
from codream_secure.methods.codream import CoDream
from codream_secure.methods.fedavg import FedAvg, averaged_tensors
from codream_secure.releases import NoisyReleases
from codream_secure.streams import make_terms
from protocols import Simulation, SumProtocol, make_protocol


def record_round(method: Method, number: int) -> Transcript:
    """Run one round of a method for real, under its own protection, and record what passes; then what is published.

    Args:
        method: as it is after round ``number - 1``; it is one round further afterwards.
        number: from 1.
    """
    channel = method.federation.channel
    transcript = _empty(method, channel.protocol)
    recorder = TranscriptRecorder(transcript)
    channel.recorder = recorder
    channel.begin_round(number)
    method.run_round(number)
    model = method.server_model()
    if model is not None:
        recorder.shown(PUBLISHED, averaged_tensors(model))
    return transcript


def replayed(
    transcript: Transcript, method: Method, protection: str, *, streams: Collection[str] | None = None
) -> Transcript:
    """The same round under another protection.

    Args:
        transcript: of a round without noise, with what every client put into every sum.
        method: whose round it was; its terms hold.
        protection: name of the protocol.
        streams: whose sums are replayed; others are left out. None replays all.

    Raises:
        ConfigError: the sums have noise or weights, which cannot be replayed.
    """
    config, protocol = method.config, make_protocol(protection)
    if isinstance(method.federation.channel.releases, NoisyReleases):
        raise ConfigError("noisy sums cannot be replayed under another protection: run the round under it")
    if config.method == "fedavg" and config.fedavg.weighted:
        raise ConfigError("fedavg.weighted is true: weighted sums are not replayed, audit the uniform mean")
    found = _empty(method, protocol)
    recorder = TranscriptRecorder(found)
    simulation = Simulation(protocol, range(transcript.clients), terms=make_terms(config), tap=recorder.delivered)
    starts = _starts(transcript, method)
    for event in transcript.events:
        if isinstance(event, Shown):
            by_server = event.by_server and (protocol.opened_by == "server" or id(event) in starts)
            if event.phase != PUBLISHED or protocol.opened_by == "server" or config.method == "fedavg":
                found.events.append(replace(event, by_server=by_server or event.phase == PUBLISHED))
        elif (streams is None or event.stream in streams) and event.contributors:
            _put_through(simulation, event, recorder, opened_by_clients=protocol.opened_by == "clients")
        elif streams is not None and event.stream not in streams:
            found.left_out |= {event.stream}
    simulation.close()
    return found


def _starts(transcript: Transcript, method: Method) -> set[int]:
    """Which broadcasts are the noise that a batch of dreams begins with: they are the server's under any protocol."""
    dreaming = method.config.dreaming
    if not dreaming.collaborative:
        return {id(event) for event in transcript.shown("dreams")}
    a_batch = dreaming.steps + 1 + dreaming.label_midway  # one for each step, and one each time that they are labelled
    shown = list(transcript.shown("dreams"))
    return {id(event) for event in shown[::a_batch]} if dreaming.steps else set()


def _put_through(simulation: Simulation, event: Sum, recorder: TranscriptRecorder, *, opened_by_clients: bool) -> None:
    recorder.asked(event.stream, event.values)
    for client, vector in event.entered.items():
        recorder.entered(client, vector)
    if not simulation.steps_left:
        simulation.open()
    # Where clients open sums they compare what they hold; here all hold the same.
    state = dict.fromkeys(simulation.clients, bytes(32)) if opened_by_clients else None
    result = simulation.sum(event.entered, stream=event.stream, held=state)
    recorder.opened(result, result.mean())


def asked(method: CoDream, queries: Sequence[Query], *, account: Mapping[str, Any] | None = None) -> Transcript:
    """What passes when a malicious server names the dreams, under the method's own protection.

    Clients answer through a channel of their own for this. Where privacy is claimed, it has a copy of the account: a
    server that asks its own questions spends what was meant for honest steps, and each probe may spend all of it.

    Args:
        method: whose clients answer.
        queries: what they are asked, in order.
        account: the state of the account to begin with; by default as it is now.

    Raises:
        NotInViewError: clients are never asked for that, or not about such images.
        BudgetExceededError: the privacy budget does not allow so many answers.
    """
    federation = method.federation
    channel = federation.channel
    transcript = _empty(method, channel.protocol)
    releases = copy.deepcopy(channel.releases)
    releases.journal = None
    if releases.ledger is not None and account is not None:
        releases.ledger.load_state_dict(account)
    noisy = releases.sums if isinstance(releases, NoisyReleases) else None
    federation.channel = Channel(
        channel.protocol, channel.clients, terms=make_terms(method.config, noisy), releases=releases
    )
    federation.channel.recorder = TranscriptRecorder(transcript)
    try:
        for query in queries:
            method.answer(nearest_points(method.space, query.images), stream=query.stream)
    except ConfigError as error:
        raise NotInViewError(str(error)) from None
    finally:
        federation.channel.begin_round(0)
        federation.channel = channel
    return transcript


def fedsgd(
    method: FedAvg,
    model: nn.Module,
    images: Mapping[int, torch.Tensor],
    labels: Mapping[int, torch.Tensor],
    *,
    first: int | None = None,
) -> Transcript:
    """What passes when every client sends the gradient of one batch (FedSGD), under the method's own protection.

    Args:
        method: whose clients and terms they are.
        model: what the server handed out; an honest one, or one that it made for the purpose.
        images: client to its batch, (B, C, H, W).
        labels: client to (B,) int64.
        first: send the gradients of so many parameters only, the first ones; None sends all.
    """
    federation = method.federation
    transcript = _empty(method, federation.channel.protocol)
    channel = Channel(federation.channel.protocol, federation.channel.clients, terms=make_terms(method.config))
    channel.recorder = TranscriptRecorder(transcript)
    sent = {client: list(fedsgd_gradient(model, images[client], labels[client]).gradients[:first]) for client in images}
    channel.mean(sent, phase="weights")
    channel.begin_round(0)
    return transcript


def _empty(method: Method, protocol: SumProtocol) -> Transcript:
    releases = method.federation.channel.releases
    noisy = releases.sums if isinstance(releases, NoisyReleases) else None
    return Transcript(
        protection=protocol.name,
        opened_by=protocol.opened_by,
        clients=len(method.federation.clients),
        streams=public_streams(make_terms(method.config, noisy)),
        noise_by_clients=noisy is not None and not noisy.cohort.by_server,
    )
