"""Conditions that every audit must meet, looked at in every audit. One that fails makes it invalid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from attacks.auditing.observe import Observation
from attacks.auditing.plan import Plan
from attacks.blind import blind_auc, duplicates
from attacks.membership import references
from attacks.rows import Check
from attacks.transcript import Sum, Transcript
from attacks.views import ServerView, in_clear
from protocols.plain import PlainSum

LEARNT = 0.9
MATCHED = 0.1
_FAR = 2.0
"""Half-widths of the blind classifier's 95 % interval that it may lie from .5; one in ten thousand is beyond."""


def blind_check(plan: Plan) -> Check:
    """Members and non-members come from one distribution: images alone do not tell them apart."""
    images = plan.pool.images.images.numpy().astype(np.float64)
    found = blind_auc(images, plan.members[0], generator=np.random.default_rng([plan.seed, 1]))
    value, low, high = found.value, found.low, found.high
    assert value is not None and low is not None and high is not None  # noqa: PT018 - it always has an interval
    reach = (high - low) / 2
    return Check(
        name="blind classifier",
        passed=abs(value - 0.5) <= _FAR * reach,
        detail=f"AUC {value:.3f} +- {reach:.3f} without a model; it must lie near .5",
    )


def duplicates_check(plan: Plan) -> Check:
    """Non-members that equal a member were trained on all the same."""
    count = duplicates(plan.pool.images.images.numpy(), plan.members[0])
    total = int((~plan.members[0]).sum())
    return Check(
        name="duplicates across the split",
        passed=count <= total // 20,
        detail=f"{count} of {total} non-members equal a member",
    )


def references_check(plan: Plan) -> Check:
    """Numbers of references do not tell who is a member of the target."""
    members, rng = plan.members, np.random.default_rng([plan.seed, 2])
    counts = set()
    for target in range(len(members)):
        ins, outs = references(members, target, generator=rng)
        counts |= {ins.shape[1], outs.shape[1]}
        itself = (ins == target).any() or (outs == target).any()
        wrong = (
            not members[ins.T, np.arange(members.shape[1])].all() or members[outs.T, np.arange(members.shape[1])].any()
        )
        if itself or wrong:
            fault = "is among its own references" if itself else "has references of the wrong kind"
            return Check(name="reference models", passed=False, detail=f"target {target} {fault}")
    return Check(
        name="reference models",
        passed=len(counts) == 1,
        detail=f"{counts} of either kind for each candidate, without the target",
    )


def learnt_check(method: str, observations: Sequence[Observation]) -> Check:
    """Victims that have learnt nothing leak nothing: their own images must be known to them."""
    train = float(np.mean([each.train_accuracy for each in observations]))
    test = float(np.mean([each.test_accuracy for each in observations]))
    return Check(
        name=f"victims have learnt ({method})",
        passed=train >= LEARNT,
        detail=f"{100 * train:.1f} % on their own images (canaries included), {100 * test:.1f} % on test images",
    )


def matched_check(accuracies: Mapping[str, float]) -> Check:
    """Methods that are compared are about equally good; a worse model may leak less because it knows less."""
    gap = max(accuracies.values()) - min(accuracies.values())
    shown = ", ".join(f"{method} {100 * value:.1f} %" for method, value in accuracies.items())
    return Check(name="matched accuracy", passed=gap <= MATCHED, detail=f"test accuracy of {shown}")


def hidden_check(transcript: Transcript, *, label: str) -> Check:
    """What passed gives the server what the protocol shows it, and no client's vector that it hides.

    Bytes are looked at whatever the protocol is called: a message is in clear if, decoded by the public encoding, it is
    the vector that the client put in.
    """
    view = ServerView.of_transcript(transcript)
    sums = list(transcript.sums())
    clear = sum(_clients_in_clear(one, transcript) for one in sums)
    sent = sum(len(one.entered) for one in sums)
    opened = all(one.mean is not None for one in view.sums) if transcript.opened_by == "server" else False
    leaked = any(one.mean is not None for one in view.sums) if transcript.opened_by == "clients" else False
    shown = sent if transcript.protection == PlainSum.name and not transcript.noise_by_clients else 0
    return Check(
        name=f"server's view ({label})",
        passed=clear == shown and opened == (transcript.opened_by == "server") and not leaked,
        detail=f"{clear} of {sent} vectors in clear, in {len(sums)} sums, "
        f"which the server {'opened' if opened or leaked else 'could not open'}",
    )


def _clients_in_clear(one: Sum, transcript: Transcript) -> int:
    found = in_clear(one, transcript)
    encoding = transcript.streams[one.stream]
    weight = None if encoding.max_weight is None else 1

    def read(client: int, vector: npt.NDArray[np.floating]) -> bool:
        # What lies beyond the encoding's bound was brought back to it before it was sent.
        sent = encoding.decode(encoding.encode(vector, weight=weight).ring).total
        return bool(np.abs(found[client] - sent).max(initial=0.0) <= 2 * encoding.resolution)

    return sum(client in found and read(client, vector) for client, vector in one.entered.items())


def null_check(found: float, label: str, *, candidates: int) -> Check:
    """The whole scoring, on memberships that nothing was trained on, finds nothing.

    With six trials its AUC has a standard deviation of about .33 / sqrt(candidates), with more trials less; four
    of them are allowed.
    """
    reach = 4 * 0.33 / math.sqrt(candidates)
    return Check(
        name=f"shuffled memberships ({label})",
        passed=abs(found - 0.5) <= reach,
        detail=f"AUC {found:.3f} where there is nothing to find; {reach:.3f} from .5 is allowed",
    )
