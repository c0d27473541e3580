"""The ends of the streams between the parties of a deployment: a server that listens, clients that connect outwards."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from codream_secure.deployment.carriage import MakeMember
from codream_secure.deployment.conversation import Conversation
from codream_secure.deployment.events import Gone
from codream_secure.deployment.messages.correspondence import MESSAGES, forget
from codream_secure.deployment.storage import StoredRoundLog
from codream_secure.deployment.streams import Aggregator, Backoff, Deadlines, Limits, Participant, Tls
from codream_secure.deployment.training import TrainingTerms
from protocols import Identity, Roster


def listen(
    address: str,
    training: TrainingTerms,
    *,
    roster: Roster,
    tls: Tls,
    deadlines: Deadlines | None = None,
    limits: Limits | None = None,
) -> Aggregator:
    """The server's end.

    Args:
        address: ``HOST:PORT`` to listen on; port 0 takes a free one.
        training: the terms.
        roster: the members.
        tls: this machine's certificate.
        deadlines: how long to wait.
        limits: of the streams; the clients' have to be the same.

    Raises:
        ConfigError: the roster's members are not the clients, or the address cannot be listened on.
    """
    training.check_roster(roster)
    return Aggregator(
        address,
        protocol=training.protocol,
        terms=training.sums,
        roster=roster,
        tls=tls,
        limits=limits,
        deadlines=deadlines,
    )


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A client's end: how it reaches the server, and as whom.

    Args:
        address: ``HOST:PORT``, as the server's certificate names it.
        identity: the client's key pair.
        roster: everybody's public keys.
        tls: this machine's certificate.
        limits: the same as the server's.
        backoff: when to connect again, and when to give up.
    """

    address: str
    identity: Identity
    roster: Roster
    tls: Tls
    limits: Limits | None = None
    backoff: Backoff | None = None

    @contextlib.contextmanager
    def carry(self, make_member: MakeMember, conversation: Conversation, *, folder: Path) -> Iterator[None]:
        """The stream, in a thread of its own."""
        log = StoredRoundLog(folder / "rounds.log")
        # Under the log's lock: no message is being dealt with.
        forget(folder / MESSAGES)
        participant = Participant(
            self.address,
            make_member(log),
            identity=self.identity,
            roster=self.roster,
            tls=self.tls,
            limits=self.limits,
            backoff=self.backoff,
        )
        running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[None] | None]] = Future()

        async def serve() -> None:
            running.set_result((asyncio.get_running_loop(), asyncio.current_task()))
            await participant.serve()

        def work() -> None:
            error: BaseException | None = None
            try:
                # Nothing that it started is left when it returns.
                asyncio.run(serve())
            except asyncio.CancelledError:
                pass
            except BaseException as raised:
                # Raised again by whoever waits for an event.
                error = raised
            conversation.put(Gone(error))

        thread = threading.Thread(target=work, name="stream", daemon=True)
        thread.start()
        try:
            yield
        finally:
            conversation.close()
            loop, task = running.result()
            if task is not None:
                # The loop may be closed by now.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(task.cancel)
            thread.join()
            log.close()
