"""Programs that are killed in the middle of a round: what is over stays over, and what was begun is gone on with."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.slow
def test_a_server_killed_in_a_round_goes_on_to_the_same_bits(
    make_cohort: Callable[..., Any], equal: Callable[[Any, Any], bool]
) -> None:
    cohort = make_cohort(dreaming={"steps": 12})
    server, clients = cohort.everybody()
    cohort.until(lambda: cohort.sums(2) >= 4, "sums of round 2")
    server.kill()
    kept = cohort.kept(2)
    again = cohort.server()
    for party in [again, *clients]:
        party.ends_well()
    expected = cohort.in_one_process()
    for number in cohort.clients:
        found = cohort.state(f"client{number}", 2)
        assert equal(found["clients"], [expected["clients"][number]])
        assert equal(found["buffer"], expected["buffer"])
    server_found = cohort.state("server", 2)
    assert equal({**server_found, "clients": expected["clients"]}, expected)
    # Sums that were open are those that were used: nothing was asked for twice.
    assert len(kept) >= 4
    assert kept.items() <= cohort.kept(2).items()
    # Relabelling, 12 steps, labels midway and after, CutMix copies, accuracy.
    assert cohort.sums(2) == 1 + 12 + 2 + 1 + 1


@pytest.mark.slow
def test_a_client_killed_in_a_round_is_missed_by_nobody_and_comes_back_to_the_next(
    make_cohort: Callable[..., Any], equal: Callable[[Any, Any], bool]
) -> None:
    cohort = make_cohort(dreaming={"steps": 12}, run={"rounds": 3})
    server, clients = cohort.everybody()
    cohort.until(lambda: cohort.sums(1) >= 4, "sums of round 1")
    clients[2].kill()
    assert server.line() == {"listening": cohort.address}
    first = server.line()
    # Time stands still for the others, so that it is there for round 3 at the latest, however long it takes to start.
    server.pause()
    returned = cohort.client(2)
    cohort.until(lambda: "member 2 goes on from round 0" in returned.log.read_text(), "the client's return")
    server.go_on()
    for party in [server, clients[0], clients[1], returned]:
        party.ends_well()
    assert first["round"] == 1
    assert first["contributors"] == [0, 1, 2]
    assert "rounds 1" in returned.log.read_text()
    assert "the buffer is taken over" in returned.log.read_text()
    states = [cohort.state(f"client{number}", 3) for number in cohort.clients]
    server_state = cohort.state("server", 3)
    for found in states:
        assert equal(found["buffer"], server_state["buffer"])
        assert equal(found["dreams"], server_state["dreams"])


@pytest.mark.slow
def test_programs_that_were_stopped_go_on_from_their_folders(
    make_cohort: Callable[..., Any], equal: Callable[[Any, Any], bool]
) -> None:
    """Everybody is stopped by Ctrl-C after round 1 of 2, and goes on from the folders."""
    cohort = make_cohort()
    server, clients = cohort.everybody()
    cohort.until(lambda: (cohort.folder / "server" / "round_000001.pt").exists(), "the end of round 1")
    for party in [server, *clients]:
        party.process.send_signal(signal.SIGINT)
    for party in [server, *clients]:
        assert party.ends() == 130, party.log.read_text()
        assert "interrupted" in party.log.read_text()
        assert "Traceback" not in party.log.read_text(), party.log.read_text()
    server, clients = cohort.everybody()
    for party in [server, *clients]:
        party.ends_well()
    expected = cohort.in_one_process()
    for number in cohort.clients:
        assert equal(cohort.state(f"client{number}", 2)["clients"], [expected["clients"][number]])
    # A server that did not live to write the last round down: clients that have finished it go back by one.
    (cohort.folder / "server" / "round_000002.pt").unlink()
    server, clients = cohort.everybody()
    for party in [server, *clients]:
        party.ends_well()
    for number in cohort.clients:
        assert equal(cohort.state(f"client{number}", 2)["clients"], [expected["clients"][number]])
        assert equal(cohort.state(f"client{number}", 2)["buffer"], expected["buffer"])
    assert equal(cohort.state("server", 2)["buffer"], expected["buffer"])


@pytest.mark.slow
def test_a_client_with_other_terms_leaves_and_the_others_go_on(make_cohort: Callable[..., Any]) -> None:
    cohort = make_cohort(run={"rounds": 1})
    server = cohort.server()
    clients = [cohort.client(0), cohort.client(1), cohort.client(2, "--set", "local.lr=0.01")]
    assert clients[2].ends() == 2
    assert "the server goes by other terms of training" in clients[2].log.read_text()
    for party in [server, *clients[:2]]:
        party.ends_well()
    assert not (cohort.folder / "client2" / "round_000001.pt").exists()
