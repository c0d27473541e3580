"""How fast sums are over streams: one aggregator, many light members in few processes, beside a bare gRPC echo.

A step shows every member a vector (as dreams would be) and sums a vector of each. The echo moves as many bytes down and
up over gRPC with the same TLS, and does nothing else: once in one exchange, and once in as many as the sum's protocol
makes, where masked sums ask all members a second time, to open what has arrived from all. Blocks take turns, so that
whatever else the machine does hits all alike; ratios are medians over blocks. In the aggregator's process all share one
event loop, as ``grpc.aio`` has one queue of events a process and would wake a second loop for the first one's events.

    python -m codream_secure.bench.streams --clients 10 --steps 50
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from codream_secure.bench.echo import EchoServer, echo
from codream_secure.deployment.streams import Aggregator, Backoff, Deadlines, Member, Participant
from codream_secure.deployment.streams.certificates import load, make_certificates
from codream_secure.errors import ConfigError
from protocols import Credentials, FixedPoint, Identity, Roster, RoundLog, Terms, make_protocol

VALUES = 100_000
_STREAM = "gradients"
_BLOCKS = 5
_PATIENCE_S = 300.0


def bench_streams(
    clients: int, *, values: int = VALUES, steps: int = 50, processes: int = 2, protection: str = "masked"
) -> dict[str, Any]:
    """Measure one cohort size.

    Args:
        clients: members, at least 2.
        values: length of the vectors.
        steps: timed sums, a multiple of 5, and as many of either echo.
        processes: that the members share.
        protection: of the sums.

    Returns:
        Steps a second of the sums and of the echo; their ratio, with the echo in one exchange (``ratio``) and in as
        many as the protocol makes (``ratio_same_exchanges``), which for one exchange is the same; CPU seconds of a
        step, of all processes together, where the system tells (a machine with other work to do spoils the former more
        than the latter); seconds of the set-up; and most bytes in memory: of the aggregator's process (the echo's
        server is in it as well) and of the largest of the members' processes.

    Raises:
        ConfigError: a number is out of range, or grpcio is missing.
    """
    if clients < 2 or values < 1 or not 1 <= processes <= clients:
        raise ConfigError(f"clients={clients}, values={values}, processes={processes}: at least 2, 1 and 1 to clients")
    if steps < _BLOCKS or steps % _BLOCKS:
        raise ConfigError(f"steps is {steps}: a multiple of {_BLOCKS}")
    with tempfile.TemporaryDirectory() as name:
        return _measure(Path(name), clients, values, steps=steps, processes=processes, protection=protection)


def _opening_bytes(clients: int) -> int:
    """What a member sends to open a masked sum, about: a share for each member, and a frame. It is asked with less."""
    return 32 * clients + 64


def _terms(clients: int, steps: int) -> Terms:
    return Terms(streams={_STREAM: FixedPoint(clip=1.0, clients=clients)}, steps=steps)


def _measure(folder: Path, clients: int, values: int, *, steps: int, processes: int, protection: str) -> dict[str, Any]:
    make_certificates(folder, ["member"])
    identities = {member: Identity.generate() for member in range(clients)}
    keys = {member: identity.public_key for member, identity in identities.items()}
    planned = steps + 2
    aggregator = Aggregator(
        "127.0.0.1:0",
        protocol=make_protocol(protection),
        terms=_terms(clients, planned),
        roster=Roster(keys),
        tls=load(folder, "server"),
        deadlines=Deadlines(join_s=_PATIENCE_S, setup_s=_PATIENCE_S, contribute_s=_PATIENCE_S, open_s=_PATIENCE_S),
    )
    echoes = EchoServer(load(folder, "server"), clients)
    children = []
    try:
        for process in range(processes):
            own = {member: identities[member].private_bytes().hex() for member in range(process, clients, processes)}
            settings = {
                "folder": str(folder),
                "members": own,
                "roster": {member: key.hex() for member, key in keys.items()},
                "ports": [aggregator.port, echoes.port],
                "planned": planned,
                "protection": protection,
            }
            children.append(_start(settings))
        aggregator.wait_for(range(clients), timeout_s=_PATIENCE_S)
        began = time.perf_counter()
        aggregator.open_round(range(clients))
        setup_s = time.perf_counter() - began
        dreams = np.zeros(values, np.float32)

        def take_sum() -> None:
            aggregator.broadcast([dreams])
            found = len(aggregator.sum(_STREAM, values).contributors)
            if found != clients:
                raise ConnectionError(f"{found} of {clients} members are in a sum")

        vector, opening = dreams.tobytes(), bytes(_opening_bytes(clients))

        def take_echo() -> None:
            echoes.step(vector)

        def take_both_exchanges() -> None:
            echoes.step(vector, opening)

        works = [take_sum, take_echo, *([take_both_exchanges] if protection == "masked" else [])]
        taken = _blocks(steps, [child.pid for child in children], *works)
        aggregator.close_round()
    finally:
        echoes.close()
        aggregator.close()
        for child in children:
            try:
                child.wait(_PATIENCE_S / 10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
    (sums, sums_cpu), (bare, bare_cpu), (alike, alike_cpu) = taken[0], taken[1], taken[-1]
    return {
        "protection": protection,
        "clients": clients,
        "values": values,
        "steps": steps,
        "processes": processes,
        "setup_s": setup_s,
        "steps_per_s": steps / sum(sums),
        "echo_steps_per_s": steps / sum(bare),
        "ratio": median(one / other for one, other in zip(bare, sums, strict=True)),
        "ratio_same_exchanges": median(one / other for one, other in zip(alike, sums, strict=True)),
        "step_cpu_s": sum(sums_cpu) / steps,
        "echo_step_cpu_s": sum(bare_cpu) / steps,
        "echo_same_exchanges_step_cpu_s": sum(alike_cpu) / steps,
        "ratio_by_block": [one / other for one, other in zip(bare, sums, strict=True)],
        "server_peak_rss_bytes": _peak(resource.RUSAGE_SELF),
        "members_peak_rss_bytes": _peak(resource.RUSAGE_CHILDREN),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
    }


def _blocks(steps: int, children: Sequence[int], *works: Callable[[], None]) -> list[tuple[list[float], list[float]]]:
    """Seconds and CPU seconds of each block of each kind of work, in turns, after one of each that is not timed."""
    for work in works:
        work()
    taken: list[tuple[list[float], list[float]]] = [([], []) for _ in works]
    for _ in range(_BLOCKS):
        for work, (seconds, cpu) in zip(works, taken, strict=True):
            began, used = time.perf_counter(), _cpu_seconds(children)
            for _ in range(steps // _BLOCKS):
                work()
            seconds.append(time.perf_counter() - began)
            cpu.append(_cpu_seconds(children) - used)
    return taken


def _cpu_seconds(children: Sequence[int]) -> float:
    """Of this process and its children so far; not a number where there is no /proc."""
    if not Path("/proc/self/stat").exists():
        return float("nan")
    ticks = 0
    for process in children:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _peak(whose: int) -> int:
    """Bytes; Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(whose).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _start(settings: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A process of members; what it has to know, keys among it, goes through a pipe and no command line."""
    child = subprocess.Popen([sys.executable, "-m", "codream_secure.bench.streams", "--members"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(json.dumps(settings).encode())
    child.stdin.close()
    return child


async def _members(settings: dict[str, Any]) -> None:
    """Members and echoing clients, all in this process's one event loop."""
    tls = load(Path(settings["folder"]), "member")
    roster = Roster({int(member): bytes.fromhex(key) for member, key in settings["roster"].items()})
    port, echo_port = settings["ports"]
    work = []
    for number, key in settings["members"].items():
        identity = Identity(bytes.fromhex(key))
        rng = np.random.default_rng(int(number))
        made: dict[int, np.ndarray[Any, Any]] = {}

        def compute(asked: Any, rng: Any = rng, made: Any = made) -> np.ndarray[Any, Any]:
            if asked.values not in made:
                made[asked.values] = rng.uniform(-1, 1, asked.values).astype(np.float32)
            vector: np.ndarray[Any, Any] = made[asked.values]
            return vector

        member = Member(
            int(number),
            protocol=make_protocol(settings["protection"]),
            terms=_terms(len(settings["roster"]), settings["planned"]),
            credentials=Credentials(identity=identity, roster=roster, rounds=RoundLog()),
            compute=compute,
        )
        participant = Participant(
            f"127.0.0.1:{port}",
            member,
            identity=identity,
            roster=roster,
            tls=tls,
            backoff=Backoff(patience_s=_PATIENCE_S),
            inline=True,
        )
        work += [participant.serve(1), echo(echo_port, tls)]
    await asyncio.gather(*work)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON object; ``--members`` is for the processes that this one starts."""
    parser = argparse.ArgumentParser(prog="python -m codream_secure.bench.streams", description=__doc__)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--values", type=int, default=VALUES)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--protection", default="masked")
    parser.add_argument("--members", action="store_true", help=argparse.SUPPRESS)
    options = vars(parser.parse_args(arguments))
    if options.pop("members"):
        asyncio.run(_members(json.load(sys.stdin)))
        return
    try:
        print(json.dumps(bench_streams(**options), indent=2))
    except ConfigError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
