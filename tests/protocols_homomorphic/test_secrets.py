"""Keys that are derived from one secret: each differs with everything that it is for."""

from __future__ import annotations

import itertools

from protocols import FixedPoint
from protocols.homomorphic.planning import plan_sums
from protocols.homomorphic.secrets import (
    CHECK_BYTES,
    key_check,
    secret_key,
    state_digest,
    tag_key,
    tag_root,
    voucher_key,
    voucher_root,
)
from protocols.keys import Secret, context_digest, request_context

SESSIONS = (bytes(32), bytes(31) + b"\1")
REQUESTS = [
    request_context(step, stream, values, context_digest(context))
    for step, stream, values, context in itertools.product((0, 1), ("g", "h", "gg"), (5, 6), (b"", b"dreams"))
]


def test_every_step_stream_length_context_and_round_has_its_own_tag_key() -> None:
    """Under one key for two steps, a server that saw what one of them accepts could use it in the other."""
    keys = {tag_key(Secret(root), s, r) for root in SESSIONS for s in SESSIONS for r in REQUESTS}
    assert len(keys) == 2 * 2 * len(REQUESTS)
    assert all(len(key) == 32 for key in keys)


def test_a_state_s_digest_differs_with_the_state_and_the_step() -> None:
    """So equal states of two steps cannot be recognised even by those who open vouchers."""
    shared = (b"", b"dreams", b"dream", b"dreams\0")
    digests = {state_digest(Secret(bytes(32)), s, r, state) for s in SESSIONS for r in REQUESTS for state in shared}
    assert len(digests) == 2 * len(REQUESTS) * len(shared)
    assert {len(digest) for digest in digests} == {CHECK_BYTES}


def test_every_member_seals_under_its_own_key() -> None:
    keys = {voucher_key(Secret(bytes(32)), s, member) for s in SESSIONS for member in (0, 1, 256, 2**32 - 1)}
    assert len(keys) == 8


def test_one_root_gives_unrelated_secrets() -> None:
    root = Secret(bytes(range(32)))
    sets = [
        plan_sums(scheme, FixedPoint(clip=1.0, clients=clients), public=public).parameters
        for scheme in ("bfv", "ckks")
        for clients in (2, 3)
        for public in (False, True)
    ]
    seeds = [secret_key(root, parameters).material for parameters in sets]
    halves = [half for seed in seeds for half in (seed[:32], seed[32:])]
    found = [*halves, bytes(tag_root(root).value), bytes(voucher_root(root).value), bytes(root.value)]
    assert len(set(found)) == len(found)
    assert all(len(seed) == 64 for seed in seeds)


def test_a_check_tells_one_root_from_another() -> None:
    sets = [plan_sums("bfv", FixedPoint(clip=1.0, clients=2), public=False).parameters]
    checks = [key_check(Secret(root), sets) for root in SESSIONS]
    assert len(set(checks)) == 2
    assert checks[0] == key_check(Secret(SESSIONS[0]), sets)
    assert [len(check) for check in checks] == [CHECK_BYTES] * 2
