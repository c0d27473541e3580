"""A server that puts calls of its own between those of an honest aggregator, and clients that live through a round."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from codream_secure.deployment.client_data import load_client_data
from codream_secure.deployment.coordinator import Waits
from codream_secure.deployment.events import Paused
from codream_secure.deployment.learner import Learner
from codream_secure.deployment.messages import MessageAggregator
from codream_secure.deployment.messages.packets import Unpacked, pack, read_reply, reply, unpack
from codream_secure.deployment.storage import StoredRoundLog
from codream_secure.deployment.streams import Limits
from codream_secure.deployment.streams.calls import Answer, Ask, Relay, Upward, decode_downward, decode_upward, encode
from protocols import ProtocolError, wire

LIMITS = Limits()
PATIENCE_S = 60.0


def opens(packet: Unpacked) -> bool:
    """Whether a packet asks for what opens a sum."""
    last, _ = packet.calls[-1]
    if not isinstance(last, Relay):
        return False
    try:
        wire.decode(last.message, wire.OpenRequest, limit=1 << 20)
    except ProtocolError:
        return False
    return True


class Deviating:
    """An office.

    Attributes:
        aggregator: drives it as if it were honest.
        inject: given a member and its packet, calls to send before it, a packet each.
        without: members whose packets with questions are lost.
        said: what members answered to injected calls.
    """

    def __init__(self, cohort: Any) -> None:
        self.cohort = cohort
        self.inject: Callable[[int, Unpacked], list[list[bytes]]] = lambda member, packet: []
        self.without: set[int] = set()
        self.said: list[Upward | None] = []
        self._more: dict[int, int] = {}
        self.aggregator = MessageAggregator(
            self,
            protocol=cohort.training.protocol,
            terms=cohort.training.sums,
            roster=cohort.roster,
            deadlines=Waits(join=0.1, reconnect=0.1, patience=0.1).deadlines(),
        )

    def members(self) -> frozenset[int]:
        return frozenset(range(len(self.cohort.identities)))

    def hand(self, member: int, round_id: bytes, position: int, calls: list[bytes]) -> tuple[bool, Upward | None]:
        """One packet; whether the member is out, and its answer."""
        found = read_reply(
            self.cohort.client(member).answer(pack(round_id, position, calls, limits=LIMITS)), limits=LIMITS
        )
        return found.out, decode_upward(found.answer) if len(found.answer) else None

    def exchange(self, packets: Mapping[int, bytes], *, timeout_s: float) -> dict[int, bytes]:
        replies = {}
        for member, content in packets.items():
            packet = unpack(content, limits=LIMITS)
            if not packet.position:
                self._more[member] = 0
            injected = self.inject(member, packet)
            if member in self.without and isinstance(packet.calls[-1][0], Ask):
                continue
            for calls in injected:
                _, answer = self.hand(member, packet.round_id, packet.position + self._more[member], calls)
                self.said.append(answer)
                self._more[member] += len(calls)
            calls = [bytes(call) for _, call in packet.calls]
            out, answer = self.hand(member, packet.round_id, packet.position + self._more[member], calls)
            replies[member] = reply(b"" if answer is None else encode(answer), out=out)
        return replies

    def sum(self, *arguments: Any) -> tuple[int, ...]:
        """Whose vectors are in the sum; nobody's, if it was not opened."""
        try:
            return self.aggregator.sum(*arguments).contributors
        except ProtocolError:
            return ()


class LivedThrough(Deviating):
    """The same, and clients whose processes last as long as the training, as over streams."""

    def __init__(self, cohort: Any) -> None:
        super().__init__(cohort)
        self._lines: dict[int, _Line] = {}
        for number, identity in enumerate(cohort.identities):
            line = self._lines[number] = _Line(identity, cohort.roster)
            learner = Learner(
                cohort.training,
                number,
                data=load_client_data("digits", cohort.training, part=number),
                carriage=line,
                state=cohort.folder / f"client{number}",
            )
            threading.Thread(target=learner.run, daemon=True).start()

    def hand(self, member: int, round_id: bytes, position: int, calls: list[bytes]) -> tuple[bool, Upward | None]:
        return False, self._lines[member].hand(calls)

    def close(self) -> None:
        for line in self._lines.values():
            line.close()


class _Line:
    """A carriage that is handed calls."""

    def __init__(self, identity: Any, roster: Any) -> None:
        self.identity, self.roster = identity, roster
        self._calls: queue.Queue[list[bytes] | None] = queue.Queue()
        self._answers: queue.Queue[Upward | None] = queue.Queue()

    def hand(self, calls: list[bytes]) -> Upward | None:
        self._calls.put(calls)
        return self._answers.get(timeout=PATIENCE_S)

    def close(self) -> None:
        self._calls.put(None)

    @contextlib.contextmanager
    def carry(self, make_member: Any, conversation: Any, *, folder: Path) -> Iterator[None]:
        with contextlib.closing(StoredRoundLog(folder / "rounds.log")) as log:
            member = make_member(log)

            def work() -> None:
                while (calls := self._calls.get()) is not None:
                    answer = None
                    for call in calls:
                        answer = member.handle(decode_downward(call), call) or answer
                    self._answers.put(answer)
                member.drop()
                conversation.put(Paused())

            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            yield
            conversation.close()


def wait_for(path: Path) -> None:
    """Until a file is there."""
    end = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} is never written"
        time.sleep(0.01)


def answered(said: list[Upward | None]) -> list[bool]:
    """Which of these are answers."""
    return [isinstance(one, Answer) for one in said]
