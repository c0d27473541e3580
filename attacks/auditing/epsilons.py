"""Lower bounds on epsilon beside what the ledger claims. A bound above the claim refutes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from attacks.empirical import EpsilonBound, audit_one_run
from attacks.probes.base import Signal
from attacks.rows import Check
from codream_secure.privacy import Adjacency, PrivacyStatement, PrivacyUnit

CONFIDENCE = 0.95
_GUESSED = 0.125
"""Share of the candidates that are guessed; fixed beforehand."""


def one_run_bound(
    signal: Signal, members: npt.NDArray[np.bool_], *, delta: float, confidence: float = CONFIDENCE
) -> EpsilonBound:
    """From one federation's signals alone, without references: the coins of its candidates are independent.

    Args:
        signal: (N,) float64, higher for members.
        members: (N,) bool.
        delta: of the claim; without one, what it would be.
        confidence: of the bound.
    """
    guesses = max(2, 2 * round(_GUESSED * len(members) / 2))
    return audit_one_run(signal, members, guesses=guesses, delta=delta, confidence=confidence)


def entry(
    bound: EpsilonBound,
    statement: PrivacyStatement | None,
    *,
    method: str,
    protection: str,
    adversary: str,
    probe: str,
    unit: PrivacyUnit,
) -> dict[str, Any]:
    """One line of ``audit.json``'s ``epsilons``.

    The coins of all bounds are of presence and absence. So a claim is compared only where it is about the same unit,
    added or removed.
    """
    comparable = statement is not None and statement.unit is unit and statement.adjacency is Adjacency.ADD_REMOVE
    violated = bool(comparable and statement is not None and bound.lower > statement.epsilon)
    text = f"{probe}: {bound}; per {unit.value}"
    if statement is None:
        text += "; nothing is claimed"
    elif comparable:
        text += f"; claimed: {statement}"
        if violated:
            text += ". THE CLAIM IS REFUTED"
    else:
        text += f"; the claim is per {statement.unit.value}, {statement.adjacency.value}, and is not compared"
    return {
        "method": method,
        "protection": protection,
        "adversary": adversary,
        "probe": probe,
        "lower": bound.lower,
        "ceiling": bound.ceiling,
        "confidence": bound.confidence,
        "n": bound.n,
        "ledger": statement.to_json() if comparable and statement is not None else None,
        "violated": violated,
        "text": text,
    }


def claims_check(entries: list[dict[str, Any]]) -> Check:
    """The check that no bound is above what a ledger claims."""
    held = [each for each in entries if each["ledger"] is not None]
    broken = [each for each in held if each["violated"]]
    if broken:
        names = ", ".join(f"{each['probe']} on {each['method']} ({each['protection']})" for each in broken)
        detail = f"refuted by {names}: the mechanism does not do what its ledger says"
    elif held:
        worst = max(held, key=lambda each: each["lower"])
        detail = f"{len(held)} bounds, the largest {worst['lower']:.2f} (it could have shown {worst['ceiling']:.2f})"
    else:
        detail = "nothing is claimed"
    return Check(name="epsilon bounds against the ledger", passed=not broken, detail=detail)
