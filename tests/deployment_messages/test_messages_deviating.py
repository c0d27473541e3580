"""A server that deviates: no order of calls gets the vectors of one question into sums over different members.

The difference of two such sums would be the vector of whoever is in one of them alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from deviating import Deviating, LivedThrough, answered, opens, wait_for

from codream_secure.deployment.heading import BUFFER, FINISHED, ROUND, Heading
from codream_secure.deployment.messages.correspondence import Correspondence
from codream_secure.deployment.messages.packets import Unpacked
from codream_secure.deployment.streams.calls import Ask, End, Relay, encode, show
from codream_secure.deployment.streams.errors import FrameError

FEW: dict[str, Any] = {
    "dreaming": {"steps": 2, "local_steps": 1, "label_midway": False},
    "distillation": {"cutmix": 0, "relabel": False},
    "model": {"clients": ["mlp"], "server": None},
    "run": {"evaluate_every": 1},
}
ACTIVE: dict[str, Any] = {
    "protocol": {"active": True, "dropout": 0.3, "corruption": 0.0},
    "data": {"clients": 4},
}
VALUES = 8 * 8 * 8
GENERATOR = np.random.default_rng(0)
DREAMS = [GENERATOR.standard_normal((8, 1, 8, 8)).astype(np.float32) for _ in range(4)]
LABELS = np.log(np.full((8, 10), 0.1, np.float32))
GARBAGE = memoryview(b"garbage")
JUNK = encode(Relay(9, GARBAGE))


def refused(stream: str, values: int) -> bytes:
    """A question that the machine refuses, as what comes with it is no request."""
    return encode(Ask(9, stream, values, GARBAGE))


@pytest.fixture
def server(make_cohort: Callable[..., Any]) -> Deviating:
    return Deviating(make_cohort(**FEW))


def begin(server: Deviating, number: int = 1, *, buffer: bool = False, labels: np.ndarray = LABELS) -> None:
    aggregator = server.aggregator
    aggregator.open_round(sorted(server.members()))
    aggregator.broadcast(Heading(number, buffer, server.cohort.training.digest).arrays(), phase=ROUND)
    if buffer:
        aggregator.broadcast([DREAMS[3], labels], phase=BUFFER)


def dream(server: Deviating, step: int) -> tuple[int, ...]:
    server.aggregator.broadcast([DREAMS[step]], phase="dreams")
    return server.sum("dream_updates", VALUES)


def label(server: Deviating) -> tuple[int, ...]:
    server.aggregator.broadcast([DREAMS[2]], phase="dreams")
    return server.sum("soft_labels", 80)


@pytest.mark.parametrize("changes", [{}, ACTIVE], ids=["passive machines", "active machines"])
@pytest.mark.parametrize("tricks", [False, True])
def test_a_question_that_was_refused_is_none_that_a_sum_is_opened_under(
    tricks: bool, changes: dict[str, Any], make_cohort: Callable[..., Any]
) -> None:
    server = Deviating(make_cohort(**{**FEW, **changes}))
    everybody = tuple(sorted(server.members()))

    def inject(member: int, packet: Unpacked) -> list[list[bytes]]:
        bad = refused("dream_updates", VALUES)
        return [[encode(show("dreams", [DREAMS[1]])), bad], [bad]] if tricks and opens(packet) else []

    server.inject = inject
    begin(server)
    assert dream(server, 0) == everybody
    assert answered(server.said) == [False] * len(server.said)
    assert bool(server.said) == tricks
    server.aggregator.close_round("it broke off")
    server.inject, server.without = lambda member, packet: [], {2}
    begin(server)
    assert dream(server, 0) == ()


@pytest.mark.parametrize("kind", [Deviating, LivedThrough])
@pytest.mark.parametrize("tricks", [False, True])
def test_what_was_agreed_to_is_kept_until_the_vector_cannot_be_opened(
    tricks: bool, kind: type[Deviating], make_cohort: Callable[..., Any]
) -> None:
    """A client that is made to miss a round, and finishes this one between masking and opening."""
    server = kind(make_cohort(**FEW))
    folder = server.cohort.folder
    begin(server, 2, buffer=True)
    for step in (0, 1):
        dream(server, step)
    assert label(server) == (0, 1, 2)
    server.aggregator.close_round("it broke off")

    def inject(member: int, packet: Unpacked) -> list[list[bytes]]:
        last = packet.calls[-1][0]
        if isinstance(last, Ask) and last.stream == "soft_labels":
            server.without = {2}
        if tricks and opens(packet) and server.without:
            calls = [encode(show("soft_labels", [LABELS])), refused("evaluation", 2)]
            if isinstance(server, LivedThrough):
                server.hand(member, packet.round_id, 0, calls[:1])
                wait_for(folder / f"client{member}" / "round_000002.pt")
                return []
            return [calls]
        return []

    server.inject = inject
    begin(server, 2, buffer=True)
    for step in (0, 1):
        dream(server, step)
    assert label(server) == ()
    for member in (0, 1):
        assert (folder / f"client{member}" / "round_000002.pt").exists() == tricks
    if isinstance(server, LivedThrough):
        server.close()


@pytest.mark.parametrize("kind", [Deviating, LivedThrough])
@pytest.mark.parametrize("labels", [LABELS, LABELS[::-1] + 1], ids=["the same buffer", "another buffer"])
def test_another_buffer_makes_no_other_question_of_the_same_dreams(
    labels: np.ndarray, kind: type[Deviating], make_cohort: Callable[..., Any]
) -> None:
    """Updates of dreams do not depend on the buffer that a client is given that has missed rounds."""
    server = kind(make_cohort(**{**FEW, "run": {"evaluate_every": 1, "rounds": 4}}))
    begin(server, 2, buffer=True)
    assert dream(server, 0) == (0, 1, 2)
    server.aggregator.close_round("it broke off")
    server.without = {2}
    begin(server, 3, buffer=True, labels=labels)
    assert dream(server, 0) == ()
    if isinstance(server, LivedThrough):
        server.close()


@pytest.mark.parametrize("tries", range(3))
def test_what_is_opened_is_what_was_masked_however_far_the_method_is(tries: int, server: Deviating) -> None:
    """Calls that make a client live through the round while it opens a sum."""
    folder = server.cohort.folder / "client0" / "consents"
    found: list[tuple[int, int]] = []

    def agreed() -> int:
        return sum(path.is_file() for path in folder.rglob("*"))

    def inject(member: int, packet: Unpacked) -> list[list[bytes]]:
        if member == 0 and opens(packet) and len(found) == 1:
            before = agreed()
            calls = [bytes(call) for _, call in packet.calls]
            end = encode(End(packet.round_id, FINISHED))
            out, _ = server.hand(0, packet.round_id, packet.position, [*[JUNK] * tries * 20, *calls, end])
            found.append((before, agreed()))
            assert out
        elif member == 0 and opens(packet):
            found.append((0, agreed()))
        return []

    server.inject = inject
    begin(server)
    dream(server, 0)
    server.without = set()
    dream(server, 1)
    assert len(found) == 2
    assert found[1][1] == found[1][0] + 2, "its place and its content"


def test_a_question_that_was_refused_can_be_asked_properly(server: Deviating) -> None:
    def inject(member: int, packet: Unpacked) -> list[list[bytes]]:
        asks = isinstance(packet.calls[-1][0], Ask)
        return [[refused("dream_updates", VALUES)]] if asks and packet.position and member == 0 else []

    begin(server)
    server.inject = inject
    assert dream(server, 0) == (0, 1, 2)
    assert dream(server, 1) == (0, 1, 2)
    assert answered(server.said) == [False, False]


def test_an_end_that_comes_too_early_is_no_end(server: Deviating) -> None:
    """The server hears that this member has not finished the round."""
    heard = []

    def inject(member: int, packet: Unpacked) -> list[list[bytes]]:
        if isinstance(packet.calls[-1][0], Ask) and member == 0 and len(packet.calls) == 2:
            calls = [*(bytes(call) for _, call in packet.calls[:-1]), encode(End(packet.round_id, FINISHED))]
            heard.append(server.hand(0, packet.round_id, packet.position, calls)[0])
        return []

    server.inject = inject
    begin(server)
    assert dream(server, 0) == (0, 1, 2)
    assert dream(server, 1) == (1, 2)
    assert heard == [True]
    assert not (server.cohort.folder / "client0" / "round_000001.pt").exists()


def test_what_a_server_shows_in_a_round_is_bounded(tmp_path: Path) -> None:
    kept = Correspondence(tmp_path / "messages", key=bytes(32), most_bytes=5000)
    array = np.zeros(1000, np.uint8)
    for position in range(4):
        kept.add(position, [show("dreams", [array])], given=False)
    with pytest.raises(FrameError, match=r"more than 5000 bytes in one round"):
        kept.add(4, [show("dreams", [array])], given=False)
    assert len(list(kept.events())) == 4
    (tmp_path / "messages" / ".state.killed").write_bytes(b"half")
    kept.forget()
    assert list((tmp_path / "messages").iterdir()) == []
