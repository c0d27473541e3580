"""The audit in plain sentences: what stands out of chance, what does not at this power, and what was never in view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attacks.report.comparison import BASELINE, compare
from attacks.report.findings import Finding, Row, finding
from attacks.report.matrix import arrange, means_of_seeds
from attacks.report.numbers import figure, interval, who
from attacks.report.words import plain_words
from codream_secure.privacy.statement import PrivacyStatement

_HINDSIGHT = "Strongest figures were chosen in hindsight, so their intervals are too narrow."
_CLOSING = (
    "A probe that finds nothing says what this attack, with this power and this n, cannot tell. Another attack, or "
    "more samples, may tell more."
)


def verdict(audit: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the figures can be read as results, and a sentence on it. Without a single check they cannot."""
    failed = [check for check in audit["checks"] if not check["passed"]]
    count = len(audit["checks"])
    refusal = "This audit is not valid, and no figure of it is a result"
    if failed:
        reasons = [f"{check['name']} ({check['detail']})" if check["detail"] else check["name"] for check in failed]
        return False, f"{refusal}. Failed: {'; '.join(reasons)}."
    if not count:
        return False, f"{refusal}: no check was made."
    if not audit["valid"]:
        return False, f"{refusal}, although no check says why."
    checks = "The one check passed" if count == 1 else f"All {count} checks passed"
    return True, f"{checks}: the figures can be read as measured, which is no statement that nothing leaks."


def summarise(audit: Mapping[str, Any]) -> list[str]:
    """Sentences on the whole audit: the verdict, refuted claims, what each adversary finds out, and how to read it.

    Args:
        audit: the contents of ``audit.json``, checked.
    """
    rows = audit["rows"]
    told = [
        f"{told.adversary[:1].upper()}{told.adversary[1:]}, {told.method}: {' '.join(told.sentences)}"
        for told in plain_words(rows)
    ]
    compared = compare(arrange(means_of_seeds(rows)), audit["victims"])
    pairs = [
        f"Beside {BASELINE}: {pair.adversary}, under {pair.protection}: {pair.method} {_strength(pair.here)}, "
        f"{BASELINE} {_strength(pair.there)}; intervals {pair.apart}."
        for pair in compared.pairs
    ]
    remarks = [f"Beside {BASELINE}: {remark}" for remark in compared.remarks]
    return [
        verdict(audit)[1],
        *refutations(audit),
        *caution(audit),
        *told,
        *pairs,
        *remarks,
        *bounds(audit),
        *reading(audit),
    ]


def caution(audit: Mapping[str, Any]) -> list[str]:
    """What has to stand before words on an audit that is not valid: they sound like results."""
    return [] if verdict(audit)[0] else ["This audit is not valid: nothing that follows is a result."]


def refutations(audit: Mapping[str, Any]) -> list[str]:
    """Claims that an attack refutes, each with the whole statement."""
    return [f"A claim is refuted. {epsilon_sentence(part)}" for part in audit["epsilons"] if part["violated"]]


def bounds(audit: Mapping[str, Any]) -> list[str]:
    """One sentence on all lower bounds on epsilon, by the highest; none where none was taken."""
    parts = audit["epsilons"]
    if not parts:
        return []
    claimed = [part for part in parts if part["ledger"] is not None]
    refuted = sum(part["violated"] for part in claimed)
    best = max(parts, key=lambda part: part["lower"])
    start = (
        f"Lower bounds on epsilon: {refuted} of {len(claimed)} are above what a ledger claims"
        if claimed
        else "Lower bounds on epsilon: no ledger claims anything"
    )
    return [
        f"{start}; the highest is {best['lower']:.2f} ({who(best)}, {best['adversary']}, {best['probe']}; "
        f"{100 * best['confidence']:.4g} % confidence, n = {best['n']}), where a perfect attack could show "
        f"{best['ceiling']:.2f}, so a small bound does not mean a small epsilon."
    ]


def reading(audit: Mapping[str, Any]) -> list[str]:
    """What has to be known of every figure: luck, hindsight, and what a probe that finds nothing says."""
    tested = sum(
        finding(row) in (Finding.ABOVE, Finding.BELOW, Finding.INDISTINCT) for row in means_of_seeds(audit["rows"])
    )
    luck = (
        f"Each interval is taken alone, and {tested} were compared with chance or a control. Where nothing leaks, "
        "about one in forty still lies above it."
    )
    return [*([luck, _HINDSIGHT] if tested else []), _CLOSING]


def _strength(row: Row) -> str:
    """An area under the curve with its interval and by which probe."""
    return f"AUC {figure('AUC', row['value'])} ({interval(row) or 'no interval'}; {row['probe']})"


def epsilon_sentence(part: Mapping[str, Any]) -> str:
    """A lower bound with its ceiling, its n and the statement that it tests."""
    bound = (
        f"{who(part)}, {part['adversary']}, {part['probe']}: the attack shows that epsilon is at least "
        f"{part['lower']:.2f} ({100 * part['confidence']:g} % confidence, n = {part['n']}); a perfect attack could "
        f"show {part['ceiling']:.2f} here, so a small bound does not mean a small epsilon."
    )
    claim = "No ledger claims anything."
    if part["ledger"] is not None:
        claim = f"The ledger claims: {PrivacyStatement.from_json(part['ledger'])}"
    return " ".join(filter(None, (bound, claim, part["text"])))
