"""Privacy at the client level across machines: noise in every sum, and an account at every party, ahead of it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from deviating import Deviating, LivedThrough

from codream_secure.accounting import sums_in_run
from codream_secure.deployment.account import ACCOUNT, Account
from codream_secure.deployment.coordinator import Coordinator
from codream_secure.deployment.heading import ROUND, Heading
from codream_secure.deployment.journal import Journal
from codream_secure.deployment.messages.packets import unpack
from codream_secure.deployment.streams import Limits
from codream_secure.deployment.streams.calls import Ask
from codream_secure.errors import BudgetExceededError, CheckpointError, ConfigError, PrivacyError
from codream_secure.privacy.planning import NoisySums
from codream_secure.releases import NoisyReleases
from protocols import Phase, SumResult

PRIVATE: dict[str, Any] = {
    "dp": {"unit": "client", "epsilon": 50.0, "delta": 1e-3},
    "protocol": {"dropout": 0.0, "corruption": 0.34},
    "dreaming": {"steps": 2, "local_steps": 1, "label_midway": False},
    "distillation": {"cutmix": 0, "relabel": False, "buffer": 8},
    "model": {"clients": ["mlp"], "server": None},
}
ONE_ROUND = {**PRIVATE, "run": {"rounds": 1, "evaluate_every": 1}}
VALUES = 8 * 8 * 8
DREAMS = np.random.default_rng(0).standard_normal((8, 1, 8, 8)).astype(np.float32)


def counted(folder: Path) -> dict[str, int]:
    """Stream to releases, as an account has them."""
    found: dict[str, int] = {}
    for event in json.loads((folder / ACCOUNT).read_text())["events"]:
        found[event["name"]] = found.get(event["name"], 0) + event["count"]
    return found


def planned(cohort: Any) -> dict[str, int]:
    """Stream to sums of the whole training, as planned."""
    return {stream: count for stream, count in sums_in_run(cohort.training.config).items() if stream != "evaluation"}


def epsilon(cohort: Any, party: str) -> float:
    account = Account(cohort.training, cohort.folder / party)
    account.open_again()
    ledger = account.releases.ledger
    assert ledger is not None
    return ledger.statement().epsilon


def noisy(cohort: Any) -> NoisySums:
    releases = cohort.training.make_releases()
    assert isinstance(releases, NoisyReleases)
    return releases.sums


def test_every_sum_has_the_noise_that_is_accounted_for(
    make_cohort: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is opened, less what clients put in, against the law of their noise; a false alarm in a million runs."""
    given: list[np.ndarray[Any, Any]] = []
    opened: list[np.ndarray[Any, Any]] = []
    contribution, keep = NoisyReleases.contribution, Journal.keep

    def note(self: NoisyReleases, *arguments: Any, **settings: Any) -> Any:
        given.append(contribution(self, *arguments, **settings))
        return given[-1]

    def note_sum(self: Journal, number: int, place: int, result: SumResult, *, stream: str) -> None:
        opened.append(result.total)
        keep(self, number, place, result, stream=stream)

    monkeypatch.setattr(NoisyReleases, "contribution", note)
    monkeypatch.setattr(Journal, "keep", note_sum)
    cohort = make_cohort(**PRIVATE)
    cohort.serve()
    assert len(given) == 3 * len(opened) == 3 * sum(planned(cohort).values())
    # Clients answer one after the other, sum by sum; rounding moves a value by less than a millionth of the noise.
    noise = np.concatenate([total - sum(given[3 * place : 3 * place + 3]) for place, total in enumerate(opened)])
    noise /= math.sqrt(3) * noisy(cohort).noise.client_sigma  # type: ignore[union-attr]
    assert abs(noise.mean()) < 4.9 / math.sqrt(len(noise))
    assert abs(noise.var() - 1) < 4.9 * math.sqrt(2 / len(noise))


def test_every_party_has_counted_what_left_and_no_accuracy_did(make_cohort: Callable[..., Any]) -> None:
    cohort = make_cohort(**PRIVATE)
    rows = cohort.serve()
    for party in ("server", "client0", "client1", "client2"):
        assert counted(cohort.folder / party) == planned(cohort)
        assert 49.9 < epsilon(cohort, party) <= 50
    assert [row["round"] for row in rows] == [1, 2]
    assert not any("test_accuracy" in row for row in rows)
    own = [json.loads(line) for line in (cohort.folder / "client0" / "metrics.jsonl").read_text().splitlines()]
    assert 0 <= own[-1]["test_accuracy"] <= 1


@pytest.mark.parametrize("kind", [Deviating, LivedThrough])
def test_a_client_counts_for_itself(kind: type[Deviating], make_cohort: Callable[..., Any]) -> None:
    """A server without an account asks the same once more; the noise of the answers would average out."""
    server = kind(make_cohort(**ONE_ROUND))
    server.aggregator.open_round(sorted(server.members()))
    server.aggregator.broadcast(Heading(1, False, server.cohort.training.digest).arrays(), phase=ROUND)
    server.aggregator.broadcast([DREAMS], phase="dreams")
    for _ in range(2):
        assert server.sum("dream_updates", VALUES) == (0, 1, 2)
    folders = [server.cohort.folder / f"client{number}" for number in range(3)]
    before = [counted(folder) for folder in folders]
    assert before == [{"dream_updates": 2}] * 3
    if isinstance(server, LivedThrough):
        assert server.sum("dream_updates", VALUES) == ()
        assert [member for member, _ in server.aggregator.refusals] == [0, 1, 2]
        assert server.aggregator.missing[Phase.COLLECT] == {0, 1, 2}
        server.close()
    else:
        with pytest.raises(BudgetExceededError, match="must not be made"):
            server.sum("dream_updates", VALUES)
    assert [counted(folder) for folder in folders] == before


class Asked:
    """Whether this is the so-many-th question that anybody is asked."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, packet: bytes) -> bool:
        self._left -= isinstance(unpack(packet, limits=Limits()).calls[-1][0], Ask)
        return not self._left


def serve_until(cohort: Any, dies: Asked) -> None:
    """A server that dies before it has the answer to that question."""

    def meddle(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes:
        send(packet)
        raise KeyboardInterrupt

    cohort.meddle = lambda member, packet, send: (meddle if dies(packet) else _send)(member, packet, send)
    with pytest.raises(KeyboardInterrupt):
        cohort.serve()
    cohort.meddle = _send


def _send(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes:
    return send(packet)


def test_a_round_that_is_begun_again_is_counted_again_and_training_ends_for_it(make_cohort: Callable[..., Any]) -> None:
    cohort = make_cohort(**PRIVATE)
    serve_until(cohort, Asked(3 + 2))
    assert counted(cohort.folder / "server") == {"dream_updates": 2}
    coordinators: list[Coordinator] = []
    rows = cohort.serve(coordinators)
    assert [row["round"] for row in rows] == [1]
    assert coordinators[0].stopped == "the privacy budget does not cover round 2"
    for party, asked in (("server", 3), ("client0", 3), ("client1", 3), ("client2", 2)):
        assert counted(cohort.folder / party) == {"dream_updates": asked, "soft_labels": 1}
        assert epsilon(cohort, party) <= 50
    # Nothing is left to do, and nobody is asked to come.
    sent = len(cohort.sent)
    assert cohort.serve() == rows
    assert len(cohort.sent) == sent


def test_a_budget_that_ends_within_a_round_ends_training_and_clients_hear_of_it(
    make_cohort: Callable[..., Any],
) -> None:
    cohort = make_cohort(**ONE_ROUND)
    serve_until(cohort, Asked(3 + 3))
    coordinators: list[Coordinator] = []
    assert cohort.serve(coordinators) == []
    assert str(coordinators[0].stopped).startswith("the privacy budget ended within round 1: ")
    assert counted(cohort.folder / "server") == {"dream_updates": 2}
    assert not (cohort.folder / "client0" / "messages" / "state").exists(), "its round is over"
    sent = len(cohort.sent)
    assert cohort.serve() == []
    assert len(cohort.sent) == sent


@pytest.mark.parametrize("party", ["server", "client1"])
def test_without_its_account_no_party_goes_on(party: str, make_cohort: Callable[..., Any]) -> None:
    cohort = make_cohort(**PRIVATE)
    coordinators: list[Coordinator] = []

    def meddle(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes:
        if (cohort.folder / "server" / "round_000001.pt").exists():
            (cohort.folder / party / ACCOUNT).unlink(missing_ok=True)
            if party == "server":
                raise KeyboardInterrupt
        return send(packet)

    cohort.meddle = meddle
    with pytest.raises(KeyboardInterrupt if party == "server" else CheckpointError):
        cohort.serve(coordinators)
    cohort.meddle = lambda member, packet, send: send(packet)
    with pytest.raises(CheckpointError, match="is missing"):
        cohort.serve(coordinators)


def test_an_account_that_an_older_one_was_put_over_is_refused(make_cohort: Callable[..., Any]) -> None:
    cohort = make_cohort(**PRIVATE)
    second, account = Asked(3 + 1), cohort.folder / "client0" / ACCOUNT
    older: list[bytes] = []

    def meddle(member: int, packet: bytes, send: Callable[[bytes], bytes]) -> bytes:
        if second(packet):
            older.append(account.read_bytes())
        elif (cohort.folder / "client0" / "round_000001.pt").exists():
            account.write_bytes(older[0])
        return send(packet)

    cohort.meddle = meddle
    with pytest.raises(CheckpointError, match="lacks releases"):
        cohort.serve()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"dp": {"unit": "example", "epsilon": 8.0}, "dreaming": {"moments": "channel"}},
            "dp.unit is 'example': models",
        ),
        ({**PRIVATE, "protocol": {"protection": "plain"}}, "dp.noise is 'auto', which under 'plain' leaves"),
        ({**PRIVATE, "dp": {**PRIVATE["dp"], "noise": "server"}}, "dp.noise is 'server'"),
        (
            {**PRIVATE, "dp": {**PRIVATE["dp"], "evaluation_share": 0.1}, "data": {"validation_samples": 10}},
            "dp.evaluation_share is set",
        ),
    ],
)
def test_claims_that_nothing_stands_for_across_machines_are_refused(
    changes: dict[str, Any], said: str, make_cohort: Callable[..., Any]
) -> None:
    with pytest.raises(ConfigError, match=said):
        make_cohort(**changes)


def test_a_budget_without_room_for_its_noise_is_refused_at_once(make_cohort: Callable[..., Any]) -> None:
    with pytest.raises(PrivacyError, match="next to nothing would be left"):
        make_cohort(**{**PRIVATE, "dp": {**PRIVATE["dp"], "epsilon": 1e-6, "delta": 1e-9}})
