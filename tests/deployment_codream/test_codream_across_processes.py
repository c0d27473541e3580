"""CoDream as processes: the same bits as in one process, by a server that opens no images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codream_secure.accounting import sums_in_round


def check_equal(cohort: Any, equal: Callable[[Any, Any], bool]) -> None:
    """All parties have ended with what the same training ends with in one process."""
    expected = cohort.in_one_process()
    last = cohort.training.config.run.rounds
    for number in cohort.clients:
        found = cohort.state(f"client{number}", last)
        assert equal(found["clients"], [expected["clients"][number]]), f"weights of client {number}"
        assert equal(found["buffer"], expected["buffer"]), f"the buffer of client {number}"
        assert equal(found["dreams"], expected["dreams"]), f"the dreams of client {number}"
        assert found["student"] is None
    server = cohort.state("server", last)
    assert server["clients"] == []
    assert equal({**server, "clients": expected["clients"]}, expected)


def images_read_by(party: Any) -> set[str]:
    """What a party has loaded or opened that holds images."""
    report = json.loads(party.report.read_text())
    assert any(path.endswith("training.toml") for path in report["opened"])
    loaded = {name for name in report["modules"] if name in ("sklearn.datasets", "torchvision.datasets")}
    opened = {Path(path).name for path in report["opened"]}
    return loaded | {name for name in opened if name.endswith((".csv.gz", ".npz", ".png", "-ubyte"))}


def test_processes_end_with_the_bits_of_one_process(
    make_cohort: Callable[..., Any], equal: Callable[[Any, Any], bool]
) -> None:
    cohort = make_cohort()
    server, clients = cohort.everybody()
    assert server.line() == {"listening": cohort.address}
    rows = [server.line(), server.line()]
    for party in [server, *clients]:
        party.ends_well()
    check_equal(cohort, equal)
    # The server learns the accuracy of all clients together, here on the same images.
    own = [[json.loads(line) for line in client.process.stdout.read().splitlines()] for client in clients]
    for index, row in enumerate(rows):
        assert row["round"] == index + 1
        assert row["contributors"] == [0, 1, 2]
        accuracies = [lines[index]["test_accuracy"] for lines in own]
        assert row["test_accuracy"] == pytest.approx(sum(accuracies) / len(accuracies), abs=1e-6)
    # It has loaded nothing that reads images, and opened no file with any; the same look finds both at a client.
    assert images_read_by(server) == set()
    assert images_read_by(clients[0]) == {"sklearn.datasets", "digits.csv.gz"}
    # What broke off could be gone on with; what is over is not kept.
    assert cohort.sums(1) == 0
    # Over whom a client let its vectors be summed it remembers of the rounds that it could go back to.
    consents = cohort.folder / "client0" / "consents"
    assert [path.name for path in consents.iterdir()] == ["000001"]
    assert all(path.read_text() == "0 1 2" for path in (consents / "000001").iterdir())


@pytest.mark.slow
def test_in_clear_too_and_with_labels_as_logits(
    make_cohort: Callable[..., Any], equal: Callable[[Any, Any], bool]
) -> None:
    cohort = make_cohort(
        protocol={"protection": "plain"}, dreaming={"labels": "logits", "label_midway": False, "local_steps": 2}
    )
    server, clients = cohort.everybody()
    for party in [server, *clients]:
        party.ends_well()
    check_equal(cohort, equal)


def counted(account: Path) -> int:
    """How many sums an account has."""
    return sum(event["count"] for event in json.loads(account.read_text())["events"])


@pytest.mark.slow
def test_a_budget_is_kept_by_everybody_and_a_round_begun_again_ends_training_early(
    make_cohort: Callable[..., Any],
) -> None:
    """The server dies within round 2; what it had asked for then is asked for once more, and that is one too many."""
    cohort = make_cohort(
        dp={"unit": "client", "epsilon": 50.0, "delta": 1e-3},
        protocol={"dropout": 0.0, "corruption": 0.34},
        model={"clients": ["mlp"]},
        distillation={"cutmix": 0, "relabel": False},
    )
    server, clients = cohort.everybody()
    server.line()
    assert "test_accuracy" not in server.line()
    account = cohort.folder / "server" / "privacy.json"
    planned = sums_in_round(cohort.training.config, 1)
    finished = planned["dream_updates"] + planned["soft_labels"]
    while True:
        server.pause()
        if cohort.sums(2) and counted(account) > finished + cohort.sums(2):
            break
        server.go_on()
        assert server.process.poll() is None, server.log.read_text()
    server.kill()
    again = cohort.server()
    again.line()
    said = again.line()
    for party in [again, *clients]:
        party.ends_well()
    assert said["stopped"].startswith("the privacy budget ended within round 2: ")
    for client in clients:
        lines = [json.loads(line) for line in client.process.stdout.read().splitlines()]
        assert lines[0]["round"] == 1
        assert "epsilon" in lines[-1]["privacy"]
    assert "noise multiplier of dream_updates" in clients[0].log.read_text()
