"""Random damage, framed anew so that it gets past the checksum: named errors only, and machines that still work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import Phase, ProtocolError, wire

TRIALS = [60, pytest.param(4000, marks=pytest.mark.slow)]


def damaged(frame: bytes, generator: np.random.Generator) -> bytes:
    """The frame with some bytes changed, cut, doubled or put in; mostly near its beginning, where its structure is."""
    body = bytearray(frame[1:-16])
    for _ in range(int(generator.integers(1, 4))):
        reach = len(body) if generator.random() < 0.3 else min(len(body), 300)
        at = int(generator.integers(0, max(reach, 1)))
        kind = generator.integers(0, 5)
        if kind <= 1 and body:
            body[at % len(body)] = int(generator.integers(0, 256))
        elif kind == 2:
            del body[at : at + int(generator.integers(1, 40))]
        elif kind == 3:
            body[at:at] = generator.bytes(int(generator.integers(1, 40)))
        else:
            body[at:at] = body[at : at + int(generator.integers(1, 40))]
    content = bytes(body)
    return bytes([wire.VERSION]) + content + wire.checksum(wire.VERSION, content)


@pytest.mark.parametrize("trials", TRIALS)
def test_damaged_messages_are_refused_by_name_and_change_nothing(
    make_round: Any, name: str, trials: int, read: Callable[[bytes], Any]
) -> None:
    """Every message of a set-up and of a step, to every kind of machine. An abort may be the outcome of damage."""
    generator, rd = np.random.default_rng(0), make_round(name)

    def passes(bad: bytes, message: Any) -> bool:
        """Whether it became another kind of message, or only parcels that its recipient passes on unopened differ."""
        try:
            found = read(bad)
        except ProtocolError:
            return False
        if type(found) is type(message) and isinstance(message, wire.SealedKeys | wire.Grant):
            return bool(msgspec.structs.replace(found, parcels=message.parcels) == message)
        return type(found) is not type(message)

    def attack(receive: Callable[[bytes], Any], frame: bytes) -> None:
        for _ in range(trials):
            bad = damaged(frame, generator)
            if bad == frame or passes(bad, read(frame)):
                continue
            with pytest.raises(ProtocolError):
                receive(bad)

    def step(outbox: dict[int, bytes]) -> None:
        for number in {min(outbox), max(outbox)}:
            if rd.server.phase is not Phase.ADVERTISE:
                attack(rd.party(number).receive, outbox[number])
        answers = rd.deliver(outbox)
        first = next(iter(answers))
        attack(lambda frame: rd.server.receive(first, frame), answers[first])
        rd.collect(answers)

    outbox = rd.server.open()
    while rd.server.phase is not Phase.READY:
        step(outbox)
        outbox = rd.server.advance()
    for number in {min(outbox), max(outbox)}:
        attack(rd.party(number).receive, outbox[number])
    rd.deliver(outbox)
    vectors = rd.vectors()
    rd.ask(5)
    sent = rd.contributions(vectors)
    attack(lambda frame: rd.server.receive(3, frame), sent[3])
    rd.collect(sent)
    totals = rd.server.advance()
    opener = max(totals)
    attack(rd.party(opener).receive, totals[opener])
    assert rd.finish(totals).ring.tolist() == rd.ring(vectors)
