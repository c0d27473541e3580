"""How a key holder opens a sum: examine what vouches for it, decrypt, round, decode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from protocols import wire
from protocols.errors import CiphertextError, StepError, TermsError
from protocols.homomorphic.parameters import Parameters
from protocols.homomorphic.planning import Plan
from protocols.homomorphic.vectors import Key, decrypt_sum
from protocols.homomorphic.vouchers import Notary
from protocols.keys import Roster, request_context
from protocols.machines import SumResult
from protocols.terms import MAX_COHORT, Terms

_VOUCHER_FRAME = 200


def requested(total: wire.Total) -> bytes:
    """What the step asked for, according to the message; vouchers for anything else do not open."""
    return request_context(total.step, total.stream, total.values, total.context)


def total_limit(plans: Mapping[str, Plan], terms: Terms, members: int) -> int:
    """Longest frame of a sum that the terms allow."""
    bodies = (plans[name].sum_bytes(encoding.length(terms.max_values)) for name, encoding in terms.streams.items())
    return 512 + _VOUCHER_FRAME * min(members, MAX_COHORT) + max(bodies)


def open_total(
    total: wire.Total,
    *,
    terms: Terms,
    plans: Mapping[str, Plan],
    notary: Notary,
    members: Iterable[int],
    needed: int,
    roster: Roster,
    key: Callable[[Parameters], Key],
    opened: int,
    state: bytes | None = None,
) -> SumResult:
    """The sum, if it is what enough members vouch for.

    Errors of the ciphertexts are rounded off before anything is handed on: at full precision they would give the key
    away to whoever also sees the ciphertexts (Li and Micciancio, EUROCRYPT 2021). A sum that was rounded to the right
    integers says nothing about them; it is right but for the probability in :mod:`protocols.homomorphic.parameters`,
    and a refusal says that they were large.

    Args:
        total: from the server.
        terms: of the round.
        plans: of its streams.
        notary: examines vouchers.
        members: who completed the set-up.
        needed: how many must have contributed.
        roster: their public keys.
        key: gives the secret key of a set of parameters.
        opened: the latest step whose sum this party has opened.
        state: as for :meth:`~protocols.homomorphic.vouchers.Notary.examine`.

    Raises:
        StepError: the step has been opened, or passed over, or lies beyond those that were set up.
        TermsError: the stream is not in the terms, or the vector is too long for them.
        ProtocolError: as for :meth:`~protocols.homomorphic.vouchers.Notary.examine`, and for
            :func:`~protocols.homomorphic.vectors.decrypt_sum`.
    """
    if total.step <= opened:
        raise StepError(f"the sum of step {total.step} has been opened, or passed over, already")
    if total.step >= terms.steps:
        raise StepError(f"step {total.step} is beyond the {terms.steps} that were set up")
    if total.stream not in plans or total.values > terms.max_values:
        raise TermsError(f"a sum of {total.values} values of stream {total.stream!r} is not in the terms")
    plan, encoding = plans[total.stream], terms.streams[total.stream]
    elements = encoding.length(total.values)
    if len(total.body) != plan.sum_bytes(elements):
        raise CiphertextError(f"the sum has {len(total.body)} bytes, where {plan.sum_bytes(elements)} are expected")
    contributors = notary.examine(
        plan,
        total.body,
        total.vouchers,
        request=requested(total),
        members=members,
        needed=needed,
        roster=roster,
        state=state,
    )
    ring = decrypt_sum(
        plan,
        total.body,
        key(plan.parameters),
        elements=elements,
        contributors=len(contributors),
        dtype=encoding.dtype,
    )
    decoded = encoding.decode(ring)
    return SumResult(total=decoded.total, weight=decoded.weight, contributors=contributors, ring=ring, step=total.step)
