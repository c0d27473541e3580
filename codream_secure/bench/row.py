"""One line of the benchmark of secure sums, and the vectors that all its lines sum."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CLIP = 1.0
UNENCRYPTED = ("plain", "masked")

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
        client_cpu_s: all that one client does in a step: encode, protect, frame, and help to open the sum or open it.
        contribute_cpu_s: of that, until its vector is on the way.
        floor_cpu_s: the keystream of as many masks, added up; None without masks.
        floor_ratio: client_cpu_s over floor_cpu_s.
        server_cpu_s: all that the server does in a step.
        unmask_cpu_s: of that, from the end of the collection to the result.
        authority_cpu_s: all that a key authority does in a step; None without one.
        upload_bytes_per_value: all that one client sends in a step, over the number of values.
        download_bytes_per_value: all that it receives in a step; None where that was not counted.
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
    contribute_cpu_s: float
    floor_cpu_s: float | None
    floor_ratio: float | None
    server_cpu_s: float
    unmask_cpu_s: float
    authority_cpu_s: float | None
    upload_bytes_per_value: float
    download_bytes_per_value: float | None
    max_abs_error: float


def client_vectors(size: int, values: int) -> list[Vector]:
    """Everybody's vector, the same in every step: normal with standard deviation 0.2, within [-1, 1].

    They are overlapping parts of one, a cache line apart, so that hundreds take no more memory or time than one.
    """
    drawn = 0.2 * np.random.default_rng(0).standard_normal(values + 16 * size, dtype=np.float32)
    np.clip(drawn, -CLIP, CLIP, out=drawn)
    return [drawn[16 * member : 16 * member + values] for member in range(size)]


def vanished_count(size: int, dropout: float) -> int:
    """floor(dropout * size), not fooled by the last bit of a product such as 0.1 * 30."""
    return math.floor(dropout * size + 1e-9)


def sum_of_present(vectors: Sequence[Vector], vanished: Collection[int]) -> npt.NDArray[np.float64]:
    expected = np.zeros(len(vectors[0]))
    for member, vector in enumerate(vectors):
        if member not in vanished:
            expected += vector
    return expected
