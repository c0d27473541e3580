"""What a secure sum costs: CPU seconds and bytes, by protection, cohort size and dropout, beside the machine's floor.

All machines of a cohort are real: everybody goes through the set-up, and in every step the server receives a
contribution from each client that does not vanish and opens the sum. The bytes are moved by hand, so that whichever
machine runs is timed alone, by the CPU time of its thread. A row's figures are medians: a client's set-up over all
clients, its step over all that stayed in all timed steps, the server's step over the timed steps. Other clients vanish
in each step.

The floor is the least that masking can cost with the primitives at hand: the AES-256-CTR keystream of as many masks as
one client puts on, added in blocks that stay in the cache, and nothing else. It is timed in between, before a few
clients of each step.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from codream_secure.bench.flower import time_flower
from codream_secure.bench.pulse import Observer, Pulse
from codream_secure.errors import ConfigError
from protocols import SERVER, Costs, FixedPoint, Phase, Simulation, Terms, make_protocol

VALUES = 786_432
"""256 dreams of 3x32x32."""
FLOWER = "flower-secagg"
SPARSE_SHARES, SPARSE_FROM = 21, 100
"""Flower's neighbours (and itself) where it is timed with a graph that is not complete, and from which size on."""
_MASKED = "masked"
_STREAM, _SETUP, _STEP, _COLLECT, _UNMASK = "values", "setup", "step", "collect", "unmask"
_CLIP = 1.0
_TOLERATED_DROPOUT = 0.3
_FLOORS = 5
_BLOCK_BYTES = 128 * 1024

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One protection at one cohort size and dropout.

    Attributes:
        protocol: name of the protection, or ``flower-secagg``.
        clients: n, size of the cohort.
        values: d, length of every client's vector.
        dropout: share of the cohort that vanishes before it contributes.
        vanished: how many that are, rounded down.
        degree: neighbours of a client in the mask graph; None without one.
        steps: how many were timed.
        steps_per_setup: how many steps one set-up serves.
        setup_cpu_s: one client's set-up.
        setup_bytes: what it sends and receives for that.
        client_cpu_s: all that one client does in a step: encode, mask, frame, and help to open the sum.
        floor_cpu_s: the keystream of as many masks, added up; None without masks.
        floor_ratio: client_cpu_s over floor_cpu_s.
        server_cpu_s: all that the server does in a step.
        unmask_cpu_s: of that, from the end of the collection to the result.
        upload_bytes_per_value: all that one client sends in a step, over the number of values.
        max_abs_error: largest difference of a value of the sum from the sum in float64.
    """

    protocol: str
    clients: int
    values: int
    dropout: float
    vanished: int
    degree: int | None
    steps: int
    steps_per_setup: int
    setup_cpu_s: float
    setup_bytes: int
    client_cpu_s: float
    floor_cpu_s: float | None
    floor_ratio: float | None
    server_cpu_s: float
    unmask_cpu_s: float
    upload_bytes_per_value: float
    max_abs_error: float


def bench_protocols(
    protections: Sequence[str],
    *,
    clients: Sequence[int],
    dropouts: Sequence[float],
    values: int = VALUES,
    steps: int = 3,
    planned_steps: int = 30,
    flower_clients: Collection[int] = (),
    observe: Observer = lambda text: None,
) -> list[Row]:
    """Measure every protection at every cohort size and dropout.

    Args:
        protections: names as for :func:`protocols.make_protocol`.
        clients: cohort sizes.
        dropouts: shares of the cohort that vanish in each step. The protections tolerate the largest, and at least
            0.3.
        values: length of every vector.
        steps: timed steps of each row; the steps of all dropouts of a cohort follow one set-up.
        planned_steps: how many steps that set-up is made for.
        flower_clients: of ``clients``, where Flower's SecAgg+ is timed as well, at the least and the largest dropout.
        observe: told what is going on, whenever that takes longer than two seconds.

    Raises:
        ConfigError: a number is out of range, or there are fewer planned steps than timed ones.
        ProtocolError: a protection is unknown, or cannot bear the dropout.
    """
    _check(clients, dropouts, values=values, steps=steps, planned_steps=planned_steps, flower_clients=flower_clients)
    for name in protections:
        if make_protocol(name).name == _MASKED:
            for size in clients:
                _terms(size, dropouts, planned_steps).topology(size)
    rows: list[Row] = []
    with Pulse(observe) as pulse:
        for size in clients:
            vectors = client_vectors(size, values)
            for name in protections:
                rows += _measure(name, vectors, dropouts, steps=steps, planned_steps=planned_steps, pulse=pulse)
            if size in flower_clients:
                for shares in (size, SPARSE_SHARES) if size >= SPARSE_FROM else (size,):
                    for dropout in sorted({min(dropouts), max(dropouts)}):
                        rows.append(_measure_flower(vectors, shares, dropout, pulse=pulse))
    return rows


def cohort_sizes(text: str, option: str = "clients") -> list[int]:
    """Read cohort sizes as they are given on the command line, each once.

    >>> cohort_sizes("10, 50,10")
    [10, 50]

    Raises:
        ConfigError: something between the commas is no whole number.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise ConfigError(f"{option}={text!r} must be whole numbers with commas between them, such as 10,50,100")
    return list(dict.fromkeys(map(int, parts)))


def dropout_shares(text: str) -> list[float]:
    """Read shares of the cohort as they are given on the command line, each once.

    >>> dropout_shares("0,0.1, 0.2")
    [0.0, 0.1, 0.2]

    Raises:
        ConfigError: something between the commas is no number.
    """
    try:
        return list(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise ConfigError(f"dropout={text!r} must be numbers with commas between them, such as 0,0.1,0.2") from None


def _check(
    clients: Sequence[int],
    dropouts: Sequence[float],
    *,
    values: int,
    steps: int,
    planned_steps: int,
    flower_clients: Collection[int],
) -> None:
    for size in clients:
        if size < 2:
            raise ConfigError(f"clients has {size}: a sum needs at least 2")
    for dropout in dropouts:
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout has {dropout:g}: a share of the cohort, at least 0 and below 1")
    for name, number in (("values", values), ("steps", steps)):
        if number < 1:
            raise ConfigError(f"{name} is {number}: at least 1")
    needed = steps * len(dropouts)
    if planned_steps < needed:
        raise ConfigError(
            f"planned_steps is {planned_steps}: {steps} timed steps at each of {len(dropouts)} dropouts need {needed}"
        )
    for size in flower_clients:
        if size not in clients:
            raise ConfigError(f"flower_clients has {size}, which clients has not: {', '.join(map(str, clients))}")


def _terms(size: int, dropouts: Sequence[float], planned_steps: int) -> Terms:
    return Terms(
        streams={_STREAM: FixedPoint(clip=_CLIP, clients=size)},
        steps=planned_steps,
        dropout=max(_TOLERATED_DROPOUT, *dropouts),
    )


def client_vectors(size: int, values: int) -> list[Vector]:
    """Everybody's vector, the same in every step: normal with standard deviation 0.2, within [-1, 1].

    They are overlapping parts of one, a cache line apart, so that hundreds take no more memory or time than one.
    """
    drawn = 0.2 * np.random.default_rng(0).standard_normal(values + 16 * size, dtype=np.float32)
    np.clip(drawn, -_CLIP, _CLIP, out=drawn)
    return [drawn[16 * member : 16 * member + values] for member in range(size)]


# Ours


def _measure(
    name: str, vectors: Sequence[Vector], dropouts: Sequence[float], *, steps: int, planned_steps: int, pulse: Pulse
) -> list[Row]:
    """One set-up, and the timed steps of all dropouts after it."""
    size, values = len(vectors), len(vectors[0])
    where = f"{name}, {size} clients"
    pulse.say(f"{where}: set-up")
    terms = _terms(size, dropouts, planned_steps)
    cohort = Simulation(make_protocol(name), range(size), terms=terms)
    cohort.open()
    setups = [cohort.costs.of(member, _SETUP) for member in range(size)]
    degree = terms.topology(size).degree if name == _MASKED else None
    floor = Floor(values, degree + 1) if degree is not None else None
    rows = []
    for dropout in dropouts:
        gone = _vanished(size, dropout)
        taken = []
        for step in range(steps):
            pulse.say(f"{where}, {100 * dropout:g} % vanish: step {step + 1} of {steps}")
            vanished = set(random.Random(step).sample(range(size), gone))
            taken.append(_take_step(cohort, vectors, vanished=vanished, floor=floor))
        clients = median(seconds for step in taken for seconds in step.clients)
        least = median(seconds for step in taken for seconds in step.floors) if floor is not None else None
        rows.append(
            Row(
                protocol=name,
                clients=size,
                values=values,
                dropout=dropout,
                vanished=gone,
                degree=degree,
                steps=steps,
                steps_per_setup=planned_steps,
                setup_cpu_s=median(cost.cpu_seconds for cost in setups),
                setup_bytes=round(median(cost.sent + cost.received for cost in setups)),
                client_cpu_s=clients,
                floor_cpu_s=least,
                floor_ratio=clients / least if least else None,
                server_cpu_s=median(step.server for step in taken),
                unmask_cpu_s=median(step.unmask for step in taken),
                upload_bytes_per_value=max(step.upload for step in taken) / values,
                max_abs_error=max(step.error for step in taken),
            )
        )
    cohort.close()
    return rows


def _vanished(size: int, dropout: float) -> int:
    """floor(dropout * size), not fooled by the last bit of a product such as 0.1 * 30."""
    return math.floor(dropout * size + 1e-9)


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One step: seconds of each client, of the floor, and of the server; bytes; the error."""

    clients: list[float]
    floors: list[float]
    server: float
    unmask: float
    upload: int
    error: float


def _take_step(
    cohort: Simulation, vectors: Sequence[Vector], *, vanished: Collection[int], floor: Floor | None
) -> _Step:
    values, server, clients, costs = len(vectors[0]), cohort.server, cohort.clients, Costs()
    assert server is not None
    present = [member for member in clients if member not in vanished]
    after_floor = {present[at * (len(present) - 1) // (_FLOORS - 1)] for at in range(_FLOORS)}
    floors: list[float] = []
    expected = np.zeros(values)
    with costs.timed(SERVER, _COLLECT):
        outbox = server.request(_STREAM, values)
    for member, message in outbox.items():
        with costs.timed(member, _STEP):
            clients[member].receive(message)
    for member in present:
        expected += vectors[member]
        if floor is not None and member in after_floor:
            floors.append(floor.seconds())
        with costs.timed(member, _STEP):
            contribution = clients[member].contribute(vectors[member], stream=_STREAM)
        costs.moved(member, SERVER, _STEP, len(contribution))
        with costs.timed(SERVER, _COLLECT):
            server.receive(member, contribution)
    with costs.timed(SERVER, _UNMASK):
        outbox = server.advance()
    while server.phase is not Phase.READY:
        for member, message in outbox.items():
            with costs.timed(member, _STEP):
                answer = clients[member].receive(message)
            if answer is not None:
                costs.moved(member, SERVER, _STEP, len(answer))
                with costs.timed(SERVER, _UNMASK):
                    server.receive(member, answer)
        with costs.timed(SERVER, _UNMASK):
            outbox = server.advance()
    total = server.result().total
    unmask = costs.of(SERVER, _UNMASK).cpu_seconds
    return _Step(
        clients=[costs.of(member, _STEP).cpu_seconds for member in present],
        floors=floors,
        server=costs.of(SERVER, _COLLECT).cpu_seconds + unmask,
        unmask=unmask,
        upload=max(costs.of(member, _STEP).sent for member in present),
        error=float(np.abs(total - expected).max()),
    )


class Floor:
    """The keystream of some masks, added up in a ring of 32 bits.

    Its buffers stay: memory that is given back and faulted in anew would slow down whoever runs next.

    Args:
        values: length of the vector.
        masks: how many.
    """

    def __init__(self, values: int, masks: int) -> None:
        self._masks = masks
        self._total = np.ones(values, dtype=np.uint32)
        self._zeros = memoryview(bytes(_BLOCK_BYTES))
        self._buffer = bytearray(_BLOCK_BYTES + 15)

    def seconds(self) -> float:
        """CPU seconds of one turn, with fresh keys that are set up before."""
        streams = [Cipher(AES(os.urandom(32)), CTR(bytes(16))).encryptor() for _ in range(self._masks)]
        total, buffer, width = self._total, self._buffer, _BLOCK_BYTES // self._total.itemsize
        mask = np.frombuffer(buffer, dtype=total.dtype, count=width)
        started = time.thread_time()
        for start in range(0, len(total), width):
            block = total[start : start + width]
            for stream in streams:
                stream.update_into(self._zeros[: block.nbytes], buffer)
                np.add(block, mask[: len(block)], out=block)
        return time.thread_time() - started


# Flower's


def _measure_flower(vectors: Sequence[Vector], shares: int, dropout: float, *, pulse: Pulse) -> Row:
    size, values = len(vectors), len(vectors[0])
    gone = _vanished(size, dropout)
    where = f"{FLOWER}, {size} clients, {shares - 1} neighbours, {100 * dropout:g} % vanish"
    # Member 0 is the one that is timed.
    vanished = set(random.Random(0).sample(range(1, size), gone))
    found = time_flower(
        vectors,
        shares=shares,
        threshold=(1 - dropout) / 2,
        vanished=vanished,
        clip=_CLIP,
        floor=Floor(values, shares).seconds,
        observe=lambda text: pulse.say(f"{where}: {text}"),
    )
    expected = np.zeros(values)
    for member in range(size):
        if member not in vanished:
            expected += vectors[member]
    return Row(
        protocol=FLOWER,
        clients=size,
        values=values,
        dropout=dropout,
        vanished=gone,
        degree=shares - 1,
        steps=1,
        steps_per_setup=1,
        setup_cpu_s=found.setup_cpu_s,
        setup_bytes=found.setup_bytes,
        client_cpu_s=found.client_cpu_s,
        floor_cpu_s=found.floor_cpu_s,
        floor_ratio=found.client_cpu_s / found.floor_cpu_s,
        server_cpu_s=found.server_cpu_s,
        unmask_cpu_s=found.unmask_cpu_s,
        upload_bytes_per_value=found.upload_bytes / values,
        max_abs_error=float(np.abs(found.total - expected).max()),
    )
