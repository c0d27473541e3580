"""A member as a program: connects outwards, takes part in rounds, and comes back after cuts."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from codream_secure.deployment.streams.calls import Ask, Downward, Upward, decode_downward, encode_answer
from codream_secure.deployment.streams.client import Arrival, StreamClient
from codream_secure.deployment.streams.errors import UnreachableError
from codream_secure.deployment.streams.limits import Backoff, Limits
from codream_secure.deployment.streams.member import Member
from codream_secure.deployment.streams.tls import Tls
from protocols import Identity, Roster

_FLUSH_S = 2.0
_ENDED = Arrival(b"", None)
"""Stands in the queue of arrivals behind the last: the client has stopped, for the reason that its task holds."""


class Participant:
    """One member's connection to one aggregator.

    Args:
        address: ``HOST:PORT`` of the aggregator, as its certificate names it.
        member: its part in rounds. Its callables run in one thread of their own, always the same.
        identity: its key pair.
        roster: the deployment's.
        tls: this machine's certificate and the deployment's authority.
        limits: the same as the aggregator's.
        backoff: when to connect again, and when to give up.
        round_id: the one round to take part in; empty for any.
        inline: call the callables within the event loop: for those that take no time worth mentioning.
    """

    def __init__(
        self,
        address: str,
        member: Member,
        *,
        identity: Identity,
        roster: Roster,
        tls: Tls,
        limits: Limits | None = None,
        backoff: Backoff | None = None,
        round_id: bytes = b"",
        inline: bool = False,
    ) -> None:
        self._member = member
        self._inline = inline
        self._client = StreamClient(
            address,
            member=member.number,
            identity=identity,
            roster=roster,
            tls=tls,
            limits=limits or Limits(),
            backoff=backoff or Backoff(),
            round_id=round_id,
        )
        self._waiting: deque[tuple[Arrival, Downward | None]] = deque()

    @property
    def connections(self) -> int:
        """How often it got through."""
        return self._client.connections

    def run(self, rounds: int | None = None) -> None:
        """Take part until so many rounds have ended; None goes on until refused. See :meth:`serve`."""
        asyncio.run(self.serve(rounds))

    async def serve(self, rounds: int | None = None) -> None:
        """Take part until so many rounds have ended.

        Raises:
            RefusedError: the aggregator does not let this member in.
            UnreachableError: it cannot be reached.
            FrameError: it says what it must not.
            Exception: whatever the member's callables raised, after the aggregator was told not to wait.
        """
        runner = asyncio.create_task(self._client.run())
        runner.add_done_callback(lambda _: self._client.arrivals.put_nowait(_ENDED))
        executor = None if self._inline else ThreadPoolExecutor(1, thread_name_prefix="member")
        try:
            while rounds is None or self._member.rounds < rounds:
                arrival, call = await self._next(runner)
                if call is None:
                    self._member.drop()
                    continue
                await self._answer(arrival, call, executor)
                if self._member.failure is not None:
                    await self._client.flush(_FLUSH_S)
                    raise self._member.failure
        finally:
            self._member.drop()
            self._client.hang_up("this member leaves")
            await asyncio.wait([runner], timeout=_FLUSH_S)
            runner.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await runner
            if executor is not None:
                executor.shutdown()

    async def _next(self, runner: asyncio.Task[None]) -> tuple[Arrival, Downward | None]:
        """The next call; None for it when a session begins anew."""
        if not self._waiting:
            self._note(await self._client.arrivals.get(), runner)
        while not self._client.arrivals.empty():
            self._note(self._client.arrivals.get_nowait(), runner)
        return self._waiting.popleft()

    def _note(self, arrival: Arrival, runner: asyncio.Task[None]) -> None:
        if arrival is _ENDED:
            runner.result()
            raise UnreachableError("the connection was given up")
        if arrival.message is None:
            self._waiting.clear()
        self._waiting.append((arrival, None if arrival.message is None else decode_downward(arrival.message)))

    async def _answer(self, arrival: Arrival, call: Downward, executor: ThreadPoolExecutor | None) -> None:
        overtaken = isinstance(call, Ask) and any(isinstance(later, Ask) for _, later in self._waiting)
        answer: bytes | tuple[bytes, memoryview] | None
        if executor is None:
            answer = self._work(call, arrival, overtaken)
        else:
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(executor, self._work, call, arrival, overtaken)
        if answer is not None:
            self._client.send(arrival.session_id, answer)
        self._client.consumed(arrival.session_id)

    def _work(self, call: Downward, arrival: Arrival, overtaken: bool) -> bytes | tuple[bytes, memoryview] | None:
        answer: Upward | None = self._member.handle(call, arrival.message or b"", overtaken=overtaken)
        return None if answer is None else encode_answer(answer)
