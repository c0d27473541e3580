"""What a secure sum costs: CPU seconds and bytes, by protection, cohort size and dropout, beside others' and a floor.

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

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from codream_secure.bench.floor import Floor
from codream_secure.bench.others import measure_default, measure_flower
from codream_secure.bench.pulse import Observer, Pulse
from codream_secure.bench.row import CLIP, UNENCRYPTED, Row, Vector, client_vectors, vanished_count
from codream_secure.bench.tenseal_default import DEFAULT
from codream_secure.errors import ConfigError
from protocols import AUTHORITY, SERVER, Costs, FixedPoint, Phase, Simulation, Terms, make_protocol
from protocols.machines import Outbox

VALUES = 786_432
"""256 dreams of 3x32x32."""
SPARSE_SHARES, SPARSE_FROM = 21, 100
"""Flower's neighbours (and itself) where it is timed with a graph that is not complete, and from which size on."""
_MASKED = "masked"
_STREAM, _SETUP, _STEP, _CONTRIBUTE, _COLLECT, _UNMASK = "values", "setup", "step", "contribute", "collect", "unmask"
_TOLERATED_DROPOUT = 0.3
_FLOORS = 5


def bench_protocols(
    protections: Sequence[str],
    *,
    clients: Sequence[int],
    dropouts: Sequence[float],
    values: int = VALUES,
    steps: int = 3,
    planned_steps: int = 30,
    encrypted_clients: Collection[int] = (),
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
        encrypted_clients: of ``clients``, where homomorphic protections are measured, and TenSEAL's widely used default
            beside them if it is among the names; they take a hundred times longer than masks.
        flower_clients: of ``clients``, where Flower's SecAgg+ is timed as well, at the least and the largest dropout.
        observe: told what is going on, whenever that takes longer than two seconds.

    Raises:
        ConfigError: a number is out of range, or there are fewer planned steps than timed ones.
        ProtocolError: a protection is unknown, or cannot bear the dropout.
    """
    _check(clients, dropouts, values=values, steps=steps, planned_steps=planned_steps)
    for option, sizes in (("encrypted_clients", encrypted_clients), ("flower_clients", flower_clients)):
        for size in sizes:
            if size not in clients:
                raise ConfigError(f"{option} has {size}, which clients has not: {', '.join(map(str, clients))}")
    for name in protections:
        if name != DEFAULT and make_protocol(name).name == _MASKED:
            for size in clients:
                _terms(size, dropouts, planned_steps).topology(size)
    rows: list[Row] = []
    with Pulse(observe) as pulse:
        for size in clients:
            vectors = client_vectors(size, values)
            for name in protections:
                if name not in UNENCRYPTED and size not in encrypted_clients:
                    continue
                if name == DEFAULT:
                    rows += [measure_default(vectors, dropout, pulse=pulse) for dropout in dropouts]
                    continue
                rows += _measure(name, vectors, dropouts, steps=steps, planned_steps=planned_steps, pulse=pulse)
            if size in flower_clients:
                for shares in (size, SPARSE_SHARES) if size >= SPARSE_FROM else (size,):
                    for dropout in sorted({min(dropouts), max(dropouts)}):
                        rows.append(measure_flower(vectors, shares, dropout, pulse=pulse))
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


def _terms(size: int, dropouts: Sequence[float], planned_steps: int) -> Terms:
    return Terms(
        streams={_STREAM: FixedPoint(clip=CLIP, clients=size)},
        steps=planned_steps,
        dropout=max(_TOLERATED_DROPOUT, *dropouts),
    )


# Ours


def _measure(
    name: str, vectors: Sequence[Vector], dropouts: Sequence[float], *, steps: int, planned_steps: int, pulse: Pulse
) -> list[Row]:
    """One set-up, and the timed steps of all dropouts after it."""
    size, values = len(vectors), len(vectors[0])
    where = f"{name}, {size} clients"
    pulse.say(f"{where}: set-up")
    terms = _terms(size, dropouts, planned_steps)
    protocol = make_protocol(name)
    cohort = Simulation(protocol, range(size), terms=terms)
    cohort.open()
    setups = [cohort.costs.of(member, _SETUP) for member in range(size)]
    degree = terms.topology(size).degree if name == _MASKED else None
    floor = Floor(values, degree + 1) if degree is not None else None
    rows = []
    for dropout in dropouts:
        gone = vanished_count(size, dropout)
        taken = []
        for step in range(steps):
            pulse.say(f"{where}, {100 * dropout:g} % vanish: step {step + 1} of {steps}")
            vanished = set(random.Random(step).sample(range(size), gone))
            taken.append(
                _take_step(
                    cohort,
                    vectors,
                    vanished=vanished,
                    floor=floor,
                    opened_by_server=protocol.opened_by == "server",
                )
            )
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
                contribute_cpu_s=median(seconds for step in taken for seconds in step.contributions),
                floor_cpu_s=least,
                floor_ratio=clients / least if least else None,
                server_cpu_s=median(step.server for step in taken),
                unmask_cpu_s=median(step.unmask for step in taken),
                authority_cpu_s=median(step.authority for step in taken) if cohort.authority else None,
                upload_bytes_per_value=max(step.upload for step in taken) / values,
                download_bytes_per_value=max(step.download for step in taken) / values,
                max_abs_error=max(step.error for step in taken),
            )
        )
    cohort.close()
    return rows


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One step: seconds of each client, of the floor, and of the server; bytes; the error."""

    clients: list[float]
    contributions: list[float]
    floors: list[float]
    server: float
    unmask: float
    authority: float
    upload: int
    download: int
    error: float


def _take_step(
    cohort: Simulation,
    vectors: Sequence[Vector],
    *,
    vanished: Collection[int],
    floor: Floor | None,
    opened_by_server: bool,
) -> _Step:
    values, server, clients, costs = len(vectors[0]), cohort.server, cohort.clients, Costs()
    assert server is not None
    present = [member for member in clients if member not in vanished]
    after_floor = {present[at * (len(present) - 1) // (_FLOORS - 1)] for at in range(_FLOORS)}
    floors: list[float] = []
    expected = np.zeros(values)
    with costs.timed(SERVER, _COLLECT):
        outbox = server.request(_STREAM, values)
    _hand_over(cohort, outbox, costs)
    for member in present:
        expected += vectors[member]
        if floor is not None and member in after_floor:
            floors.append(floor.seconds())
        with costs.timed(member, _CONTRIBUTE):
            contribution = clients[member].contribute(vectors[member], stream=_STREAM)
        costs.moved(member, SERVER, _STEP, len(contribution))
        with costs.timed(SERVER, _COLLECT):
            server.receive(member, contribution)
    with costs.timed(SERVER, _UNMASK):
        outbox = server.advance()
    while server.phase is not Phase.READY:
        for member, answer in _hand_over(cohort, outbox, costs).items():
            costs.moved(member, SERVER, _STEP, len(answer))
            with costs.timed(SERVER, _UNMASK):
                server.receive(member, answer)
        with costs.timed(SERVER, _UNMASK):
            outbox = server.advance()
    _hand_over(cohort, outbox, costs)
    total = (server if opened_by_server else clients[present[0]]).result().total
    unmask = costs.of(SERVER, _UNMASK).cpu_seconds
    return _Step(
        clients=[costs.of(member, _STEP).cpu_seconds + costs.of(member, _CONTRIBUTE).cpu_seconds for member in present],
        contributions=[costs.of(member, _CONTRIBUTE).cpu_seconds for member in present],
        floors=floors,
        server=costs.of(SERVER, _COLLECT).cpu_seconds + unmask,
        unmask=unmask,
        authority=costs.of(AUTHORITY, _STEP).cpu_seconds,
        upload=max(costs.of(member, _STEP).sent for member in present),
        download=max(costs.of(member, _STEP).received for member in present),
        error=float(np.abs(total - expected).max()),
    )


def _hand_over(cohort: Simulation, outbox: Outbox, costs: Costs) -> dict[int, bytes]:
    """The server's messages to whom they are for; the answers."""
    answers = {}
    for party, message in outbox.items():
        costs.moved(SERVER, party, _STEP, len(message))
        with costs.timed(party, _STEP):
            answer = cohort.machine(party).receive(message)
        if answer is not None:
            answers[party] = answer
    return answers
