"""The yardstick for encrypted sums: TenSEAL as it is widely used in federated learning.

CKKS with N = 8192, primes of 60, 40 and 40 bits and a scale of 2^40, public-key encryption, a ``ckks_vector`` for each
4096 values, all clients holding one secret key: the settings of TenSEAL's tutorials and of NVIDIA FLARE's homomorphic
aggregation, with vectors cut so that every slot is used. Nothing is signed or checked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

DEFAULT = "ckks-8192-default"
_DEGREE, _PRIMES, _SCALE = 8192, (60, 40, 40), 2.0**40
_SLOTS = _DEGREE // 2


@dataclass(frozen=True, kw_only=True)
class DefaultTimes:
    """One sum.

    Attributes:
        setup_cpu_s: making the keys, at one client.
        setup_bytes: the secret context that it has to give to each other one.
        contribute_cpu_s: a client's encryption and serialisation, median.
        open_cpu_s: reading, decrypting and decoding the sum, at one client.
        collect_cpu_s: reading and adding up, at the server, all clients.
        finish_cpu_s: serialising the sum.
        upload_bytes: of one client.
        download_bytes: of the sum.
        total: ``(d,)`` float64.
    """

    setup_cpu_s: float
    setup_bytes: int
    contribute_cpu_s: float
    open_cpu_s: float
    collect_cpu_s: float
    finish_cpu_s: float
    upload_bytes: int
    download_bytes: int
    total: npt.NDArray[np.float64]


def time_default(
    vectors: Sequence[npt.NDArray[np.float32]], *, vanished: Collection[int], observe: Callable[[str], None]
) -> DefaultTimes:
    """Sum once, every party's CPU seconds apart.

    Args:
        vectors: one a client, of equal length.
        vanished: clients that contribute nothing.
        observe: told what is going on.
    """
    import tenseal

    started = time.thread_time()
    # One thread inside TenSEAL: its own would not show in this thread's CPU time.
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, _DEGREE, coeff_mod_bit_sizes=list(_PRIMES), n_threads=1)
    context.global_scale = _SCALE
    secret = context.serialize(save_secret_key=True, save_galois_keys=False, save_relin_keys=False)
    setup = time.thread_time() - started
    public = context.copy()
    public.make_context_public()

    def read(chunk: bytes, where: tenseal.Context) -> tenseal.CKKSVector:
        return tenseal.ckks_vector_from(where, chunk)

    contributing, collecting, upload = [], 0.0, 0
    sums: list[tenseal.CKKSVector] = []
    for member, vector in enumerate(vectors):
        if member in vanished:
            continue
        observe(f"client {member}")
        started = time.thread_time()
        message = [
            tenseal.ckks_vector(context, vector[at : at + _SLOTS].tolist()).serialize()
            for at in range(0, len(vector), _SLOTS)
        ]
        contributing.append(time.thread_time() - started)
        upload = max(upload, sum(map(len, message)))
        started = time.thread_time()
        chunks = [read(chunk, public) for chunk in message]
        if sums:
            for total, chunk in zip(sums, chunks, strict=True):
                total += chunk
        else:
            sums = chunks
        collecting += time.thread_time() - started
    started = time.thread_time()
    result = [total.serialize() for total in sums]
    finishing = time.thread_time() - started
    started = time.thread_time()
    opened = np.concatenate([np.asarray(read(chunk, context).decrypt()) for chunk in result])
    opening = time.thread_time() - started
    return DefaultTimes(
        setup_cpu_s=setup,
        setup_bytes=len(secret),
        contribute_cpu_s=median(contributing),
        open_cpu_s=opening,
        collect_cpu_s=collecting,
        finish_cpu_s=finishing,
        upload_bytes=upload,
        download_bytes=sum(map(len, result)),
        total=opened,
    )
