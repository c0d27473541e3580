"""What is measured beside our own protections, on the same vectors: Flower's SecAgg+, and TenSEAL's usual settings."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from codream_secure.bench.floor import Floor
from codream_secure.bench.flower import time_flower
from codream_secure.bench.pulse import Pulse
from codream_secure.bench.row import CLIP, Row, Vector, sum_of_present, vanished_count
from codream_secure.bench.tenseal_default import DEFAULT, time_default

FLOWER = "flower-secagg"


def measure_default(vectors: Sequence[Vector], dropout: float, *, pulse: Pulse) -> Row:
    size, values = len(vectors), len(vectors[0])
    gone = vanished_count(size, dropout)
    vanished = set(random.Random(0).sample(range(size), gone))
    found = time_default(
        vectors, vanished=vanished, observe=lambda text: pulse.say(f"{DEFAULT}, {100 * dropout:g} % vanish: {text}")
    )
    return Row(
        protocol=DEFAULT,
        clients=size,
        values=values,
        dropout=dropout,
        vanished=gone,
        degree=None,
        steps=1,
        steps_per_setup=1,
        setup_cpu_s=found.setup_cpu_s,
        setup_bytes=found.setup_bytes,
        client_cpu_s=found.contribute_cpu_s + found.open_cpu_s,
        contribute_cpu_s=found.contribute_cpu_s,
        floor_cpu_s=None,
        floor_ratio=None,
        server_cpu_s=found.collect_cpu_s + found.finish_cpu_s,
        unmask_cpu_s=found.finish_cpu_s,
        authority_cpu_s=None,
        upload_bytes_per_value=found.upload_bytes / values,
        download_bytes_per_value=found.download_bytes / values,
        max_abs_error=float(np.abs(found.total - sum_of_present(vectors, vanished)).max()),
    )


def measure_flower(vectors: Sequence[Vector], shares: int, dropout: float, *, pulse: Pulse) -> Row:
    size, values = len(vectors), len(vectors[0])
    gone = vanished_count(size, dropout)
    where = f"{FLOWER}, {size} clients, {shares - 1} neighbours, {100 * dropout:g} % vanish"
    # Member 0 is the one that is timed.
    vanished = set(random.Random(0).sample(range(1, size), gone))
    found = time_flower(
        vectors,
        shares=shares,
        threshold=(1 - dropout) / 2,
        vanished=vanished,
        clip=CLIP,
        floor=Floor(values, shares).seconds,
        observe=lambda text: pulse.say(f"{where}: {text}"),
    )
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
        contribute_cpu_s=found.contribute_cpu_s,
        floor_cpu_s=found.floor_cpu_s,
        floor_ratio=found.client_cpu_s / found.floor_cpu_s,
        server_cpu_s=found.server_cpu_s,
        unmask_cpu_s=found.unmask_cpu_s,
        authority_cpu_s=None,
        upload_bytes_per_value=found.upload_bytes / values,
        download_bytes_per_value=None,
        max_abs_error=float(np.abs(found.total - sum_of_present(vectors, vanished)).max()),
    )
