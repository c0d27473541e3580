"""Views and probes where sums have noise: what labels mean then, and which account answers are taken from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attacks.auditing.arms import arms_of
from attacks.auditing.plan import Plan, Size, make_plan, public_side
from attacks.auditing.subject import Recorded, RecordedSubject
from attacks.laboratory import asked, record_round
from attacks.probes.honest import StudentOfDreamsAtClient, dreams_and_labels
from attacks.probes.models import as_logits
from attacks.public import Public, Query
from attacks.views import ClientView, ServerView
from codream_secure.config import Config, make_config
from codream_secure.data import load_source
from codream_secure.errors import BudgetExceededError, ConfigError
from codream_secure.federation import Federation
from codream_secure.methods.codream import CoDream
from codream_secure.releases import NoisyReleases
from protocols import DiscreteGaussianNoise

SOURCE = load_source("digits")
SMALL = (
    "data.samples_per_client=20",
    "data.validation_samples=0",
    "local.warmup_epochs=2",
    "local.epochs=0",
    "dreaming.images=12",
    "dreaming.steps=2",
    "dreaming.labels=probabilities",
    "distillation.epochs=0",
    "distillation.cutmix=0",
    "distillation.relabel=false",
    "protocol.dropout=0.0",
    "run.rounds=1",
    "dp.unit=client",
    "dp.epsilon=8",
    "dp.delta=0.001",
)


def trained(*overrides: str) -> tuple[CoDream, Config]:
    config = make_config({}, [*SMALL, *overrides])
    method = CoDream(Federation.create(config, source=SOURCE))
    method.federation.channel.begin_round(0)
    method.warm_up()
    return method, config


def public_of(method: CoDream, config: Config) -> Public:
    plan: Plan = make_plan(config, SOURCE, size=Size(trials=6, canaries=0), seed=0)
    releases = method.federation.channel.releases
    assert isinstance(releases, NoisyReleases)
    return public_side(plan, config, vote_norm=releases.sums.norms["soft_labels"])


def predicted(method: CoDream, client: int, dreams: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return method.federation.clients[client].model.eval()(dreams).softmax(dim=1).numpy()


@pytest.mark.parametrize("protection", ["plain", "masked"])
def test_labels_are_read_as_the_votes_that_they_are(protection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the noise taken away, what is read are the clients' probabilities, up to the ring's rounding."""
    monkeypatch.setattr(DiscreteGaussianNoise, "add", lambda self, ring: ring)
    method, config = trained(f"protocol.protection={protection}")
    public = public_of(method, config)
    dreams = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    view = ServerView.of_transcript(asked(method, [Query(images=dreams, stream="soft_labels")]))
    each = [predicted(method, client, dreams) for client in range(4)]
    mean = np.exp(as_logits(view.means("soft_labels")[0], public, single=False))
    assert np.abs(mean - np.mean(each, axis=0)).max() < 5e-3
    if protection == "plain":
        single = np.exp(as_logits(view.vectors("soft_labels")[0][2], public, single=True))
        assert np.abs(single - each[2]).max() < 5e-3


def test_colluding_clients_take_their_own_votes_out_of_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiscreteGaussianNoise, "add", lambda self, ring: ring)
    method, config = trained("protocol.protection=masked")
    public = public_of(method, config)
    view = ClientView.of_transcript(record_round(method, 1), [0, 1, 2])
    dreams, labels = dreams_and_labels(view, public, without_own=True)
    assert np.abs(np.exp(labels) - predicted(method, 3, dreams)).max() < 2e-2
    assert np.isfinite(StudentOfDreamsAtClient().signal(view, public)).all()


def test_every_probe_may_spend_what_was_meant_for_honest_steps() -> None:
    method, _ = trained("protocol.protection=masked")
    ledger = method.federation.channel.releases.ledger
    assert ledger is not None
    before = ledger.state_dict()
    recorded = Recorded(method, record_round(method, 1), account=before)
    spent = ledger.state_dict()
    subject = RecordedSubject(recorded, protection="client-dp", protocol="masked", streams=())
    dreams = torch.zeros(12, 1, 8, 8)
    step = Query(images=dreams, stream="dream_updates")
    with pytest.raises(BudgetExceededError):
        asked(method, [step])  # the run's own account is used up
    for _ in range(2):
        assert len(list(subject.ask([step, step]).sums("dream_updates"))) == 2
    with pytest.raises(BudgetExceededError):
        subject.ask([step] * 4)
    assert ledger.state_dict() == spent


def test_noise_by_a_server_that_sees_no_single_vector_is_not_audited() -> None:
    config = make_config({}, [*SMALL, "protocol.protection=masked", "dp.noise=server"])
    with pytest.raises(ConfigError, match="views of such sums are not modelled"):
        arms_of(config, protections=("plain",))
